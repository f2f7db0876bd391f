"""Summaries and rows made by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from study.analysis.records import COST_AXES, NO_COST, Cost, Point, Spend, StudyFacts, Summary, TrialRecord
from study.analysis.statistics.hypotheses import Contrast
from study.analysis.statistics.uncertainty import Frontier, FrontPoint
from study.config.objective import ACCURACY
from study.ledger.schema import PHASES, AttemptRow, EndRow, LeaseRow, ReportRow, StudyRow
from study.pareto.fronts import on_front

WRITTEN = "2026-01-02T03:04:05.000+00:00"
LATER = "2999-01-01T00:00:00.000+00:00"


def point(batch_size: int, hours: float, accuracy: float, half: float | None = 0.01, **changes: Any) -> Point:
    """A point off the frontier; `summary` decides who is on it."""
    values: dict[str, Any] = {
        "variant": "",
        "batch_size": batch_size,
        "lr": 0.1,
        "world_size": 2,
        "micro_batch": batch_size // 2,
        "accumulation": 1,
        "norm_batch": None,
        "n_seeds": 1 if half is None else 3,
        "n_censored": 0,
        "updates": 100,
        "cost": Cost(hours, 0.0, None, hours / 2, None, 100.0 * batch_size, 100.0),
        "cold_setup": NO_COST,
        "cost_ci": None if half is None else (0.9 * hours, 1.1 * hours),
        "search_cost": Cost(3 * hours, 0.0, None),
        "search_cold_setup": NO_COST,
        "quality": accuracy,
        "quality_ci": None if half is None else (accuracy - half, accuracy + half),
        "best_quality": accuracy + 0.001,
        "test_quality": accuracy - 0.002,
        "samples_per_s": 1000.0 * batch_size**0.5,
        "on_frontier": False,
        "p_on_front": None,
    }
    values |= changes
    return Point(**({"compared": values["cost"].plus(values["cold_setup"], -1)} | values))


def report_row(trial_id: str, epochs: float, accuracy: float, **changes: Any) -> ReportRow:
    """A report after some epochs of 10 updates."""
    values: dict[str, Any] = {
        "at_s": 0.0,
        "written": WRITTEN,
        "trial_id": trial_id,
        "attempt": 1,
        "updates": int(10 * epochs),
        "samples": int(640 * epochs),
        "epochs": epochs,
        "lr": 0.1,
        "train_loss": 0.5,
        "train_accuracy": None,
        "val_loss": 0.5,
        "val_accuracy": accuracy,
        "test_accuracy": None,
        "samples_per_s": 1000.0,
        "device_seconds": 2 * epochs,
        "phases_s": dict.fromkeys(PHASES, 0.0),
    }
    return ReportRow(**(values | changes))


def trial(batch_size: int, curve: Sequence[float], outcome: str | None = "completed", **changes: Any) -> TrialRecord:
    """A trial that reported `curve`, an accuracy after each epoch."""
    phase, world_size = changes.get("phase", "search"), changes.get("world_size", 2)
    seed_index = changes.get("seed_index", 0)
    trial_id = changes.get("trial_id", f"{phase}-b{batch_size}-w{world_size}-x{seed_index}")
    done = outcome == "completed"
    values: dict[str, Any] = {
        "trial_id": trial_id,
        "phase": phase,
        "variant": "",
        "batch_size": batch_size,
        "world_size": world_size,
        "micro_batch": batch_size // 2,
        "accumulation": 1,
        "norm_batch": None,
        "lr": 0.1,
        "seed_index": seed_index,
        "outcome": outcome,
        "error": None,
        "attempts": 1,
        "total_updates": 100,
        "audited_from": None,
        "cost": Cost(0.5, 0.0, None),
        "phases_s": dict.fromkeys(PHASES, 0.0) | {"setup": 300.0, "train": 600.0},
        "final_quality": curve[-1] if done else None,
        "best_quality": max(curve, default=None),
        "test_quality": None,
        "samples_per_s": 1000.0,
        "curve": tuple(report_row(trial_id, i + 1.0, value) for i, value in enumerate(curve)),
    }
    return TrialRecord(**(values | changes))


def front(points: Sequence[Point], axis: str) -> Frontier:
    """The frontier of the points' means over a cost axis, as sure of it as three seeds are."""
    places = np.array([(getattr(p.compared, axis), p.quality) for p in points], dtype=float)
    found = [
        FrontPoint(
            label=p.label,
            n_seeds=p.n_seeds,
            cost=cost,
            cost_ci=None if p.cost_ci is None else (0.9 * cost, 1.1 * cost),
            quality=p.quality,
            quality_ci=p.quality_ci,
            on_front=bool(member),
            p_on_front=None if p.cost_ci is None else (0.9 if member else 0.2),
        )
        for p, (cost, _), member in zip(points, places.tolist(), on_front(places), strict=True)
    ]
    return Frontier(tuple(found), (1.0, 0.0), 0.1, None)


def fronts(points: Sequence[Point], axis: str) -> dict[str, Frontier]:
    """The frontier on the axis, and on all others that cost something."""
    axes = [axis, *(other for other in COST_AXES if other != axis)] if points else []
    known = [a for a in axes if a == axis or all(getattr(p.compared, a) for p in points)]
    return {a: front(points, a) for a in known}


