"""One Summary of a ledger: points over seeds, the frontier, and where the device-hours went."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median

from study.analysis.claims.registry import claims_of
from study.analysis.early_stopping import measured_stopping
from study.analysis.rate_ridge import rate_ridges
from study.analysis.recommend import choose
from study.analysis.records import Constraints, Mistaken, Point, Spend, StudyFacts, Summary, TrialRecord
from study.analysis.statistics.hypotheses import contrasts
from study.analysis.statistics.stepmodel import StepTime, fit_step_model
from study.analysis.statistics.uncertainty import Frontier
from study.analysis.summary.limit_cut import limit_cut
from study.analysis.summary.points import frontiers_of, group_setups_of, point_samples, points_of
from study.analysis.summary.time_to_target import critical_batches
from study.analysis.summary.trials import state_of, trial_records
from study.config.objective import Objective
from study.config.sections import CostAxis
from study.config.workloads import Custom
from study.ledger.schema import PHASES, PROTOCOL_VERSION, AnyRow
from study.ledger.state import StudyState
from study.planning.trials import Cell, Plan, TrialSpec, by_cell

MIN_TRIALS, NEARLY_ALL = 4, 0.9  # of trials that get worse, before a note asks whether the objective's mode is right


def summarize(rows: Iterable[AnyRow], plan: Plan) -> Summary:
    """Summarize a study, finished or not, from the rows of its ledger; reads `rows` once and does not keep them."""
    report, objective = plan.config.report, plan.config.objective
    state = state_of(rows)
    trials = trial_records(state, plan.config.price.usd_per_device_hour)
    axis, second, unmetered = _axes(trials, report.costs)
    drafts = points_of(
        trials,
        axis,
        plan.config.variant_names,
        report.include_setup,
        objective.beside,
        plan.config.tokens_per_sample,
    )
    frontiers = frontiers_of(drafts, trials, axis, report.cost_tolerance, report.include_setup, objective)
    points = _placed(drafts, frontiers.get(axis))
    fixed = [trial for trial in trials if plan.variants[trial.variant].growth is None]
    criticals, missing = critical_batches(fixed, plan.config.quality_target, objective)
    steps = _step_times(fixed)
    never_begun = [
        spec for spec in plan.search if spec.trial_id in state.ended and not state.trial(spec.trial_id).begun
    ]
    hopeless = _hopeless(trials, plan, never_begun)
    planned = len(plan.search) - len(never_begun) + plan.n_confirm - len(hopeless) * plan.config.confirm.seeds
    planned += len(state.seeds_added)
    found_summary = Summary(
        protocol_version=PROTOCOL_VERSION,
        study=_facts(state, plan.config.name),
        objective=objective,
        cost_axis=axis,
        include_setup=report.include_setup,
        group_setups=group_setups_of(trials),
        second_cost_axis=second,
        cost_tolerance=report.cost_tolerance,
        points=points,
        trials=trials,
        spend=_spend(trials),
        stopping=measured_stopping(trials, never_begun),
        hypervolume=frontiers[axis].hypervolume if points else None,
        hypervolume_ci=frontiers[axis].hypervolume_ci if points else None,
        frontiers=frontiers,
        critical=criticals[0] if criticals else None,
        other_criticals=criticals[1:],
        critical_missing=missing,
        noise_scale=_noise_scale(trials),
        step_times=steps,
        throughput_model=fit_step_model(steps),
        recommendation=choose(points, trials, axis, Constraints(), plan.config.margin, report.include_setup),
        planned_trials=planned,
        cut=limit_cut(state, trials, points, plan, planned, hopeless),
        mistaken=_mistaken(state, len(plan.search) + plan.n_confirm),
        notes=(*_waiting(state), *unmetered, *_mixed(state), *_notes(trials, points, plan, planned)),
        claims=claims_of(trials, plan.config),
        seeds_added=len(state.seeds_added),
        ridges=rate_ridges(trials, objective, {name: one.growth is not None for name, one in plan.variants.items()}),
    )
    return _with_steps(found_summary)


def _with_steps(summary: Summary) -> Summary:
    """Return the summary with the gains of the steps along its frontier."""
    samples = point_samples(summary.points, summary.trials, summary.cost_axis, summary.include_setup) or ()
    places = [summary.points.index(point) for point in summary.frontier]
    if len(places) < 2:
        return summary
    steps = [(after, before) for before, after in pairwise(places)]
    found = contrasts(samples, steps if len(steps) == 1 else [*steps, (places[-1], places[0])])
    return replace(summary, steps=tuple(found[: len(steps)]), span=found[-1])


def _axes(
    trials: Iterable[TrialRecord], wanted: tuple[CostAxis, CostAxis | None]
) -> tuple[CostAxis, CostAxis | None, tuple[str, ...]]:
    """Return the wanted cost axes, without energy if no meter was read, and notes that say so."""
    read = all(trial.cost.energy_j is not None for trial in trials if trial.outcome == "completed")
    if read or "energy_j" not in wanted:
        return *wanted, ()
    first: CostAxis = "billed_device_h" if wanted[0] == "energy_j" else wanted[0]
    second = None if wanted[1] in (first, "energy_j") else wanted[1]
    return first, second, ("No GPU's energy meter was read: there is no frontier over energy.",)


def _mistaken(state: StudyState, planned: int) -> Mistaken | None:
    """Return the mistake that ended the study, or None."""
    row = state.mistake
    return None if row is None else Mistaken(row.error, row.failed, planned - len(list(state.begun)))


def _waiting(state: StudyState) -> tuple[str, ...]:
    """Return a note while the study waits for a larger cluster."""
    return () if state.waiting is None else (f"Waiting: {state.waiting.why}.",)


def _mixed(state: StudyState) -> tuple[str, ...]:
    """Return a note if completed trials ran on devices of several types."""
    done = [trial for trial in state.ended.values() if trial.status == "completed"]
    devices = sorted({lease.device for trial in done for lease in trial.leases})
    if len(devices) < 2:
        return ()
    return (f"Trials ran on different devices ({', '.join(devices)}): a device-hour is not the same on each.",)


def _placed(points: Sequence[Point], found: Frontier | None) -> tuple[Point, ...]:
    """Return the points with `on_frontier` and `p_on_front` filled in."""
    places = found.points if found else ()
    return tuple(
        replace(point, on_frontier=place.on_front, p_on_front=place.p_on_front)
        for point, place in zip(points, places, strict=True)
    )


def _step_times(trials: Iterable[TrialRecord]) -> tuple[StepTime, ...]:
    """Return seconds per training step of each trial with two reports: the first interval holds one-time work."""
    return tuple(
        StepTime(trial.world_size, trial.micro_batch, trial.accumulation, trial.batch_size / trial.samples_per_s)
        for trial in trials
        if trial.samples_per_s and len(trial.curve) > 1
    )


def _noise_scale(trials: Iterable[TrialRecord]) -> float | None:
    """Return the median noise scale over confirm trials at the end of training, in samples."""
    ends = [trial.curve[-1].probes for trial in trials if trial.phase == "confirm" and trial.curve]
    found = [scale for probes in ends if (scale := probes.noise_b_simple) is not None and scale > 0]
    return median(found) if found else None


def _spend(trials: Sequence[TrialRecord]) -> Spend:
    def device_h(chosen: Iterable[TrialRecord]) -> float:
        return sum(trial.cost.billed_device_h for trial in chosen)

    return Spend(
        search_device_h=device_h(trial for trial in trials if trial.phase == "search"),
        confirm_device_h=device_h(trial for trial in trials if trial.phase == "confirm"),
        censored_device_h=device_h(trial for trial in trials if trial.censored),
        total_device_h=device_h(trials),
        phases_device_h={
            phase: sum(trial.world_size * trial.devices_per_rank * trial.phases_s[phase] for trial in trials) / 3600
            for phase in PHASES
        },
    )


def _facts(state: StudyState, name: str) -> StudyFacts:
    first, last = state.first, state.last_opened
    assert first is not None, "a study row opens every ledger"
    assert last is not None, "the first or a later one"
    leases = [lease for trial in state.trials.values() for lease in trial.leases]
    return StudyFacts(
        study_id=first.study_id,
        name=name,
        config=last.config,
        config_hash=first.config_hash,
        hardware=first.hardware,
        versions=first.versions,
        devices=tuple(sorted({lease.device for lease in leases})),
        hosts=tuple(sorted({host for lease in leases for host in lease.hosts})),
        started=first.written,
        wall_s=state.now_s,
    )


def _hopeless(trials: Sequence[TrialRecord], plan: Plan, never_begun: Sequence[TrialSpec]) -> list[Cell]:
    """Return the cells whose every search trial diverged, failed or ran out of memory: nothing is left to confirm. Of
    rates that a trial was lost at, the search need not have begun all seeds.
    """
    searched = Counter(spec.cell for spec in plan.search)
    begun = searched - Counter(spec.cell for spec in never_begun)
    lost: Counter[Cell] = Counter()
    rates: dict[Cell, set[float]] = defaultdict(set)
    for trial in trials:
        if trial.phase == "search" and trial.outcome in ("diverged", "failed", "infeasible"):
            lost[trial.cell] += 1
            rates[trial.cell].add(trial.lr)
    seeds = {cell: plan.variants[cell.variant].search.seeds for cell in searched}
    return [cell for cell, n in searched.items() if lost[cell] == begun[cell] and len(rates[cell]) * seeds[cell] == n]


def _worsening(trials: Sequence[TrialRecord], objective: Objective) -> list[str]:
    """Return a note if nearly every trial ended worse than it was at its first report: is less better after all?"""
    longer = [trial.curve for trial in trials if trial.outcome == "completed" and len(trial.curve) > 1]
    worse = sum(objective.of(curve[-1]) < objective.of(curve[0]) for curve in longer)
    if len(longer) < MIN_TRIALS or worse < NEARLY_ALL * len(longer):
        return []
    better = "more" if objective.mode == "max" else "less"
    return [
        f"{worse} of {len(longer)} trials ended with a worse {objective.logged_label} than at their first report: "
        f"objective.mode says that {better} is better."
    ]


def _notes(trials: Sequence[TrialRecord], points: Sequence[Point], plan: Plan, planned: int) -> tuple[str, ...]:
    notes = []
    finished = sum(trial.outcome is not None for trial in trials)
    if finished < planned:
        notes.append(f"Not finished: {finished} of {planned} planned trials have ended.")
    seeds = min((point.n_seeds for point in points), default=0)
    if points and seeds < 3:
        notes.append(f"Only {seeds} seed(s) behind some points: differences may be noise.")
    for outcome, words in (
        ("diverged", "diverged"),
        ("failed", "failed"),
        ("infeasible", "infeasible (out of memory)"),
    ):
        count = sum(trial.outcome == outcome for trial in trials)
        if count:
            notes.append(f"{count} trial(s) {words}; their cost is counted, they are on no frontier.")
    skipped = [sum(point.skipped_batches for point in trial.curve) for trial in trials]
    if any(skipped):
        notes.append(
            f"training_step returned no loss for {sum(skipped):,} micro batches of {sum(map(bool, skipped))} trial(s): "
            "they trained nothing, and count as samples and in the cost."
        )
    notes += _worsening(trials, plan.config.objective)
    hardware = plan.config.hardware
    if hardware.shares_gpus:
        notes.append(
            f"Ranks had {hardware.gpus_per_rank:g} of a GPU each and slowed one another down: samples a second and "
            "device time are unfit for claims about throughput."
        )
    if hardware.compile and not plan.config.report.include_setup and any(trial.cold_starts for trial in trials):
        notes.append(
            "Every trial compiles in its setup: on a warm group that is in the costs compared, on a cold one it is "
            "left out with the group's setup. Compare costs of configurations that ran on warm groups alone."
        )
    if any(isinstance(one.workload, Custom) and one.workload.optimizer == "module" for one in plan.variants.values()):
        notes.append("Rates are factors of those that the module's own optimizer has.")
    shown = {point.cell for point in points}
    missing = [cell for cell in plan.cells if cell not in shown]
    if finished >= planned and missing:
        listed = ", ".join(f"{c.variant} batch {c.batch_size} on {c.world_size} rank(s)".strip() for c in missing)
        notes.append(f"No completed confirm trial for {listed}.")
    return (*notes, *_at_the_edge(points, plan))


def _at_the_edge(points: Sequence[Point], plan: Plan) -> list[str]:
    """Return which chosen rates are the lowest or the highest of three rates or more."""
    edges: dict[str, list[str]] = defaultdict(list)
    rates = {cell: sorted({spec.lr for spec in specs}) for cell, specs in by_cell(plan.search).items()}
    for point in points:
        tried = rates.get(point.cell, [])
        if len(tried) >= 3 and point.lr in (tried[0], tried[-1]):
            name = f"{point.variant} batch {point.batch_size} on {point.world_size} rank(s)".strip()
            edges["lowest" if point.lr == tried[0] else "highest"].append(name)
    return [
        f"The chosen learning rate is the {edge} of those searched for {', '.join(names)}: a better one may lie beyond."
        for edge, names in edges.items()
    ]
