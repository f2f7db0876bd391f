"""The ridge search on surfaces whose best rates are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.analysis.replay.simulate import Course, Simulation, simulate
from study.schedulers.rate_surface import fit
from study.schedulers.ridge import CARES, SHARES, Candidate, Care, Ridge, _Thought, _Values
from tests.schedulers.play import play

BATCH_SIZES = (16, 32, 64, 128, 256, 512)
RATES = tuple(10 ** (i / 2 - 4) for i in range(7))
REPORTS = tuple((i + 1) / 27 for i in range(27))


def trial(batch_size: int, rate: float, family: str = "") -> str:
    return f"{family}b{batch_size}r{RATES.index(rate)}"


def candidates(family: str = "", batch_sizes: Sequence[int] = BATCH_SIZES) -> list[Candidate]:
    return [Candidate(trial(b, lr, family), family, b, lr, REPORTS) for b in batch_sizes for lr in RATES]


def final(batch_size: int, rate: float, slope: float = 0.5) -> float:
    """The final score: best on a line of this slope through rate 0.01 at batch 64."""
    off = math.log10(rate) + 2 - slope * math.log10(batch_size / 64)
    return 0.9 - 0.05 * off**2


def courses(slope: float = 0.5, noise: float = 0.0, seed: int = 0, family: str = "") -> dict[str, Course]:
    """Curves that rise to the final score; larger batches cost less."""
    chance = np.random.default_rng(seed)
    return {
        trial(b, lr, family): Course(
            REPORTS,
            [final(b, lr, slope) - 0.5 * (1 - share) ** 3 + noise * chance.normal() for share in REPORTS],
            [share * (1 + 64 / b) for share in REPORTS],
        )
        for b in BATCH_SIZES
        for lr in RATES
    }


def runs(played: Simulation, of: dict[str, Course]) -> float:
    """Return what a search cost, in full runs per batch size."""
    return sum(ran.cost_s for ran in played.trials.values()) / sum(
        of[trial(b, RATES[0])].cost_s[-1] for b in BATCH_SIZES
    )


def picks(search: Ridge, family: str = "") -> dict[int, float]:
    found = {}
    for b in BATCH_SIZES:
        picked = search.pick([trial(b, lr, family) for lr in RATES])
        assert picked is not None
        found[b] = RATES[int(picked[-1])]
    return found


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("slots", [1, 2, 16])
def test_the_rates_of_a_ridge_are_found_for_one_and_a_half_runs(slope: float, slots: int) -> None:
    search, of = Ridge(candidates(), CARES["balanced"]), courses(slope, noise=0.001)
    played = simulate(search, of, slots)
    regrets = [max(final(b, lr, slope) for lr in RATES) - final(b, rate, slope) for b, rate in picks(search).items()]
    assert sum(regrets) / len(regrets) < 0.006
    if slots < 16:  # with more, it decides without the reports that are on their way
        assert max(regrets) < 0.003
    assert runs(played, of) <= 1.5 + (0.5 if slots == 16 else 0.1)
    # A slot stands still only once the search is over.
    over_s = max(event.at_s for event in played.events if event.kind in ("start", "promote"))
    assert played.idle_slot_s <= slots * (played.makespan_s - over_s) + 1e-9


def test_a_careful_search_spends_more() -> None:
    of = courses(noise=0.02)
    spent = [runs(simulate(Ridge(candidates(), CARES[name]), of, 2), of) for name in ("balanced", "careful")]
    assert spent[0] < spent[1] <= 2.1


def test_what_is_written_in_any_order_or_unit_gives_the_same_search() -> None:
    of = courses(noise=0.01)
    plain = simulate(Ridge(candidates(), CARES["balanced"]), of, 2)
    shuffled = Random(0).sample(candidates(), k=len(candidates()))
    scaled = {
        name: Course(c.at, [8 * score for score in c.scores], [4 * s for s in c.cost_s]) for name, c in of.items()
    }
    other = simulate(Ridge(shuffled, CARES["balanced"]), {one.trial: scaled[one.trial] for one in shuffled}, 2)
    assert [(event.trial, event.kind) for event in plain.events if event.kind != "drop"] == [
        (event.trial, event.kind) for event in other.events if event.kind != "drop"
    ]


def test_rates_that_diverge_are_not_chosen() -> None:
    of = courses(1.0)
    high = {name: Course(c.at, c.scores, c.cost_s, completes=name[-1] not in "56") for name, c in of.items()}
    search = Ridge(candidates(), CARES["careful"])
    played = simulate(search, high, 2)
    failed = {event.trial for event in played.events if event.kind == "fail"}
    assert failed
    assert failed.isdisjoint(trial(b, lr) for b, lr in picks(search).items())


def test_a_batch_size_of_which_every_rate_diverges_has_no_choice_and_the_others_have() -> None:
    of = {
        name: Course(c.at[:1], c.scores[:1], c.cost_s[:1], completes=False) if name.startswith("b16r") else c
        for name, c in courses().items()
    }
    search = Ridge(candidates(), CARES["balanced"])
    simulate(search, of, 2)
    others = [search.pick([trial(b, lr) for lr in RATES]) for b in BATCH_SIZES]
    failed = sum(event.kind == "fail" for event in simulate(Ridge(candidates(), CARES["balanced"]), of, 2).events)
    assert others[0] is None or failed < len(RATES)  # those that failed are not chosen
    assert None not in others[1:]


def test_families_learn_nothing_from_one_another() -> None:
    """Two variants with opposite ridges: each finds its own, as it does alone."""
    both = courses(0.0, family="a") | courses(1.0, family="z")
    search = Ridge([*candidates("a"), *candidates("z")], CARES["careful"])
    simulate(search, both, 2)
    for family, slope in (("a", 0.0), ("z", 1.0)):
        for b, rate in picks(search, family).items():
            assert max(final(b, lr, slope) for lr in RATES) - final(b, rate, slope) < 0.013


def test_rungs_lie_at_reports_and_short_trials_have_few() -> None:
    whole = Ridge([Candidate("a", "", 16, 0.1, REPORTS), Candidate("b", "", 16, 0.2, (0.5, 1.0))], CARES["balanced"])
    assert whole.pauses("a") == {1 / 27, 3 / 27, 6 / 27, 12 / 27, 18 / 27}
    assert whole.pauses("b") == {0.5}
    # The scale of lengths: 1 at a share of 1/27, 0 at the end.
    assert [whole._grid.sites.t[whole._grid.site_of["a", rung]] for rung in (0, 5)] == pytest.approx([1.0, 0.0])
    assert len(SHARES) == 6


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_knowledge_gradient_is_that_of_many_draws(seed: int) -> None:
    """Draw a report, update all final means by it, and take the best: the mean gain over draws is the figure."""
    chance = np.random.default_rng(seed)
    search = Ridge(candidates(batch_sizes=BATCH_SIZES[:3]), CARES["balanced"])
    grid = search._grid
    scores = {
        (one.trial, 1): final(one.batch_size, one.rate) + 0.02 * chance.normal()
        for one in candidates(batch_sizes=BATCH_SIZES[:3])[::3]
    }
    thought = _Thought(grid, scores, [])
    steps = [grid.site_of["b16r2", 5], grid.site_of["b64r4", 3]]
    nothing = grid.sites.take(np.array([], dtype=np.int64))
    found = thought.gains(thought.surface.known(nothing), grid.sites.take(np.array(steps)))
    # The same by brute force, with dense algebra.
    values = _Values.of(scores)
    surface = fit(
        grid.sites.take(np.array([grid.site_of[step] for step in scores])), values.transformed(list(scores.values()))
    )
    known, ends = surface.known(grid.sites.take(np.array([], dtype=np.int64))), grid.sites.take(grid.ends)
    means, covariance = surface.means(ends), known.covariance(ends, ends)
    for step, gain in zip(steps, found, strict=True):
        one = grid.sites.take(np.array([step]))
        cross, variance = known.covariance(ends, one)[:, 0], known.variances(one)[0]
        report = chance.normal(size=(40_000, 1)) * math.sqrt(variance)
        after_means, after_variance = means + report * cross / variance, np.diag(covariance) - cross**2 / variance
        after = values.mean_back(after_means, np.maximum(after_variance, 0))
        now = values.mean_back(means, np.diag(covariance))
        gains = [after[:, grid.group_of_cell == g].max(axis=1) - now[grid.group_of_cell == g].max() for g in range(3)]
        brute = np.mean(gains, axis=0)
        assert gain == pytest.approx(brute.mean(), abs=5 * brute.std() / 200 + 0.02 * abs(brute.mean()) + 1e-9)


def test_choices_made_under_play_end_every_trial() -> None:
    of = courses(noise=0.01)
    played = play(
        Ridge(candidates(), CARES["balanced"]), {n: list(c.scores) for n, c in of.items()}, {}, Random(0), 3, REPORTS
    )
    assert played.completed | played.dropped == set(of)
    assert len(played.completed) >= 3


def test_the_state_follows_from_the_calls() -> None:
    """A driver that is killed has called `choose` more often than the one that goes on from its rows."""
    of = courses(noise=0.02)
    calls = play(
        Ridge(candidates(), CARES["balanced"]), {n: list(c.scores) for n, c in of.items()}, {}, Random(0), 3, REPORTS
    ).calls
    live = Ridge(candidates(), CARES["balanced"])
    for i, (name, *arguments) in enumerate(calls):
        if i % 40 == 0:
            rebuilt = Ridge(candidates(), CARES["balanced"])
            for before, *with_arguments in calls[:i]:
                getattr(rebuilt, before)(*with_arguments)
            assert rebuilt.choose() == live.choose()
            assert rebuilt.pick([trial(16, lr) for lr in RATES]) == live.pick([trial(16, lr) for lr in RATES])
        live.choose()
        getattr(live, name)(*arguments)


def test_a_search_without_an_end_trains_every_trial_whole() -> None:
    """The trials that run last come to their ends too."""
    endless = Care(still=math.inf, loss=0.0, most=math.inf, expected=math.inf)
    few = [one for one in candidates(batch_sizes=(16, 512)) if one.rate in RATES[2:4]]
    of = {one.trial: courses()[one.trial] for one in few}
    for slots in (1, 2, 4):
        played = simulate(Ridge(few, endless), of, slots)
        assert all(ran.completed for ran in played.trials.values())


def test_an_end_that_comes_early_counts_with_its_own_score() -> None:
    """At a target, before the first rung or between two."""
    search = Ridge(candidates(), CARES["balanced"])
    at_once, between = trial(512, RATES[0]), trial(512, RATES[2])
    for name, shares in ((at_once, (1 / 54,)), (between, (1 / 27, 2 / 27, 5 / 54))):
        search.begin(name)
        for share in shares:
            search.report(name, share, 0.2 + share, share)
        search.leave(name, completed=True)
        assert search._scores[name, 5] == 0.2 + shares[-1]
    assert search.choose() is not None


def test_each_variant_opens_with_every_second_cell_of_its_own_grid() -> None:
    def opening(search: Ridge) -> list[str]:
        found = []
        while (name := search.choose()) is not None and name not in found and len(found) < 100:
            if len(search._first) == len(found):
                break
            found.append(name)
            search.begin(name)
        return found

    alone = opening(Ridge(candidates(), CARES["balanced"]))
    both = opening(Ridge([*candidates("a"), *candidates("z")], CARES["balanced"]))
    for family in "az":
        assert [name.removeprefix(family) for name in both if name.startswith(family)] == alone
    assert len({name.split("r")[0] for name in alone[:6]}) == 6  # one of each batch size first


def test_running_trials_are_spread_over_the_batch_sizes_that_are_left() -> None:
    """Of batch 16 every rate fails; four slots are not all given to one of the others."""
    search, of = Ridge(candidates(), CARES["careful"]), courses()
    for name in list(search._first):
        search.begin(name)
        search.report(name, REPORTS[0], of[name].scores[0], of[name].cost_s[0])
    for lr in RATES:
        search.leave(trial(16, lr), completed=False)
    running = []
    for _ in range(5):
        name = search.choose()
        assert name is not None
        search.begin(name)
        running.append(name.split("r")[0])
    assert sorted(running) == ["b128", "b256", "b32", "b512", "b64"]
