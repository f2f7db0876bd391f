"""The metrics equal what the analysis says of the same rows, and closed forms."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.analysis.summary.summarize import summarize
from study.cluster.metrics import export as module
from study.cluster.metrics.definitions import DECISIONS, METRICS, STATES, UNREPORTED
from study.cluster.metrics.export import Export
from study.cluster.metrics.readings import MetricReadings, Reading
from study.config.sections import LimitName
from study.ledger.schema import (
    PHASES,
    AnyRow,
    AttemptRow,
    Decision,
    DecisionRow,
    EndRow,
    LeaseRow,
    ReportRow,
    StudyRow,
    WaitRow,
)
from study.planning.trials import Plan, TrialSpec, make_plan
from tests.conftest import Run, make_config

STAMP = {"written": "2026-01-01T00:00:00.000+00:00"}
PLAN = make_plan(make_config(price={"usd_per_device_hour": 3.0}, hardware={"world_size": 2}))
TRIALS = [*PLAN.search, *(spec for cell in PLAN.cells for spec in PLAN.confirm_trials(cell, 0.05))]
DOCS = Path(__file__).parents[3] / "docs" / "monitoring.md"


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def study_row(at_s: float = 0.0) -> StudyRow:
    config = PLAN.config.model_dump(mode="json")
    return StudyRow(**STAMP, at_s=at_s, study_id="x", config=config, config_hash="0", hardware={}, versions={})


def attempt(spec: TrialSpec, number: int, at_s: float, setup_s: float, group: str = "g") -> AttemptRow:
    return AttemptRow(
        **STAMP, at_s=at_s, trial_id=spec.trial_id, attempt=number, lease_id=f"{spec.trial_id}#{number}",
        group_id=group, device="cpu", nodes=("n",), setup_s=setup_s, phase=spec.phase,
        batch_size=spec.cell.batch_size, world_size=spec.cell.world_size, micro_batch=8, accumulation=1,
        norm_batch=None, base_lr=spec.base_lr, lr=spec.lr, seed_index=spec.seed_index,
        updates_per_epoch=spec.updates_per_epoch, total_updates=spec.total_updates,
    )  # fmt: skip


def report(spec: TrialSpec, number: int, at_s: float, accuracy: float, updates: int = 1, **phases: float) -> ReportRow:
    return ReportRow(
        **STAMP, at_s=at_s, trial_id=spec.trial_id, attempt=number, updates=updates, samples=updates * 16, epochs=1.0,
        lr=0.1, train_loss=1.0, train_accuracy=None, val_loss=1.0, val_accuracy=accuracy, test_accuracy=None,
        samples_per_s=100.0, device_seconds=1.0, phases_s=phases,
    )  # fmt: skip


def decided(spec: TrialSpec, number: int, at_s: float, decision: Decision) -> DecisionRow:
    return DecisionRow(**STAMP, at_s=at_s, trial_id=spec.trial_id, attempt=number, updates=1, decision=decision)


def lease(spec: TrialSpec, number: int, at_s: float, reason: str, **phases: float) -> LeaseRow:
    return LeaseRow(
        **STAMP, at_s=at_s, lease_id=f"{spec.trial_id}#{number}", group_id="g", trial_id=spec.trial_id,
        attempt=number, device="cpu", devices=spec.cell.world_size, nodes=("n",), reason=reason,
        billed_s=sum(phases.values()), phases_s=dict.fromkeys(PHASES, 0.0) | phases,
    )  # fmt: skip


def ended(spec: TrialSpec, at_s: float, outcome: str, accuracy: float, attempts: int = 1) -> EndRow:
    final = accuracy if outcome == "completed" else None
    return EndRow(
        **STAMP, at_s=at_s, trial_id=spec.trial_id, attempts=attempts, outcome=outcome, final_val_accuracy=final,
        best_val_accuracy=accuracy, test_accuracy=None, error=None,
    )  # fmt: skip


def read(metrics: MetricReadings) -> dict[tuple[str, ...], float]:
    """Readings by name and the values of their tags."""
    return {(reading.name, *reading.tags.values()): reading.value for reading in metrics.read()}


def followed(rows: list[AnyRow], plan: Plan = PLAN, clock: Clock | None = None) -> dict[tuple[str, ...], float]:
    metrics = MetricReadings(plan, clock or Clock())
    for row in rows:
        metrics.follow(row)
    return read(metrics)


seconds = st.floats(0.01, 1e4)
outcomes = st.sampled_from(["completed", "completed", "stopped", "diverged", "failed", "infeasible"])
lives = st.tuples(outcomes, st.integers(0, 2), seconds, seconds, seconds, st.floats(0.05, 1.0))


def made(drawn: list[tuple[Any, ...]]) -> Iterator[AnyRow]:
    """A ledger of a finished study: each trial loses some attempts, reports once in the last, ends and is billed."""
    at_s = 0.0
    yield study_row()
    for spec, (outcome, lost, setup_s, train_s, idle_s, accuracy) in zip(TRIALS, drawn, strict=True):
        for number in range(1, lost + 2):
            at_s += setup_s
            yield attempt(spec, number, at_s, setup_s)
            at_s += train_s
            if number <= lost:
                yield lease(spec, number, at_s, "lost", setup=setup_s, lost=train_s)
        yield report(spec, lost + 1, at_s, accuracy, spec.total_updates, train=train_s)
        yield decided(spec, lost + 1, at_s, "continue" if outcome == "completed" else "stop")
        yield ended(spec, at_s, outcome, accuracy, lost + 1)
        at_s += idle_s
        yield lease(spec, lost + 1, at_s, "hand_over", setup=setup_s, train=train_s, idle=idle_s)


@settings(max_examples=30, deadline=None)
@given(st.lists(lives, min_size=len(TRIALS), max_size=len(TRIALS)))
def test_metrics_of_a_finished_study_equal_the_analysis(drawn: list[tuple[Any, ...]]) -> None:
    rows = list(made(drawn))
    readings, summary = followed(rows), summarize(rows, PLAN)

    def device_h(kind: str = "", phase: str = "") -> float:
        return sum(
            hours
            for (name, *tags), hours in readings.items()
            if name == "study_device_hours" and kind in ("", tags[0]) and phase in ("", tags[1])
        )

    spend = summary.spend
    assert device_h() == pytest.approx(spend.total_device_h)
    assert device_h("censored") == pytest.approx(spend.censored_device_h, abs=1e-9)
    assert {phase: device_h(phase=phase) for phase in PHASES} == pytest.approx(spend.phases_device_h, abs=1e-9)
    completed_h = dict.fromkeys(("search", "confirm"), 0.0)
    for trial in summary.trials:
        completed_h[trial.phase] += 0.0 if trial.censored else trial.cost.billed_device_h
    assert {phase: device_h(phase) for phase in completed_h} == pytest.approx(completed_h, abs=1e-9)
    assert readings["study_spend_usd",] == pytest.approx(3.0 * spend.total_device_h)
    assert readings["study_frontier_hypervolume",] == pytest.approx(summary.hypervolume or 0.0)
    for phase in ("search", "confirm"):
        of = [trial for trial in summary.trials if trial.phase == phase]
        for state in STATES[3:]:
            assert readings["study_trials", phase, state] == sum(trial.outcome == state for trial in of)
        assert readings["study_best_objective", phase, "val_accuracy"] == max(trial.best_quality or 0.0 for trial in of)
    assert readings["study_lost_leases",] == sum(trial.attempts - 1 for trial in summary.trials)
    assert readings["study_attempts",] == sum(trial.attempts for trial in summary.trials)
    assert (
        readings["study_devices_leased",]
        == readings["study_samples_per_second",]
        == readings["study_quiet_seconds",]
        == 0
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(lives, min_size=len(TRIALS), max_size=len(TRIALS)), st.data())
def test_at_any_row_all_states_add_up_to_the_plan_and_all_hours_to_the_leases(
    drawn: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    rows = list(made(drawn))
    rows = rows[: data.draw(st.integers(1, len(rows)))]
    readings = followed(rows)
    assert sum(readings["study_trials", "search", state] for state in STATES) == len(PLAN.search)
    open_s, billed_s = {}, 0.0
    for row in rows:
        if isinstance(row, AttemptRow):
            open_s[row.lease_id] = row.at_s - row.setup_s
        elif isinstance(row, LeaseRow):
            del open_s[row.lease_id]
            billed_s += row.billed_s
    billed_s += sum(rows[-1].at_s - opened_s for opened_s in open_s.values())
    hours = sum(value for (name, *_), value in readings.items() if name == "study_device_hours")
    assert hours == pytest.approx(2 * billed_s / 3600)
    assert readings["study_devices_leased",] == 2 * len(open_s)


def test_an_open_lease_has_phases_up_to_its_last_report() -> None:
    spec, clock = TRIALS[0], Clock()
    metrics = MetricReadings(PLAN, clock)
    metrics.follow(study_row())
    metrics.follow(attempt(spec, 1, at_s=20.0, setup_s=8.0))
    metrics.follow(report(spec, 1, 50.0, 0.5, train=24.0, validate=4.0))
    clock.now_s += 10.0  # the row came at 1000 of this clock
    readings = read(metrics)
    told_s = {phase: readings["study_device_hours", "search", phase] * 3600 / 2 for phase in (*PHASES, UNREPORTED)}
    expected = {"setup": 8, "train": 24, "validate": 4, "idle": 2, UNREPORTED: 10}
    assert told_s == pytest.approx(dict.fromkeys(PHASES, 0.0) | expected, abs=1e-9)
    assert readings["study_quiet_seconds",] == pytest.approx(10)
    assert readings["study_longest_interval_seconds",] == 30
    assert readings["study_samples_per_second",] == 100
    assert (readings["study_devices_leased",], readings["study_trials", "search", "running"]) == (2, 1)


def test_states_follow_a_trial_that_pauses_dies_and_ends() -> None:
    spec = TRIALS[0]
    rows: list[AnyRow] = [study_row()]

    def state() -> str:
        readings = followed(rows)
        (found,) = [of for of in STATES[1:] if readings["study_trials", "search", of]] or ["pending"]
        assert sum(readings["study_trials", "search", of] for of in STATES) == len(PLAN.search)
        return found

    seen = [state()]
    for row in (
        attempt(spec, 1, 10.0, 1.0),
        report(spec, 1, 20.0, 0.5),
        decided(spec, 1, 20.0, "pause"),
        lease(spec, 1, 30.0, "hand_over", train=10.0),
        attempt(spec, 2, 31.0, 1.0),
        lease(spec, 2, 40.0, "lost", lost=10.0),
        study_row(40.0),
        attempt(spec, 3, 50.0, 1.0, group="h"),
        ended(spec, 60.0, "stopped", 0.5, 3),
    ):
        rows.append(row)
        seen.append(state())
    assert seen == [
        "pending", "running", "running", "paused", "paused", "running", "pending", "pending", "running", "stopped",
    ]  # fmt: skip
    readings = followed(rows)
    assert {of: readings["study_decisions", of] for of in DECISIONS} == dict.fromkeys(DECISIONS, 0) | {"pause": 1}


def test_a_hand_over_is_a_start_on_a_known_group() -> None:
    times_s = {"g": [9.0, 0.1, 0.5], "h": [8.0, 0.2]}
    rows: list[AnyRow] = [study_row()]
    specs = iter(TRIALS)
    for group, starts_s in times_s.items():
        rows += [attempt(next(specs), 1, 10.0, setup_s, group) for setup_s in starts_s]
    readings = followed(rows)
    assert (readings["study_hand_over_seconds", "median"], readings["study_hand_over_seconds", "max"]) == (0.2, 0.5)


def test_a_batch_size_whose_every_search_trial_fails_has_none_to_confirm() -> None:
    rows: list[AnyRow] = [study_row()]
    for spec in PLAN.search:
        if spec.cell.batch_size == 16:
            rows += [attempt(spec, 1, 1.0, 1.0), ended(spec, 2.0, "failed", 0.0), lease(spec, 1, 2.0, "released")]
    assert followed(rows)["study_trials", "confirm", "pending"] == PLAN.config.confirm.seeds


def test_limits_are_exported_as_shares_of_what_is_allowed() -> None:
    assert not [key for key in followed([study_row()]) if key[0] == "study_limit_used_ratio"]
    config = make_config(
        price={"usd_per_device_hour": 3.0}, limits={"device_hours": 0.5, "usd": 6.0, "wall_h": 4.0, "wait_h": 1.0}
    )
    spec, clock = TRIALS[0], Clock()
    readings = followed(
        [study_row(), attempt(spec, 1, 600.0, 600.0), lease(spec, 1, 3600.0, "released", train=1800.0)],
        make_plan(config), clock,
    )  # fmt: skip
    used = {limit: readings["study_limit_used_ratio", limit] for limit in get_args(LimitName)}
    assert used == pytest.approx({"device_hours": 2.0, "usd": 0.5, "wall_h": 0.25, "wait_h": 0.0})


def test_a_waiting_study_exports_the_ranks_it_lacks_until_an_attempt_begins() -> None:
    plan, clock = make_plan(make_config(limits={"wait_h": 2.0})), Clock()
    waits = WaitRow(**STAMP, at_s=1800.0, ranks=1, needed=4)
    readings = followed([study_row(), waits], plan, clock)
    assert (readings["study_lacking_ranks",], readings["study_limit_used_ratio", "wait_h"]) == (3, 0.0)
    metrics = MetricReadings(plan, clock)
    for row in (study_row(), waits):
        metrics.follow(row)
    clock.now_s += 3600
    assert read(metrics)["study_limit_used_ratio", "wait_h"] == pytest.approx(0.5)
    metrics.follow(attempt(TRIALS[0], 1, 5400.0, 1.0))
    assert (read(metrics)["study_lacking_ranks",], read(metrics)["study_limit_used_ratio", "wait_h"]) == (0, 0.0)


@pytest.mark.slow
def test_metrics_of_a_real_study_equal_its_report(frontier_run: Run) -> None:
    readings, summary = followed(frontier_run.rows, frontier_run.plan), summarize(frontier_run.rows, frontier_run.plan)
    hours = sum(value for (name, *_), value in readings.items() if name == "study_device_hours")
    assert hours == pytest.approx(summary.spend.total_device_h)
    assert readings["study_frontier_hypervolume",] == pytest.approx(summary.hypervolume)
    assert readings["study_decisions", "pause"] > 0
    assert {readings["study_trials", kind, state] for kind in ("search", "confirm") for state in STATES[:3]} == {0}


class FakeGauge:
    """Keeps what was set, as Ray's would; fails on demand."""

    down = False
    values: ClassVar[dict[tuple[str, ...], float]] = {}

    def __init__(self, name: str, help: str, tags: tuple[str, ...]) -> None:
        self.name, self.tags = name, tags

    def set(self, value: float, tags: dict[str, str]) -> None:
        if FakeGauge.down:
            raise ConnectionError("no agent")
        assert set(tags) == set(self.tags)  # as Ray demands
        assert all(isinstance(tag, str) for tag in tags.values())
        FakeGauge.values[(self.name, *tags.values())] = float(value)


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, ...], float]:
    monkeypatch.setattr("ray.util.metrics.Gauge", FakeGauge)
    monkeypatch.setattr(FakeGauge, "down", False)
    monkeypatch.setattr(FakeGauge, "values", {})
    return FakeGauge.values


