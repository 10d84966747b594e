"""Checkpoint files: which are kept, which are whole, and what is said of those that are not."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from zoo.errors import ZooError
from zoo.training import checkpoint

TENSORS = {"first": torch.arange(6.0).view(2, 3), "other": torch.ones(2, 3)}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_checkpoint_of_a_step_and_the_one_before_are_kept_and_a_run_that_went_back_leaves_none_ahead(
    tmp_path: Path,
) -> None:
    kept = {8: [8], 9: [8, 9], 10: [9, 10], 1000: [10, 1000], 50: [10, 50], 50_000: [50, 50_000]}
    for step, steps in kept.items():
        path = checkpoint.write_step(tmp_path, step, TENSORS, {"step": step})
        assert names(tmp_path) == [f"step-{number:09d}.safetensors" for number in steps] and path.exists()
        found = checkpoint.latest(tmp_path)
        assert found is not None and found[1] == {"step": step}


def test_two_states_to_go_back_to_are_kept_beside_the_checkpoints_until_the_run_is_over(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    for step in (3, 20, 100):
        checkpoint.write_good(tmp_path, step, TENSORS, {"good": step})
    assert checkpoint.latest(tmp_path) is None, "a state to go back to is no checkpoint"
    checkpoint.write_step(tmp_path, 100, TENSORS, {})
    assert names(tmp_path) == [f"{name}.safetensors" for name in ("good-000000020", "good-000000100", "step-000000100")]
    for step in (20, 100):
        assert checkpoint.read_good(tmp_path, step)[1] == {"good": step}
    with pytest.raises(ZooError, match="is not there"):
        checkpoint.read_good(tmp_path, 3)
    (tmp_path / "mine").touch()
    checkpoint.clear(tmp_path)
    assert names(tmp_path) == ["mine"]


def test_tensors_that_share_their_numbers_are_written_as_they_are_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = torch.arange(12.0).view(3, 4)
    whole, tied = base.clone(), {"a": base, "same": base, "row": base[1]}

    def saved(tensors: dict[str, Tensor], *given: object, **named: object) -> None:
        base.zero_()  # as who goes on training meanwhile does
        save_file(tensors, *given, **named)

    monkeypatch.setattr(checkpoint, "save_file", saved)
    checkpoint.write(tmp_path / "x", tied, {})
    read, _ = checkpoint.read(tmp_path / "x")
    assert torch.equal(read["a"], whole) and torch.equal(read["same"], whole) and torch.equal(read["row"], whole[1])


@pytest.mark.parametrize("renamed", [{"first": "other", "other": "first"}, {"first": "fires"}], ids=["swapped", "new"])
def test_numbers_under_another_name_are_damage(tmp_path: Path, renamed: dict[str, str]) -> None:
    path = tmp_path / "x"
    checkpoint.write(path, TENSORS, {})
    content = path.read_bytes()
    for before in renamed:
        content = content.replace(f'"{before}"'.encode(), f'"-{before[1:]}"'.encode())
    for before, after in renamed.items():
        content = content.replace(f'"-{before[1:]}"'.encode(), f'"{after}"'.encode())
    path.write_bytes(content)
    with pytest.raises(ZooError, match="is damaged: its tensors do not have the checksum"):
        checkpoint.read(path)


@pytest.mark.parametrize(
    "told",
    [{}, {"state": "[1]"}, {"state": "null"}, {"state": "{"}, {"state": "[" * 100_000}, {"crc": "none"}],
    ids=["nothing", "list", "null", "half", "deep", "checksum"],
)  # fmt: skip
def test_a_file_without_a_state_is_no_checkpoint(tmp_path: Path, told: dict[str, str]) -> None:
    path = tmp_path / "step-000000001.safetensors"
    whole = {"state": json.dumps({"step": 1}), "crc": str(checkpoint._checksum(TENSORS))}
    save_file(TENSORS, path, metadata=whole)
    assert checkpoint.read(path)[1] == {"step": 1}
    save_file(TENSORS, path, metadata=whole | told if told else {})
    with pytest.raises(ZooError, match="is not a readable checkpoint"):
        checkpoint.read(path)
    assert checkpoint.latest(tmp_path) is None


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", errno.ENOSPC),
        ('Error while serializing: IoError(Os { code: 122, kind: FilesystemQuotaExceeded })', errno.EDQUOT),
        ("something else", errno.EIO),
    ],
)  # fmt: skip
def test_what_the_system_says_of_a_write_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, number: int
) -> None:
    def full(*given: object, **named: object) -> None:
        raise SafetensorError(said)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError) as told:
        checkpoint.write_step(tmp_path, 1, TENSORS, {})
    assert told.value.errno == number and str(tmp_path) in str(told.value.filename) and names(tmp_path) == []


def test_the_shapes_of_a_file_are_those_of_its_tensors(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "x", TENSORS | {"number": torch.tensor(1)}, {})
    assert checkpoint.shapes(tmp_path / "x") == {"first": (2, 3), "other": (2, 3), "number": ()}
    (tmp_path / "x").write_bytes(b"{}")
    for name in ("x", "none"):
        with pytest.raises(ZooError, match="is not a readable checkpoint"):
            checkpoint.shapes(tmp_path / name)
