"""Studies made by hand: a config, and the measurements of each of its confirm trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from study.analysis.claims.records import ClaimVerdict
from study.analysis.claims.registry import claims_of
from study.analysis.records import Cost, TrialRecord
from study.config.schema import StudyConfig
from study.ledger.schema import PHASES
from study.measurement import CurvePoint, ProbeReadings

# What a trial measured, by variant, batch size and seed: changes to a trial or to its reports.
World = Callable[[str, int, int], Mapping[str, Any]]
SMALL, LARGE = 16, 256

FIXED: dict[str, Any] = {"search": {"lr": [0.1]}}
LINEAR: dict[str, Any] = {"search": {"lr": [0.1], "lr_rule": "linear", "base_batch": SMALL}}
SQRT: dict[str, Any] = {"search": {"lr": [0.1], "lr_rule": "sqrt", "base_batch": SMALL}}
CONFIGS: dict[str, dict[str, Any]] = {
    "fixed_lr": FIXED,
    "scaled_lr": {"variants": {"none": FIXED, "linear": LINEAR, "tuned": {"search": {"lr": [0.1, 0.2]}}}},
    "generalization_gap": {
        "budget": {"epochs": 9, "target_train_loss": 0.1},
        "probes": {"sharpness": True, "curvature": True},
    },
    "train_longer": {
        "variants": {
            "SB": {"batch_sizes": [SMALL]},
            "LB": {"batch_sizes": [LARGE]},
            "LB+LR": {"batch_sizes": [LARGE], **SQRT},
            "LB+RA": {"batch_sizes": [LARGE], **SQRT, "budget": {"epochs": 9, "regime_batch": SMALL}},
        }
    },
    "grow_batch": {
        "schedule": {"kind": "constant"},
        "batch_sizes": [SMALL],
        "variants": {
            "decay": {"growth": {"milestones": [0.5], "largest_batch": SMALL}},
            "grow": {"growth": {"milestones": [0.5], "largest_batch": LARGE}},
            "faster": {"batch_sizes": [2 * SMALL], "growth": {"milestones": [0.5], "largest_batch": LARGE}},
        },
    },
    "cost": {},
    "serving": {"probes": {"serving": True}},
    "contrastive": {
        "workload": {"kind": "contrastive"},
        "variants": {"short": {}, "long": {"budget": {"epochs": 36}}},
    },
    "noise_scale": {
        "batch_sizes": [8, 32, 128, 512],
        "budget": {"epochs": 9, "target_val_accuracy": 0.9},
        "probes": {"noise_scale": True},
    },
}


def make(changes: Mapping[str, Any]) -> StudyConfig:
    """Return a small study with some sections replaced."""
    base = {"name": "made", "batch_sizes": [SMALL, LARGE], "budget": {"epochs": 9}, **FIXED}
    return StudyConfig.model_validate({**base, **changes}, strict=False)


def trial(variant: str, batch_size: int, seed: int, **changes: Any) -> TrialRecord:
    """A confirm trial on one rank; changes are to the trial, or to its one report."""
    point: dict[str, Any] = {
        "updates": 1000,
        "samples": 1000 * batch_size,
        "epochs": 9.0,
        "lr": 0.1,
        "train_loss": 0.05,
        "train_accuracy": None,
        "val_loss": 0.5,
        "val_accuracy": 0.9,
        "samples_per_s": 1000.0,
        "device_seconds": 10.0,
        "probes": {},
    }
    point = {name: changes.pop(name, value) for name, value in point.items()}
    outcome = changes.get("outcome", "completed")
    values: dict[str, Any] = {
        "trial_id": f"confirm-{variant}-b{batch_size}-s{seed}",
        "phase": "confirm",
        "variant": variant,
        "batch_size": batch_size,
        "world_size": 1,
        "micro_batch": batch_size,
        "accumulation": 1,
        "norm_batch": None,
        "lr": 0.1,
        "seed_index": seed,
        "outcome": outcome,
        "error": None,
        "attempts": 1,
        "total_updates": 1000,
        "audited_from": None,
        "cost": Cost(0.01, 0.0, None),
        "phases_s": dict.fromkeys(PHASES, 0.0),
        "final_quality": point["val_accuracy"] if outcome == "completed" else None,
        "best_quality": point["val_accuracy"],
        "test_quality": None,
        "samples_per_s": point["samples_per_s"],
        "curve": (CurvePoint(**point | {"probes": ProbeReadings.from_stored(point["probes"])}),),
    }
    return TrialRecord(**(values | changes))


def trials_of(config: StudyConfig, world: World, seeds: Sequence[int]) -> tuple[TrialRecord, ...]:
    """Every confirm trial of a study in a world."""
    return tuple(
        trial(variant, batch_size, seed, **world(variant, batch_size, seed))
        for variant in config.variant_names
        for batch_size in config.variant(variant).batch_sizes
        for seed in seeds
    )


def judged(claim: str, config: StudyConfig, world: World, seeds: Sequence[int] = (1, 2, 3)) -> ClaimVerdict:
    """The verdict on one claim of a study in a world."""
    return next(c for c in claims_of(trials_of(config, world, seeds), config) if c.claim == claim)
