"""Trials over several machines, each a raylet: some go away in the middle of a study, others join."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.errors import LedgerError
from study.ledger.schema import AttemptRow, DecisionRow, EndRow, LeaseRow, LimitRow, ReportRow, WaitRow
from study.ledger.store import read
from tests.conftest import TINY, wait_for
from tests.faults.conftest import Injections
from tests.faults.ledger_audit import audit

STUDY: dict[str, Any] = TINY | {
    "batch_sizes": [16],
    "search": {"lr": [0.05, 0.1, 0.2, 0.4]},
    "budget": {"epochs": 150},
    "confirm": {"seeds": 1},
    "hardware": {"world_size": 2, "placement": "spread"},
}
DEADLINE_S = 200
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    folder = tempfile.mkdtemp(prefix="ray")  # short, for sockets lie in it; and `auto` must not find this cluster
    monkeypatch.setenv("RAY_TMPDIR", folder)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def rows_of(folder: Path, kind: type[Any]) -> list[Any]:
    try:
        return [row for row in read(folder).rows if isinstance(row, kind)]
    except LedgerError:
        return []  # it has not begun


def begin(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "study", *arguments],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def at_work(folder: Path, min_attempts: int = 1, resumed: bool = False) -> AttemptRow | None:
    """The last attempt, of all or of those that go on from a snapshot, if there are so many of them, it has reported
    and is not over.
    """
    attempts: list[AttemptRow] = [row for row in rows_of(folder, AttemptRow) if row.from_updates or not resumed]
    billed = {row.lease_id for row in rows_of(folder, LeaseRow)}
    if len(attempts) < min_attempts or attempts[-1].lease_id in billed:
        return None
    key = (attempts[-1].trial_id, attempts[-1].attempt)
    return attempts[-1] if any((row.trial_id, row.attempt) == key for row in rows_of(folder, ReportRow)) else None


def node_of(machines: Any, node_id: str) -> Any:
    return next(node for node in machines.worker_nodes if node.node_id == node_id)


@pytest.mark.thorough
def test_a_machine_that_goes_away_is_billed_and_its_trial_goes_on_elsewhere(
    machines: Any, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    for _ in range(3):
        machines.add_node(num_cpus=1, wait=True)
    (tmp_path / "machines.yaml").write_text(yaml.safe_dump(STUDY))
    folder, line = tmp_path / "s", faults("machine lost")
    process = begin(tmp_path, "run", "machines", "--out", "s", "--address", machines.address)
    try:
        seen = wait_for(lambda: at_work(folder, resumed=True), process)
        assert len(set(seen.nodes)) == 2  # a rank each
        gone = node_of(machines, seen.nodes[1])
        line.inject()
        machines.remove_node(gone, allow_graceful=False)

        # The one that was seen, or one that came after it on the same group before the machine was gone.
        lost: LeaseRow = wait_for(
            lambda: next((row for row in rows_of(folder, LeaseRow) if row.reason == "lost"), None), process
        )

        def goes_on() -> AttemptRow | None:
            later = [row for row in rows_of(folder, AttemptRow) if row.attempt > lost.attempt]
            return next((row for row in later if row.trial_id == lost.trial_id), None)

        after = wait_for(goes_on, process)
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
    line.survived(audit(read(folder).rows))


@pytest.mark.thorough
def test_a_study_larger_than_what_is_left_waits_goes_on_when_a_machine_joins_and_ends_by_its_own_limit(
    machines: Any, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    """Two machines for two ranks. One goes, and another comes; it goes too, and none comes within the limit."""
    for _ in range(2):
        machines.add_node(num_cpus=1, wait=True)
    wait_s = 25.0
    study = STUDY | {"search": {"lr": [0.1]}, "scheduler": {"kind": "grid"}, "limits": {"wait_h": wait_s / 3600}}
    study["max_retries"] = 3  # both machines may be lost to the same trial
    (tmp_path / "machines.yaml").write_text(yaml.safe_dump(study))
    folder = tmp_path / "s"
    small, lost, joins = faults("cluster too small"), faults("machine lost"), faults("machine joins")
    process = begin(tmp_path, "run", "machines", "--out", "s", "--address", machines.address)
    try:
        for cycle in (1, 2):
            seen = wait_for(lambda: at_work(folder, min_attempts=cycle), process)  # noqa: B023
            small.inject()
            lost.inject()
            machines.remove_node(node_of(machines, seen.nodes[0]), allow_graceful=False)
            wait_for(lambda: len(rows_of(folder, WaitRow)) == cycle, process)  # noqa: B023
            if cycle == 1:
                told, _ = begin(tmp_path, "status", "s").communicate(timeout=DEADLINE_S)
                assert "waiting a trial needs 2 ranks, the cluster has room for 1" in told
                joins.inject()
                joined = machines.add_node(num_cpus=1, wait=True)
                died = [row for row in rows_of(folder, LeaseRow) if row.reason == "lost"][-1]
                begun = len(rows_of(folder, AttemptRow))
                after = wait_for(lambda: at_work(folder, begun + 1), process)  # noqa: B023
                assert joined.node_id in after.nodes
                assert after.trial_id == died.trial_id
        printed, _ = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 3, printed
    assert printed.count("Waiting: a trial needs 2 ranks, the cluster has room for 1") == 2
    assert "Go on with: study resume s --set limits.wait_h=" in printed
    (cut,), (_, waits) = rows_of(folder, LimitRow), rows_of(folder, WaitRow)
    assert cut.limit == "wait_h"
    assert wait_s <= cut.at_s - waits.at_s <= wait_s + 10
    assert not any(row.at_s > waits.at_s for row in rows_of(folder, AttemptRow))

    # Where there is still no room no driver starts; where there is, it goes on to the end.
    refused = begin(tmp_path, "resume", "s", "--address", machines.address)
    assert "2 ranks of 1 CPU and 0 GPU can never be placed" in refused.communicate(timeout=DEADLINE_S)[0]
    assert refused.returncode == 2
    machines.add_node(num_cpus=1, wait=True)
    joins.inject()
    resumed = begin(tmp_path, "resume", "s", "--address", machines.address)
    try:
        printed, _ = resumed.communicate(timeout=DEADLINE_S)
    finally:
        resumed.kill()
        resumed.wait()
    assert resumed.returncode == 0, printed
    assert {row.outcome for row in rows_of(folder, EndRow)} == {"completed"}
    books = audit(read(folder).rows)
    for each in (small, lost, joins):
        each.survived(books, times=2)
