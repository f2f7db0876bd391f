"""Replays of grids whose answers are known beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from study.analysis.replay.contenders import CONTENDERS, contenders
from study.analysis.replay.curves import Curve
from study.analysis.replay.replay import Replay, Result, play, replay
from study.errors import ConfigError
from study.planning.trials import Cell
from study.schedulers.frontier_asha import GENTLE, STRICT
from tests.analysis.grids import EPOCHS, accuracy
from tests.schedulers.test_bracket import better_first

COST_OF_EPOCH = {16: 4.0, 64: 2.0, 256: 1.0}


def curve(batch_size: int, lr: float, seed: int, values: Sequence[float], epoch_s: float = 0.0) -> Curve:
    """A completed trial with these accuracies."""
    n = len(values)
    pace = epoch_s or COST_OF_EPOCH[batch_size]
    return Curve(
        trial_id=f"{batch_size}-{lr}-{seed}",
        cell=Cell(batch_size, 1),
        lr=lr,
        seed=seed,
        epochs=tuple(float(i + 1) for i in range(n)),
        shares=tuple((i + 1) / n for i in range(n)),
        cost_s=tuple(pace * (i + 1) for i in range(n)),
        quality=tuple(values),
        test_quality=None,
        completed=True,
    )


def grid(seeds: int = 3) -> list[Curve]:
    """Three batch sizes, four rates, some seeds, nine epochs."""
    return [
        curve(batch_size, lr, seed, [accuracy(batch_size, lr, seed, epoch) for epoch in range(1, EPOCHS + 1)])
        for batch_size in COST_OF_EPOCH
        for lr in (0.05, 0.1, 0.2, 0.4)
        for seed in range(seeds)
    ]


def played(curves: Sequence[Curve], names: str, shuffles: int = 5, seeds: int | None = None) -> Replay:
    return replay("here", curves, contenders(names), shuffles, 2, seeds)


def only(curves: Sequence[Curve], name: str, shuffles: int = 5, seeds: int | None = None) -> Result:
    (result,) = played(curves, name, shuffles, seeds).results
    return result


def staircase(points: Iterable[tuple[float, float]], highest_cost: float) -> float:
    """Area under the best accuracy that a cost can buy, up to the highest cost."""
    costs = sorted({cost for cost, _ in points})
    best = [max(value for c, value in points if c <= cost) for cost in costs]
    return sum(b * (after - cost) for cost, after, b in zip(costs, [*costs[1:], highest_cost], best, strict=True))


def test_the_grid_is_the_measure_of_all() -> None:
    result = only(grid(), "grid", seeds=2)
    for estimate in (result.cost_fraction, result.hv, result.log_hv):
        assert (estimate.mean, estimate.sd) == (1, 0)
    assert (result.log_hv_ge_99, result.batch_sizes_completed.mean, result.min_completions) == (1, 3, 4 * 2)


def test_hypervolume_and_cost_of_halving_by_hand() -> None:
    """With every seed in the draw, order and slots do not matter: sort, keep, and measure the stairs."""
    curves = grid()
    result = only(curves, "frontier_asha", seeds=3)
    done, spent = [], 0.0
    for batch_size, epoch_s in COST_OF_EPOCH.items():
        race = {c.trial_id: c for c in curves if c.cell.batch_size == batch_size}
        profile = STRICT if batch_size == 16 else GENTLE  # 4 of 7 is more than a third
        reports = next(iter(race.values())).shares
        rungs = profile.rungs(len(race), 2, reports)
        left, before = list(race), 0.0
        for rung in rungs:
            spent += len(left) * (rung.at - before) * EPOCHS * epoch_s
            at = {trial: race[trial].quality[reports.index(rung.at)] for trial in left}
            left, before = better_first(left, at)[: rung.keep], rung.at
        spent += len(left) * (1 - before) * EPOCHS * epoch_s
        done += [race[trial] for trial in left]
    everyone = [(c.cost_s[-1], c.quality[-1]) for c in curves]
    completed = [(c.cost_s[-1], c.quality[-1]) for c in done]
    highest_cost = EPOCHS * 4.0

    def log(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(math.log(cost), value) for cost, value in points]

    assert result.cost_fraction.mean == pytest.approx(spent / sum(cost for cost, _ in everyone))
    assert result.hv.mean == pytest.approx(staircase(completed, highest_cost) / staircase(everyone, highest_cost))
    assert result.log_hv.mean == pytest.approx(
        staircase(log(completed), math.log(highest_cost)) / staircase(log(everyone), math.log(highest_cost))
    )
    assert result.min_completions >= 2


def test_the_noise_of_the_clock_makes_no_frontier_points() -> None:
    """Two batch sizes cost the same but for noise and one is better: only that one is on the front, found or true."""
    values = {16: 0.8, 64: 0.9}
    curves = [
        curve(batch_size, 0.1, seed, [0.5, value], epoch_s=2 + 0.03 * ((seed + batch_size) % 3 - 1))
        for batch_size, value in values.items()
        for seed in range(6)
    ]
    result = only(curves, "grid", shuffles=20)
    assert (result.front_kept.mean, result.front_false.mean) == (1, 0)


def test_a_lucky_draw_makes_a_false_point_and_loses_a_true_one() -> None:
    """64 is cheaper and truly better than 16 but for one lucky seed of 16: a draw of it alone puts 16 on the front."""
    lucky = 5
    curves = [curve(16, 0.1, seed, [0.5, 0.95 if seed == lucky else 0.6]) for seed in range(6)]
    curves += [curve(64, 0.1, seed, [0.5, 0.9]) for seed in range(6)]
    result = only(curves, "grid", shuffles=200, seeds=1)
    drawn = result.front_false.mean / 0.5  # one of the two points found is false
    assert drawn == pytest.approx(1 / 6, abs=3 * math.sqrt(1 / 6 * 5 / 6 / 200))
    assert result.front_kept.mean == 1


def test_optimism_is_the_luck_of_the_best_over_the_seeds_held_back() -> None:
    luck = (0.0, 0.1, 0.2)
    curves = [curve(16, 0.1, seed, [0.3, 0.5 + luck[seed]]) for seed in range(3)]
    curves += [curve(64, 0.1, seed, [0.3, 0.5 + luck[seed]]) for seed in range(3)]
    result = only(curves, "grid", shuffles=200, seeds=2)
    assert result.optimism is not None
    expected = ((0.1 - 0.2) + (0.2 - 0.1) + (0.2 - 0.0)) / 3  # held back: the best, the middle, the worst
    assert result.optimism.mean == pytest.approx(expected, abs=3 * result.optimism.sd / math.sqrt(200))
    assert result.optimism.ci is not None
    assert only(curves, "grid", seeds=3).optimism is None


def test_the_gap_to_the_test_accuracy_shows_selection_bias() -> None:
    curves = [replace(trial, test_quality=trial.quality[-1] - 0.02) for trial in grid()]
    gap = only(curves, "frontier_asha").test_gap
    assert gap is not None
    assert gap.mean == pytest.approx(0.02)
    assert only(grid(), "grid").test_gap is None


def test_trials_that_diverge_are_paid_for_and_count_for_nothing() -> None:
    curves = [
        replace(trial, completed=False, **{name: getattr(trial, name)[:3] for name in ("epochs", "shares", "cost_s")})
        if trial.lr == 0.4
        else trial
        for trial in grid()
    ]
    result = only(curves, "grid", seeds=3)
    assert (result.cost_fraction.mean, result.log_hv.mean, result.min_completions) == (1, 1, 9)
    assert only(curves, "frontier_asha", seeds=3).min_completions >= 2


def test_one_batch_size_has_no_volume_to_lose() -> None:
    curves = [trial for trial in grid() if trial.cell.batch_size == 16]
    assert only(curves, "frontier_asha").log_hv.mean == 1


@pytest.mark.parametrize("name", CONTENDERS)
def test_draws_do_not_depend_on_the_other_schedulers(name: str) -> None:
    together = played(grid(), ",".join(CONTENDERS))
    alone = played(grid(), name)
    assert alone == played(grid(), name)
    assert alone.results[0] in together.results


def test_world_sizes_are_searched_one_after_the_other_each_by_a_separate_policy() -> None:
    """Had one policy judged both, the expensive world size would make all cells of the other one look cheap."""
    alone = grid()
    wide = [
        replace(
            trial,
            trial_id=f"wide-{trial.trial_id}",
            cell=Cell(trial.cell.batch_size, 2),
            cost_s=tuple(30 * cost for cost in trial.cost_s),
        )
        for trial in alone
    ]
    both = only([*alone, *wide], "frontier_asha", seeds=3)
    assert both.cost_fraction.mean == pytest.approx(only(alone, "frontier_asha", seeds=3).cost_fraction.mean)
    steps = play(contenders("grid")[0], [*wide, *alone], np.random.default_rng(0), 2).simulation.events
    ranks = {trial.trial_id: trial.cell.world_size for trial in (*alone, *wide)}
    assert [ranks[step.trial] for step in steps] == sorted(ranks[step.trial] for step in steps)
    assert [step.at_s for step in steps] == sorted(step.at_s for step in steps)


def test_baselines_take_what_their_names_say() -> None:
    random, one = played(grid(), "random, one_seed", shuffles=200, seeds=3).results
    assert one.cost_fraction.mean == pytest.approx(1 / 3)
    assert one.min_completions == 4
    assert random.cost_fraction.mean == pytest.approx(1 / 4, abs=0.01)
    assert random.cost_fraction.sd > 0


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("frontier_asha, ahsa", "ahsa: must be one of frontier_asha, .*did you mean asha"),
        (" , ", "--scheduler: names none"),
    ],
)
def test_unknown_schedulers_are_refused(names: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        contenders(names)


def test_what_cannot_be_replayed_is_refused() -> None:
    with pytest.raises(ConfigError, match="--seeds: here has 3 seeds"):
        played(grid(), "grid", seeds=4)
    with pytest.raises(ConfigError, match="no trial completed"):
        played([replace(trial, completed=False) for trial in grid()], "grid")
