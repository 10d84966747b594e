"""One training that runs in rounds: an epoch whenever somebody asks for it, its cost as one line of JSON.

The contestants of a comparison are processes of their own that run one round after the other in turn, so that what
else the machine does meets all of them alike, and none has the other's memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.training.memory import peak_memory, reset_peak

LEARNING_RATE = 1e-4


def arguments() -> argparse.Namespace:
    """What every contestant is told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", choices=("mlp", "conv"), required=True)
    parser.add_argument("--pictures", type=Path, required=True, help="npy of uint8 (n, 1, 28, 28)")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--compile", default="no")
    return parser.parse_args()


def pictures(given: argparse.Namespace) -> Tensor:
    """uint8 (n, 1, 28, 28): the same ones for everybody."""
    return torch.from_numpy(np.load(given.pictures))


def serve(train: Callable[[], float], images: int, device: str) -> None:
    """Run ``train`` (one epoch; returns its mean loss) for every line on the standard input, and answer with a line.

    A line holds the seconds of the clock and of the processor for each image, the pages of memory that the system made
    for it, the loss, and the peak memory in bytes since the first round began.
    """
    place = torch.device(device)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    sys.stdout = sys.stderr  # a library that prints does not spoil the answers
    reset_peak(place)
    for _ in sys.stdin:
        pages, wall, processor = _pages(), time.perf_counter(), time.process_time()
        loss = train()
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        line = {"wall": wall / images, "processor": processor / images, "pages": (_pages() - pages) / images}
        line |= {"loss": loss, "peak": peak_memory(place)}
        print(json.dumps(line), file=answers, flush=True)


def _pages() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
