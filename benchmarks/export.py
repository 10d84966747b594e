"""A finished run as a folder to give away: weights, configuration and a card that says what it is."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.record import Record, cell_key, read
from benchmarks.report.notation import escape
from benchmarks.running.single import RECORD
from zoo import __version__
from zoo.config import RunConfig
from zoo.errors import UsageError, ZooError
from zoo.files import atomic_write, sweep
from zoo.registry import BUILT_IN, registry
from zoo.runs import load_run
from zoo.runs.folder import EXPORTED, MODEL, describe_run
from zoo.training import checkpoint

CARD = "README.md"


def export(run: Path, folder: Path, board: Path | None = None) -> list[Path]:
    """Write ``model.safetensors``, ``config.json`` and ``README.md`` of a finished run into a folder of their own.

    `zoo.load_run` loads it. Where this machine keeps its data is left out; metrics are those of ``record.json``
    beside the run, or for one of a suite or a recipe those of its record on ``board``, if there is one.

    Raises:
        UsageError: not a run, or the folder holds something else.
        ZooError: the run is not finished, or is damaged.
    """
    described = describe_run(run)
    ours = {CARD, EXPORTED, MODEL}
    left = {path.name for name in ours for path in folder.glob(f".{name}.*.part")}  # by an export that was killed
    strangers = sorted({path.name for path in folder.glob("*")} - ours - left)
    if strangers or (folder.exists() and folder.resolve() == run.resolve()):
        there = strangers[0] if strangers else "the run"
        raise UsageError(f"{folder} holds other things ({there}); give a new folder.")
    sweep(folder)
    model = load_run(run)
    record = record_of(run, board, described.config)
    if record is not None and record.status != "done":
        raise ZooError(f"the record of {run} says that it {record.status}: there is nothing to give away.")
    config = described.config.model_dump(mode="json")
    options = config["data"]["options"]
    config["data"]["options"] = {name: value for name, value in options.items() if not _is_path(name, value)}
    content = {
        "schema": 1,
        "library": f"vae-zoo {__version__}",
        "config": config,
        "spec": asdict(described.spec),
        "data_sha256": described.data_sha256,
        "names": {"classes": described.classes, "attributes": described.attributes},
        "compute": described.compute,
    }
    tensors, state = checkpoint.read(run / MODEL)
    checkpoint.write(folder / MODEL, tensors, state)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    atomic_write(folder / CARD, card(content, record, parameters))
    # Last: a folder without it is not a run.
    atomic_write(folder / EXPORTED, json.dumps(content, indent=2) + "\n")
    return [folder / name for name in (MODEL, EXPORTED, CARD)]


def _prepared(data: dict[str, Any]) -> str:
    return "dequantised" if data.get("dequantise", "none") != "none" else f"binarise {data['binarise']}"


def _is_path(option: str, value: Any) -> bool:
    if isinstance(value, dict):
        return any(_is_path(name, part) for name, part in value.items())
    if isinstance(value, list):
        return any(_is_path(option, part) for part in value)
    return option in ("root", "npz") or (isinstance(value, str) and os.sep in value)


def card(content: dict[str, Any], record: Record | None, parameters: int) -> str:
    """The model card, Markdown under a YAML head."""
    config = content["config"]
    name, data = config["variant"], config["data"]["name"]
    variants, datasets = registry().variants, registry().datasets
    title = variants[name].title if name in variants else name
    about = variants[name].summary if name in variants else ""
    # What was learnt from data that is not free is not free either.
    terms = datasets[data].licence if data in datasets else ""
    licence = "apache-2.0" if terms in ("", "MIT") else "other"
    tags = ", ".join(dict.fromkeys(["vae", name, data]))
    lines = ["---", "library_name: vae-zoo", f"license: {licence}", f"tags: [{tags}]", "---", ""]
    usual = data in datasets and datasets[data].shape in (None, tuple(content["spec"]["shape"]))
    # A title may have the size, which is an option of some.
    lines += [f"# {title} on {datasets[data].title if usual else data}", ""]
    paper = variants[name].paper if name in variants else None
    lines += [about + (f" {paper.authors} {paper.year}, [{paper.title}]({paper.url})." if paper else ""), ""]
    lines += ["```python", "from zoo import load_run", "", 'model = load_run("this folder")', "model.sample(16)"]
    lines += ["```", ""]
    shape = "x".join(map(str, content["spec"]["shape"]))
    lines += ["## What it is", "", f"- {parameters:,} parameters; images {shape}, {content['spec']['support']}"]
    lines += [f"- settings: `{json.dumps(config['model'])}`", f"- training: `{json.dumps(_told(config['train']))}`"]
    lines += [f"- seed {config['seed']}, trained with {content['library']}"]
    if name in variants and variants[name].origin != BUILT_IN:
        lines += [f"- the variant is no part of vae-zoo: to be loaded, it needs the package {variants[name].origin}"]
    lines += ["", "## Data", ""]
    lines += [f"- {data}, {_prepared(config['data'])}, options `{json.dumps(config['data']['options'])}`"]
    lines += [f"- SHA-256 of its content: `{content['data_sha256']}`"]
    lines += [f"- licence of the data: {terms or 'see its source'}"]
    lines += [f"- {datasets[data].url}"] if data in datasets and datasets[data].url else []
    lines += ["", "## Measured", "", *_measured(record), "", "## Licence", ""]
    free = "Weights and code: Apache-2.0. The data set keeps its own licence."
    bound = f"Code: Apache-2.0. The weights were learnt from data under this licence: {terms}."
    lines += [free if licence == "apache-2.0" else bound]
    return "\n".join(lines) + "\n"


def _measured(record: Record | None) -> list[str]:
    if record is None:
        return ["Nothing: no record of the run was found."]
    rows = ["| metric | value | standard error | n | measured with |", "| :-- | --: | --: | --: | :-- |"]
    for name, metric in record.metrics.items():
        error = "" if metric.stderr is None else f"{metric.stderr:.3g}"
        with_ = ", ".join(f"{key} {value}" for key, value in metric.identity.items())
        unit = f" {metric.unit}" if metric.unit else ""
        rows.append(f"| {name} | {metric.value:.6g}{unit} | {error} | {metric.n:,} | {escape(with_)} |")
    if record.rates:
        rows += ["", "| group of latents | rate (nats) | standard error | active | dimensions |"]
        rows += ["| :-- | --: | --: | --: | --: |"]
    for one in record.rates:
        error = "" if one.stderr is None else f"{one.stderr:.3g}"
        active, dimensions = ("" if n is None else f"{n:,}" for n in (one.active, one.dimensions))
        rows.append(f"| {escape(one.name)} | {one.value:.6g} | {error} | {active} | {dimensions} |")
    if record.model is not None and record.model.conditional:
        rows += ["", "It is told a class, attributes or pixels: its nats are of log p(x | y), not of log p(x)."]
    environment = record.environment
    cell = record.cell
    # The command of a single run may name folders of the machine that it ran on.
    by = "`zoo train`" if cell.suite == "run" else f"`{_without_root(record)}` (record {cell.group}/{cell.stem})"
    return [*rows, "", f"By {by}, {record.when}, torch {environment.torch} on {environment.device}."]


def _without_root(record: Record) -> str:
    """The command of a record, of which a folder of images is only named as one."""
    root = record.config.get("data", {}).get("options", {}).get("root")
    if not root:
        return record.command
    words = (word.replace("\\,", ",") for word in shlex.split(record.command))
    return shlex.join(word.replace(f":{root}", ":PATH") for word in words)


def _told(train: dict[str, Any]) -> dict[str, Any]:
    from zoo.config import NEUTRAL, TrainConfig

    usual = TrainConfig().model_dump(mode="json")
    return {key: value for key, value in train.items() if f"train.{key}" not in NEUTRAL and value != usual.get(key)}


def record_of(run: Path, board: Path | None, config: RunConfig) -> Record | None:
    """The record of a run, whatever its status: ``record.json`` beside it, or for one of a suite or a recipe that on
    ``board``. None where neither is of this configuration."""
    run = run.resolve()
    places = [run / RECORD]
    if board is not None:
        # The runs of a suite, or of a recipe, lie as its records do.
        made_by = (board / "records", board / "reproductions" / "records")
        places += [records / run.parent.name / f"{run.name}.json" for records in made_by]
    for path in places:
        if path.exists() and (made := read(path)).cell.key == cell_key(config.identity()):
            return made
    return None