def test_every_metric_of_the_list_is_set_with_its_tags_and_no_other(gauges: dict[tuple[str, ...], float]) -> None:
    config = make_config(
        price={"usd_per_device_hour": 3.0}, hardware={"world_size": 2}, limits={"usd": 6.0},
        workload={"kind": "text", "context": 8, "text_bytes": 100_000},
    )  # fmt: skip
    with Export(make_plan(config)) as export:
        export.follow(study_row())
        for number, spec in enumerate(TRIALS[:2], 1):
            export.follow(attempt(spec, 1, 10.0 * number, 0.5))
            export.follow(report(spec, 1, 15.0 * number, 0.5))
    assert {name for name, *_ in gauges} == {metric.name for metric in METRICS}
    assert gauges["study_tokens_per_second", "tiny"] == 8 * gauges["study_samples_per_second", "tiny"] > 0
    assert {study for _, study, *_ in gauges} == {"tiny"}
    begun, end = gauges["study_heartbeat_timestamp_seconds", "tiny"], gauges["study_ended_timestamp_seconds", "tiny"]
    assert 0 < begun <= end
    assert export.failures == 0


def test_a_driver_that_ends_by_a_mistake_has_not_ended_in_order(gauges: dict[tuple[str, ...], float]) -> None:
    with pytest.raises(OSError, match="disk"), Export(PLAN):
        raise OSError("disk full")
    assert gauges["study_ended_timestamp_seconds", "tiny"] == 0


