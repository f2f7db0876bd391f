"""Fronts of (cost, quality) points: cost is minimised, quality maximised."""

from __future__ import annotations

import math

import moocore
import numpy as np
from numpy.typing import NDArray


def _finite(points: NDArray[np.float64]) -> NDArray[np.float64]:
    points = np.asarray(points, dtype=float).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("a front needs finite points; censor the others first")
    return points


def on_front(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which of the points (n, 2) no other dominates, (n,); equal points are on the front together or not at all.

    Raises ValueError for a non-finite coordinate.
    """
    points = _finite(points)
    if not len(points):
        return np.zeros(0, dtype=bool)
    return np.asarray(moocore.is_nondominated(points, maximise=[False, True], keep_weakly=True), dtype=bool)


def hypervolume(points: NDArray[np.float64], reference: tuple[float, float]) -> float:
    """Return the area between the front of points (n, 2) and the reference, a cost and a quality.

    Points that do not beat the reference add nothing. Raises ValueError for a non-finite coordinate.
    """
    points = _finite(points)
    if not len(points):
        return 0.0
    return float(moocore.hypervolume(points, ref=list(reference), maximise=[False, True]))


def on_coarse_front(points: NDArray[np.float64], cost_tolerance: float) -> NDArray[np.bool_]:
    """Return which of the points (n, 2) form a front in which costs as close as `cost_tolerance` count as equal, (n,).

    From the best quality down, a point is left out if a taken one costs at most (1 + tolerance) times as much:
    multiplicative epsilon-dominance (Laumanns et al. 2002) in the cost. With a tolerance of 0 it is `on_front`, but for
    which of equal points are taken. Without a tolerance, two configurations of the same cost would both be on the front
    half of the time, by the noise of the clock alone. Raises ValueError for a non-finite coordinate.
    """
    points = _finite(points)
    taken = np.zeros(len(points), dtype=bool)
    cheapest = math.inf
    for i in np.lexsort((points[:, 0], -points[:, 1])):  # best quality first, of equal ones the cheapest
        cost = points[i, 0]
        if cost * (1 + cost_tolerance) < cheapest or not taken.any():
            taken[i] = True
            cheapest = cost
    return taken


def front_ranks(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return the rank of each point (n, 2): 0 on the front, 1 on the front of the rest, and so on; (n,).

    Raises ValueError for a non-finite coordinate.
    """
    return np.asarray(moocore.pareto_rank(_finite(points), maximise=[False, True]), dtype=np.int32)


def spread(front: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance (n,) of each point of one front (n, 2) to its neighbours, objectives scaled to [0, 1].

    The crowding distance of Deb et al. 2002 (NSGA-II); the two ends are infinitely far.
    """
    order = np.lexsort((front[:, 1], front[:, 0]))
    extent = np.ptp(front, axis=0)
    scaled = front[order] / np.where(extent > 0, extent, 1)
    distance = np.full(len(front), np.inf)
    distance[order[1:-1]] = np.abs(scaled[2:] - scaled[:-2]).sum(axis=1)
    return distance
