"""Policies against Ray's own class, against brute force, and their invariants on random curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.schedulers.asha import MoAsha, ReplayAsha, rung_levels
from study.schedulers.base import Grid
from study.schedulers.frontier_asha import PROFILES, FrontierAsha, grades
from study.schedulers.ridge import CARES, Candidate, Ridge
from tests.schedulers.play import REPORTS, play
from tests.schedulers.test_bracket import SEEDS, SLOTS, halved, nine_scores, score

END = 9.0
EPOCHS = tuple(9 * share for share in REPORTS)
CELL_COST = {"cheap": 1.0, "middle": 2.0, "costly": 9.0}

Curves = dict[str, list[float]]


@st.composite
def grids(draw: st.DrawFn) -> Curves:
    """Draw curves of up to 8 trials in each of three cells, named by their cell, in any order."""
    names = [f"{cell}-{i}" for cell in CELL_COST for i in range(draw(st.integers(1, 8)))]
    chance = Random(draw(SEEDS))
    chance.shuffle(names)
    return {name: nine_scores(chance) for name in names}


def cell_of(trial: str) -> str:
    return trial.partition("-")[0]


class WithCellCosts:
    """Forwards calls to a policy, with costs that differ by cell."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    def report(self, trial: str, at: float, score: float, cost: float) -> Any:
        return self.policy.report(trial, at, score, cost * CELL_COST[cell_of(trial)])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)


def frontier(curves: Curves, profile: str = "balanced", least: int = 2, synchronous: bool = True) -> Any:
    cells = {trial: cell_of(trial) for trial in curves}
    reports = dict.fromkeys(CELL_COST, REPORTS)
    return WithCellCosts(FrontierAsha(cells, reports, PROFILES[profile], least, synchronous))


def ray_like(curves: Curves) -> ReplayAsha:
    return ReplayAsha(curves, grace=1, eta=3, end=END)


def multi_objective(curves: Curves) -> Any:
    return WithCellCosts(MoAsha(curves, grace=1, eta=3, end=END))


def ridge(curves: Curves) -> Any:
    """Rates come in the order of the trials' names."""
    batch_sizes = dict(zip(CELL_COST, (512, 64, 16), strict=True))
    return WithCellCosts(
        Ridge(
            [
                Candidate(trial, "", batch_sizes[cell_of(trial)], 10 ** (int(trial.partition("-")[2]) / 2 - 3), REPORTS)
                for trial in curves
            ],
            CARES["balanced"],
        )
    )


POLICIES: Mapping[str, tuple[Callable[[Curves], Any], Sequence[float]]] = {
    "frontier": (frontier, REPORTS),
    "frontier, asynchronous": (lambda curves: frontier(curves, synchronous=False), REPORTS),
    "Ray's": (ray_like, EPOCHS),
    "multi-objective": (multi_objective, EPOCHS),
    "grid": (Grid, REPORTS),
}
every_halving = pytest.mark.parametrize(("make", "at"), POLICIES.values(), ids=list(POLICIES))
every_policy = pytest.mark.parametrize(
    ("make", "at"),
    [
        *POLICIES.values(),
        pytest.param(ridge, REPORTS, marks=pytest.mark.slow),
    ],  # tests/schedulers/test_ridge.py is quick
    ids=[*POLICIES, "ridge"],
)
frontier_policies = pytest.mark.parametrize("synchronous", [True, False])


@every_halving  # ridge may have seen enough of it earlier
@given(grids(), SLOTS, SEEDS)
def test_the_leader_of_its_bracket_completes(
    make: Callable[[Curves], Any], at: Sequence[float], curves: Curves, slots: int, seed: int
) -> None:
    leader = Random(seed).choice(list(curves))
    # Ray's rule lets an infinite score lead.
    curves = {trial: [min(value, 50.0) for value in curve] for trial, curve in curves.items()} | {leader: [100.0] * 9}
    played = play(make(curves), curves, {}, Random(seed), slots, at)
    assert leader in played.completed
    assert leader not in played.stopped | played.dropped


