"""Seconds a step takes over world size, micro batch and accumulation (Qiao et al. 2021, arXiv:2008.12260)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from study.analysis.statistics import Flags, Floats

_MAX_OVERLAP = 10.0
_STARTS = (1.2, 2.5, 6.0)  # values of the overlap that the search begins from


@dataclass(frozen=True)
class StepTime:
    """Measured seconds of one optimizer step. Raises ValueError for a size below 1, or seconds of 0 or non-finite."""

    world_size: int
    micro_batch: int  # samples a rank in one forward pass
    accumulation: int  # forward passes a step
    step_s: float

    def __post_init__(self) -> None:
        if min(self.world_size, self.micro_batch, self.accumulation) < 1 or not 0 < self.step_s < math.inf:
            raise ValueError(f"no step is like this: {self}")


@dataclass(frozen=True)
class Prediction:
    """The predicted time and throughput of one optimizer step."""

    step_s: float
    samples_per_s: float  # of all ranks
    extrapolated: bool  # the world size was not run, or the micro batch or accumulation is outside the range run


@dataclass(frozen=True)
class StepModel:
    """T = (compute^c + sync^c)^(1/c) + (accumulation - 1) compute.

    compute = compute_s + compute_s_per_sample x micro batch. sync is 0 on one rank and
    sync_s + sync_s_per_rank x (world size - 2) on more. c is the overlap: 1 is none, 10 is nearly all.
    """

    compute_s: float
    compute_s_per_sample: float
    sync_s: float | None  # at two ranks, or at the one world size above 1 that was run; None if none was
    sync_s_per_rank: float | None  # for each rank above two; None unless two world sizes above 1 were run
    overlap: float | None  # None if no run had several ranks
    residuals: tuple[float, ...]  # log(measured / fitted), run by run
    world_sizes: tuple[int, ...]  # fitted on, ascending, like the ranges below
    micro_batches: tuple[int, int]
    accumulations: tuple[int, int]

    @property
    def typical_error(self) -> float:
        """Root mean square of the residuals: 0.02 is 2%."""
        return float(np.sqrt(np.mean(np.square(self.residuals))))

    def predict(self, world_size: int, micro_batch: int, accumulation: int = 1) -> Prediction | None:
        """Predict a step of any shape; None where the runs do not determine the synchronization of so many ranks."""
        compute = self.compute_s + self.compute_s_per_sample * micro_batch
        sync, overlap = 0.0, self.overlap or 1.0
        if world_size > 1:
            if self.sync_s is None or (self.sync_s_per_rank is None and world_size not in self.world_sizes):
                return None
            sync = self.sync_s + (self.sync_s_per_rank or 0.0) * (world_size - 2)
        step_s = float(_norm(np.float64(compute), np.float64(sync), overlap)) + (accumulation - 1) * compute
        extrapolated = (
            world_size not in self.world_sizes
            or not self.micro_batches[0] <= micro_batch <= self.micro_batches[1]
            or not self.accumulations[0] <= accumulation <= self.accumulations[1]
        )
        return Prediction(step_s, world_size * micro_batch * accumulation / step_s, extrapolated)


def fit_step_model(runs: Sequence[StepTime]) -> StepModel | None:
    """Fit by least squares in log seconds, all parameters at least 0; None for fewer than two micro batches.

    The noise of a run is a share of its time, so logarithms weigh all runs alike. The overlap makes several local
    minima: the fit starts from several values and keeps the best.
    """
    world = np.array([r.world_size for r in runs])
    micro = np.array([r.micro_batch for r in runs], dtype=float)
    passes = np.array([r.accumulation for r in runs])
    seconds = np.array([r.step_s for r in runs])
    if len(np.unique(micro)) < 2:
        return None
    several = np.unique(world[world > 1])
    free = np.array([True, True, len(several) > 0, len(several) > 1, len(several) > 0])
    ranks = np.maximum(world - 2, 0) if len(several) > 1 else np.zeros_like(world)

    def log_ratio(chosen: Floats) -> Floats:
        full = np.array([0.0, 0.0, 0.0, 0.0, 1.0])
        full[free] = chosen
        return np.log(seconds) - np.log(_step_s(full, world, micro, passes, ranks))

    scale = float(np.median(seconds / passes))
    size = np.array([scale, scale / micro.mean(), scale, scale / max(ranks.max(), 1), 1.0])[free]
    upper = np.array([np.inf, np.inf, np.inf, np.inf, _MAX_OVERLAP])[free]
    lower = np.array([0.0, 1e-9 * size[1], 0.0, 0.0, 1.0])[free]  # some compute, or log 0
    fits = [
        least_squares(log_ratio, start, bounds=(lower, upper), x_scale=size, xtol=1e-12, ftol=1e-12, max_nfev=500)
        for start in _starts(size, free)
    ]
    best = min(fits, key=lambda fit: fit.cost)
    full: list[float | None] = [None] * 5
    for place, value in zip(np.flatnonzero(free), best.x, strict=True):
        full[place] = float(value)
    compute_s, per_sample = full[0] or 0.0, full[1] or 0.0
    return StepModel(
        compute_s=compute_s,
        compute_s_per_sample=per_sample,
        sync_s=full[2],
        sync_s_per_rank=full[3],
        overlap=full[4],
        residuals=tuple(map(float, best.fun)),
        world_sizes=tuple(map(int, np.unique(world))),
        micro_batches=(int(micro.min()), int(micro.max())),
        accumulations=(int(passes.min()), int(passes.max())),
    )


def _starts(size: Floats, free: Flags) -> list[Floats]:
    """Return starting points: half of a typical pass for each part, with each starting overlap where it is fitted."""
    starts = []
    for overlap in _STARTS if free[4] else (1.0,):
        start = 0.5 * size
        if free[4]:
            start[-1] = overlap
        starts.append(start)
    return starts


def _step_s(full: Floats, world: NDArray[np.int_], micro: Floats, passes: Floats, ranks: Floats) -> Floats:
    compute_s, per_sample, sync_s, per_rank, overlap = full
    compute = compute_s + per_sample * micro
    sync = np.where(world > 1, sync_s + per_rank * ranks, 0.0)
    return _norm(compute, sync, overlap) + (passes - 1) * compute


def _norm(compute: Floats, sync: Floats, overlap: float) -> Floats:
    """(compute^c + sync^c)^(1/c), scaled by the larger so that no power underflows."""
    larger = np.maximum(compute, sync)
    return larger * ((compute / larger) ** overlap + (sync / larger) ** overlap) ** (1 / overlap)
