"""What a number was made with: code, versions, machine."""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from zoo import processor
from zoo.config import RunConfig
from zoo.registry import BUILT_IN, DatasetEntry, VariantEntry, registry

TOLD = "ZOO_CODE"
PACKAGES = (
    *("torch", "torchvision", "timm", "wandb", "torchmetrics"),
    *("pytorch-fid", "numpy", "scipy", "scikit-learn", "zuko"),
)


def versions() -> dict[str, str | None]:
    """Installed version of each package that numbers depend on; None where it is missing."""
    return {name: _version(name) for name in ("vae-zoo", *PACKAGES)}


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the checkout that this code runs from and whether its code differs from it; (None, None) in a wheel.

    Output that the harness itself writes (``leaderboard/``) does not make a checkout dirty.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None, None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--", ".", ":(exclude)leaderboard")
    except (OSError, subprocess.SubprocessError):
        return None, None
    return commit, bool(changes)


@functools.cache
def at_start() -> tuple[str | None, bool | None]:
    """`git_state` at the first call, which comes before any training: the code that this process runs. A process that
    another one started to share its work has that one's."""
    if told := os.environ.get(TOLD):
        commit, dirty = json.loads(told)
        return commit, dirty
    return git_state()


def sources(config: RunConfig | None = None) -> list[str]:
    """Hashes of the Python files that an evaluation runs, as they were when this process first asked: ours, and those
    of the packages that a plugin's variant or data set of ``config`` comes from. A commit says nothing of what is
    changed since."""
    plugins = {entry.target.split(":")[0].split(".")[0] for entry in _of_plugins(config)}
    return [_source(name) for name in sorted({"zoo", "benchmarks", *plugins})]


def _of_plugins(config: RunConfig | None) -> list[VariantEntry | DatasetEntry]:
    """Of the variant and the data set of ``config``, those that come from a package of somebody's own."""
    if config is None:
        return []
    entries = registry().variant(config.variant)[1], registry().dataset(config.data.name)[1]
    return [entry for entry in entries if entry.origin != BUILT_IN]


@functools.cache
def _source(package: str) -> str:
    module = importlib.import_module(package)
    folders = sorted(map(str, getattr(module, "__path__", ())))
    files = [path for folder in folders for path in sorted(Path(folder).rglob("*.py"))]
    digest = hashlib.sha256()
    for path in files or [Path(str(module.__file__))]:
        if path.is_file():  # a module may have none, or one in an archive
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def told() -> dict[str, str]:
    """What a process that goes on with this one's work finds in its environment."""
    return {TOLD: json.dumps(at_start())}


def describe(compute: Any, config: RunConfig | None = None) -> dict[str, Any]:
    """The environment part of a record for a run on ``compute`` (`zoo.training.precision.Compute`), with the plugins,
    if any, that the variant and the data set of ``config`` come from: our commit says nothing of their code."""
    import torch

    commit, dirty = at_start()
    now = git_state()
    # What was imported before the training is of the commit that is named; the rest would be of another one.
    moved = {"git_moved": True} if None not in now and now != (commit, dirty) else {}
    is_cuda = compute.device.type == "cuda"
    device = torch.cuda.get_device_name(compute.device) if is_cuda else cpu_name()
    known, plugins = versions(), sorted({entry.origin for entry in _of_plugins(config)})
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        **moved,
        **({"plugin": ", ".join(plugins)} if plugins else {}),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device,
        "device_kind": compute.device.type,
        "precision": compute.name,
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
    } | {name.replace("-", "_"): known[name] for name in PACKAGES if name != "torch"}


def cpu_name() -> str:
    """The processor's name and the number of cores this process may use, such as 'AMD EPYC (2 cores)'."""
    name = processor.fields().get("model name") or platform.processor() or platform.machine()
    return f"{name} ({processor.cores()} cores)"


@functools.cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str:
    # A status would write the index anew: no lock is taken in a checkout that somebody else may be at work in.
    command = ["git", "--no-optional-locks", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