def test_a_sink_that_is_down_is_counted_and_disturbs_nothing(
    gauges: dict[tuple[str, ...], float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(FakeGauge, "down", True)
    monkeypatch.setattr(module, "SET_EVERY_S", 0.01)
    with caplog.at_level(logging.WARNING), Export(PLAN) as export:
        export.follow(report(TRIALS[0], 1, 1.0, 0.5))  # of an attempt that never began: a fault of ours
    assert export.failures >= 2
    assert "not exported" in caplog.text
    assert f"failed {export.failures} times" in caplog.text
    assert not gauges


def test_no_tag_can_grow_with_the_study() -> None:
    readings: list[Reading] = []
    for trials in (2, 6):
        metrics = MetricReadings(make_plan(make_config(search={"lr": [0.01 * n for n in range(1, trials + 1)]})))
        metrics.follow(study_row())
        readings.append([(reading.name, tuple(reading.tags.items())) for reading in metrics.read()])
    assert readings[0] == readings[1]
    assert {tag for metric in METRICS for tag in metric.tags} == {
        "kind", "state", "phase", "decision", "stat", "limit", "metric",
    }  # fmt: skip


def test_the_documentation_lists_every_metric() -> None:
    rows = re.findall(r"^\| `ray_(\w+)` +\| ([^|]+?) +\| ([^|]+?) +\|", DOCS.read_text(), re.M)
    readings = {name: (unit, tags) for name, unit, tags in rows}
    assert readings == {metric.name: (metric.unit, ", ".join(metric.tags) or "-") for metric in METRICS}
