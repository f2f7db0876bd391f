"""Disks that are full, broken, or not to be written: nothing old is hurt, the reason is said, and a study goes on."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from study.analysis.records import Summary
from study.analysis.summary.summarize import summarize
from study.cluster.jobs.fetch import fetch
from study.config.loader import to_yaml
from study.errors import DiskError, StudyError
from study.ledger.atomic_files import remove_unfinished, write_atomic
from study.ledger.paths import StudyPaths
from study.ledger.schema import DecisionRow, EndRow
from study.ledger.store import Ledger, read
from study.planning.trials import Plan, make_plan
from study.reporting import exports
from study.tuning.checkpoint_store import CheckpointStore
from study.tuning.driver import _tidy
from study.tuning.ledger_writer import LedgerWriter
from study.tuning.progress import Progress
from study.tuning.recorder import Recorder
from tests.cluster.jobs.test_fetch import Fake
from tests.conftest import make_config
from tests.faults.conftest import Injections
from tests.faults.failing_disk import FULL, NEEDS_SPACE, REFUSALS, files, unfinished, watched
from tests.faults.ledger_audit import audit, curves
from tests.tuning.faketune import FakeCluster, FakeTune, without_ray

INTERVAL_S = {16: 5.0, 64: 2.0}
ROOT = Path(__file__).parents[2]


class SimulatedShelf(CheckpointStore):
    """Of a simulated Tune, whose checkpoints are numbers of updates."""

    most = 0  # of one trial's that lay there at once

    def put(self, trial_id: str, updates: int, checkpoint: bytes) -> None:
        super().put(trial_id, updates, (checkpoint + b" ") * 99)
        self.most = max(self.most, len(self._newest_first(trial_id)))


@pytest.fixture(scope="module", autouse=True)
def here() -> Iterator[None]:
    """A driver's node, without a Ray."""

    class Context:
        def get_node_id(self) -> str:
            return "here"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("study.tuning.checkpoint_store.ray.get_runtime_context", Context)
        patch.setattr("os.fsync", lambda file: None)  # thousands of times; no test here turns the machine off
        yield


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Trials that pause and are stopped, with a checkpoint at every report."""
    return make_plan(
        make_config(
            batch_sizes=[16],
            search={"lr": [0.1, 0.01]},
            confirm={"seeds": 1},
            scheduler={"kind": "frontier_asha"},
            recovery={"checkpoint_every_s": 0, "checkpoints": 2},
        )
    )


def told(folder: Path) -> dict[str, Any]:
    """What a study says of its trials. Whether one that goes on has waited for others before is the driver's matter."""
    rows = read(folder).rows
    decided = {(row.trial_id, row.updates): row.decision for row in rows if isinstance(row, DecisionRow)}
    return {
        "ends": {row.trial_id: row.outcome for row in rows if isinstance(row, EndRow)},
        "curves": {
            name: [(row.updates, row.val_accuracy, row.device_seconds) for row in curve]
            for name, curve in curves(rows).items()
        },
        "decisions": {at: "continue" if word == "pause" else word for at, word in decided.items()},
    }


def drive(plan: Plan, folder: Path) -> SimulatedShelf:
    """What the runner does, with a simulated Tune between."""
    with Ledger(folder) as ledger, without_ray(1):
        shelf = SimulatedShelf(StudyPaths(folder).checkpoints, plan.config.recovery.checkpoints)
        progress = Progress(plan, ledger.rows)
        _tidy(folder, shelf, progress)
        if ledger.rows and progress.finished:
            Recorder(LedgerWriter(ledger, [progress.follow]), progress, shelf, FakeCluster()).settle()
        else:
            write_atomic(StudyPaths(folder).config, to_yaml(plan.config))
            assert FakeTune(plan, ledger, shelf, 1, INTERVAL_S).run()  # type: ignore[arg-type]
    return shelf


