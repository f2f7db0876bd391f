"""Limits on spending: nothing starts past one, the extra cost is bounded, and no work is lost."""

from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.analysis.summary.summarize import summarize
from study.ledger.schema import AnyRow, AttemptRow, DecisionRow, EndRow, LeaseRow, LimitRow, ReportRow, StudyRow
from study.ledger.state import StudyState
from study.planning.trials import Plan, make_plan
from tests.conftest import make_config
from tests.tuning.faketune import TURN_S, FakeStore, FakeTune, Memory, without_ray

INTERVAL_S = {16: 5.0, 64: 2.0}
SHORT_S = {16: 0.9, 64: 0.4}  # ranks train on from one report to the next
SLACK_S = 3 * TURN_S  # a passed limit, or a lost group, is noticed within some turns of the loop


def study_plan(**changes: Any) -> Plan:
    """Two batch sizes, four rates, nine reports a trial."""
    base: dict[str, Any] = {"search": {"lr": [0.2, 0.1, 0.05, 0.01]}, "budget": {"epochs": 9}, "confirm": {"seeds": 2}}
    return make_plan(make_config(**base | changes))


def split_by_driver(rows: list[AnyRow]) -> list[list[AnyRow]]:
    """Split rows by driver."""
    drivers: list[list[AnyRow]] = []
    for row in rows:
        if isinstance(row, StudyRow):
            drivers.append([])
        drivers[-1].append(row)
    return drivers


def ended(rows: list[AnyRow]) -> dict[str, str]:
    ends = [row for row in rows if isinstance(row, EndRow)]
    assert len({row.trial_id for row in ends}) == len(ends)
    return {row.trial_id: row.outcome for row in ends}


def curves(rows: list[AnyRow]) -> dict[str, list[tuple[int, float]]]:
    """Return (updates, accuracy) of each trial's reports, less those lost with an attempt that died."""
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        if isinstance(row, AttemptRow):
            found[row.trial_id] = [pair for pair in found[row.trial_id] if pair[0] <= row.from_updates]
        elif isinstance(row, ReportRow):
            found[row.trial_id].append((row.updates, row.val_accuracy))
    return dict(found)


def billed_s(rows: list[AnyRow]) -> float:
    return sum(row.devices * row.billed_s for row in rows if isinstance(row, LeaseRow))


@settings(max_examples=40, deadline=None)
@given(
    scheduler=st.sampled_from(["grid", "frontier_asha", "asha", "ridge"]),
    world_size=st.sampled_from([1, 2]),
    groups=st.integers(1, 4),
    limits_s=st.lists(st.floats(0.5, 200), min_size=1, max_size=6),
    dies=st.lists(st.integers(0, 60), max_size=2),
    every_s=st.sampled_from([0.0, 7.0, 60.0]),
    by_usd=st.booleans(),
    interval_s=st.sampled_from([INTERVAL_S, SHORT_S]),
)
def test_nothing_starts_past_a_limit_and_what_runs_ends_at_its_next_report(
    scheduler: str,
    world_size: int,
    groups: int,
    limits_s: list[float],
    dies: list[int],
    every_s: float,
    by_usd: bool,
    interval_s: dict[int, float],
) -> None:
    """A study is cut again and again, each time allowed a little more, then runs without a limit."""
    ledger, store, allowed_s, leased_s, n_groups = Memory(), FakeStore(), 0.0, 0.0, 0
    changes: dict[str, Any] = {"scheduler": {"kind": scheduler}, "hardware": {"world_size": world_size}}
    changes |= {"recovery": {"checkpoint_every_s": every_s}}
    for more_s in (*limits_s, 1e6):
        allowed_s += more_s
        limits = {"usd": 2 * allowed_s / 3600} if by_usd else {"device_hours": allowed_s / 3600}
        plan = study_plan(limits=limits, price={"usd_per_device_hour": 2.0}, **changes)
        with without_ray(groups * world_size):
            tune = FakeTune(plan, ledger, store, groups * world_size, interval_s, dies=dies)
            finished = tune.run()
        leased_s += tune.leased_s
        n_groups += len(tune.groups)
        # Every second of a group's life is billed.
        assert billed_s(ledger.rows) == pytest.approx(leased_s, abs=SLACK_S * n_groups * world_size)
        if finished:
            break
        assert isinstance(ledger.rows[-1], LimitRow) or any(isinstance(row, LimitRow) for row in ledger.rows[-40:])
        assert billed_s(ledger.rows) >= allowed_s - SLACK_S * n_groups * world_size
        assert tune.progress.state.limit is not None
    assert finished
    for rows in split_by_driver(ledger.rows):
        check_driver(rows, world_size, interval_s)
    # Nothing is lost: each trial that completed has reported everywhere, once.
    plan_specs = {spec.trial_id: spec for spec in plan.search}
    plan_specs |= {
        spec.trial_id: spec
        for cell in plan.cells
        if (rate := tune.progress.chosen_rate(cell)) is not None
        for spec in plan.confirm_trials(cell, rate)
    }
    outcomes, reported = ended(ledger.rows), curves(ledger.rows)
    assert outcomes.keys() == plan_specs.keys()
    for name, outcome in outcomes.items():
        if outcome == "completed":
            assert [updates for updates, _ in reported[name]] == list(plan_specs[name].report_at)


