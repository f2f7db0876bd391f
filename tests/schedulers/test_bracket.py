"""Brackets against sorting, against the published algorithm, and against trials that fail."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from study.schedulers.bracket import Profile, Rung
from study.schedulers.frontier_asha import GENTLE, HARSH, SPARING, STRICT
from tests.schedulers.play import REPORTS, BracketPolicy, play

SLOTS = st.integers(1, 8)
SEEDS = st.integers(0, 2**32)
profiles = st.sampled_from([GENTLE, SPARING, STRICT, HARSH])
# Few values, so that ties are common, and some non-finite ones.
NON_FINITE = (math.nan, math.inf, -math.inf)
score = st.one_of(st.integers(-3, 3).map(float), st.sampled_from(NON_FINITE))


def nine_scores(chance: Random) -> list[float]:
    """Draw what `score` draws. Hypothesis, which takes most of a test's time to draw so many, draws the seed."""
    return [float(chance.randint(-3, 3)) if chance.random() < 0.5 else chance.choice(NON_FINITE) for _ in range(9)]


@st.composite
def races(draw: st.DrawFn) -> dict[str, list[float]]:
    """Draw the curves of up to 14 trials, nine scores each."""
    chance = Random(draw(SEEDS))
    return {f"t{i}": nine_scores(chance) for i in range(draw(st.integers(1, 14)))}


def better_first(trials: Sequence[str], scores: Mapping[str, float]) -> list[str]:
    """Sort trials: best first, non-finite scores last, ties as planned."""
    return sorted(trials, key=lambda t: -scores[t] if math.isfinite(scores[t]) else math.inf)


def column(race: Mapping[str, Sequence[float]], at: float) -> dict[str, float]:
    """Return the score of every trial at a length."""
    return {trial: curve[REPORTS.index(at)] for trial, curve in race.items()}


def halved(race: Mapping[str, Sequence[float]], rungs: Sequence[Rung]) -> list[str]:
    """Successive halving, directly: at each rung sort the remaining trials and keep the best."""
    left = list(race)
    for rung in rungs:
        left = sorted(better_first(left, column(race, rung.at))[: rung.keep], key=list(race).index)
    return left


@given(races(), profiles, st.integers(1, 3), SLOTS, SEEDS)
def test_synchronous_is_sort_and_keep_whatever_the_order_of_arrival(
    race: dict[str, list[float]], profile: Profile, least: int, slots: int, seed: int
) -> None:
    rungs = profile.rungs(len(race), least, REPORTS)
    played = play(BracketPolicy(list(race), rungs, synchronous=True), race, {}, Random(seed), slots)
    assert played.completed == set(halved(race, rungs))
    assert played.completed | played.dropped == set(race)
    assert not played.completed & played.dropped


