"""Fronts of (cost, quality) points: cost is minimised, quality maximised."""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import NDArray


def _finite(points: NDArray[np.float64]) -> NDArray[np.float64]:
    points = np.asarray(points, dtype=float).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("a front needs finite points; censor the others first")
    return points


def on_front(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the points (n, 2) no other dominates; equal points stand or fall together.

    Raises ValueError for a non-finite coordinate.
    """
    points = _finite(points)
    if not len(points):
        return np.zeros(0, dtype=bool)
    return np.asarray(moocore.is_nondominated(points, maximise=[False, True], keep_weakly=True), dtype=bool)


def hypervolume(points: NDArray[np.float64], reference: tuple[float, float]) -> float:
    """Area between the front and the reference point (a cost and a quality that all points should beat).

    Points that do not beat the reference add nothing. Raises ValueError for a non-finite coordinate.
    """
    points = _finite(points)
    if not len(points):
        return 0.0
    return float(moocore.hypervolume(points, ref=list(reference), maximise=[False, True]))