def check_driver(rows: list[AnyRow], world_size: int, interval_s: dict[int, float]) -> None:
    """Check one driver's rows, if it passed a limit: nothing starts after it, and the extra spend is bounded: by one
    interval of each running group, and by a second one where it was begun before the limit was seen.
    """
    at = next((i for i, row in enumerate(rows) if isinstance(row, LimitRow)), None)
    if at is None:
        return
    limit = rows[at]
    assert isinstance(limit, LimitRow)
    assert not any(isinstance(row, AttemptRow) for row in rows[at:])
    running: dict[str, AttemptRow] = {}
    for row in rows[:at]:
        if isinstance(row, AttemptRow):
            running[row.lease_id] = row
        elif isinstance(row, LeaseRow):
            running.pop(row.lease_id, None)
    reports = Counter(row.trial_id for row in rows[at:] if isinstance(row, ReportRow))
    intervals = 2 if interval_s is SHORT_S else 1
    assert max(reports.values(), default=0) <= intervals
    bound_s = sum(intervals * world_size * interval_s[row.batch_size] for row in running.values())
    spent_s = sum(
        row.devices * (row.at_s - max(limit.at_s, row.at_s - row.billed_s))
        for row in rows[at:]
        if isinstance(row, LeaseRow)
    )
    assert spent_s <= bound_s + SLACK_S * world_size * max(len(running), 1)


@pytest.mark.parametrize("interval_s", [INTERVAL_S, SHORT_S])
@pytest.mark.parametrize("scheduler", ["grid", "frontier_asha", "ridge"])
def test_a_study_that_was_cut_decides_as_one_that_was_not(scheduler: str, interval_s: dict[int, float]) -> None:
    """One group, so that trials come in the same order; trials that were cut go on first."""
    changes: dict[str, Any] = {"scheduler": {"kind": scheduler, **({"audit": 0.4} if scheduler != "grid" else {})}}
    whole, ledger, store = Memory(), Memory(), FakeStore()
    with without_ray(1):
        assert FakeTune(study_plan(**changes), whole, FakeStore(), 1, interval_s).run()
        for share in (0.01, 0.02, 0.05, 0.06, 0.09, 0.1, 100):
            plan = study_plan(limits={"device_hours": share * interval_s[16] / 5}, **changes)
            finished = FakeTune(plan, ledger, store, 1, interval_s).run()
    assert finished
    assert sum(isinstance(row, LimitRow) for row in ledger.rows) >= 4
    assert any(isinstance(row, DecisionRow) and row.decision == "cut" for row in ledger.rows)
    assert ended(ledger.rows) == ended(whole.rows)
    assert curves(ledger.rows) == curves(whole.rows)

    def verdicts(rows: list[AnyRow]) -> set[tuple[str, int, str]]:
        kept = ("pause", "stop", "audit")
        return {(r.trial_id, r.updates, r.decision) for r in rows if isinstance(r, DecisionRow) and r.decision in kept}

    assert verdicts(ledger.rows) == verdicts(whole.rows)
    assert not store.held