def contrast(after: Point, before: Point) -> Contrast:
    """Of two points whose seeds are independent, from their intervals."""
    gain, seeds = after.quality - before.quality, (after.n_seeds, before.n_seeds)
    if after.quality_ci is None or before.quality_ci is None:
        return Contrast(after.label, before.label, gain, None, None, seeds, "untested")
    half = math.hypot(*((ci[1] - ci[0]) / 2 for ci in (after.quality_ci, before.quality_ci)))
    answer: Any = "more" if gain > half else "less" if gain < -half else "indistinct"
    return Contrast(after.label, before.label, gain, (gain - half, gain + half), "Welch t", seeds, answer)


def summary(points: Sequence[Point] = (), trials: Sequence[TrialRecord] = (), **changes: Any) -> Summary:
    """A summary with the frontier of its points on the cost axis."""
    axis = changes.get("cost_axis", "billed_device_h")
    places = np.array([(getattr(p.compared, axis), p.quality) for p in points], dtype=float)
    members = on_front(places)
    marked = [Point(**{**p.__dict__, "on_frontier": bool(member)}) for p, member in zip(points, members, strict=True)]
    ordered = sorted(marked, key=lambda p: (p.world_size, p.batch_size))
    frontier = sorted((p for p in ordered if p.on_frontier), key=lambda p: getattr(p.compared, axis))
    facts: dict[str, Any] = {
        "study_id": "abc123",
        "name": changes.pop("name", "by hand"),
        "config": {"name": "by hand", "batch_sizes": [32, 64], "price": {"usd_per_device_hour": None}},
        "config_hash": "f" * 64,
        "hardware": {"machine": "x86_64", "cores": 2},
        "versions": {"ray": "2.60.0"},
        "devices": ("cpu",),
        "started": WRITTEN,
        "wall_s": 100.0,
    }
    values: dict[str, Any] = {
        "protocol_version": "1.0",
        "study": StudyFacts(**(facts | changes.pop("facts", {}))),
        "objective": ACCURACY,
        "cost_axis": axis,
        "include_setup": False,
        "group_setups": {},
        "second_cost_axis": None,
        "cost_tolerance": 0.0,
        "stopping": None,
        "points": tuple(ordered),
        "trials": tuple(trials),
        "spend": Spend(2.0, 1.0, 0.5, 3.0, dict.fromkeys(PHASES, 0.0) | {"setup": 1.0, "train": 2.0}),
        "hypervolume": 0.1 if points else None,
        "hypervolume_ci": None,
        "frontiers": fronts(ordered, axis),
        "critical": None,
        "other_criticals": (),
        "critical_missing": "not fitted by hand",
        "noise_scale": None,
        "step_times": (),
        "throughput_model": None,
        "recommendation": None,
        "planned_trials": 12,
        "notes": (),
        "steps": tuple(contrast(after, before) for before, after in pairwise(frontier)),
        "span": contrast(frontier[-1], frontier[0]) if len(frontier) > 1 else None,
    }
    return Summary(**(values | changes))


def study_row(at_s: float = 0.0, written: str = WRITTEN) -> StudyRow:
    """Opens a ledger, or a resume."""
    return StudyRow(at_s=at_s, written=written, study_id="a", config={}, config_hash="b", hardware={}, versions={})


def attempt_row(trial_id: str, at_s: float, attempt: int = 1, written: str = WRITTEN) -> AttemptRow:
    """A trial begins; its id says phase, batch and ranks, as the plan's ids do."""
    phase, batch, world, _ = trial_id.split("-")
    return AttemptRow(
        at_s=at_s,
        written=written,
        trial_id=trial_id,
        attempt=attempt,
        lease_id=f"{trial_id}#{attempt}",
        group_id="g",
        device="cpu",
        nodes=("n",),
        setup_s=0.5,
        phase=phase,
        batch_size=int(batch[1:]),
        world_size=int(world[1:]),
        micro_batch=int(batch[1:]),
        accumulation=1,
        norm_batch=None,
        base_lr=0.1,
        lr=0.1,
        seed_index=0,
        updates_per_epoch=10,
        total_updates=30,
    )


def end_row(trial_id: str, at_s: float, outcome: str, written: str = WRITTEN, error: str | None = None) -> EndRow:
    """The end of a trial."""
    return EndRow(
        at_s=at_s,
        written=written,
        trial_id=trial_id,
        attempts=1,
        outcome=outcome,
        final=None,
        best=None,
        test=None,
        error=error,
    )


def lease_row(
    trial_id: str,
    at_s: float,
    billed_s: float,
    setup_s: float = 0.0,
    attempt: int = 1,
    reason: str = "released",
    why: str = "",
) -> LeaseRow:
    """The bill of an attempt on one CPU device."""
    return LeaseRow(
        at_s=at_s,
        written=WRITTEN,
        lease_id=f"{trial_id}#{attempt}",
        group_id="g",
        trial_id=trial_id,
        attempt=attempt,
        device="cpu",
        devices=1,
        nodes=("n",),
        reason=reason,
        billed_s=billed_s,
        phases_s=dict.fromkeys(PHASES, 0.0) | {"setup": setup_s, "train": billed_s - setup_s},
        why=why,
    )
