"""Schedulers replayed on the curves of a full grid: what each costs, and what the rates that it chooses are worth."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import fmean, stdev
from typing import Any

import numpy as np

from study.analysis.replay.contenders import Contender
from study.analysis.replay.curves import Curve
from study.analysis.replay.simulate import Course, Simulation, simulate
from study.analysis.statistics.samples import mean_interval
from study.config.objective import ACCURACY, Objective
from study.errors import ConfigError, DataError
from study.pareto.fronts import hypervolume, on_coarse_front
from study.planning.trials import Cell
from study.schedulers.base import Policy

COST_TOLERANCE = 0.05  # costs as close as this count as equal on a front
GOOD = 0.99


@dataclass(frozen=True)
class Estimate:
    """Mean and spread of a figure over all draws."""

    mean: float
    sd: float
    ci: tuple[float, float] | None  # 95% of the mean; None for one draw


@dataclass(frozen=True)
class Score:
    """The figures of one scheduler in one draw."""

    runs_per_batch_size: float  # device-seconds over those of one whole trial of every cell
    regret: float  # by which the chosen rate falls behind the best, in what differences are shown in; mean over cells
    regret_worst: float  # of any cell
    right_rate: float  # share of the cells whose best rate was chosen
    cost_fraction: float  # of the draw's grid, in device-seconds, pooled within each cell
    hv: float  # hypervolume of the completed trials, relative to the grid's
    log_hv: float  # the same over the logarithm of the cost
    batch_sizes_completed: int
    min_completions: int  # of any cell
    front_kept: float  # share of the true front's cells that are on the front found
    front_false: float  # share of the found front's cells that are not on the true one
    optimism: float | None  # quality of a cell's chosen trial, less that of its rate on held-back seeds
    test_gap: float | None  # quality of a cell's chosen trial, less that on the test set
    idle_share: float  # of the slots' time until the last trial has ended


@dataclass(frozen=True)
class Result:
    """The figures of one scheduler over all draws."""

    scheduler: str
    profile: str
    runs_per_batch_size: Estimate
    regret: Estimate
    regret_worst: Estimate
    right_rate: Estimate
    cost_fraction: Estimate
    log_hv: Estimate
    log_hv_ge_99: float  # share of the draws
    hv: Estimate
    batch_sizes_completed: Estimate
    min_completions: int  # of any cell in any draw
    front_kept: Estimate
    front_false: Estimate
    optimism: Estimate | None
    test_gap: Estimate | None
    idle_share: Estimate


@dataclass(frozen=True)
class Replay:
    """All schedulers on the same draws."""

    source: str
    shuffles: int
    slots: int
    trials: int  # of a draw
    seeds: int  # of a draw
    held_back: int  # seeds
    batch_sizes: int
    reference_cost_s: float  # of the hypervolumes: cost of the most expensive trial
    reference_quality: float  # of the hypervolumes: an accuracy of 0, or else the worst of a trial that completed
    objective: Objective
    results: tuple[Result, ...]
    tables: int = 1  # of several, estimates are taken from their means; other figures are those of the first


def pooled(replays: Sequence[Replay]) -> Replay:
    """Return the means of several tables' replays, with intervals over tables. All must have the same schedulers.

    Raises DataError if they are not judged by the same objective.
    """
    first = replays[0]
    for other in replays[1:]:
        if other.objective != first.objective:
            labels = f"{first.objective.label}, {other.source} by {other.objective.label}"
            raise DataError(f"{first.source} is judged by {labels}: their regrets have no mean; replay them one by one")
    results = []
    for same in zip(*(one.results for one in replays), strict=True):
        changes: dict[str, Any] = {}
        for field in fields(Result):
            values = [getattr(result, field.name) for result in same]
            known = [value.mean for value in values if isinstance(value, Estimate)]
            if known:
                changes[field.name] = _estimate(known)
            elif field.name == "min_completions":
                changes[field.name] = min(values)
            elif isinstance(values[0], float):
                changes[field.name] = fmean(values)
        results.append(dataclasses.replace(same[0], **changes))
    source = f"{len(replays)} tables"
    return dataclasses.replace(first, source=source, results=tuple(results), tables=len(replays))


def replay(
    source: str,
    curves: Sequence[Curve],
    contenders: Iterable[Contender],
    shuffles: int,
    slots: int,
    seeds: int | None = None,
    objective: Objective = ACCURACY,
) -> Replay:
    """Draw `shuffles` studies of some seeds of the grid in random order, and play every scheduler on each.

    `seeds`: how many a draw takes, a third (rounded up) when left out; the others are held back to estimate optimism.
    Raises ConfigError where the grid has fewer seeds, or no completed trial.
    """
    every = sorted({curve.seed for curve in curves})
    n = seeds if seeds is not None else math.ceil(len(every) / 3)
    if n > len(every):
        raise ConfigError(f"{source} has {len(every)} seeds", "--seeds")
    if not any(curve.completed for curve in curves):
        raise ConfigError(f"{source}: no trial completed")
    judge = _Judge(curves, objective)
    chosen = tuple(contenders)
    scores: list[list[Score]] = [[] for _ in chosen]
    for draw in range(shuffles):
        chance = np.random.default_rng([draw, 0])
        drawn = {every[i] for i in chance.permutation(len(every))[:n]}
        trials = [curves[i] for i in chance.permutation(len(curves)) if curves[i].seed in drawn]
        for contender, of_contender in zip(chosen, scores, strict=True):
            of_contender.append(
                judge.score(trials, play(contender, trials, np.random.default_rng([draw, 1]), slots), slots)
            )
    return Replay(
        source=source,
        shuffles=shuffles,
        slots=slots,
        trials=len(trials),
        seeds=n,
        held_back=len(every) - n,
        batch_sizes=len({curve.cell.batch_size for curve in curves}),
        reference_cost_s=judge.highest_cost_s,
        reference_quality=judge.floor,
        objective=objective,
        results=tuple(map(_result, chosen, scores)),
    )


@dataclass(frozen=True)
class Played:
    """A simulated search, and the rate that it chooses for each cell; cells whose trials all diverged have none."""

    simulation: Simulation
    rates: Mapping[Cell, float]


def play(contender: Contender, trials: Sequence[Curve], chance: np.random.Generator, slots: int) -> Played:
    """Simulate one study: world sizes one after the other, each with a separate policy."""
    played: list[Simulation] = []
    rates: dict[Cell, float] = {}
    for world_size in sorted({trial.cell.world_size for trial in trials}):
        some = [trial for trial in trials if trial.cell.world_size == world_size]
        courses = {
            trial.trial_id: Course(
                trial.progress(contender.unit), trial.quality, trial.cost_s, world_size, trial.completed
            )
            for trial in some
        }
        policy = contender.make(some, chance)
        played.append(simulate(policy, courses, slots))
        for cell in dict.fromkeys(trial.cell for trial in some):
            rate = _chosen_rate(policy, [trial for trial in some if trial.cell == cell], played[-1])
            if rate is not None:
                rates[cell] = rate
    return Played(sum(played[1:], start=played[0]), rates)


def _chosen_rate(policy: Policy, trials: Sequence[Curve], played: Simulation) -> float | None:
    """Return the rate that a study chooses (`tuning/progress.py:Progress.chosen_rate`): the policy's, else that of the
    best mean over seeds among the trials that came furthest.
    """
    picked = policy.pick([trial.trial_id for trial in trials])
    if picked is not None:
        return next(trial.lr for trial in trials if trial.trial_id == picked)
    reached = {trial.trial_id: played.trials[trial.trial_id].reports for trial in trials}
    sound = [trial for trial in trials if trial.completed or reached[trial.trial_id] < len(trial.quality)]
    furthest = max((reached[trial.trial_id] for trial in sound), default=0)
    ends: dict[float, list[float]] = defaultdict(list)
    for trial in sound:
        if furthest and reached[trial.trial_id] == furthest:
            ends[trial.lr].append(trial.quality[furthest - 1])
    return max(ends, key=lambda lr: (fmean(ends[lr]), lr), default=None)


class _Judge:
    """Figures of the whole grid that do not depend on draws: cost of cells, quality of rates, and the true front."""

    def __init__(self, curves: Sequence[Curve], objective: Objective) -> None:
        whole = [curve for curve in curves if curve.completed]
        floor, self.unit = objective.floor, objective.difference_scale
        self.floor = min(curve.quality[-1] for curve in whole) if floor is None else floor
        self.highest_cost_s = max(curve.cost_s[-1] for curve in whole)
        costs: dict[Cell, list[float]] = defaultdict(list)
        for curve in whole:
            costs[curve.cell].append(curve.cost_s[-1])
        # One cost for a cell: its trials do the same work and differ by the noise of the clock.
        self.cost_s = {cell: fmean(some) for cell, some in costs.items()}
        reports: dict[tuple[Cell, int], list[float]] = defaultdict(list)
        for curve in curves:
            for n, cost_s in enumerate(curve.cost_s, start=1):
                reports[curve.cell, n].append(cost_s)
        self.cost_to_report_s = {place: fmean(some) for place, some in reports.items()}
        self.qualities: dict[tuple[Cell, float], dict[int, float]] = defaultdict(dict)
        for curve in curves:
            # A rate that diverges is worth the least quality.
            self.qualities[curve.cell, curve.lr][curve.seed] = curve.quality[-1] if curve.completed else self.floor
        self.true_front = self._front(
            [(cell, fmean(some.values())) for (cell, _), some in self.qualities.items() if cell in self.cost_s]
        )

    def score(self, trials: Sequence[Curve], search: Played, slots: int) -> Score:
        """Score what a scheduler chose and completed against the full grid of the draw."""
        played = search.simulation
        done = [trial for trial in trials if played.trials[trial.trial_id].completed]
        everyone = [trial for trial in trials if trial.completed]
        completions = Counter(trial.cell for trial in done)
        front = self._front([(trial.cell, trial.quality[-1]) for trial in done])
        best: dict[Cell, Curve] = {}
        for trial in done:
            if trial.cell not in best or trial.quality[-1] > best[trial.cell].quality[-1]:
                best[trial.cell] = trial
        drawn = {trial.seed for trial in trials}
        spent_s = self._spent_s(trials, [played.trials[trial.trial_id].reports for trial in trials])
        regrets = self._regrets(trials, search.rates, drawn)
        return Score(
            runs_per_batch_size=sum(ran.cost_s for ran in played.trials.values()) / sum(self.cost_s.values()),
            regret=self.unit * fmean(regrets),
            regret_worst=self.unit * max(regrets),
            right_rate=fmean(regret == 0 for regret in regrets),
            cost_fraction=spent_s / self._spent_s(trials, [len(trial.cost_s) for trial in trials]),
            hv=self._kept(done, everyone, log=False),
            log_hv=self._kept(done, everyone, log=True),
            batch_sizes_completed=len({cell.batch_size for cell in completions}),
            min_completions=min(completions[trial.cell] for trial in trials),
            front_kept=len(front & self.true_front) / len(self.true_front),
            front_false=len(front - self.true_front) / len(front) if front else 0.0,
            optimism=_mean(self._optimism(trial, drawn) for trial in best.values()),
            test_gap=_mean(
                None if trial.test_quality is None else trial.quality[-1] - trial.test_quality
                for trial in best.values()
            ),
            idle_share=played.idle_slot_s / (slots * played.makespan_s),
        )

    def _spent_s(self, trials: Sequence[Curve], reports: Sequence[int]) -> float:
        """Return the device-seconds of trials up to so many reports, at the mean pace of their cells."""
        return sum(self.cost_to_report_s[trial.cell, n] for trial, n in zip(trials, reports, strict=True) if n)

    def _regrets(self, trials: Sequence[Curve], chosen: Mapping[Cell, float], drawn: set[int]) -> list[float]:
        """Return for each cell what its best rate is worth more than the chosen one, on seeds that the search did not
        use, where there are any.
        """
        worth: dict[Cell, dict[float, float]] = defaultdict(dict)
        for (cell, lr), by_seed in self.qualities.items():
            others = [quality for seed, quality in by_seed.items() if seed not in drawn]
            worth[cell][lr] = fmean(others or by_seed.values())
        cells = dict.fromkeys(trial.cell for trial in trials)
        return [max(worth[cell].values()) - worth[cell].get(chosen.get(cell, math.nan), self.floor) for cell in cells]

    def _optimism(self, trial: Curve, drawn: set[int]) -> float | None:
        others = [acc for seed, acc in self.qualities[trial.cell, trial.lr].items() if seed not in drawn]
        return trial.quality[-1] - fmean(others) if others else None

    def _front(self, points: Sequence[tuple[Cell, float]]) -> set[Cell]:
        """Return the cells on the coarse front; points of a cell cost the same, so each cell is on it at most once."""
        places = np.array([(self.cost_s[cell], accuracy) for cell, accuracy in points])
        return {points[int(i)][0] for i in np.flatnonzero(on_coarse_front(places, COST_TOLERANCE))}

    def _kept(self, done: Sequence[Curve], everyone: Sequence[Curve], log: bool) -> float:
        whole = self._hypervolume(everyone, log)
        return self._hypervolume(done, log) / whole if whole else 1.0  # the grid has no area, so none is lost

    def _hypervolume(self, trials: Sequence[Curve], log: bool) -> float:
        places = np.array([(self.cost_s[trial.cell], trial.quality[-1]) for trial in trials]).reshape(-1, 2)
        reference_cost = self.highest_cost_s
        if log:
            places[:, 0], reference_cost = np.log(places[:, 0]), math.log(reference_cost)
        return hypervolume(places, (reference_cost, self.floor))


def _result(contender: Contender, scores: Sequence[Score]) -> Result:
    return Result(
        scheduler=contender.scheduler,
        profile=contender.profile,
        runs_per_batch_size=_estimate([score.runs_per_batch_size for score in scores]),
        regret=_estimate([score.regret for score in scores]),
        regret_worst=_estimate([score.regret_worst for score in scores]),
        right_rate=_estimate([score.right_rate for score in scores]),
        cost_fraction=_estimate([score.cost_fraction for score in scores]),
        log_hv=_estimate([score.log_hv for score in scores]),
        log_hv_ge_99=fmean(score.log_hv >= GOOD for score in scores),
        hv=_estimate([score.hv for score in scores]),
        batch_sizes_completed=_estimate([score.batch_sizes_completed for score in scores]),
        min_completions=min(score.min_completions for score in scores),
        front_kept=_estimate([score.front_kept for score in scores]),
        front_false=_estimate([score.front_false for score in scores]),
        optimism=_estimate_of_known([score.optimism for score in scores]),
        test_gap=_estimate_of_known([score.test_gap for score in scores]),
        idle_share=_estimate([score.idle_share for score in scores]),
    )


def _estimate(values: Sequence[float]) -> Estimate:
    return Estimate(fmean(values), stdev(values) if len(values) > 1 else 0.0, mean_interval(values))


def _estimate_of_known(values: Iterable[float | None]) -> Estimate | None:
    known = [value for value in values if value is not None]
    return _estimate(known) if known else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
