"""What this machine has: versions, device, assets, Weights & Biases."""

from __future__ import annotations

import platform
import socket
from typing import Any

from benchmarks import environment
from benchmarks.report.wandb import has_key, server
from zoo.files import cache_dir
from zoo.registry import registry, registry_path


def examine() -> dict[str, dict[str, Any]]:
    """Sections of findings, each a name and a short text. Fetches nothing and changes nothing."""
    return {
        "package": {"python": platform.python_version()}
        | {name: found or "missing" for name, found in environment.versions().items()},
        "device": _device(),
        "registry": {
            "file": registry_path().name,
            "variants": len(registry().variants),
            "datasets": len(registry().datasets),
        },
        "assets": _assets(),
        "wandb": _wandb(),
    }


def _device() -> dict[str, Any]:
    import torch

    from zoo.nets.products import quick
    from zoo.processor import multiplies_bf16
    from zoo.training.compiled import has_compiler
    from zoo.training.precision import choose

    found: dict[str, Any] = {"cpu": environment.cpu_name(), "threads": torch.get_num_threads()}
    for index in range(torch.cuda.device_count()):
        found[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    chosen = choose()
    found["a run would use"] = f"{chosen.device.type}, {chosen.name}"
    if chosen.device.type == "cpu":
        bf16 = "yes: train.precision=fast trains in it" if multiplies_bf16() else "no: train.precision=fast is float32"
        compiled = "yes: long trainings of dense networks are compiled" if has_compiler() else "no: nothing is compiled"
        by = "oneDNN, MKL would use half of this processor" if quick() else "as PyTorch has it"
        found |= {"multiplies bf16": bf16, "multiplies float32": by, "C++ compiler": compiled}
    return found


def _assets() -> dict[str, str]:
    from benchmarks.metrics.weights import WEIGHTS
    from zoo.data.fetch import ASSETS, problem

    found = {"cache": str(cache_dir())}
    for name, asset in (ASSETS | WEIGHTS).items():
        missing = problem(asset, cache_dir() / asset.name)
        # How to mend it comes first: a narrow screen cuts the end.
        found[name] = f"`zoo fetch {name}` gets it: {missing}" if missing else "here, bytes verified"
    return found


def _wandb() -> dict[str, str]:
    url = server()
    try:
        socket.create_connection((url.hostname or "", url.port or 443), timeout=3).close()
        reachable = "yes"
    except OSError as error:
        reachable = f"no ({error.strerror or type(error).__name__})"
    return {"reachable": reachable, "key": "set" if has_key() else "not set"}
