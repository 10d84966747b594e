"""A Ray cluster of several nodes on this machine; one of them is lost with its task running."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest

from benchmarks import matrix, record
from benchmarks.matrix import Places
from benchmarks.suite import suite_named
from tests.faults.children import CELLS, SUITE
from zoo.errors import UsageError


def test_without_ray_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    from benchmarks import cluster

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install vae-zoo\[ray\]"):
        cluster.run_all([], Places(tmp_path, tmp_path), cluster.Cluster())


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
    ray = pytest.importorskip("ray", reason="Ray is an extra: pip install vae-zoo[ray]")
    from ray.cluster_utils import Cluster

    from benchmarks import cluster

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