@every_policy
@given(grids(), SLOTS, SEEDS, st.data())
def test_every_trial_ends_in_exactly_one_way(
    make: Callable[[Curves], Any],
    at: Sequence[float],
    curves: Curves,
    slots: int,
    seed: int,
    data: st.DataObject,
) -> None:
    fails = data.draw(st.dictionaries(st.sampled_from(list(curves)), st.integers(0, 8)))
    played = play(make(curves), curves, fails, Random(seed), slots, at)
    ends = [played.completed, played.failed, played.stopped, played.dropped]
    assert sorted(trial for end in ends for trial in end) == sorted(curves)


def undeclared(policy: Any, calls: Sequence[tuple[Any, ...]], at: Sequence[float]) -> list[tuple[str, float]]:
    """Return the reports at which a trial was stopped or paused, and `decides` did not say so."""
    found = []
    for name, *arguments in calls:
        verdict = getattr(policy, name)(*arguments)
        if name == "report" and verdict != "continue" and arguments[1] not in policy.decides(arguments[0], at):
            found.append((arguments[0], arguments[1]))
    return found


@every_policy
@given(grids(), SLOTS, SEEDS)
def test_a_policy_decides_only_at_reports_that_it_names(
    make: Callable[[Curves], Any], at: Sequence[float], curves: Curves, slots: int, seed: int
) -> None:
    calls = play(make(curves), curves, {}, Random(seed), slots, at).calls
    assert undeclared(make(curves), calls, at) == []
    assert all(make(curves).decides(trial, at) < set(at) for trial in curves)  # not at all of them


@given(grids(), SLOTS, SEEDS, st.lists(st.integers(1, 90), min_size=1, max_size=9, unique=True))
def test_reports_that_pass_several_rungs_are_named_too(
    curves: Curves, slots: int, seed: int, tenths: list[int]
) -> None:
    at = [tenth / 10 for tenth in sorted(tenths)]
    for make in (ray_like, multi_objective):
        calls = play(make(curves), curves, {}, Random(seed), slots, at).calls
        assert undeclared(make(curves), calls, at) == []


def test_the_report_after_one_past_two_rungs_is_judged_at_the_lower() -> None:
    policy = ray_like({"a": []})  # rungs at 1, 3 and 9
    assert policy.decides("a", (0.5, 3.5, 4.0, 5.0, 9.0)) == {3.5, 4.0, 9.0}


@every_policy
@given(grids(), SLOTS, SEEDS, st.data())
def test_the_state_follows_from_any_prefix_of_the_calls(
    make: Callable[[Curves], Any],
    at: Sequence[float],
    curves: Curves,
    slots: int,
    seed: int,
    data: st.DataObject,
) -> None:
    fails = data.draw(st.dictionaries(st.sampled_from(list(curves)), st.integers(0, 8)))
    calls = play(make(curves), curves, fails, Random(seed), slots, at).calls
    cut = data.draw(st.integers(0, len(calls)))
    live, rebuilt = make(curves), make(curves)
    dropped: list[str] = []
    for name, *arguments in calls[:cut]:
        live.choose()
        getattr(live, name)(*arguments)
        getattr(rebuilt, name)(*arguments)
        dropped += live.dropped()
    assert sorted(dropped) == sorted(rebuilt.dropped())
    for name, *arguments in calls[cut:]:
        assert live.choose() == rebuilt.choose()
        assert getattr(live, name)(*arguments) == getattr(rebuilt, name)(*arguments)
        assert live.dropped() == rebuilt.dropped()


@every_policy
@given(grids(), SLOTS, SEEDS)
def test_rescaling_changes_nothing(
    make: Callable[[Curves], Any], at: Sequence[float], curves: Curves, slots: int, seed: int
) -> None:
    """Any increasing function is allowed where only the ranking counts. Ray's quantile interpolates between scores, and
    the spread of a front is a distance: for these two the function is linear, with a power of two, which is exact.
    """
    linear = make in (ray_like, multi_objective, ridge)

    def rescaled(value: float) -> float:
        if linear or not math.isfinite(value):
            return 4 * value
        return math.exp(value) - 20

    one = play(make(curves), curves, {}, Random(seed), slots, at)
    scaled = {trial: [rescaled(value) for value in curve] for trial, curve in curves.items()}
    other = play(make(curves), scaled, {}, Random(seed), slots, at)
    assert (one.started, one.completed, one.stopped) == (other.started, other.completed, other.stopped)


