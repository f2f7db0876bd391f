"""Worlds in which a claim is true, and in which it is as nearly true as a false one can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from study.analysis.claims.noise import FACTOR
from tests.analysis.claims.studies import LARGE, World

MARGIN = 0.01  # report.margin, where a config does not give it
VAL_SAMPLES = 300  # accuracies are counts over it
EPS = ("full_1e-3", "full_5e-4", "subspace_1e-3", "subspace_5e-4")


class Chance:
    """Noise of a simulated study: a part that all trials of a seed share, and a part of each trial."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.shared = lru_cache(None)(lambda seed: float(rng.standard_normal()))

    def accuracy(self, mean: float, seed: int) -> float:
        """A share of the validation samples."""
        noisy = mean + 0.004 * self.shared(seed) + 0.006 * self.rng.standard_normal()
        return round(noisy * VAL_SAMPLES) / VAL_SAMPLES

    def factor(self, spread: float = 0.1) -> float:
        """Around 1, lognormal."""
        return float(np.exp(spread * self.rng.standard_normal()))


def fixed_lr(chance: Chance, true: bool) -> World:
    """False: the loss is worse, the accuracy is not."""

    def world(variant: str, batch: int, seed: int) -> Mapping[str, Any]:
        large = batch == LARGE
        return {
            "val_accuracy": chance.accuracy(0.9 - 0.03 * (large and true), seed),
            "val_loss": 0.3 + 0.3 * large + 0.02 * chance.rng.standard_normal(),
        }

    return world


def scaled_lr(chance: Chance, true: bool) -> World:
    """False: every adjusted rate leaves a gap of just the margin."""

    def world(variant: str, batch: int, seed: int) -> Mapping[str, Any]:
        gap = 0.04 if variant == "none" else 0.0 if true else MARGIN
        return {"val_accuracy": chance.accuracy(0.9 - gap * (batch == LARGE), seed)}

    return world


def generalization_gap(chance: Chance, true: bool) -> World:
    """False: sharper, but no worse."""

    def world(variant: str, batch: int, seed: int) -> Mapping[str, Any]:
        large = batch == LARGE
        return {
            "val_accuracy": chance.accuracy(0.9 - 0.03 * (large and true), seed),
            "probes": {f"sharpness_{name}": (1 + 4 * large) * chance.factor(0.3) for name in EPS},
        }

    return world


def train_longer(chance: Chance, true: bool) -> World:
    """False: as many updates as the small batch's leave a gap of just the margin."""
    gaps = {"SB": 0.0, "LB": 0.04, "LB+LR": 0.02, "LB+RA": 0.0 if true else MARGIN}
    return lambda variant, batch, seed: {"val_accuracy": chance.accuracy(0.9 - gaps[variant], seed)}


def grow_batch(chance: Chance, true: bool) -> World:
    """False: the batch that grows twice as fast is worse by just the margin."""
    gaps = {"decay": 0.0, "grow": 0.0, "faster": 0.0 if true else MARGIN}
    return lambda variant, batch, seed: {"val_accuracy": chance.accuracy(0.9 - gaps[variant], seed)}


def cost(chance: Chance, true: bool) -> World:
    """False: all batch sizes take as long."""
    return lambda variant, batch, seed: {
        "device_seconds": 10 * chance.factor() / (2 if batch == LARGE and true else 1),
        "samples_per_s": 1000.0 * (2 if batch == LARGE and true else 1),
    }


def serving(chance: Chance, true: bool) -> World:
    """False: a request costs the same in any batch."""

    def world(variant: str, batch: int, seed: int) -> Mapping[str, Any]:
        probes = {}
        for size in (1, 32, 1024):
            probes[f"serving_{size}_predictions_per_s"] = 1000 * (size**0.3 if true else 1) * chance.factor()
            probes[f"serving_{size}_p50_ms"] = 0.1 * size
            probes[f"serving_{size}_p99_ms"] = 0.2 * size
        return {"probes": probes}

    return world


def contrastive(chance: Chance, true: bool) -> World:
    """False: the larger batch helps, more epochs do not."""

    def world(variant: str, batch: int, seed: int) -> Mapping[str, Any]:
        longer = 0.03 * (variant == "long" and true)
        return {"val_accuracy": chance.accuracy(0.8 + 0.05 * (batch == LARGE) + longer, seed)}

    return world


def noise_scale(chance: Chance, true: bool) -> World:
    """False: the noise scale is off by just the factor."""

    def world(variant: str, batch: int, seed: int) -> Mapping[str, Any]:
        critical = 64.0
        return {
            "updates": 100 * (1 + critical / batch) * chance.factor(0.05),
            "probes": {"noise_b_simple": critical * (1 if true else FACTOR) * chance.factor(0.2)},
        }

    return world


WORLDS: Mapping[str, Callable[[Chance, bool], World]] = {
    "fixed_lr": fixed_lr,
    "scaled_lr": scaled_lr,
    "generalization_gap": generalization_gap,
    "train_longer": train_longer,
    "grow_batch": grow_batch,
    "cost": cost,
    "serving": serving,
    "contrastive": contrastive,
    "noise_scale": noise_scale,
}