@pytest.fixture(scope="module")
def undisturbed(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the study says on a disk that takes all."""
    folder = tmp_path_factory.mktemp("undisturbed") / "s"
    drive(plan, folder)
    return told(folder)


def refusals(run: Callable[[], Any], folder: Path) -> list[tuple[int, int, bool]]:
    """Every call to the disk, refused for every reason that there can be: each for once, or from then on."""
    with watched(folder) as disk:
        run()
    return [
        (at, error, (at + number) % 2 == 0)
        for at, call in enumerate(disk.calls)
        for number, error in enumerate(REFUSALS)
        if call.kind in NEEDS_SPACE or error not in FULL
    ]


def refused(run: Callable[[], Any], folder: Path, at: int, error: int, lasting: bool) -> None:
    """Runs until its disk refuses. What lay there then lies there still, and nothing new does."""
    with watched(folder) as disk:
        disk.refuse(at, error, lasting)
        told = None
        try:
            run()
        except DiskError as raised:
            told = str(raised)
    if told is None:  # a checkpoint that cannot be read is as good as damaged; a folder that is there need not be made
        assert (disk.calls[at].kind, disk.calls[at].path.suffix) in (("open", ".pt"), ("mkdir", ""))
        return
    assert len(told.splitlines()) == 1
    assert str(folder) in told
    assert os.strerror(error) in told
    before, after = disk.at_refusal, files(folder)
    assert before is not None
    stays = {name for name in before if not name.endswith(".tmp") and name != StudyPaths.LEDGER}
    assert {name: after.get(name) for name in stays} == {name: before[name] for name in stays}
    assert all(name.endswith(".tmp") for name in after.keys() - before.keys())
    assert after.get(StudyPaths.LEDGER, b"").startswith(disk.durable)
    if not lasting or error in FULL:  # the disk lets go of what was not finished
        assert not unfinished(folder)
        assert disk.calls[at].path.name != StudyPaths.LEDGER or after.get(StudyPaths.LEDGER, b"") == disk.durable


def check_goes_on(plan: Plan, folder: Path, undisturbed: dict[str, Any]) -> list[Any]:
    """The disk takes all again, and the study ends as if it always had."""
    shelf = drive(plan, folder)
    assert told(folder) == undisturbed
    assert shelf.most <= plan.config.recovery.checkpoints
    left = {name for name in files(folder) if not name.startswith(StudyPaths.QUARANTINE)}
    assert left == {StudyPaths.LOCK, StudyPaths.CONFIG, StudyPaths.LEDGER}
    return list(read(folder).rows)


def check_refusals(
    plan: Plan,
    folder: Path,
    undisturbed: dict[str, Any],
    chosen: list[tuple[int, int, bool]],
    line: Injections,
) -> None:
    for number, (at, error, lasting) in enumerate(chosen):
        study = folder / str(number) / "s"
        study.parent.mkdir()
        line.inject()
        refused(lambda: drive(plan, study), study, at, error, lasting)  # noqa: B023
        line.survived(audit(check_goes_on(plan, study, undisturbed)))


def test_whatever_a_disk_refuses_leaves_the_old_files_and_the_study_goes_on(
    plan: Plan, undisturbed: dict[str, Any], tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    every = refusals(lambda: drive(plan, tmp_path / "s"), tmp_path / "s")
    check_refusals(plan, tmp_path, undisturbed, random.Random(7).sample(every, 25), faults("disk refuses"))


@pytest.mark.thorough
def test_every_call_to_the_disk_is_refused_in_every_way(
    plan: Plan, undisturbed: dict[str, Any], tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    every = refusals(lambda: drive(plan, tmp_path / "s"), tmp_path / "s")
    check_refusals(plan, tmp_path, undisturbed, every, faults("disk refuses"))


def test_what_is_refused_while_a_study_is_opened_again_is_made_good_by_the_next(
    plan: Plan, undisturbed: dict[str, Any], tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    """Behind a killed driver: a torn row, a file half written, a checkpoint of a trial that is over."""
    drive(plan, tmp_path / "whole")
    whole = StudyPaths(tmp_path / "whole").ledger.read_bytes()
    ends = [row.trial_id for row in read(tmp_path / "whole").rows if isinstance(row, EndRow)]

    def left_behind(study: Path) -> Path:
        shutil.copytree(tmp_path / "whole", study)
        StudyPaths(study).ledger.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 9])
        CheckpointStore(StudyPaths(study).checkpoints, 1).put(ends[0], 48, b"48")
        (StudyPaths(study).checkpoints / f".{ends[1]}@48-00000000.pt.x.tmp").write_bytes(b"4")
        return study

    first = left_behind(tmp_path / "first")
    line = faults("disk refuses")
    for number, (at, error, lasting) in enumerate(refusals(lambda: drive(plan, first), first)):
        study = left_behind(tmp_path / str(number))
        line.inject()
        with watched(study) as disk:
            disk.refuse(at, error, lasting)
            with suppress(DiskError):
                drive(plan, study)
        rows = check_goes_on(plan, study, undisturbed)
        line.survived(audit(rows))
        sides = [path.read_bytes() for path in study.glob(f"{StudyPaths.QUARANTINE}*")]
        assert b'{"at_s":' in sides  # what was torn is kept


REPORT_FORMATS = ("html", "csv", "parquet", "json", "md", "png")


@pytest.fixture(scope="module")
def reports(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Summary]]:
    """A study's summary on its way, and when it is over. Each of their files is made once; pictures are made up."""
    folder = tmp_path_factory.mktemp("reported") / "s"
    drive(plan, folder)
    rows = read(folder).rows
    summaries = [summarize(rows[: len(rows) // 2], plan), summarize(rows, plan)]
    with pytest.MonkeyPatch.context() as patch:
        made: dict[int, dict[str, Any]] = {
            id(one): {name: exports._WRITERS[name](one) for name in REPORT_FORMATS[:-1]} for one in summaries
        }
        for number, one in enumerate(summaries):
            made[id(one)]["html"]["report.html"] = f"{hash(made[id(one)]['html']['report.html'])}"  # megabytes
            made[id(one)]["png"] = {f"{name}.png": b"%d" % number * 9999 for name in ("frontier", "curves")}
        for name in REPORT_FORMATS:
            patch.setitem(exports._WRITERS, name, lambda one, name=name: made[id(one)][name])
        yield summaries


@pytest.mark.parametrize("share", [0.2, pytest.param(1.0, marks=pytest.mark.thorough)])
def test_a_report_that_is_refused_leaves_each_of_its_files_old_or_new(
    share: float, reports: list[Summary], tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    old, new = (tmp_path / name / "report" for name in ("old", "new"))
    for folder, summary in zip((old, new), reports, strict=True):
        folder.parent.mkdir()
        exports.write_report(summary, folder, REPORT_FORMATS)
    was, becomes = files(old), files(new)
    assert was.keys() == becomes.keys()
    assert all(was[name] != becomes[name] for name in was if name != "trials.parquet")
    line = faults("report refused")
    write = partial(exports.write_report, reports[1], old, REPORT_FORMATS)
    every = refusals(write, old)
    for at, error, lasting in random.Random(3).sample(every, round(share * len(every))):
        exports.write_report(reports[0], old, REPORT_FORMATS)
        line.inject()
        with watched(old) as disk:
            disk.refuse(at, error, lasting)
            with suppress(DiskError):  # a folder that is there need not be made
                write()
        after = files(old)
        if not lasting or error in FULL:
            assert after.keys() == was.keys()
        assert all(after[name] in (was[name], becomes[name]) for name in was)
        remove_unfinished(old)
        exports.write_report(reports[1], old, REPORT_FORMATS)
        assert files(old) == becomes
        line.survived()


def test_a_fetch_that_is_refused_leaves_each_file_old_or_new(
    tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    line = faults("fetch refused")
    old = Fake(**{"report/report.html": b"old"})
    new = Fake(**{"report/report.html": b"new", StudyPaths.LEDGER: b"row 1\nrow 2\n"})
    fetch(new, tmp_path / "new", checkpoints=False)
    becomes, out = files(tmp_path / "new"), tmp_path / "out"
    again = partial(fetch, new, out, checkpoints=False)
    fetch(old, out, checkpoints=False)
    was = files(out)
    for at, error, lasting in refusals(again, out):
        shutil.rmtree(out)
        fetch(old, out, checkpoints=False)
        line.inject()
        with watched(out) as disk, suppress(StudyError):
            disk.refuse(at, error, lasting)
            again()
        after = files(out)
        if not lasting or error in FULL:
            assert after.keys() == was.keys()
        assert all(after[name] in (was[name], becomes[name]) for name in was)
        again()
        assert {name: of for name, of in files(out).items() if not name.endswith(".tmp")} == becomes
        line.survived()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "s"],
        pytest.param(["claims", "s", "--json"], marks=pytest.mark.thorough),
        pytest.param(["report", "s", "--format", "json"], marks=pytest.mark.thorough),
    ],
)
def test_a_disk_that_is_full_of_what_is_printed_is_one_line_too(
    arguments: list[str], plan: Plan, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    line = faults("standard output refused")
    drive(plan, tmp_path / "s")
    before = files(tmp_path)
    line.inject()
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "study", *arguments],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (4, "study: standard output: No space left on device\n")
    assert files(tmp_path) == before
    line.survived()