@given(grids(), st.sampled_from(sorted(PROFILES)), st.integers(1, 3), SLOTS, SEEDS)
def test_synchronous_frontier_is_halving_in_each_cell_whatever_the_order_of_arrival(
    curves: Curves, profile: str, least: int, slots: int, seed: int
) -> None:
    policy = frontier(curves, profile, least)
    played = play(policy, curves, {}, Random(seed), slots)
    members = {cell: {t: c for t, c in curves.items() if cell_of(t) == cell} for cell in CELL_COST}
    grid_cost = {cell: 9 * CELL_COST[cell] * len(members[cell]) for cell in CELL_COST}
    for cell, race in members.items():
        share = grid_cost[cell] / (sum(grid_cost.values()) / 3)
        chosen = PROFILES[profile][(share > 0.5) + (share > 1)]
        expected = halved(race, chosen.rungs(len(race), least, REPORTS))
        assert {trial for trial in played.completed if cell_of(trial) == cell} == set(expected)


def test_grades_are_shares_of_the_cost() -> None:
    assert grades({"a": 1.0, "b": 2.0, "c": 3.5, "d": 9.5}) == {"a": 0, "b": 0, "c": 1, "d": 2}
    assert grades(dict.fromkeys("abc", 0.1)) == dict.fromkeys("abc", 1)  # 0.1 + 0.1 + 0.1 is above 0.3
    assert grades({}) == {}


def test_one_slow_first_report_does_not_make_a_cell_high_cost() -> None:
    """A group's first trial pays for its warm-up: here as much as sixty reports."""
    curves = {f"{cell}-{i}": [float(i)] * 9 for cell in CELL_COST for i in range(9)}
    policy = frontier(curves, "quick")
    for trial in (f"{cell}-{i}" for cell in CELL_COST for i in range(3)):
        assert policy.choose() == trial
        policy.begin(trial)
        policy.report(trial, REPORTS[0], 0.0, 60.0 if trial == "cheap-0" else 1.0)
    sparing, _, harsh = PROFILES["quick"]
    assert policy.brackets["cheap"].rungs == sparing.rungs(9, 2, REPORTS)
    assert policy.brackets["costly"].rungs == harsh.rungs(9, 2, REPORTS)


@frontier_policies
@given(grids(), st.sampled_from(sorted(PROFILES)), SLOTS, SEEDS, st.data())
def test_every_cell_has_two_completions_if_two_can_be(
    synchronous: bool, curves: Curves, profile: str, slots: int, seed: int, data: st.DataObject
) -> None:
    fails = data.draw(st.dictionaries(st.sampled_from(list(curves)), st.integers(0, 8)))
    played = play(frontier(curves, profile, 2, synchronous), curves, fails, Random(seed), slots)
    for cell in CELL_COST:
        sound = [trial for trial in curves if cell_of(trial) == cell and trial not in fails]
        assert sum(cell_of(trial) == cell for trial in played.completed) >= min(2, len(sound))


@frontier_policies
@given(grids(), SLOTS, SEEDS)
def test_a_paused_trial_resumes_where_it_was(synchronous: bool, curves: Curves, slots: int, seed: int) -> None:
    played = play(frontier(curves, synchronous=synchronous), curves, {}, Random(seed), slots)
    lengths: dict[str, list[float]] = {}
    for name, trial, *rest in played.calls:
        if name == "report":
            lengths.setdefault(trial, []).append(rest[0])
    assert all(tuple(at) == REPORTS[: len(at)] for at in lengths.values())
    assert all(len(lengths[trial]) == 9 for trial in played.completed)


@frontier_policies
@pytest.mark.parametrize("slots", [1, 3, 20])
def test_cells_that_report_once_are_trained_to_the_end(synchronous: bool, slots: int) -> None:
    curves = {f"{cell}-{i}": [float(i)] for cell in CELL_COST for i in range(5)}
    cells = {trial: cell_of(trial) for trial in curves}
    policy = FrontierAsha(cells, dict.fromkeys(CELL_COST, (1.0,)), PROFILES["quick"], 2, synchronous)
    assert play(policy, curves, {}, Random(0), slots, at=(1.0,)).completed == set(curves)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy on infinities
