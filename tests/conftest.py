"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
# Commands that tests start in other folders find the checkout, installed or not.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

# The same examples in every run, and none that fails because the machine is busy.
hypothesis.settings.register_profile("zoo", deadline=None, derandomize=True)
hypothesis.settings.load_profile("zoo")


@pytest.fixture
def shared() -> Path:
    """The folder of reference material beside the checkout; tests that need it are skipped where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the reference folder is not beside this checkout")
    return folder


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)
