"""A cluster that shrinks and grows under a study, on a fake clock: when the study waits, and for how long."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from study.analysis.summary.summarize import summarize
from study.ledger.schema import AnyRow, AttemptRow, EndRow, LeaseRow, LimitRow, WaitRow
from study.planning.trials import Plan, make_plan
from study.reporting.text.status import status_lines
from study.tuning.tune_searcher import ASK_EVERY_S
from tests.conftest import make_config
from tests.faults.ledger_audit import Audit, audit
from tests.tuning.faketune import TURN_S, FakeStore, FakeTune, Memory, without_ray

INTERVAL_S = {16: 5.0, 64: 2.0}
NOTICED_S = ASK_EVERY_S + 3 * TURN_S  # the driver asks once a second, and acts within some turns of the loop


def study_plan(world_size: int = 2, **changes: Any) -> Plan:
    """Two batch sizes, two rates, nine reports a trial, and any number of retries."""
    base: dict[str, Any] = {"budget": {"epochs": 9}, "confirm": {"seeds": 1}, "max_retries": 1000}
    return make_plan(make_config(**base, hardware={"world_size": world_size}, **changes))


def driven(
    plan: Plan, machines: list[tuple[float, int]], ledger: Memory, store: FakeStore | None = None, **options: Any
) -> tuple[bool, FakeTune]:
    """Run one driver while machines come and go. Return whether it finished the study, and the fake Tune."""
    tune = FakeTune(plan, ledger, store or FakeStore(), 4, INTERVAL_S, machines=machines, **options)
    with without_ray(lambda: tune.slots):
        return tune.run(), tune


def of(kind: type[Any], rows: list[AnyRow]) -> list[Any]:
    return [row for row in rows if isinstance(row, kind)]


def too_small(tune: FakeTune, needed: int) -> list[tuple[float, float]]:
    """Return the spans, in seconds on the study's clock, in which no group lived and no trial fitted on the cluster."""
    spans: list[tuple[float, float]] = []
    began_s: float | None = None
    for now_s, ranks, alive in tune.seen:
        if ranks < needed and not alive:
            began_s = now_s if began_s is None else began_s
        elif began_s is not None:
            spans.append((began_s - 1000.0, now_s - 1000.0))
            began_s = None
    return spans if began_s is None else [*spans, (began_s - 1000.0, tune.now_s - 1000.0)]


@settings(max_examples=60, deadline=None)
@example(world_size=1, scheduler="grid", changes=[(1.0, 0), (1.0, 1), (1.0, 0)])  # room for a moment, between two looks
@example(world_size=1, scheduler="grid", changes=[(1.0, 0), (2.5, 2), (0.5, 1)])  # a group dies as the study waits
@given(
    world_size=st.sampled_from([1, 2, 4]),
    scheduler=st.sampled_from(["grid", "frontier_asha"]),
    changes=st.lists(st.tuples(st.floats(0.1, 60.0), st.integers(0, 5)), max_size=8),
)
def test_a_study_without_room_waits_writes_one_row_and_goes_on(
    world_size: int, scheduler: str, changes: list[tuple[float, int]]
) -> None:
    machines, at_s = [], 0.0
    for gap_s, ranks in (*changes, (30.0, 4)):
        at_s += gap_s
        machines.append((at_s, ranks))
    ledger = Memory()
    plan = study_plan(world_size, scheduler={"kind": scheduler})
    finished, tune = driven(plan, machines, ledger)
    assert finished
    assert audit(ledger.rows) == Audit(0.0, 0)
    assert {row.outcome for row in of(EndRow, ledger.rows)} <= {"completed", "stopped"}
    waits, spans = of(WaitRow, ledger.rows), too_small(tune, world_size)
    for row in waits:
        assert row.needed == world_size > row.ranks
        assert sum(start <= row.at_s <= end + NOTICED_S for start, end in spans) >= 1
    for start, end in spans:
        noticed = [row for row in waits if start <= row.at_s <= end + NOTICED_S]
        assert len(noticed) >= 1 or end - start <= NOTICED_S
    assert len(waits) <= len(spans)
    # Each second of a group's life is billed, and no other.
    billed_s = sum(row.devices * row.billed_s for row in of(LeaseRow, ledger.rows))
    assert billed_s == pytest.approx(tune.leased_s, abs=NOTICED_S * world_size * len(tune.groups))


