"""What is committed under leaderboard/: the board is what the records say, and so is what the README shows of it."""

from __future__ import annotations

import pytest

from benchmarks import record
from benchmarks.matrix import Places, write_board
from benchmarks.report import short
from tests.conftest import ROOT
from zoo.registry import registry

BOARD = ROOT / "leaderboard"


@pytest.fixture(scope="module")
def records() -> list[record.Record]:
    """Those that are committed: a checkout may hold others of its own, such as those of `make bench`."""
    made = [one for one in record.read_all(BOARD / "records") if one.cell.group not in ("quick@1", "smoke@1")]
    assert made
    return made


def test_every_record_is_of_a_registered_variant_and_made_by_committed_code(records: list[record.Record]) -> None:
    for one in records:
        assert one.cell.variant in registry().variants
        assert one.cell.dataset in registry().datasets
        assert one.environment.git_commit and one.environment.git_dirty is False, one.cell.stem
        assert one.cell.key == record.cell_key(_identity(one.config))


def test_every_picture_is_there(records: list[record.Record]) -> None:
    for one in records:
        for picture in one.figures.values():
            assert (BOARD / picture).stat().st_size > 100


def test_the_readme_shows_what_the_records_say(records: list[record.Record]) -> None:
    assert short.board(records) in (ROOT / "README.md").read_text()


def test_the_board_is_a_function_of_the_records(records: list[record.Record], tmp_path) -> None:
    for one in records:
        record.write(one, tmp_path / "records")
    (tmp_path / "assets").symlink_to(BOARD / "assets")
    made = write_board(Places(tmp_path, tmp_path / "runs")).read_text()
    page = (tmp_path / "index.html").read_text()
    if len(record.read_all(BOARD / "records")) == len(records):
        assert (BOARD / "README.md").read_text() == made
        assert (BOARD / "index.html").read_text() == page
    assert all(one.cell.stem in made and one.cell.stem in page for one in records)
    assert len(page.encode()) < 5_000_000


def _identity(config: dict) -> dict:
    from zoo.config import RunConfig

    return RunConfig.model_validate(config).identity()
