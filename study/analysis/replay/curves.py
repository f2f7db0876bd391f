"""Full learning curves of a grid of trials, the data of a replay."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from study.analysis.records import Summary
from study.errors import DataError
from study.planning.trials import Cell


@dataclass(frozen=True)
class Curve:
    """One trial, trained to its end or until it diverged; sequences hold a value for each report."""

    trial_id: str
    cell: Cell
    lr: float
    seed: int
    epochs: tuple[float, ...]
    shares: tuple[float, ...]  # of a whole trial of its cell
    cost_s: tuple[float, ...]  # device-seconds, cumulative; training and validation
    quality: tuple[float, ...]  # the objective, of which more is better
    test_quality: float | None  # at the end
    completed: bool  # False if it diverged, at its last report

    def progress(self, unit: Literal["shares", "epochs", "cost_s"]) -> tuple[float, ...]:
        """Return how far the trial is at each report: as a share of its length, in epochs or in device-seconds."""
        return {"shares": self.shares, "epochs": self.epochs, "cost_s": self.cost_s}[unit]


def curves_of(summary: Summary) -> tuple[Curve, ...]:
    """Return the search trials of a study that ran as a full grid.

    Raises DataError if some were stopped, failed, or have not finished.
    """
    search = [trial for trial in summary.trials if trial.phase == "search"]
    whole = {"completed", "diverged"}
    others = [trial for trial in search if trial.outcome not in whole or not trial.curve]
    if others or len(search) < 2:
        what = f"{others[0].trial_id} is {others[0].outcome or 'not finished'}" if others else "it has no search"
        raise DataError(f"{summary.study.name}: not a full grid, {what}; run the study with scheduler.kind=grid")
    curves = tuple(
        Curve(
            trial_id=trial.trial_id,
            cell=trial.cell,
            lr=trial.lr,
            seed=trial.seed_index,
            epochs=tuple(point.epochs for point in trial.curve),
            shares=tuple(point.updates / trial.total_updates for point in trial.curve),
            cost_s=tuple(point.device_seconds for point in trial.curve),
            quality=tuple(summary.objective.of(point) for point in trial.curve),
            test_quality=trial.test_quality,
            completed=trial.outcome == "completed",
        )
        for trial in search
    )
    check_grid(curves, summary.study.name)
    return curves


def check_grid(curves: Iterable[Curve], source: str) -> None:
    """Raises DataError unless every rate of every cell was tried with every seed."""
    seeds: dict[tuple[Cell, float], set[int]] = {}
    for curve in curves:
        seeds.setdefault((curve.cell, curve.lr), set()).add(curve.seed)
    every = set().union(*seeds.values())
    for (cell, lr), some in seeds.items():
        if some != every:
            where = f"batch size {cell.batch_size} on {cell.world_size} rank(s) at rate {lr:g}"
            raise DataError(f"{source}: not a full grid, {where} lacks seed {min(every - some)}")