def test_a_machine_that_joins_is_used() -> None:
    ledger = Memory()
    finished, tune = driven(study_plan(1), [(0.0, 1), (20.0, 4)], ledger)
    assert finished
    assert not of(WaitRow, ledger.rows)
    assert {max(ranks for _, ranks, _ in tune.seen), sum(group.born_s < 1020.0 for group in tune.groups)} == {4, 1}
    assert 2 <= sum(1020.0 <= group.born_s <= 1020.0 + NOTICED_S for group in tune.groups) <= 3


def test_waiting_too_long_cuts_the_study_and_a_resume_goes_on() -> None:
    ledger, store = Memory(), FakeStore()
    plan = study_plan(2, limits={"wait_h": 60 / 3600})
    finished, _ = driven(plan, [(12.0, 1)], ledger, store)
    assert not finished
    (waits,), (cut,) = of(WaitRow, ledger.rows), of(LimitRow, ledger.rows)
    assert (waits.ranks, waits.needed) == (1, 2)
    assert (cut.limit, cut.allowed) == ("wait_h", 60 / 3600)
    assert 60 <= cut.at_s - waits.at_s <= 60 + NOTICED_S
    assert audit(ledger.rows) == Audit(0.0, 0)
    found = summarize(ledger.rows, plan).cut
    assert found is not None
    assert (found.limit, found.allowed, found.spent) == ("wait_h", 60 / 3600, cut.spent)
    # The next driver counts from zero: the old row must not cut it.
    finished, _ = driven(plan, [(0.0, 1), (50.0, 4)], ledger, store)
    assert finished
    assert len(of(WaitRow, ledger.rows)) == 2
    assert audit(ledger.rows) == Audit(0.0, 0)


def test_waiting_ends_when_there_is_room_before_a_group_is_ready() -> None:
    """Two waits of 50 s, with 45 s of room between them in which no group gets ready: neither reaches 60 s."""
    ledger = Memory()
    plan = study_plan(2, limits={"wait_h": 60 / 3600})
    finished, _ = driven(plan, [(0.0, 1), (50.0, 2), (95.0, 1), (145.0, 2)], ledger, setup_s=48.0)
    assert finished
    assert not of(LimitRow, ledger.rows)
    first, second = of(WaitRow, ledger.rows)
    assert second.at_s - first.at_s == pytest.approx(95, abs=2 * NOTICED_S)


def test_world_sizes_keep_their_order_even_if_a_later_one_would_fit() -> None:
    ledger = Memory()
    plan = make_plan(make_config(hardware={"world_size": [2, 1]}, confirm={"seeds": 1}))
    finished, _ = driven(plan, [(0.0, 1), (30.0, 2)], ledger)
    assert finished
    (waits,) = of(WaitRow, ledger.rows)
    assert (waits.ranks, waits.needed) == (1, 2)
    assert of(AttemptRow, ledger.rows)[0].world_size == 2


def test_status_and_summary_say_that_a_study_waits_until_the_next_attempt() -> None:
    ledger = Memory()
    plan = study_plan(4)
    assert driven(plan, [(0.0, 2), (30.0, 4)], ledger)[0]
    at = next(i for i, row in enumerate(ledger.rows) if isinstance(row, WaitRow))
    begins = next(i for i, row in enumerate(ledger.rows) if isinstance(row, AttemptRow))
    why = "a trial needs 4 ranks, the cluster has room for 2"
    for rows, waits in ((ledger.rows[: at + 1], True), (ledger.rows[: begins + 1], False)):
        assert (f"waiting {why}" in status_lines(plan, rows)) == waits
        assert (f"Waiting: {why}." in summarize(rows, plan).notes) == waits
