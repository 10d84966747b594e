"""The observer: what it writes can be read back, and whatever wandb does, the run does not notice."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.doctor import examine
from benchmarks.report import wandb as observing
from benchmarks.report.wandb import Observer, choose_mode
from zoo.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
KEY = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {"variant": "vae", "train": {"learning_rate": 0.001, "betas": [0.9, 0.999]}, "seed": 3}
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 1, 6, 5), dtype=np.uint8)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, mode or netrc of whoever runs the tests, and no network."""
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(observing, "_unreachable", observing.threading.Event())


def records(path: Path) -> Iterator[Any]:
    """The messages in a .wandb file: LevelDB's log format (blocks of 32 KiB) after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, block = path.read_bytes(), 32768
    assert not data or data[:4] == b":W&B"  # it is empty until something is written
    at, whole = 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a full record, or the last part of one
            message = wandb_internal_pb2.Record()
            message.ParseFromString(whole)
            whole = b""
            yield message


def key_of(item: Any) -> str:
    return item.key or "/".join(item.nested_key)


def test_an_offline_run_can_be_read_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("wandb")
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    observer = Observer("offline", dir=tmp_path)
    observer.start(CONFIG, name="vae on mnist", group="quick@1", run_id="vae-mnist-s3")
    assert observer.active
    rows = [(10, {"elbo": -110.5, "rate": 20.25}), (20, {"elbo": np.float32(-100.25), "rate": None})]
    for step, row in rows:
        observer.log(step, row)
    observer.images(20, "samples", IMAGES)
    observer.finish({"elbo": -99.5, "n": 10_000})
    assert not observer.active
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert capfd.readouterr() == ("", ""), "it is silent"

    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    found = list(records(path))
    (run,) = [message.run for message in found if message.WhichOneof("record_type") == "run"]
    assert (run.run_id, run.display_name, run.run_group) == ("vae-mnist-s3", "vae on mnist", "quick@1")
    config = {key_of(item): json.loads(item.value_json) for item in run.config.update}
    assert {name: config[name] for name in CONFIG} == CONFIG

    history: dict[int, dict[str, Any]] = {}
    for message in found:
        if message.WhichOneof("record_type") == "history":
            row = {key_of(item): json.loads(item.value_json) for item in message.history.item}
            history.setdefault(row["_step"], {}).update(row)
    assert history[10]["elbo"] == -110.5 and history[10]["rate"] == 20.25
    assert history[20]["elbo"] == -100.25 and "rate" not in history[20]
    picture = path.parent / "files" / history[20]["samples/path"]
    with Image.open(picture) as file, Image.open(io.BytesIO(observing_png())) as own:
        assert (np.asarray(file.convert("L")) == np.asarray(own)).all(), (
            "the picture is the one that was sent"
        )

    summary: dict[str, Any] = {}
    for message in found:
        if message.WhichOneof("record_type") == "summary":
            summary |= {key_of(item): json.loads(item.value_json) for item in message.summary.update}
    assert summary["elbo"] == -99.5 and summary["n"] == 10_000
    (end,) = [message.exit for message in found if message.WhichOneof("record_type") == "exit"]
    assert end.exit_code == 0


def observing_png() -> bytes:
    from benchmarks.report.figures import png

    return png(IMAGES)


def test_a_run_of_the_same_id_is_taken_up_again(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    for step in (1, 2):
        observer = Observer("offline", dir=tmp_path / str(step))
        observer.start({}, "name", "group", "an id/with: bad letters")
        observer.log(step, {"elbo": -step})
        observer.finish()
    runs = [
        message.run for path in tmp_path.rglob("*.wandb") for message in records(path)
        if message.WhichOneof("record_type") == "run"
    ]  # fmt: skip
    assert [run.run_id for run in runs] == ["an-id-with--bad-letters"] * 2


def test_a_killed_run_leaves_what_it_logged_and_is_marked(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    code = (
        "import os, time\nfrom benchmarks.report.wandb import Observer\n"
        f"o = Observer('offline', dir={str(tmp_path)!r})\no.start({{}}, 'name', 'group', 'id')\n"
        "o.log(1, {'elbo': -7.5})\n"
        "while not o.url: time.sleep(0.05)\n"
        "time.sleep(0.5); import sys; assert 'wandb' not in sys.modules; os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=100).returncode == -9
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [message for path in tmp_path.rglob("*.wandb") for message in records(path)]
        if any(message.WhichOneof("record_type") == "exit" for message in found):
            break
        time.sleep(0.2)
    assert [m.exit.exit_code for m in found if m.WhichOneof("record_type") == "exit"] == [1]
    values = [item.value_json for m in found for item in m.history.item if key_of(item) == "elbo"]
    assert values == ["-7.5"]


# --- wandb misbehaving ---

FAKE = """
import os, sys, threading, time
where = os.environ["BREAK"]