def test_the_wall_clock_continues_across_drivers() -> None:
    ledger, store = Memory(), FakeStore()
    ends_s = []
    with without_ray(2):
        for wall_s in (20.0, 20.0, 45.0):
            tune = FakeTune(study_plan(limits={"wall_h": wall_s / 3600}), ledger, store, 2, INTERVAL_S)
            assert not tune.run()
            ends_s.append(ledger.rows[-1].at_s)
    assert 20 <= ends_s[0] <= 20 + max(INTERVAL_S.values()) + SLACK_S
    assert ends_s[1] == pytest.approx(ends_s[0])  # no driver may begin, and none takes time
    assert 45 <= ends_s[2] <= 45 + max(INTERVAL_S.values()) + SLACK_S
    limits = [row for row in ledger.rows if isinstance(row, LimitRow)]
    assert [(row.limit, 3600 * row.allowed) for row in limits] == [("wall_h", pytest.approx(s)) for s in (20, 20, 45)]


def test_groups_in_set_up_count_and_are_ended_at_once() -> None:
    """Two groups of one device, set up for 30 s: 10 device-seconds are spent after 5 s."""
    ledger = Memory()
    with without_ray(2):
        plan = study_plan(limits={"device_hours": 10 / 3600})
        assert not FakeTune(plan, ledger, FakeStore(), 2, INTERVAL_S, setup_s=30.0).run()
    limit = next(row for row in ledger.rows if isinstance(row, LimitRow))
    assert 5 <= limit.at_s <= 5 + SLACK_S
    assert 10 <= billed_s(ledger.rows) <= 2 * (5 + SLACK_S)
    assert {row.reason for row in ledger.rows if isinstance(row, LeaseRow)} == {"lost"}


def test_open_leases_count_from_their_beginning() -> None:
    ledger = Memory()
    with without_ray(2):
        tune = FakeTune(study_plan(hardware={"world_size": 2}), ledger, FakeStore(), 2, INTERVAL_S)
        tune.run()
    state = StudyState()
    attempts = [row for row in ledger.rows if isinstance(row, AttemptRow)]
    state.apply(attempts[0])
    began_s = attempts[0].at_s - attempts[0].setup_s
    assert state.device_h(began_s + 36) == pytest.approx(2 * 36 / 3600)
    lease = next(row for row in ledger.rows if isinstance(row, LeaseRow) and row.lease_id == attempts[0].lease_id)
    state.apply(lease)
    assert state.device_h(began_s + 1e6) == pytest.approx(2 * lease.billed_s / 3600)


def test_the_summary_reports_a_cut() -> None:
    ledger, store = Memory(), FakeStore()
    plan = study_plan(scheduler={"kind": "grid"}, limits={"device_hours": 130 / 3600})
    with without_ray(2):
        FakeTune(plan, ledger, store, 2, INTERVAL_S).run()
    cut = summarize(ledger.rows, plan).cut
    assert cut is not None
    over, begun = ended(ledger.rows), {row.trial_id for row in ledger.rows if isinstance(row, AttemptRow)}
    assert (cut.limit, cut.allowed, cut.running) == ("device_hours", 130 / 3600, 0)
    assert cut.allowed <= cut.noticed <= cut.spent == pytest.approx(billed_s(ledger.rows) / 3600)
    assert cut.ended_early == len(begun - over.keys()) > 0
    assert cut.not_run == 12 - len(begun) > 0
    confirmed = {name.split("-")[1] for name, outcome in over.items() if name.startswith("confirm")}
    assert {f"b{cell.batch_size}" for cell in cut.unconfirmed} == {"b16", "b64"} - confirmed
    free = study_plan(scheduler={"kind": "grid"})
    with without_ray(2):
        assert FakeTune(free, ledger, store, 2, INTERVAL_S).run()
    assert summarize(ledger.rows, free).cut is None
