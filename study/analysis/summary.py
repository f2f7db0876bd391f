"""A ledger to a Summary: points over seeds, the frontier, and where the money went."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean, stdev

import numpy as np
from scipy.special import stdtrit

from study.analysis.records import Cost, Point, Spend, StudyFacts, Summary, TrialRecord, cost_of
from study.analysis.stopping import stopping
from study.analysis.trials import trial_records
from study.ledger.rows import PHASES, PROTOCOL_VERSION, AnyRow, LeaseRow, StudyRow
from study.pareto.fronts import hypervolume, on_coarse_front
from study.plan.trials import Cell, Plan


def summarize(rows: Sequence[AnyRow], plan: Plan) -> Summary:
    """The state of a study, finished or not."""
    price = plan.config.price.usd_per_device_hour
    trials = trial_records(rows, price)
    axis = plan.config.report.cost
    tolerance = plan.config.report.cost_tolerance
    points = _points(trials, axis, tolerance, plan.config.variant_names)
    leases = [row for row in rows if isinstance(row, LeaseRow)]
    return Summary(
        protocol_version=PROTOCOL_VERSION,
        study=_facts(rows, leases, plan.config.name),
        cost_axis=axis,
        cost_tolerance=tolerance,
        points=points,
        trials=trials,
        spend=_spend(trials),
        stopping=stopping(trials),
        hypervolume=_hypervolume(points, axis),
        planned_trials=_planned(trials, plan),
        notes=_notes(trials, points, plan),
    )


def confidence_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean, spread = fmean(values), stdev(values) / math.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, 0.5 + level / 2)) * spread
    return mean - half, mean + half


def _points(trials: Iterable[TrialRecord], axis: str, cost_tolerance: float, names: Sequence[str]) -> tuple[Point, ...]:
    confirm: dict[Cell, list[TrialRecord]] = defaultdict(list)
    search: dict[Cell, list[Cost]] = defaultdict(list)
    for trial in trials:
        key = _cell(trial)
        if trial.phase == "confirm":
            confirm[key].append(trial)
        else:
            search[key].append(trial.cost)
    drafts = []
    for key in sorted(confirm, key=lambda key: (key.world_size, names.index(key.variant), key.batch_size)):
        done = [trial for trial in confirm[key] if trial.outcome == "completed"]
        if done:
            censored = sum(trial.censored for trial in confirm[key])
            drafts.append(_point(done, censored, search[key]))
    places = np.array([(cost_of(point, axis), point.val_accuracy) for point in drafts])
    front = on_coarse_front(places, cost_tolerance)
    return tuple(replace(draft, on_frontier=bool(member)) for draft, member in zip(drafts, front, strict=True))


def _cell(of: TrialRecord | Point) -> Cell:
    return Cell(of.batch_size, of.world_size, of.variant)


def _point(done: list[TrialRecord], n_censored: int, search: list[Cost]) -> Point:
    """A configuration over its seeds; whether it is on the frontier depends on the others."""
    first = done[0]
    finals = [trial.final_val_accuracy for trial in done if trial.final_val_accuracy is not None]
    tests = [trial.test_accuracy for trial in done if trial.test_accuracy is not None]
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
        cost=_combine([trial.cost for trial in done], len(done)),
        search_cost=_combine(search, 1),
        val_accuracy=fmean(finals),
        val_accuracy_ci=confidence_interval(finals),
        best_val_accuracy=fmean(trial.best_val_accuracy or 0.0 for trial in done),
        test_accuracy=fmean(tests) if tests else None,
        samples_per_s=fmean(trial.samples_per_s or 0.0 for trial in done),
        on_frontier=False,
    )


def _combine(costs: Sequence[Cost], shares: int) -> Cost:
    """The sum of costs over a number of shares."""
    usd = [cost.usd for cost in costs if cost.usd is not None]
    return Cost(
        sum(cost.billed_device_h for cost in costs) / shares,
        sum(cost.billed_gpu_h for cost in costs) / shares,
        sum(usd) / shares if usd else None,
    )


def _hypervolume(points: Sequence[Point], axis: str) -> float | None:
    """Against the dearest point's cost and an accuracy of 0, so that it lies between 0 and that cost."""
    if not points:
        return None
    places = np.array([(cost_of(point, axis), point.val_accuracy) for point in points])
    return hypervolume(places, (float(places[:, 0].max()), 0.0))


def _spend(trials: Sequence[TrialRecord]) -> Spend:
    def device_h(chosen: Iterable[TrialRecord]) -> float:
        return sum(trial.cost.billed_device_h for trial in chosen)

    return Spend(
        search_device_h=device_h(trial for trial in trials if trial.phase == "search"),
        confirm_device_h=device_h(trial for trial in trials if trial.phase == "confirm"),
        censored_device_h=device_h(trial for trial in trials if trial.censored),
        total_device_h=device_h(trials),
        phases_device_h={
            phase: sum(trial.world_size * trial.phases_s[phase] for trial in trials) / 3600 for phase in PHASES
        },
    )


def _facts(rows: Sequence[AnyRow], leases: Sequence[LeaseRow], name: str) -> StudyFacts:
    first = next(row for row in rows if isinstance(row, StudyRow))
    return StudyFacts(
        study_id=first.study_id,
        name=name,
        config=first.config,
        config_hash=first.config_hash,
        hardware=first.hardware,
        versions=first.versions,
        devices=tuple(sorted({lease.device for lease in leases})),
        started=first.written,
        wall_s=rows[-1].at_s,
    )


def _planned(trials: Sequence[TrialRecord], plan: Plan) -> int:
    """Trials in the end: a cell whose every search trial diverged or failed has none to confirm."""
    over = [trial for trial in trials if trial.phase == "search" and trial.outcome is not None]
    hopeless = 0
    for cell in plan.cells:
        searched = sum(spec.cell == cell for spec in plan.search)
        outcomes = [t.outcome for t in over if _cell(t) == cell]
        if searched and len(outcomes) == searched and not {"completed", "stopped"} & set(outcomes):
            hopeless += plan.config.confirm.seeds
    return len(plan.search) + plan.n_confirm - hopeless


def _notes(trials: Sequence[TrialRecord], points: Sequence[Point], plan: Plan) -> tuple[str, ...]:
    notes = []
    over = sum(trial.outcome is not None for trial in trials)
    planned = _planned(trials, plan)
    if over < planned:
        notes.append(f"Not finished: {over} of {planned} planned trials are over.")
    seeds = min((point.n_seeds for point in points), default=0)
    if points and seeds < 3:
        notes.append(f"Only {seeds} seed(s) behind some points: differences may be noise.")
    for outcome in ("diverged", "failed"):
        count = sum(trial.outcome == outcome for trial in trials)
        if count:
            notes.append(f"{count} trial(s) {outcome}; their cost is counted, they are on no frontier.")
    shown = {_cell(point) for point in points}
    missing = [cell for cell in plan.cells if cell not in shown]
    if over >= planned and missing:
        listed = ", ".join(f"{c.variant} batch {c.batch_size} on {c.world_size} rank(s)".strip() for c in missing)
        notes.append(f"No completed confirm trial for {listed}.")
    return tuple(notes)
