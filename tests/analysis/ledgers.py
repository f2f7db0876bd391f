"""Whole studies made by formula: rows as `study run` writes them, without training anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from study.config.loader import load_study
from study.ledger.paths import StudyPaths
from study.ledger.schema import PHASES, AnyRow, AttemptRow, EndRow, LeaseRow, ReportRow, StudyRow
from study.ledger.store import encode
from study.planning.trials import Plan, TrialSpec, make_plan

WRITTEN = "2026-01-01T00:00:00.000+00:00"
CONFIG: dict[str, Any] = {
    "name": "made up",
    "batch_sizes": [16, 32, 64, 128, 256],
    "search": {"lr": [0.1]},
    "budget": {"epochs": 20, "report_every_updates": 5},
    "confirm": {"seeds": 3},
    "price": {"usd_per_device_hour": 2.0},
}
B_CRIT, S_MIN = 60.0, 40.0
TARGET = 0.8


def made_rows(plan: Plan, seed: int = 0, **report: Any) -> Iterator[AnyRow]:
    """A finished study without a search. Updates to `TARGET` follow the law, and larger batches end a little lower.

    An update takes 1 ms and 20 µs a sample; `report` is set in every ReportRow.
    """
    yield StudyRow(
        at_s=0.0, written=WRITTEN, study_id="made up", config=plan.config.model_dump(mode="json"), config_hash="0",
        hardware={}, versions={},
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    for cell in plan.cells:
        for spec in plan.confirm_trials(cell, plan.rates(cell)[0]):
            yield from _trial(spec, rng, report)


def _trial(spec: TrialSpec, rng: np.random.Generator, changes: dict[str, Any]) -> Iterator[AnyRow]:
    batch = spec.batch
    size = batch.global_batch
    common = {"at_s": 1.0, "written": WRITTEN, "trial_id": spec.trial_id}
    lease = {"lease_id": f"{spec.trial_id}#1", "group_id": "g", "device": "cpu", "nodes": ("n",)}
    yield AttemptRow(
        **common, **lease, attempt=1, setup_s=0.0, phase=spec.phase, variant=spec.cell.variant, batch_size=size,
        world_size=batch.world_size, micro_batch=batch.micro_batch, accumulation=batch.accumulation, norm_batch=None,
        base_lr=spec.base_lr, lr=spec.lr, seed_index=spec.seed_index, updates_per_epoch=spec.updates_per_epoch,
        total_updates=spec.total_updates,
    )  # fmt: skip
    to_target = S_MIN * (1 + B_CRIT / size) * rng.lognormal(0, 0.03)
    best = 0.96 - 0.01 * np.log2(size / 16) + rng.normal(0, 0.002)
    step_s = (1e-3 + 20e-6 * batch.micro_batch) * rng.lognormal(0, 0.02)
    accuracy = 0.0
    for updates in spec.report_at:
        # Straight past the target, so that nothing is lost by interpolating, up to the best.
        accuracy = float(min(TARGET * updates / to_target, best))
        seconds = step_s * updates
        values = {
            "attempt": 1, "updates": updates, "samples": updates * size, "epochs": spec.epochs_at(updates),
            "lr": spec.lr, "train_loss": 1.0, "train_accuracy": None, "val_loss": 1.0, "val_accuracy": accuracy,
            "test_accuracy": None, "samples_per_s": size / step_s, "device_seconds": batch.world_size * seconds,
            "phases_s": {"train": seconds},
        }  # fmt: skip
        yield ReportRow(**common, **(values | changes))
    billed_s = step_s * spec.total_updates
    yield LeaseRow(
        **common, **lease, attempt=1, devices=batch.world_size, reason="released", billed_s=billed_s,
        phases_s=dict.fromkeys(PHASES, 0.0) | {"train": billed_s},
    )  # fmt: skip
    yield EndRow(
        **common, attempts=1, outcome="completed", final_val_accuracy=accuracy, best_val_accuracy=accuracy,
        test_accuracy=None, error=None,
    )  # fmt: skip


def made_study(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """The study's folder, config and ledger in it; keyword arguments replace parts of CONFIG."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | changes))
    plan = make_plan(load_study(folder / "config.yaml").config)
    StudyPaths(folder).ledger.write_bytes(b"".join(encode(row) for row in made_rows(plan, seed)))
    return folder
