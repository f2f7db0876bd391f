"""Trials over several machines: two raylets and a third, and one that goes away in the middle of a study."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.ledger.rows import AttemptRow, DecisionRow, EndRow, LeaseRow, ReportRow
from study.ledger.store import LedgerError, read
from tests.conftest import TINY

STUDY: dict[str, Any] = TINY | {
    "batch_sizes": [16],
    "search": {"lr": [0.05, 0.1, 0.2, 0.4]},
    "budget": {"epochs": 150},
    "confirm": {"seeds": 1},
    "hardware": {"world_size": 2, "placement": "spread"},
}
DEADLINE_S = 200


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs and three raylets of one CPU each."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    folder = tempfile.mkdtemp(prefix="ray")  # short, for sockets lie in it; and `auto` must not find this cluster
    monkeypatch.setenv("RAY_TMPDIR", folder)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(3):
        cluster.add_node(num_cpus=1, wait=True)
    yield cluster
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def rows_of(folder: Path, kind: type[Any]) -> list[Any]:
    try:
        return [row for row in read(folder).rows if isinstance(row, kind)]
    except LedgerError:
        return []  # it has not begun


def wait_for(found: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (something := found()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return something


@pytest.mark.cluster
def test_a_machine_that_goes_away_is_billed_and_its_trial_goes_on_elsewhere(machines: Any, tmp_path: Path) -> None:
    (tmp_path / "machines.yaml").write_text(yaml.safe_dump(STUDY))
    folder = tmp_path / "s"
    process = subprocess.Popen(
        [sys.executable, "-m", "study", "run", "machines", "--out", "s", "--address", machines.address],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:

        def resumed_and_at_work() -> AttemptRow | None:
            """An attempt that goes on from a snapshot, has reported, and is not over."""
            last = [row for row in rows_of(folder, AttemptRow) if row.from_updates][-1:]
            if not last or any(row.lease_id == last[0].lease_id for row in rows_of(folder, LeaseRow)):
                return None
            key = (last[0].trial_id, last[0].attempt)
            at_work = any((row.trial_id, row.attempt) == key for row in rows_of(folder, ReportRow))
            return last[0] if at_work else None

        seen: AttemptRow = wait_for(resumed_and_at_work, process)
        assert len(set(seen.nodes)) == 2  # a rank each
        gone = next(node for node in machines.worker_nodes if node.node_id == seen.nodes[1])
        machines.remove_node(gone, allow_graceful=False)

        # The one that was seen, or one that came after it on the same group before the machine was gone.
        lost: LeaseRow = wait_for(
            lambda: next((row for row in rows_of(folder, LeaseRow) if row.reason == "lost"), None), process
        )

        def goes_on() -> AttemptRow | None:
            later = [row for row in rows_of(folder, AttemptRow) if row.attempt > lost.attempt]
            return next((row for row in later if row.trial_id == lost.trial_id), None)

        after: AttemptRow = wait_for(goes_on, process)
        assert gone.node_id in lost.nodes
        assert gone.node_id not in after.nodes
        assert len(set(after.nodes)) == 2
        paused = [row.updates for row in rows_of(folder, DecisionRow) if row.decision == "pause"
                  and row.trial_id == lost.trial_id and row.attempt < lost.attempt]  # fmt: skip
        assert after.from_updates == max(paused, default=0)
        printed, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, printed
    finally:
        process.kill()
        process.wait()
    assert (lost.devices, len(lost.nodes)) == (2, 2)
    assert lost.phases_s["lost"] > 0
    assert sum(lost.phases_s.values()) == pytest.approx(lost.billed_s, rel=0.01)
    ends = {row.trial_id: row.outcome for row in rows_of(folder, EndRow)}
    assert ends[lost.trial_id] in ("completed", "stopped")
    assert "failed" not in ends.values()
    assert sorted(row.lease_id for row in rows_of(folder, AttemptRow)) == sorted(
        row.lease_id for row in rows_of(folder, LeaseRow)
    )
    # Machines are told apart for people too.
    assert all(host.count("(") == 1 for row in rows_of(folder, LeaseRow) for host in row.hosts)
    assert len(after.hosts) == 2
