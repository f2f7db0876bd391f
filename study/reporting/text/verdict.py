"""The result of a study in sentences: its frontier, and what limits, failures and early stopping did."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from study.analysis.records import TIME_AXES, cost_of
from study.planning.trials import Cell
from study.reporting.text.formatting import AXIS_NAMES, NOTHING, Unit, cost_unit, number, of_limit, percent, ranks
from study.reporting.text.quality import (
    difference_text,
    interval_words,
    is_accuracy,
    named_value,
    noise_answer,
    the_best,
    value_text,
)
from study.reporting.text.recommendation import decision_sentences
from study.reporting.text.tables import TextTable, total_usd
from study.safe_text import printable

if TYPE_CHECKING:
    from study.analysis.records import Point, RateRidge, Summary
    from study.analysis.statistics.hypotheses import Contrast
    from study.config.sections import CostAxis

_LISTED = 4  # dominated points that are named; of more, only their number


def verdict(summary: Summary) -> tuple[str, ...]:
    """Return the result as sentences of plain text, the most important first; at least one."""
    decision = decision_sentences(summary)
    first, *others = findings(summary)
    return (*(decision or (first,)), *cut_sentences(summary), *((first,) if decision else ()), *others)


def findings(summary: Summary) -> tuple[str, ...]:
    """Return the sentences of the verdict without its decision, and without what a limit cut; at least one."""
    rest = (*stopping_sentences(summary), *_seeds_added(summary), *ridge_sentences(summary))
    return (*_frontier(summary), *_second_frontier(summary), *_setup(summary), *rest)


def key_figures(summary: Summary) -> tuple[tuple[str, str], ...]:
    """Return names and values of what a reader asks first: what was spent, what was saved, what would settle it."""
    hours = summary.spend.total_device_h
    usd = total_usd(summary)
    figures = [("spent", cost_unit([hours]).show(hours) + ("" if usd is None else f", {number(usd)} USD"))]
    stopping = summary.stopping
    if stopping is not None and stopping.grid_fraction < 1:
        saved = (stopping.grid_device_s - stopping.trained_device_s) / 3600
        share = percent(1 - stopping.grid_fraction, 0)
        figures.append(("saved", f"{cost_unit([saved]).show(saved)}, {share} of the search"))
    found = summary.recommendation
    if found is not None and found.standings and len(summary.points) > 1:
        settle = found.to_settle
        if settle is None:
            text = "nothing: it is decided" if found.sure else "more configurations or a wider margin"
        elif settle.more_seeds is None:
            text = "another margin"
        else:
            text = f"about {settle.more_seeds} more seed{'s' * (settle.more_seeds > 1)}"
            text += "" if settle.device_h is None else f", {cost_unit([settle.device_h]).show(settle.device_h)}"
        figures.append(("to settle it", text))
    return tuple(figures)


def steps_table(summary: Summary) -> TextTable | None:
    """Return what each step along the frontier gains and costs, and of several the whole way; None for one point."""
    frontier, objective = summary.frontier, summary.objective
    if len(frontier) < 2 or summary.span is None or len(summary.steps) != len(frontier) - 1:
        return None
    ways = [(before, after, gain) for (before, after), gain in zip(pairwise(frontier), summary.steps, strict=True)]
    if len(ways) > 1:
        ways.insert(0, (frontier[0], frontier[-1], summary.span))
    rows = tuple(
        (
            f"{_cell(before.cell)} to {_cell(after.cell)}",
            difference_text(objective, gain.effect),
            interval_words(objective, gain),
            _times(before, after, summary.cost_axis),
            noise_answer(gain) + _of_seeds(before, after, gain),
        )
        for before, after, gain in ways
    )
    heads = ("step", f"gain in {objective.label}", "95% interval, of all steps together", "times the cost", "")
    return TextTable(heads, rows, tuple(gain.answer in ("more", "less") for *_, gain in ways))


def cut_sentences(summary: Summary) -> tuple[str, ...]:
    """Return which limit cut the study, and what is missing because of it."""
    cut = summary.cut
    if cut is None:
        return ()
    cells = [_cell(cell) for cell in cut.unconfirmed]
    listed = ", ".join(cells) if len(cells) <= _LISTED else f"{len(cells)} of {len(cells) + len(summary.points)} points"
    return (
        f"Cut by limits.{cut.limit}: {of_limit(cut.limit, cut.spent, cut.allowed)} spent. Of {summary.planned_trials} "
        f"trials {cut.not_run} were not run and {cut.ended_early} ended early; `study resume` continues them after the "
        "limit is raised.",
        *((f"Without a confirmed point because of it: {listed}.",) if cells else ()),
    )


def nothing_completed(summary: Summary) -> str | None:
    """Return the outcomes and errors of a study that ended with no completed trial; None for any other study."""
    outcomes = Counter(trial.outcome for trial in summary.trials if trial.outcome is not None)
    ended = summary.mistaken is not None or outcomes.total() >= summary.planned_trials
    if not ended or outcomes["completed"]:
        return None
    parts = []
    for outcome, n in outcomes.most_common():
        errors = list(dict.fromkeys(t.error for t in summary.trials if t.outcome == outcome and t.error))
        why = f" ({printable(errors[0])}{', and others' * (len(errors) > 1)})" if errors else ""
        parts.append(f"{n} {outcome}{why}")
    return f"No trial completed: {', '.join(parts)}."


def mistake_sentence(summary: Summary) -> str | None:
    """Return why a study ended in which every batch size failed alike, and what was not run; None for any other."""
    found = summary.mistaken
    if found is None:
        return None
    trials = f"{found.failed} trial{'s' * (found.failed > 1)}"
    return (
        f"Ended early: the first trial of every batch size failed with the same mistake, {printable(found.error)}. "
        f"{trials} failed with it, {found.not_run} were not run."
    )


def _cell(cell: Cell) -> str:
    variant = f" ({cell.variant})" if cell.variant else ""
    return f"batch {cell.batch_size}{variant} on {ranks(cell.world_size)}"


def _frontier(summary: Summary) -> tuple[str, ...]:
    points = summary.points
    if not points and (nothing := nothing_completed(summary)) is not None:
        mistake = mistake_sentence(summary)
        return (
            (nothing,)
            if mistake is None
            else (mistake, "After you have corrected it, `study resume` runs all trials again.")
        )
    if not points:
        ended = sum(trial.outcome is not None for trial in summary.trials)
        return (
            "Nothing is confirmed yet: no confirm trial has completed, so there is no frontier.",
            f"{ended} of {summary.planned_trials} planned trials have ended.",
        )
    axis = summary.cost_axis
    unit = cost_unit([cost_of(point, axis) for point in points], axis)
    if len(points) == 1:
        only = points[0]
        return (
            f"Only {_name(only)} is confirmed: {named_value(summary.objective, only.quality)} "
            f"at {_cost(only, axis, unit)} a trial; there is nothing to compare it with.",
        )
    return (_ends(summary, unit), *_dominated(summary))


def _second_frontier(summary: Summary) -> tuple[str, ...]:
    """Return the points on the frontier over the second cost axis, if the config has one."""
    axis = summary.second_cost_axis
    found = summary.frontiers.get(axis) if axis else None
    if axis is None or found is None:
        return ()
    unit = cost_unit([place.cost for place in found.points], axis)
    members = sorted((place for place in found.points if place.on_front), key=lambda place: place.cost)
    listed = ", ".join(f"{place.label} at {unit.show(place.cost)}" for place in members)
    return (f"Over {AXIS_NAMES[axis]} the frontier is {listed}.",)


def _setup(summary: Summary) -> tuple[str, ...]:
    """Return whether costs include the setup of cold groups, and what that is."""
    axis = summary.cost_axis if summary.cost_axis in TIME_AXES else "billed_device_h"
    setups = {size: cost for size, cost in summary.group_setups.items() if cost.on(axis)}
    if not summary.points or not setups:
        return ()
    unit = cost_unit([cost.on(axis) or 0.0 for cost in setups.values()], axis)
    each = ", ".join(f"{unit.show(cost.on(axis) or 0.0)} on {ranks(size)}" for size, cost in setups.items())
    if summary.include_setup:
        return (f"Costs of trials include the setup of cold groups ({each}), billed to the first trial on each group.",)
    return (
        f"Costs of trials leave out the setup of cold groups ({each}), billed to the first trial on each group; "
        "report.include_setup: true includes it.",
    )


def _ends(summary: Summary, unit: Unit) -> str:
    frontier, axis, objective = summary.frontier, summary.cost_axis, summary.objective
    cheapest, best = frontier[0], frontier[-1]
    if len(frontier) == 1:
        return (
            f"{_name(cheapest, start=True)} is both the cheapest and {the_best(objective)}: "
            f"{named_value(objective, cheapest.quality)} at {_cost(cheapest, axis, unit)} a trial."
        )
    return (
        f"{_name(cheapest, start=True)} is the cheapest on the frontier: "
        f"{named_value(objective, cheapest.quality)} at {_cost(cheapest, axis, unit)} a trial; {_name(best)} is "
        f"{the_best(objective)}: {value_text(objective, best.quality)} at {_cost(best, axis, unit)}."
    )


def _of_seeds(before: Point, after: Point, gain: Contrast) -> str:
    """Return how seeds that only one of two configurations completed enter their difference, if there are any."""
    if max(gain.n_seeds) < max(before.n_seeds, after.n_seeds):
        return ", on the seeds that both have"
    lacking = gain.ci is not None and before.n_seeds != after.n_seeds
    return ", unequal seeds allowed for" if lacking else ""


def _times(before: Point, after: Point, axis: CostAxis) -> str:
    cost_before, cost_after = cost_of(before, axis), cost_of(after, axis)
    return NOTHING if cost_before <= 0 else _ratio(cost_after / cost_before)


def _dominated(summary: Summary) -> tuple[str, ...]:
    points, cost_tolerance = summary.points, summary.cost_tolerance
    names = [_name(point) for point in points if not point.on_frontier]
    if not names:
        return ()
    listed = ", ".join(names) if len(names) <= _LISTED else f"{len(names)} of {len(points)} points"
    within = f" (within {percent(cost_tolerance, 0)})" if cost_tolerance else ""
    good = "at least as accurate" if is_accuracy(summary.objective) else f"no worse in {summary.objective.label}"
    return (f"Dominated, by a point that costs no more{within} and is {good} on average: {listed}.",)


def _seeds_added(summary: Summary) -> tuple[str, ...]:
    """Return how many seeds were added to decide, and how that ended."""
    confirm = summary.study.config.get("confirm")
    if not isinstance(confirm, dict) or confirm.get("until") != "decided" or not summary.points:
        return ()
    seeds = [point.n_seeds for point in summary.points]
    found = summary.recommendation
    end = f"the choice is not decided yet, or not with {confirm['at_most']} seeds, the most"
    if found is not None and found.sure and found.to_settle is None:
        end = "the choice is decided"
    return (
        f"Confirmation added {summary.seeds_added} seeds to the {confirm['seeds']} of each configuration, which have "
        f"{min(seeds)} to {max(seeds)} now: {end}.",
    )


def ridge_sentences(summary: Summary) -> tuple[str, ...]:
    """Return how the best rate follows the batch size, a sentence for each variant in which enough rates were tried."""
    return tuple(
        f"{f'Variant {ridge.variant}: the' if ridge.variant else 'The'} best learning rate follows the batch size to "
        f"the power {ridge_text(ridge)}: 0 is no scaling, 0.5 the square root, 1 linear scaling."
        for ridge in summary.ridges
    )


def ridge_text(ridge: RateRidge) -> str:
    """Return the power of the batch size that the best rates follow, with its interval: `0.52 [0.31, 0.74]`."""
    low, high = ridge.power_ci
    return f"{ridge.power:.2f} [{low:.2f}, {high:.2f}]"


def stopping_sentences(summary: Summary) -> tuple[str, ...]:
    """Return what early stopping saved, and the result of the audit if there is one."""
    stopping = summary.stopping
    if stopping is None:
        return ()
    unit = cost_unit([stopping.grid_device_s / 3600])
    trained, grid = unit.show(stopping.trained_device_s / 3600), unit.show(stopping.grid_device_s / 3600)
    saved = f"The search trained {percent(stopping.grid_fraction, 0)} of the full grid: {trained} of about {grid}."
    audit = stopping.audit
    if audit is None:
        return (saved,)
    low, high = audit.missed_ci
    checked = (
        f"Audit: of {audit.trials} stopped trials trained to the end, {audit.missed} would have been on the search's "
        f"frontier (95% interval of the share: {percent(low, 0)} to {percent(high, 0)}); "
        f"it took {unit.show(audit.device_s / 3600)}."
    )
    return saved, checked


def _name(point: Point, start: bool = False) -> str:
    name = _cell(Cell(point.batch_size, point.world_size, point.variant))
    return name[0].upper() + name[1:] if start else name


def _cost(point: Point, axis: CostAxis, unit: Unit) -> str:
    return unit.show(cost_of(point, axis))


def _ratio(ratio: float) -> str:
    if ratio < 1.1:
        return f"{ratio:.2f}"
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}"
