# `make bench` and `make test` set up .venv by themselves and can be called again at no cost.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
OLDEST := .venv-oldest
# Test workers: as many as there are cores, each with one thread.
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: bench test oldest lint docs clean

bench: $(READY)
	$(BIN)/zoo bench quick

test: $(READY)
	$(BIN)/ruff check zoo benchmarks tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# The tests under the oldest version of each package that pyproject.toml allows.
oldest:
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	grep -oE '"[a-z-]+>=[0-9.]+"' pyproject.toml | tr -d '"' | sed 's/>=/==/' | sort -u > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt --editable ".[test]"
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(READY)
	$(BIN)/ruff check zoo benchmarks tests

# The generated parts first: they are functions of the registry and of the records.
docs: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/python -m benchmarks.report.pages
	$(BIN)/python -m mkdocs build --strict --quiet --config-file docs/site/mkdocs.yml

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $(READY)

clean:
	rm -rf $(VENV) $(OLDEST) runs build dist