def reach(place):
    if where == place:
        raise RuntimeError("wandb broke in " + place + " with key KEYTEXT")
    if where == "hang in " + place:
        time.sleep(1000)
    if where == "die in " + place:
        os._exit(3)
    if where == "exit in " + place:
        sys.exit(0)
    if where == "thread in " + place:
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        time.sleep(1000)
    if where == "talk in " + place:
        print("not an event", flush=True)
        os.write(1, b"garbage" * 1000)

reach("import")

class Settings:
    def __init__(self, **settings):
        reach("Settings")

class Image:
    def __init__(self, picture):
        reach("Image")

class Run:
    url = None
    @property
    def summary(self):
        reach("summary")
        return {}
    def log(self, values, step=None, commit=None):
        reach("log")
    def finish(self, exit_code):
        reach("finish")

def init(**arguments):
    reach("init")
    return Run()

def teardown():
    reach("teardown")
""".replace("KEYTEXT", KEY)

PLACES = ["import", "Settings", "init", "log", "Image", "summary", "finish", "teardown"]
BREAKS = [*PLACES, "hang in init", "hang in log", "hang in finish", "die in init", "die in log",
          "exit in init", "exit in log", "thread in init", "thread in log"]  # fmt: skip


def watched_run(observer: Observer) -> list[float]:
    """A run whose numbers depend on every random state there is."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    observer.start(CONFIG, "name", "group", "id")
    trace = []
    for step in range(20):
        trace.append(torch.randn(()).item() + np.random.normal() + random.random())
        observer.log(step, {"elbo": trace[-1]})
        observer.images(step, "samples", IMAGES)
    observer.finish({"elbo": trace[-1]})
    return trace


def waits_of(observer: Observer) -> list[float | None]:
    """How long the observer is ready to wait for its process, at each time that it does; it waits for nothing else."""
    waits: list[float | None] = []
    wait = observer._over.wait
    observer._over.wait = lambda timeout=None: waits.append(timeout) or wait(timeout)  # type: ignore[method-assign]
    return waits


