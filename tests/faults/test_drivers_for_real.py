"""Drivers that are killed, interrupted or one too many, each a process of its own on a Ray that lives through it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from study.analysis.summary.summarize import summarize
from study.api.plans import recorded
from study.ledger.paths import StudyPaths
from study.ledger.schema import DecisionRow, EndRow
from study.ledger.store import read
from tests.conftest import TINY, wait_for
from tests.faults.conftest import Injections
from tests.faults.ledger_audit import audit, curves

STUDY: dict[str, Any] = TINY | {
    "search": {"lr": [0.2, 0.1, 0.05, 0.01]},
    "budget": {"updates": 80, "report_every_updates": 20},
    "confirm": {"seeds": 1},
    "scheduler": {"kind": "asha", "unit": "samples", "grace": 320, "eta": 2, "audit": 0.3},
    "recovery": {"checkpoint_every_s": 0},
    "report": {"cost": "samples"},  # no clock enters it
}
KINDS = ("study", "attempt", "report", "checkpoint", "decision", "lease", "end")
OFTEN = ("report", "checkpoint", "decision")  # in the course of each trial
DEADLINE_S = 90  # of one driver; there are up to nine in a test
pytestmark = pytest.mark.timeout(900)


class Cluster:
    """A Ray of one CPU, so that trials come in one order; studies in one folder."""

    def __init__(self, address: str, root: Path) -> None:
        self.address, self.root, self.scratch = address, root, root / "tmp"
        self.scratch.mkdir()
        (root / "small.yaml").write_text(yaml.safe_dump(STUDY))

    def start(self, name: str, signals: str | None = None) -> subprocess.Popen[str]:
        """A driver: of a new study, or of what there is of one."""
        begun = StudyPaths(self.root / name).ledger.exists()
        arguments = ["resume", name] if begun else ["run", "small", "--out", name]
        command = ["study", *arguments] if signals is None else ["tests.faults.signalled_driver", signals, *arguments]
        environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200", "TMPDIR": str(self.scratch)}
        return subprocess.Popen(
            [sys.executable, "-m", *command, "--address", self.address],
            cwd=self.root, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def drive(self, name: str, signals: str | None = None) -> tuple[int, str]:
        """A driver from its beginning to its end: exit code, and what it printed."""
        with self.start(name, signals) as process:
            try:
                printed, _ = process.communicate(timeout=DEADLINE_S)
            finally:
                process.kill()
        return process.returncode, printed

    def left_behind(self, name: str) -> list[Path]:
        """Files that should be gone when a study is over."""
        hidden = [path for path in (self.root / name).glob(".*") if path.name != StudyPaths.LOCK]
        return [*hidden, *StudyPaths(self.root / name).checkpoints.iterdir(), *self.scratch.iterdir()]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    from ray.cluster_utils import Cluster as RayCluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        folder = tempfile.mkdtemp(prefix="ray")  # short, for sockets lie in it; and `auto` must not find this cluster
        patch.setenv("RAY_TMPDIR", folder)
        ray = RayCluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            yield Cluster(ray.address, tmp_path_factory.mktemp("drivers"))
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def course(folder: Path) -> dict[str, Any]:
    """All that a study says, less what a clock enters."""
    rows = read(folder).rows
    first: dict[tuple[str, int], str] = {}
    for row in rows:
        if isinstance(row, DecisionRow):
            first.setdefault((row.trial_id, row.updates), row.decision)
    return {
        "ends": {row.trial_id: (row.outcome, row.final) for row in rows if isinstance(row, EndRow)},
        "decisions": first,
        "curves": {
            name: [(row.updates, row.train_loss, row.val_loss, row.val_accuracy) for row in curve]
            for name, curve in curves(rows).items()
        },
        "frontier": [
            (point.batch_size, point.lr, point.cost.samples, point.quality, point.on_frontier)
            for point in summarize(rows, recorded(folder)).points
        ],
    }


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> dict[str, Any]:
    code, printed = cluster.drive("undisturbed")
    assert code == 0, printed
    said = course(cluster.root / "undisturbed")
    assert {outcome for outcome, _ in said["ends"].values()} == {"completed", "stopped"}
    assert {"continue", "stop", "audit"} == set(said["decisions"].values())
    return said


def deaths_of_drivers() -> list[list[str]]:
    """Where each driver of two studies dies: everywhere once, and in the end on the way from search to confirm."""
    rng = random.Random(11)
    deaths = [
        f"kill {when} {kind} {rng.randint(1, 2) if kind in OFTEN else 1}"
        for when in ("before", "behind")
        for kind in KINDS
    ]
    rng.shuffle(deaths)
    return [[*deaths[:7], "kill before confirm 1"], [*deaths[7:], "kill behind confirm 1"]]


@pytest.mark.thorough
@pytest.mark.parametrize("number", [0, 1])
def test_a_study_whose_drivers_are_killed_ends_as_if_none_had_been(
    number: int, cluster: Cluster, undisturbed: dict[str, Any], faults: Callable[[str], Injections]
) -> None:
    name, line, deaths = f"killed-{number}", faults("driver killed"), deaths_of_drivers()[number]
    for death in deaths:
        line.inject()
        code, printed = cluster.drive(name, death)
        assert code == -signal.SIGKILL, f"{death}: {printed}"
    code, printed = cluster.drive(name)
    assert code == 0, printed
    assert course(cluster.root / name) == undisturbed
    assert cluster.left_behind(name) == []
    line.survived(audit(read(cluster.root / name).rows), times=len(deaths))


@pytest.mark.thorough
def test_a_second_driver_is_refused_and_ctrl_c_ends_the_first_in_order(
    cluster: Cluster, undisturbed: dict[str, Any], faults: Callable[[str], Injections]
) -> None:
    second, once = faults("second driver"), faults("Ctrl-C")
    folder = cluster.root / "interrupted"
    with cluster.start("interrupted", "stop behind report 2") as first:
        try:
            wait_for(lambda: psutil.Process(first.pid).status() == psutil.STATUS_STOPPED, first)
            second.inject()
            code, printed = cluster.drive("interrupted")
            assert (code, printed) == (2, "study: interrupted: another process is running this study\n")
            second.survived()
            once.inject()
            first.send_signal(signal.SIGCONT)
            first.send_signal(signal.SIGINT)
            printed, _ = first.communicate(timeout=DEADLINE_S)
        finally:
            first.kill()
    assert first.returncode == 130, printed
    assert "Interrupted. Go on with: study resume interrupted" in printed
    assert "Traceback" not in printed
    summary = json.loads((folder / "report" / "summary.json").read_text())
    assert any("Not finished" in note for note in summary["notes"])
    once.survived(audit(read(folder).rows))  # every lease is billed, those of trials that were cut short too
    code, printed = cluster.drive("interrupted")
    assert code == 0, printed
    assert course(folder) == undisturbed
    assert cluster.left_behind("interrupted") == []


@pytest.mark.thorough
def test_ctrl_c_twice_ends_at_once_and_a_resume_goes_on(
    cluster: Cluster, undisturbed: dict[str, Any], faults: Callable[[str], Injections]
) -> None:
    """The second comes when the driver waits for the cluster to have its groups back, and bills them."""
    twice, folder = faults("Ctrl-C twice"), cluster.root / "twice"
    twice.inject()
    code, printed = cluster.drive("twice", "interrupt behind report 1,interrupt before lease 1")
    assert (code, printed) == (130, "Interrupted at once. Go on with: study resume twice\n")
    assert not (folder / "report").exists()
    code, printed = cluster.drive("twice")
    assert code == 0, printed
    assert course(folder) == undisturbed
    assert cluster.left_behind("twice") == []
    twice.survived(audit(read(folder).rows))
