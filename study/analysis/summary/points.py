"""Points of a study, each a configuration averaged over its confirm seeds, and the frontier on each cost axis."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from study.analysis.records import COST_AXES, Cost, Point, TrialRecord
from study.analysis.statistics.samples import Sample, mean_interval
from study.analysis.statistics.uncertainty import MIN_SEEDS, Frontier, frontier
from study.config.sections import CostAxis
from study.planning.trials import Cell


def points_of(
    trials: Iterable[TrialRecord],
    axis: CostAxis,
    variants: Sequence[str],
    include_setup: bool = False,
    beside: Sequence[str] = (),
    tokens_per_sample: int | None = None,
) -> tuple[Point, ...]:
    """Return a point for each configuration with a completed confirm trial.

    By world size, variant in the order of `variants`, and batch size. `on_frontier` is false and `p_on_front` None
    everywhere: `frontiers_of` finds the frontier.
    """
    confirm: dict[Cell, list[TrialRecord]] = defaultdict(list)
    search: dict[Cell, list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        if trial.phase == "confirm":
            confirm[trial.cell].append(trial)
        else:
            search[trial.cell].append(trial)
    return tuple(
        _point(
            done,
            sum(trial.censored for trial in confirm[key]),
            search[key],
            axis,
            include_setup,
            beside,
            tokens_per_sample,
        )
        for key in sorted(confirm, key=lambda cell: (cell.world_size, variants.index(cell.variant), cell.batch_size))
        if (done := [trial for trial in confirm[key] if trial.outcome == "completed"])
    )


def point_samples(
    points: Sequence[Point], trials: Iterable[TrialRecord], axis: CostAxis, include_setup: bool = False
) -> tuple[Sample, ...] | None:
    """Return cost and final quality of the trials behind each point; None if one has no cost on `axis`.

    Costs leave out the setup of cold groups unless `include_setup`.
    """
    behind: dict[Cell, list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        if trial.phase == "confirm" and trial.outcome == "completed":
            behind[trial.cell].append(trial)
    samples = []
    for point in points:
        done = behind[point.cell]
        costs = [trial.compared(include_setup).on(axis) for trial in done]
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(costs):
            return None
        seeds = tuple(trial.seed_index for trial in done)
        samples.append(Sample(point.label, tuple(map(float, known)), tuple(map(_final, done)), seeds))
    return tuple(samples)


def frontiers_of(
    points: Sequence[Point],
    trials: Sequence[TrialRecord],
    axis: CostAxis,
    cost_tolerance: float,
    include_setup: bool = False,
    floor: float | None = None,
) -> dict[CostAxis, Frontier]:
    """Return the frontier on `axis`, and on each other axis that all trials have a cost on; empty without points.

    Hypervolumes are measured from the highest cost and from `floor`, the least quality there can be; where there is no
    least one, from the lowest quality of the points.
    """
    found = {}
    for name in (axis, *(other for other in COST_AXES if other != axis)):
        samples = point_samples(points, trials, name, include_setup)
        highest_cost = max((sample.mean_cost for sample in samples or ()), default=0.0)
        if samples and (highest_cost > 0 or name == axis):
            least = min(sample.mean_quality for sample in samples) if floor is None else floor
            found[name] = frontier(samples, (highest_cost, least), cost_tolerance)
    return found


def group_setups_of(trials: Iterable[TrialRecord]) -> dict[int, Cost]:
    """Return the mean cost of setting up one cold group, by world size."""
    started: dict[int, list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        if trial.cold_starts:
            started[trial.world_size].append(trial)
    return {
        world_size: combined([trial.cold_setup for trial in some], sum(trial.cold_starts for trial in some))
        for world_size, some in sorted(started.items())
    }


def _point(
    done: Sequence[TrialRecord],
    n_censored: int,
    search: Sequence[TrialRecord],
    axis: CostAxis,
    include_setup: bool,
    beside: Sequence[str],
    tokens_per_sample: int | None,
) -> Point:
    first = done[0]
    finals = [_final(trial) for trial in done]
    tests = [trial.test_quality for trial in done if trial.test_quality is not None]
    compared = [trial.compared(include_setup) for trial in done]
    costs = [known for cost in compared if (known := cost.on(axis)) is not None]
    return Point(
        variant=first.variant,
        batch_size=first.batch_size,
        lr=first.lr,
        world_size=first.world_size,
        micro_batch=first.micro_batch,
        accumulation=first.accumulation,
        norm_batch=first.norm_batch,
        n_seeds=len(done),
        n_censored=n_censored,
        updates=first.curve[-1].updates,
        cost=combined([trial.cost for trial in done], len(done)),
        cold_setup=combined([trial.cold_setup for trial in done], len(done)),
        compared=combined(compared, len(done)),
        cost_ci=mean_interval(costs, at_least=MIN_SEEDS) if len(costs) == len(done) else None,
        search_cost=combined([trial.cost for trial in search]),
        search_cold_setup=combined([trial.cold_setup for trial in search]),
        quality=fmean(finals),
        quality_ci=mean_interval(finals),
        best_quality=fmean(_final(trial) if trial.best_quality is None else trial.best_quality for trial in done),
        test_quality=fmean(tests) if tests else None,
        samples_per_s=fmean(trial.samples_per_s or 0.0 for trial in done),
        peak_memory_bytes=max((trial.peak_memory_bytes or 0 for trial in done), default=0) or None,
        on_frontier=False,
        p_on_front=None,
        further=_further(done, beside),
        tokens_per_sample=tokens_per_sample,
    )


def _further(done: Sequence[TrialRecord], names: Sequence[str]) -> dict[str, float]:
    """Return the mean of each metric over the trials' last reports, of those that every trial has."""
    values = {name: [trial.curve[-1].value(name) for trial in done] for name in names}
    known = {name: [value for value in some if value is not None] for name, some in values.items()}
    return {name: fmean(some) for name, some in known.items() if len(some) == len(done)}


def combined(costs: Sequence[Cost], shares: int = 1) -> Cost:
    """Return the sum of costs divided by `shares`; a figure is None where one of the costs does not know it."""

    def known(values: Iterable[float | None]) -> float | None:
        found = [value for value in values if value is not None]
        return sum(found) / shares if len(found) == len(costs) else None

    return Cost(
        billed_device_h=sum(cost.billed_device_h for cost in costs) / shares,
        billed_gpu_h=sum(cost.billed_gpu_h for cost in costs) / shares,
        usd=known(cost.usd for cost in costs),
        wall_h=sum(cost.wall_h for cost in costs) / shares,
        energy_j=known(cost.energy_j for cost in costs),
        samples=sum(cost.samples for cost in costs) / shares,
        updates=sum(cost.updates for cost in costs) / shares,
    )


def _final(trial: TrialRecord) -> float:
    assert trial.final_quality is not None, "of completed trials"
    return trial.final_quality
