"""A Ray cluster of several nodes on this machine; one of them is lost with its task running."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import matrix, per_example, record
from benchmarks.matrix import Places
from benchmarks.suite import suite_named
from tests.faults.children import CELLS, SUITE
from zoo.errors import UsageError


def test_without_ray_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from benchmarks.running import cluster

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"`pip install ray`"):
        cluster.run_all([], Places(tmp_path, tmp_path), cluster.Cluster())


def test_offline_observing_is_refused_where_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from benchmarks.running import cluster

    monkeypatch.setitem(sys.modules, "ray", OneByOne())
    monkeypatch.setenv("WANDB_MODE", "offline")
    for mode in ("offline", "auto"):
        with pytest.raises(UsageError, match="W&B cannot be offline"):
            cluster.run_all([], Places(tmp_path, tmp_path), cluster.Cluster(), wandb_mode=mode)
    assert cluster.run_all([], Places(tmp_path, tmp_path), cluster.Cluster(), wandb_mode="disabled") == []


class OneByOne:
    """As much of Ray as the driver speaks to, without the cluster: a task runs when its result is waited for. What it
    is given and gives back goes through bytes, as it would between machines; ``lost`` names variants whose node is."""

    class exceptions:
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            """As Ray's: it tells where the task was, and has what the task raised."""

            def __init__(self, cause: Exception) -> None:
                super().__init__(f"ray::_run_cell() (pid=7, ip=10.0.0.7) {cause}")
                self.cause = cause

    def __init__(self, lost: tuple[str, ...] = ()) -> None:
        self.lost, self.options, self.results = lost, {}, {}

    def is_initialized(self) -> bool:
        return True

    def remote(self, **options: Any) -> Any:
        self.options = options

        def decorated(work: Any) -> Any:
            def start(text: str, *rest: Any) -> str:
                assert isinstance(text, str) and json.loads(text)
                self.results[text] = lambda: work(text, *rest)
                return text

            return SimpleNamespace(remote=start)

        return decorated

    def wait(self, references: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        return references[-1:], references[:-1]  # in another order than they were given

    def get(self, reference: str) -> Any:
        if json.loads(reference)["cell"]["variant"] in self.lost:
            raise self.exceptions.RayError("the node is gone")
        try:
            return self.results[reference]()
        except Exception as error:
            raise self.exceptions.RayTaskError(error) from error

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "here")


def test_records_and_pictures_come_back_to_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.running import cluster
    from zoo.runs.folder import locked

    stand_in = OneByOne(lost=("vq_vae",))
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    (tmp_path / "faulty.yaml").write_text(SUITE)
    cells = matrix.plan(suite_named(str(tmp_path / "faulty.yaml")))
    places = Places(tmp_path / "board", tmp_path / "runs")
    asked = cluster.Cluster(gpus_per_cell=0.25, scratch=str(tmp_path / "scratch"))
    with locked(places.run(cells[0].cell), ".cell-lock"):  # somebody on this folder is at it
        made = cluster.run_all(cells, places, asked, device="cpu")
    assert stand_in.options["num_gpus"] == 0.25 and stand_in.options["max_retries"] == cluster.RETRIES
    assert {(one.cell.variant, one.cell.seed, one.status) for one in made} == {
        ("vq_vae", 0, "failed"), ("vae", 1, "done"), ("vq_vae", 1, "failed"),
    }  # fmt: skip
    assert len(record.read_all(places.records)) == 3
    done = next(one for one in made if one.status == "done")
    assert all((places.board / path).stat().st_size > 100 for path in done.figures.values())
    assert "elbo" in per_example.read(done, places.records)
    assert not list((tmp_path / "scratch").iterdir()), "a node keeps nothing"
    assert not list(places.runs.rglob("*.safetensors")), "the model stays where it was made"
    stand_in.lost = ()
    again = cluster.run_all(cells, places, asked, device="cpu")
    assert sorted(one.cell.stem for one in again) == sorted(cells[i].cell.stem for i in (0, 1, 3))
    assert all(matrix.done(planned, places) for planned in cells)
    assert cluster.run_all(cells, places, asked, device="cpu") == []


def test_a_task_that_fails_on_its_node_is_told_from_a_lost_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.running import cluster

    monkeypatch.setitem(sys.modules, "ray", OneByOne(lost=("vq_vae",)))
    (tmp_path / "faulty.yaml").write_text(SUITE)
    cells = matrix.plan(suite_named(str(tmp_path / "faulty.yaml")), seeds=(0,))

    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(matrix, "run_cell", full)
    made = cluster.run_all(cells, Places(tmp_path / "board", tmp_path / "runs"), cluster.Cluster(), device="cpu")
    reasons = {one.cell.variant: one.reason for one in made}
    assert reasons["vae"] == "its task failed: [Errno 28] No space left on device"
    assert reasons["vq_vae"] == "its node or its process was lost 4 times: the node is gone"


def ports() -> dict[str, int]:
    # Where a node is told its ports it does not wait for its helpers to find some, which a busy machine fails to do in
    # the seconds that it has for it.
    names = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
    with contextlib.ExitStack() as open_:
        probes = [open_.enter_context(socket.socket()) for _ in names]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return {name: probe.getsockname()[1] for name, probe in zip(names, probes, strict=True)}


@pytest.mark.slow
def test_the_cells_of_a_lost_node_run_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="Ray is an extra: pip install ray")
    from ray.cluster_utils import Cluster

    from benchmarks.running import cluster

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "300")  # a busy machine
    # Long enough that a node is lost in the middle of it.
    (tmp_path / "faulty.yaml").write_text(SUITE.replace("epochs: 3", "epochs: 40"))
    cells = matrix.plan(suite_named(str(tmp_path / "faulty.yaml")))
    places = Places(tmp_path / "board", tmp_path / "runs")
    scratch = tmp_path / "scratch"
    local = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False} | ports())
    killed: list[str] = []
    try:
        nodes = {node.node_id: node for node in (local.add_node(num_cpus=1, **ports()) for _ in range(3))}
        ray.init(address=local.address, log_to_driver=False)

        def lose_one() -> None:
            deadline = time.monotonic() + 400
            while time.monotonic() < deadline:
                for path in scratch.glob("*/runs/*/*/run.json"):
                    node = (path.parents[3] / cluster.NODE).read_text()
                    killed.append(node)
                    local.remove_node(nodes[node], allow_graceful=False)
                    return
                time.sleep(0.05)

        loser = threading.Thread(target=lose_one)
        loser.start()
        asked = cluster.Cluster(address=local.address, scratch=str(scratch))
        made = cluster.run_all(cells, places, asked, device="cpu")
        loser.join()
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    finally:
        ray.shutdown()
        local.shutdown()
    assert len(killed) == 1 and killed[0] not in alive
    assert [one.status for one in made] == ["done"] * CELLS
    assert sorted(one.cell.stem for one in made) == sorted(planned.cell.stem for planned in cells)
    kept = record.read_all(places.records)
    assert len(kept) == CELLS and all((places.board / path).exists() for one in kept for path in one.figures.values())
    assert all(matrix.done(planned, places) for planned in cells)
