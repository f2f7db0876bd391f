"""The simulator against schedules worked out by hand, and what no schedule can escape."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.analysis.replay.simulate import Course, Event, Simulation, simulate
from study.schedulers.asha import MoAsha, ReplayAsha
from study.schedulers.base import Grid, Policy
from study.schedulers.bracket import Profile
from study.schedulers.frontier_asha import FrontierAsha

HALF = Profile(((0.5, 0.5),))


def spent_s(played: Simulation) -> float:
    """Return the device-seconds of all trials."""
    return sum(ran.cost_s for ran in played.trials.values())


def course(pace: float, *scores: float, ranks: int = 1, completes: bool = True) -> Course:
    """Reports at equal distances, each of which costs `pace`."""
    n = len(scores)
    return Course([(i + 1) / n for i in range(n)], scores, [pace * (i + 1) for i in range(n)], ranks, completes)


def test_halving_by_hand() -> None:
    courses = {"a": course(1, 0.1, 0.9), "b": course(2, 0.3, 0.4), "c": course(1, 0.2, 0.5), "d": course(1, 0.4, 0.6)}
    policy = FrontierAsha(dict.fromkeys(courses, "cell"), {"cell": (0.5, 1.0)}, (HALF, HALF, HALF), 1, synchronous=True)
    played = simulate(policy, courses, slots=2)
    # The first trial scouts what the cell costs; the others start beside it.
    assert played.events == (
        Event(0, "a", "start"),
        Event(0, "b", "start"),
        Event(1, "a", "pause"),
        Event(1, "c", "start"),
        Event(2, "b", "pause"),  # begun before c, so it reports first
        Event(2, "d", "start"),
        Event(2, "c", "pause"),
        Event(3, "d", "pause"),
        Event(3, "d", "promote"),
        Event(3, "b", "promote"),
        Event(4, "d", "complete"),
        Event(5, "b", "complete"),
        Event(5, "a", "drop"),
        Event(5, "c", "drop"),
    )
    assert played.makespan_s == 5
    assert played.idle_slot_s == 1 + 1  # one slot while d is on its way, one while b ends
    assert {trial: (ran.reports, ran.cost_s, ran.completed) for trial, ran in played.trials.items()} == {
        "a": (1, 1, False),
        "b": (2, 4, True),
        "c": (1, 1, False),
        "d": (2, 2, True),
    }
    assert spent_s(played) == 8


def test_ranks_share_the_time_but_not_the_cost() -> None:
    played = simulate(Grid("ab"), {"a": course(6, 0.5, 0.6, ranks=3), "b": course(1, 0.5, 0.6)}, slots=1)
    assert (played.makespan_s, spent_s(played)) == (6 / 3 * 2 + 2, 12 + 2)


def test_a_trial_that_diverges_fails_at_its_last_report_and_sets_no_bar() -> None:
    courses = {"a": course(1, 9, 9, completes=False), "b": course(1, 1, 1, 1)}
    played = simulate(ReplayAsha(courses, 1 / 3, 2, 1), courses, slots=1)
    assert played.trials["a"] == (2, 2, False)
    assert Event(2, "a", "fail") in played.events
    assert played.trials["b"].reports == 1  # stopped by what a reported at its first rung
    assert simulate(ReplayAsha(courses, 1, 2, 1), courses, slots=1).trials["b"].completed


def test_a_trial_at_its_end_is_not_stopped() -> None:
    courses = {"a": course(1, 5, 9), "b": course(1, 6, 8)}
    played = simulate(ReplayAsha(courses, 0.5, 2, 1), courses, slots=1)
    assert [ran.completed for ran in played.trials.values()] == [True, True]


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Course]:
    """Courses of one to five reports at one to four costs each, some of which diverge."""
    courses = {}
    for i in range(draw(st.integers(1, 12))):
        scores = draw(st.lists(st.integers(0, 5), min_size=1, max_size=5))
        courses[f"t{i}"] = course(draw(st.integers(1, 4)), *scores, completes=draw(st.booleans()))
    return courses


def policies(courses: dict[str, Course]) -> list[Policy]:
    cells = {trial: len(course.at) for trial, course in courses.items()}
    reports = {len(course.at): course.at for course in courses.values()}
    return [
        Grid(courses),
        ReplayAsha(courses, 0.2, 2, 1),
        MoAsha(courses, 0.2, 2, 1),
        FrontierAsha(cells, reports, (HALF, HALF, HALF), 1, synchronous=True),
        FrontierAsha(cells, reports, (HALF, HALF, HALF), 1, synchronous=False),
    ]


@given(studies(), st.integers(1, 15))
def test_books_balance(courses: dict[str, Course], slots: int) -> None:
    for policy in policies(courses):
        played = simulate(policy, courses, slots)
        assert slots * played.makespan_s == pytest.approx(spent_s(played) + played.idle_slot_s)
        assert all(a.at_s <= b.at_s for a, b in pairwise(played.events))
        for trial, ran in played.trials.items():
            kinds = [decision.kind for decision in played.events if decision.trial == trial]
            assert kinds.count("pause") - kinds.count("promote") == kinds.count("drop")
            assert len(set(kinds) & {"complete", "fail", "stop", "drop"}) == 1
            assert ran.completed == ("complete" in kinds)
            assert ran.completed == (courses[trial].completes and ran.reports == len(courses[trial].at))


@given(studies(), st.integers(1, 15))
def test_a_grid_is_list_scheduling(courses: dict[str, Course], slots: int) -> None:
    """Nothing is idle while a trial waits: Graham's bound, and the sum or the longest where slots are 1 or enough."""
    lengths = [course.cost_s[-1] for course in courses.values()]
    makespan = simulate(Grid(courses), courses, slots).makespan_s
    assert max(lengths) <= makespan <= sum(lengths) / slots + max(lengths)
    if slots == 1:
        assert makespan == sum(lengths)
    if slots >= len(courses):
        assert makespan == max(lengths)