def fake(monkeypatch: pytest.MonkeyPatch, folder: Path, where: str) -> None:
    (folder / "fake").mkdir()
    (folder / "fake" / "wandb.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(folder / "fake"))
    monkeypatch.setenv("BREAK", where)
    monkeypatch.setenv("WANDB_API_KEY", KEY)


@pytest.mark.parametrize("where", BREAKS)
def test_whatever_breaks_the_run_is_the_same(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unwatched = watched_run(Observer("disabled"))
    fake(monkeypatch, tmp_path, where)
    observer = Observer("online", dir=tmp_path, start_timeout=0.5, finish_timeout=1.5)
    waits = waits_of(observer)
    with caplog.at_level(logging.WARNING):
        assert watched_run(observer) == unwatched
    assert sum(waits) <= 0.5 + 1.5, "once, and no longer than it was told"
    assert not observer.active
    assert len(caplog.messages) == 1, caplog.messages
    assert "is off for this run" in caplog.text and KEY not in caplog.text
    assert ("ZeroDivisionError" in caplog.text) == where.startswith("thread")
    assert observer._process is not None
    assert observer._process.wait(timeout=5) is not None, "nothing is left behind"
    observer.log(99, {"elbo": 0.0})
    observer.finish()
    assert len(caplog.messages) == 1, "and it stays silent"


@pytest.mark.parametrize("where", ["nowhere", "talk in init", "talk in log"])
def test_what_wandb_prints_is_not_an_event(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake(monkeypatch, tmp_path, where)
    watched_run(Observer("online", dir=tmp_path))
    assert caplog.messages == []


@pytest.mark.parametrize(
    "call",
    [
        lambda o: o.log(1, {"elbo": object()}),
        lambda o: o.log("step", {}),
        lambda o: o.images(1, "samples", IMAGES.astype(np.float32)),
        lambda o: o.images(1, "samples", None),
        lambda o: o.finish({"elbo": "text"}),
    ],
)
def test_wrong_arguments_do_not_raise_either(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake(monkeypatch, tmp_path, "nowhere")
    observer = Observer("online", dir=tmp_path)
    observer.start({}, "name", "group", "id")
    call(observer)
    assert not observer.active and len(caplog.messages) == 1


def test_training_does_not_wait_for_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, tmp_path, "hang in init")
    observer = Observer("online", dir=tmp_path, start_timeout=0.1, finish_timeout=0.1)
    waits = waits_of(observer)
    observer.start({}, "name", "group", "id")
    for step in range(1000):
        observer.log(step, {"elbo": 0.0})
    assert waits == [] and observer.active and not observer.url, "a thousand steps, and it has not started"
    observer.finish()
    assert waits == [0.1 + 0.1] and not observer.active


def test_a_flood_turns_it_off_instead_of_growing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake(monkeypatch, tmp_path, "hang in init")
    monkeypatch.setattr(observing, "PENDING", 100)
    observer = Observer("online", dir=tmp_path)
    observer.start({}, "name", "group", "id")
    for step in range(20_000):
        observer.log(step, {"elbo": 0.0})
    assert not observer.active and "does not keep up" in caplog.text


def test_the_next_cells_do_not_wait_for_a_host_that_was_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake(monkeypatch, tmp_path, "init")
    watched_run(Observer("online", dir=tmp_path))
    second = Observer("online", dir=tmp_path)
    second.start({}, "name", "group", "id")
    assert not second.active and len(caplog.messages) == 1


def test_real_wandb_without_a_network_or_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("wandb")
    without = watched_run(Observer("disabled"))
    assert watched_run(Observer("online", dir=tmp_path, start_timeout=15)) == without
    assert "key" in caplog.text.lower() and len(caplog.messages) == 1
    observing._unreachable.clear()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert watched_run(Observer("online", dir=tmp_path, start_timeout=2)) == without
    assert len(caplog.messages) == 2 and KEY not in caplog.text


def test_no_key_is_ever_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a-short-key")
    said = observing._without_keys(f"a-short-key is wrong,\nso is {KEY} and local-{KEY}.")
    assert said == "(key) is wrong, so is (key) and (key)"


# --- which mode ---


def test_auto_is_online_with_a_key_and_else_disabled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    assert choose_mode("auto") == "disabled"
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert choose_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert choose_mode("auto") == "offline" and choose_mode("disabled") == "disabled"


@pytest.mark.parametrize(("word", "mode"), [("dryrun", "offline"), ("run", "online")])
def test_auto_takes_the_older_words_as_wandb_does(monkeypatch: pytest.MonkeyPatch, word: str, mode: str) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", word)
    assert choose_mode("auto") == mode


def refused(*given: Any, **named: Any) -> None:
    raise OSError(0, "no network here")


def test_auto_and_the_doctor_know_a_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    path = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(path))
    monkeypatch.delenv("WANDB_BASE_URL")
    monkeypatch.setattr("socket.create_connection", refused)
    for host, mode, key in (("api.wandb.ai", "online", "set"), ("elsewhere.org", "disabled", "not set")):
        path.write_text(f"machine {host} login user password {KEY}\n")
        path.chmod(0o600)
        assert choose_mode("auto") == mode
        assert examine()["wandb"] == {"reachable": "no (no network here)", "key": key}
    path.write_text("this is no netrc")
    assert choose_mode("auto") == "disabled"


def test_another_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="no wandb mode 'onlin'"):
        Observer("onlin")  # type: ignore[arg-type]


def test_disabled_imports_no_wandb_and_starts_nothing(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom benchmarks.report.wandb import Observer\n"
        "o = Observer('disabled'); o.start({}, 'a', 'b', 'c'); o.log(1, {'x': 1.0}); o.images(1, 'i', None)\n"
        "o.finish({'x': 1.0})\n"
        "print({'wandb', 'torch', 'numpy', 'PIL'} & set(sys.modules), o._process)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.stdout.strip() == "set() None", run.stderr
    assert list(tmp_path.iterdir()) == []
