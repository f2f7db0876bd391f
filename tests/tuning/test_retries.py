"""Attempts that die and are retried: no checkpoint is lost, and nothing is counted or decided twice."""

import heapq
from collections import defaultdict
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from study.ledger.schema import AttemptRow, DecisionRow, EndRow, LeaseRow, ReportRow
from study.planning.trials import Plan, make_plan
from tests.conftest import make_config
from tests.faults.ledger_audit import Audit, audit, trial_facts
from tests.tuning.faketune import FakeStore, FakeTune, Memory, without_ray

INTERVAL_S = {16: 5.0, 64: 2.0}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "grid": {"kind": "grid"},
    "frontier_asha": {"kind": "frontier_asha", "audit": 0.4},
    "asha": {"kind": "asha", "grace": 1, "eta": 2, "audit": 0.4},
}


def study_plan(scheduler: str, every_s: float, **changes: Any) -> Plan:
    """Two batch sizes, four rates, nine reports a trial, and enough retries for any test."""
    base: dict[str, Any] = {
        "search": {"lr": [0.2, 0.1, 0.05, 0.01]},
        "budget": {"epochs": 9},
        "max_retries": 50,
        "scheduler": SCHEDULERS[scheduler],
        "recovery": {"checkpoint_every_s": every_s},
    }
    return make_plan(make_config(**base | changes))


def run(
    plan: Plan,
    dies: list[int] | None = None,
    dies_starting: list[int] | None = None,
    slots: int = 1,
    interval_s: float | None = None,
) -> FakeTune:
    ledger, store = Memory(), FakeStore(plan.config.recovery.checkpoints)
    intervals_s = INTERVAL_S if interval_s is None else dict.fromkeys(INTERVAL_S, interval_s)
    with without_ray(slots):
        tune = FakeTune(plan, ledger, store, slots, intervals_s, dies=dies or (), dies_starting=dies_starting or ())
        assert tune.run()
    assert not store.held
    return tune


@cache
def undisturbed(scheduler: str) -> dict[str, Any]:
    return trial_facts(run(study_plan(scheduler, 60.0)).ledger.rows)


@settings(max_examples=15, deadline=None)
@example(scheduler="asha", every_s=4.0, dies=[0, 48], dies_starting=[])  # passes an audit decision twice
@given(
    scheduler=st.sampled_from(list(SCHEDULERS)),
    every_s=st.sampled_from([0.0, 4.0, 7.0, 60.0]),
    dies=st.lists(st.integers(0, 120), max_size=8),
    dies_starting=st.lists(st.integers(0, 30), max_size=4),
)
def test_deaths_at_any_time_change_no_result(
    scheduler: str, every_s: float, dies: list[int], dies_starting: list[int]
) -> None:
    """One group, so that trials have one order; costs are by the trials' own clock."""
    plan = study_plan(scheduler, every_s)
    rows = run(plan, dies, dies_starting).ledger.rows
    assert trial_facts(rows) == undisturbed(scheduler)
    assert audit(rows) == Audit(0.0, 0)


@settings(max_examples=10, deadline=None)
@given(
    scheduler=st.sampled_from(list(SCHEDULERS)),
    every_s=st.sampled_from([0.0, 7.0, 60.0]),
    slots=st.integers(1, 7),
    retries=st.integers(0, 2),
    dies=st.lists(st.integers(0, 120), max_size=8),
    dies_starting=st.lists(st.integers(0, 30), max_size=4),
)
def test_an_attempt_goes_on_from_the_last_checkpoint_that_the_ledger_knows(
    scheduler: str, every_s: float, slots: int, retries: int, dies: list[int], dies_starting: list[int]
) -> None:
    tune = run(study_plan(scheduler, every_s, max_retries=retries), dies, dies_starting, slots)
    rows = tune.ledger.rows
    assert audit(rows) == Audit(0.0, 0)
    assert not tune.misbilled_s()
    decided: dict[str, list[int]] = defaultdict(list)  # reports of each trial's curve
    for row in rows:
        if isinstance(row, AttemptRow):
            known = decided[row.trial_id]
            assert row.from_updates in (0, *known)
            lost = [updates for updates in known if updates > row.from_updates]
            assert not lost or len(lost) * INTERVAL_S[row.batch_size] < every_s
            decided[row.trial_id] = [updates for updates in known if updates <= row.from_updates]
        elif isinstance(row, DecisionRow) and row.decision != "stop":
            decided[row.trial_id].append(row.updates)
    if every_s == 0:  # no report is ever made twice
        reports = [(row.trial_id, row.updates) for row in rows if isinstance(row, ReportRow)]
        assert len(set(reports)) == len(reports)