@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4), score), max_size=80),
    st.sampled_from([(1, 3, 27), (1, 2, 10), (0.5, 4, 20), (2.5, 3.5, 40)]),
)
def test_the_replayed_rule_is_that_of_rays_class(
    steps: list[tuple[int, int, float]], shape: tuple[float, float, float]
) -> None:
    """Random streams: trials report at any lengths, with ties, NaN and infinities; the end is not the rule's."""
    from ray.tune.schedulers import ASHAScheduler

    grace, eta, end = shape
    ray = ASHAScheduler("epochs", "score", "max", max_t=end, grace_period=grace, reduction_factor=eta)
    names = [str(i) for i in range(10)]
    replayed = ReplayAsha(names, grace, eta, end)
    for name in names:
        ray.on_trial_add(None, SimpleNamespace(trial_id=name))
    at = dict.fromkeys(names, 0.0)
    for which, forward, value in steps:
        name = names[which]
        at[name] += forward
        if at[name] >= end:
            continue
        decision = ray.on_trial_result(None, SimpleNamespace(trial_id=name), {"epochs": at[name], "score": value})
        assert replayed.report(name, at[name], value, 0.0) == decision.lower()


@pytest.mark.parametrize(("grace", "eta", "end"), [(1, 3, 27), (1, 3, 26.9), (1, 2, 1), (0.3, 3, 100), (2, 10, 2000)])
def test_rung_levels_are_those_of_ray(grace: float, eta: float, end: float) -> None:
    from ray.tune.schedulers.async_hyperband import _Bracket

    assert rung_levels(grace, eta, end) == tuple(level for level, _ in reversed(_Bracket(grace, end, eta, 0)._rungs))


def fronts_by_hand(points: Sequence[tuple[float, float]]) -> list[int]:
    """Remove the non-dominated points again and again; return the front of each point."""
    ranks = [-1] * len(points)
    front = 0
    while -1 in ranks:
        left = [i for i, rank in enumerate(ranks) if rank == -1]
        for i in left:
            cost, quality = points[i]
            rivals = [points[j] for j in left if points[j] != points[i]]
            if not any(c <= cost and q >= quality for c, q in rivals):
                ranks[i] = front
        front += 1
    return ranks


def spread_by_hand(front: Sequence[tuple[float, float]], own: int) -> float:
    """Distance between the neighbours on either side along the front; infinite at both ends."""
    order = sorted(range(len(front)), key=lambda i: front[i])
    place = order.index(own)
    if place in (0, len(front) - 1):
        return math.inf
    extents = [max(p[k] for p in front) - min(p[k] for p in front) or 1.0 for k in (0, 1)]
    before, after = front[order[place - 1]], front[order[place + 1]]
    return sum(abs(after[k] - before[k]) / extents[k] for k in (0, 1))


@given(st.lists(st.tuples(st.integers(0, 6), score), max_size=25))
def test_multi_objective_rank_is_that_of_brute_force(reports: list[tuple[int, float]]) -> None:
    """The rank at one rung: how many earlier points are on a better front, or on the same front with more spread."""
    policy = MoAsha([str(i) for i in range(len(reports))], grace=1, eta=3, end=9)
    seen: list[tuple[float, float]] = []
    for i, (cost, value) in enumerate(reports):
        verdict = policy.report(str(i), 1.0, value, float(cost))
        if not math.isfinite(value):
            assert verdict == "stop"
            continue
        seen.append((float(cost), value))
        ranks = fronts_by_hand(seen)
        same = [point for point, rank in zip(seen, ranks, strict=True) if rank == ranks[-1]]
        spreads = [spread_by_hand(same, k) for k in range(len(same))]
        ahead = sum(rank < ranks[-1] for rank in ranks) + sum(np.array(spreads) > spreads[-1] + 1e-12)
        assert verdict == ("continue" if ahead < max(len(seen) / 3, 1) else "stop")