class Published:
    """get_job of Li et al. 2018, algorithm 2, looking at everything each time; a rung's eta is before / keep."""

    def __init__(self, trials: Sequence[str], rungs: Sequence[Rung]) -> None:
        self.rungs, self.new = rungs, list(trials)
        self.order = list(trials)
        self.seen: list[dict[str, float]] = [{} for _ in rungs]
        self.promoted: list[set[str]] = [set() for _ in rungs]

    def choose(self) -> str | None:
        before = [len(self.order), *(rung.keep for rung in self.rungs)]
        for k in reversed(range(len(self.rungs))):
            seen = self.seen[k]
            top = better_first(sorted(seen, key=self.order.index), seen)[: len(seen) * self.rungs[k].keep // before[k]]
            for trial in top:
                if trial not in self.promoted[k]:
                    return trial
        return self.new[0] if self.new else None

    def begin(self, trial: str) -> None:
        if trial in self.new:
            self.new.remove(trial)
            return
        k = max(k for k, seen in enumerate(self.seen) if trial in seen)
        self.promoted[k].add(trial)

    def report(self, trial: str, at: float, score: float, cost: float) -> str:
        for k, rung in enumerate(self.rungs):
            if at == rung.at:
                self.seen[k][trial] = score
                return "pause"
        return "continue"

    def leave(self, trial: str, completed: bool) -> None:
        pass

    def dropped(self) -> list[str]:
        return []


@given(races(), profiles, st.integers(1, 3), SLOTS, SEEDS)
def test_asynchronous_is_the_published_algorithm(
    race: dict[str, list[float]], profile: Profile, least: int, slots: int, seed: int
) -> None:
    rungs = profile.rungs(len(race), least, REPORTS)
    played = play(BracketPolicy(list(race), rungs, synchronous=False), race, {}, Random(seed), slots)
    published = play(Published(list(race), rungs), race, {}, Random(seed), slots)
    assert played.calls == published.calls


@given(races(), profiles, st.booleans(), SLOTS, SEEDS, st.data())
def test_failures_are_replaced_while_a_trial_is_left(
    race: dict[str, list[float]], profile: Profile, synchronous: bool, slots: int, seed: int, data: st.DataObject
) -> None:
    fails = data.draw(st.dictionaries(st.sampled_from(list(race)), st.integers(0, 8)))
    rungs = profile.rungs(len(race), 2, REPORTS)
    played = play(BracketPolicy(list(race), rungs, synchronous), race, fails, Random(seed), slots)
    sound = len(race) - len(fails)
    places = rungs[-1].keep if rungs else len(race)
    assert len(played.completed) >= min(places, sound)
    if synchronous:
        assert len(played.completed) == min(places, sound)
    assert played.completed | played.failed | played.dropped == set(race)


def test_a_rung_without_trials_left_is_filled_from_the_rung_below() -> None:
    rungs = (Rung(1 / 9, 3), Rung(3 / 9, 2))
    race = {trial: [float(value)] * 9 for trial, value in zip("abcdef", (6, 5, 4, 3, 2, 1), strict=True)}
    dies_late = dict.fromkeys("abc", 8)
    played = play(BracketPolicy("abcdef", rungs, synchronous=True), race, dies_late, Random(0), 2)
    assert played.completed == {"d", "e"}
    assert played.dropped == {"f"}


@pytest.mark.parametrize("synchronous", [True, False])
def test_a_paused_trial_that_is_lost_is_replaced_by_the_next(synchronous: bool) -> None:
    bracket = BracketPolicy("abc", (Rung(1 / 9, 1),), synchronous)
    for trial, value in zip("abc", (3.0, 2.0, 1.0), strict=True):
        bracket.begin(trial)
        bracket.report(trial, 1 / 9, value)
    bracket.leave("a", completed=False)
    assert bracket.promotion() == "b"
    assert bracket.waiting() == ["b", "c"]


@given(races(), profiles, st.booleans(), SLOTS, SEEDS)
def test_the_trial_that_leads_at_every_report_completes(
    race: dict[str, list[float]], profile: Profile, synchronous: bool, slots: int, seed: int
) -> None:
    leader = Random(seed).choice(list(race))
    race[leader] = [100.0] * 9
    rungs = profile.rungs(len(race), 1, REPORTS)
    played = play(BracketPolicy(list(race), rungs, synchronous), race, {}, Random(seed), slots)
    assert leader in played.completed


@given(races(), profiles, st.booleans(), SLOTS, SEEDS)
def test_only_the_ranking_counts(
    race: dict[str, list[float]], profile: Profile, synchronous: bool, slots: int, seed: int
) -> None:
    rungs = profile.rungs(len(race), 2, REPORTS)
    rescaled = {trial: [1e-3 * math.atan(v) ** 3 + 7 if math.isfinite(v) else v for v in race[trial]] for trial in race}

    def decisions(curves: Mapping[str, Sequence[float]]) -> list[str]:
        return play(BracketPolicy(list(race), rungs, synchronous), curves, {}, Random(seed), slots).started

    assert decisions(rescaled) == decisions(race)


@given(races(), profiles, SLOTS, SEEDS, st.data())
def test_the_state_follows_from_any_prefix_of_the_calls(
    race: dict[str, list[float]], profile: Profile, slots: int, seed: int, data: st.DataObject
) -> None:
    fails = data.draw(st.dictionaries(st.sampled_from(list(race)), st.integers(0, 8)))
    rungs = profile.rungs(len(race), 2, REPORTS)
    synchronous = data.draw(st.booleans())
    calls = play(BracketPolicy(list(race), rungs, synchronous), race, fails, Random(seed), slots).calls
    cut = data.draw(st.integers(0, len(calls)))
    live, rebuilt = BracketPolicy(list(race), rungs, synchronous), BracketPolicy(list(race), rungs, synchronous)
    for name, *arguments in calls[:cut]:
        live.promotion()  # the live bracket is queried all the time
        getattr(live, name)(*arguments)
        getattr(rebuilt, name)(*arguments)
    for name, *arguments in calls[cut:]:
        assert (live.promotion(), live.newcomer(), live.finished) == (
            rebuilt.promotion(),
            rebuilt.newcomer(),
            rebuilt.finished,
        )
        assert getattr(live, name)(*arguments) == getattr(rebuilt, name)(*arguments)


@given(
    st.lists(st.tuples(st.floats(0.001, 1), st.floats(0.01, 1)), max_size=4),
    st.integers(1, 60),
    st.integers(1, 4),
    st.integers(1, 40),
)
@example([(1 / 9, 2 / 3)], 18, 2, 27)
def test_rungs_ascend_and_each_stops_a_trial(
    shares: list[tuple[float, float]], trials: int, least: int, reports: int
) -> None:
    profile = Profile(tuple(sorted(shares)))
    at = [(i + 1) / reports for i in range(reports)]
    rungs = profile.rungs(trials, least, at)
    assert [rung.at for rung in rungs] == sorted({rung.at for rung in rungs})
    competing = [trials, *(rung.keep for rung in rungs)]
    assert all(later < earlier for earlier, later in itertools.pairwise(competing))
    assert min(competing) >= min(least, trials)
    assert all(rung.at in at and rung.at < 1 for rung in rungs)


def test_a_trial_that_stood_in_for_a_failed_one_is_replaced_too() -> None:
    """Six go on past a rung that keeps four, since each was the best so far; five of them fail."""
    inf, nan = math.inf, math.nan
    race = {
        "t0": [inf, -inf, -inf, nan, 1.0, -2.0, -3.0, -3.0, inf],
        "t1": [-3.0, inf, -inf, 2.0, inf, inf, nan, -inf, 3.0],
        "t2": [inf, -1.0, nan, 2.0, nan, inf, -3.0, 1.0, 0.0],
        "t3": [3.0, -inf, 3.0, nan, inf, 0.0, -1.0, -1.0, -inf],
        "t4": [inf, inf, inf, -1.0, -inf, -inf, -3.0, -inf, 3.0],
        "t5": [3.0, -inf, inf, nan, 3.0, -1.0, 3.0, -2.0, -1.0],
        "t6": [1.0, -inf, -1.0, -2.0, -inf, -1.0, 0.0, -inf, 0.0],
        "t7": [-2.0, nan, 0.0, inf, 0.0, -1.0, 3.0, 1.0, 2.0],
    }
    fails = {"t0": 3, "t1": 3, "t3": 4, "t5": 3, "t6": 4}
    policy = BracketPolicy(list(race), SPARING.rungs(8, 2, REPORTS), synchronous=False)
    assert len(play(policy, race, fails, Random(555), 3).completed) == 2