@pytest.mark.parametrize("slots", [3, 5, 7])
def test_a_trial_that_goes_on_in_another_idle_group_is_booked_there(slots: int) -> None:
    """Its first group waits idle meanwhile, and still has its first attempt's lease."""
    tune = run(study_plan("frontier_asha", 60.0, search={"lr": [0.2, 0.1, 0.05]}), slots=slots, interval_s=1.0)
    rows = tune.ledger.rows
    assert audit(rows) == Audit(0.0, 0)
    assert not tune.misbilled_s()
    leases = [row for row in rows if isinstance(row, LeaseRow)]
    groups = defaultdict(set)
    for row in leases:
        groups[row.trial_id].add(row.group_id)
    assert any(len(found) > 1 for found in groups.values())
    assert all(row.phases_s["train"] > 0 for row in leases)


class DyingHandOvers(FakeTune):
    """One trial only gets idle groups while any group lives, and each dies while it is handed over."""

    victim = ""

    def _start(self) -> None:
        trials = self.trials
        if self._alive and not self._idle:
            self.trials = [trial for trial in trials if trial.spec.trial_id != self.victim]
        super()._start()
        self.trials = trials

    def _next(self) -> None:
        if self._due and self._due[0][2] == "reset" and self._due[0][3].spec.trial_id == self.victim:
            _, _, _, trial, group = heapq.heappop(self._due)
            self._die(trial, group)
        else:
            super()._next()


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_trial_whose_group_dies_in_every_hand_over_fails_after_its_retries(retries: int) -> None:
    plan, ledger = study_plan("grid", 60.0, max_retries=retries, confirm={"seeds": 1}), Memory()
    with without_ray(2):
        tune = DyingHandOvers(plan, ledger, FakeStore(), 2, INTERVAL_S)
        tune.victim = plan.search[3].trial_id
        assert tune.run()
    (end,) = (row for row in ledger.rows if isinstance(row, EndRow) and row.trial_id == tune.victim)
    assert (end.outcome, end.attempts) == ("failed", retries + 1)
    assert sum(isinstance(row, EndRow) and row.outcome != "completed" for row in ledger.rows) == 1
    lost = [row for row in ledger.rows if isinstance(row, LeaseRow) and row.reason == "lost"]
    assert [(row.trial_id, row.attempt) for row in lost] == [(tune.victim, n + 1) for n in range(retries + 1)]
    assert all(row.why for row in lost)
    assert audit(ledger.rows) == Audit(0.0, 0)
    assert not tune.misbilled_s()


@pytest.mark.parametrize("keep", [1, 3])
def test_at_most_the_configured_number_of_checkpoints_is_kept(keep: int) -> None:
    plan = study_plan("frontier_asha", 0.0, recovery={"checkpoint_every_s": 0, "checkpoints": keep})
    most = 0

    class CountingStore(FakeStore):
        def put(self, trial_id: str, updates: int, checkpoint: bytes) -> None:
            nonlocal most
            super().put(trial_id, updates, checkpoint)
            most = max(most, *map(len, self.held.values()))

    store = CountingStore(keep)
    with without_ray(2):
        assert FakeTune(plan, Memory(), store, 2, INTERVAL_S, dies=[5, 9, 30]).run()
    assert most == keep
    assert not store.held
