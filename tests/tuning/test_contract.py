"""The fake Tune of these tests against the real one: one scenario, the same rows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from study.cluster.target import LOCAL
from study.config.sections import LimitName, LimitsConfig
from study.ledger.schema import AnyRow, AttemptRow, DecisionRow, LeaseRow, LimitRow, PulseRow, ReportRow, StudyRow
from study.ledger.store import read
from study.measurement import ProbeReadings
from study.planning.trials import Plan, TrialSpec, make_plan
from study.training.messages import RankReport
from study.tuning.driver import resume_study, run_study
from tests.conftest import make_config
from tests.tuning.faketune import FakeStore, FakeTune, Memory, without_ray

CUT_AFTER = 5  # reports: in the middle of a trial, which trains on to two more reports, at none of which it pauses
DIES_AT = 10  # the update before which a rank is killed, between the second and the third report of a trial
CLOCKS = {"at_s", "written", "setup_s", "samples_per_s", "device_seconds", "billed_s", "phases_s"}
MACHINES = {"nodes", "hosts", "why", "energy_j", "peak_memory_bytes"}


def scenario(folder: Path, allowed: float) -> Plan:
    """One batch size, so that no clock decides which trials go on; one group at a time, so that rows have one order.

    The rank of the first trial that gets to `DIES_AT` is killed; trials pause, are stopped or audited, and confirmed; a
    limit of `allowed` reports, which stand for device-hours, cuts the study.
    """
    return make_plan(
        make_config(
            batch_sizes=[16], search={"lr": [0.001, 0.05, 0.5]}, budget={"epochs": 9}, confirm={"seeds": 1},
            scheduler={"kind": "frontier_asha", "audit": 0.5, "min_completions": 1},
            hardware={"cpus_per_rank": 4}, recovery={"checkpoint_every_s": 0}, limits={"device_hours": allowed},
            workload={
                "kind": "custom", "module": "tests.tuning.dying_module:DiesOnce", "data": "tests.linear:LinearData",
                "train_samples": 64, "val_accuracy": "acc", "val_loss": "loss",
                "module_args": {"at": DIES_AT, "marker": str(folder / "died")},
            },
        )
    )  # fmt: skip


class ReportCount:
    """Counts reports, as an observer of rows."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self, row: AnyRow) -> None:
        self.n += isinstance(row, ReportRow)


def limit_reports(patch: pytest.MonkeyPatch, count: ReportCount) -> None:
    """Let reports count as device-hours, so that no clock decides where the study is cut."""

    def against(self: LimitsConfig, *figures: float | None) -> dict[LimitName, tuple[float, float | None]]:
        return {"device_hours": (float(count.n), self.device_hours)}

    patch.setattr(LimitsConfig, "against", against)


def played_for_real(folder: Path) -> list[AnyRow]:
    """Play the scenario through Ray Tune, with two drivers. Return all rows."""
    count = ReportCount()
    with pytest.MonkeyPatch.context() as patch:
        limit_reports(patch, count)
        assert run_study(scenario(folder, CUT_AFTER), folder / "s", LOCAL, None, count).cut is not None
        count.n = 0
        assert resume_study(scenario(folder, 1e3), folder / "s", LOCAL, None, count).finished
    return list(read(folder / "s").rows)


def played_by_the_fake(folder: Path, real: list[AnyRow]) -> list[AnyRow]:
    """Play the scenario through the fake Tune, with the reports and the death of the real rows. Return all rows."""
    measured = {(row.trial_id, row.updates): row for row in real if isinstance(row, ReportRow)}
    died = next(i for i, row in enumerate(real) if isinstance(row, LeaseRow) and row.reason == "lost")
    reports_before = sum(isinstance(row, ReportRow) for row in real[:died])

    def report(spec: TrialSpec, updates: int) -> RankReport:
        row = measured[spec.trial_id, updates]
        measured_fields = {name: getattr(row, name) for name in RankReport.__dataclass_fields__}
        return RankReport(**measured_fields | {"probes": ProbeReadings.from_stored(row.probes)})

    ledger, store, count = Memory(), FakeStore(), ReportCount()
    with pytest.MonkeyPatch.context() as patch, without_ray(4):
        limit_reports(patch, count)
        for allowed, dies, finishes in ((CUT_AFTER, [reports_before], False), (1e3, [], True)):
            tune = FakeTune(scenario(folder, allowed), ledger, store, 1, {16: 0.5}, dies=dies, reports=report)
            tune.writer.subscribe(count)
            count.n = sum(isinstance(row, ReportRow) for row in ledger.rows)
            assert tune.run() is finishes
    return ledger.rows


def comparable(rows: Iterable[AnyRow]) -> list[dict[str, Any]]:
    """Return what must be equal: all but clocks, machines and the study's identity. Groups are numbered by driver."""
    groups: dict[str, int] = {}
    found = []
    for row in rows:
        if isinstance(row, PulseRow):  # these depend on the clock alone
            continue
        if isinstance(row, StudyRow):
            groups.clear()
        kept = {"kind"} if isinstance(row, StudyRow) else type(row).model_fields.keys() - CLOCKS - MACHINES
        fields = row.model_dump(include=set(kept))
        if "group_id" in fields:
            fields["group_id"] = groups.setdefault(fields["group_id"], len(groups))
        found.append(fields)
    return found


@pytest.mark.slow
def test_the_fake_tune_writes_the_rows_of_the_real_one(local_ray: None, tmp_path: Path) -> None:
    real = played_for_real(tmp_path)
    fake = played_by_the_fake(tmp_path, real)
    assert comparable(fake) == comparable(real)
    # The scenario holds what it promises.
    assert {row.decision for row in real if isinstance(row, DecisionRow)} >= {"continue", "pause", "cut", "stop"}
    assert {row.reason for row in real if isinstance(row, LeaseRow)} == {"hand_over", "lost", "released"}
    assert {row.phase for row in real if isinstance(row, AttemptRow)} == {"search", "confirm"}
    assert sum(isinstance(row, LimitRow) for row in real) == 1
