"""The analysis of a table: fronts with uncertainty, and critical batch sizes, of each group and of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.analysis.statistics.critical import CriticalBatch, StepsToTarget, fit_critical_batch
from study.analysis.statistics.samples import Sample
from study.analysis.statistics.uncertainty import MAX_DRAWN, MIN_SEEDS, Frontier, FrontPoint, frontier
from study.analysis.tables.objectives import Objective
from study.analysis.tables.table import Configuration, Interpretation, ResultTable


@dataclass(frozen=True)
class GroupPoint(FrontPoint):
    """A configuration of a table on its cost and quality axes, in the table's own units."""

    group: str  # empty without --group-by
    settings: dict[str, str]  # by column
    batch_size: int
    lr: float | None
    n_censored: int


@dataclass(frozen=True)
class FrontFindings:
    """The front and the critical batch size of one group, or of all groups together."""

    points: tuple[GroupPoint, ...]  # by batch size; configurations with a final result
    hypervolume: float | None  # against the highest cost and the worst quality
    hypervolume_ci: tuple[float, float] | None
    runs: tuple[StepsToTarget, ...]
    critical_batch: CriticalBatch | None  # None without runs to a target, and of several groups together
    notes: tuple[str, ...]

    @property
    def frontier(self) -> tuple[GroupPoint, ...]:
        """Return the points that no other dominates, cheapest first."""
        return tuple(sorted((point for point in self.points if point.on_front), key=lambda point: point.cost))


@dataclass(frozen=True)
class TableAnalysis:
    """The analysis of a table, with how the table was read."""

    source: str
    cost: Objective | None
    quality: Objective | None
    whole: FrontFindings  # one front over all configurations of all groups
    groups: dict[str, FrontFindings]  # empty without --group-by
    understood: Interpretation


def analyze_table(table: ResultTable, grouped: bool) -> TableAnalysis:
    """Return fronts and critical batch sizes of a table, and also of each group if it is `grouped`."""
    return TableAnalysis(
        source=table.source,
        cost=table.cost,
        quality=table.quality,
        whole=_findings(table, range(len(table.groups))),
        groups={group.name: _findings(table, [i]) for i, group in enumerate(table.groups)} if grouped else {},
        understood=table.understood,
    )


def _findings(table: ResultTable, chosen: Sequence[int]) -> FrontFindings:
    groups = [table.groups[i] for i in chosen]
    kept = [(group.name, one) for group in groups for one in group.configurations if one.sample is not None]
    samples = [one.sample for _, one in kept if one.sample is not None]
    front = _front(samples)
    runs = tuple(run for group in groups for run in group.runs) if len(groups) == 1 else ()
    return FrontFindings(
        points=tuple(
            _place(name, one, place, table)
            for (name, one), place in zip(kept, front.points if front else (), strict=True)
        ),
        hypervolume=front.hypervolume if front else None,
        hypervolume_ci=front.hypervolume_ci if front else None,
        runs=runs,
        critical_batch=fit_critical_batch(runs) if runs else None,
        notes=_notes([one for group in groups for one in group.configurations], samples, runs, table),
    )


def _front(samples: Sequence[Sample]) -> Frontier | None:
    if not samples:
        return None
    worst = max(s.mean_cost for s in samples), min(s.mean_quality for s in samples)
    return frontier(samples, worst)


def _place(group: str, one: Configuration, place: FrontPoint, table: ResultTable) -> GroupPoint:
    assert table.cost is not None, "or there were no samples"
    assert table.quality is not None, "or there were no samples"
    # Samples hold costs to be minimised and qualities to be maximised, whatever the table's sign.
    cost_sign, quality_sign = (-1 if table.cost.maximize else 1), (1 if table.quality.maximize else -1)
    return GroupPoint(
        label=one.label,
        group=group,
        settings=one.settings,
        batch_size=one.batch_size,
        lr=one.lr,
        n_seeds=place.n_seeds,
        n_censored=one.n_censored,
        cost=cost_sign * place.cost,
        cost_ci=_signed(place.cost_ci, cost_sign),
        quality=quality_sign * place.quality,
        quality_ci=_signed(place.quality_ci, quality_sign),
        on_front=place.on_front,
        p_on_front=place.p_on_front,
    )


def _signed(ci: tuple[float, float] | None, sign: int) -> tuple[float, float] | None:
    if ci is None:
        return None
    low, high = sorted((sign * ci[0], sign * ci[1]))
    return low, high


def _notes(
    configurations: Sequence[Configuration],
    samples: Sequence[Sample],
    runs: Sequence[StepsToTarget],
    table: ResultTable,
) -> tuple[str, ...]:
    notes = []
    few = sum(sample.n_seeds < MIN_SEEDS for sample in samples)
    if few:
        notes.append(
            f"{few} of {len(samples)} configurations have under {MIN_SEEDS} seeds: no probabilities are given."
        )
    if len(samples) > MAX_DRAWN:
        notes.append(f"{len(samples)} configurations are more than {MAX_DRAWN}: no probabilities are given.")
    censored = sum(one.n_censored for one in configurations)
    bounds = sum(not run.reached for run in runs)
    if censored and runs:
        without = censored - bounds
        said = f"bounds on steps to the target: {bounds}"
        said += f"; without steps and left out of the critical batch size: {without}" if without else ""
        notes.append(f"Censored rows: {censored}; they are on no front; {said}.")
    elif censored:
        notes.append(f"Censored rows: {censored}; they are on no front.")
    if table.cost is not None and table.quality is not None:
        empty = [one.label for one in configurations if one.sample is None]
        if empty:
            more = f" and {len(empty) - 6} more" if len(empty) > 6 else ""
            notes.append(f"Without a final result, on no front: {'; '.join(empty[:6])}{more}.")
    return tuple(notes)
