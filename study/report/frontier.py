"""The figure that answers the question: cost against accuracy, with the frontier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import plotly.graph_objects as go

from study.analysis.records import Point, Summary, TrialRecord, cost_of
from study.report.style import GREY, escaped, log_axis, styled, world_styles
from study.report.words import Unit, accuracy, cost_unit, number, percent, ranks

_LABELLED = 8  # points beyond which only the frontier is labelled


def frontier_figure(summary: Summary) -> go.Figure:
    """Every point with its 95% interval, the frontier as a staircase, censored trials hollow.

    x is the summary's cost axis in a readable unit, y the final validation accuracy as a fraction.
    """
    axis = summary.cost_axis
    censored = [trial for trial in summary.trials if _place(trial, axis) is not None]
    costs = [cost_of(point, axis) for point in summary.points]
    unit = cost_unit(costs or [trial_cost(trial, axis) for trial in censored], axis)
    figure = styled(f"Cost against accuracy: {escaped(summary.study.name)}", height=500)
    bottom, top = _accuracy_range(summary.points)
    shown = [trial for trial in censored if bottom <= trial.curve[-1].val_accuracy <= top]
    _draw_censored(figure, censored, len(censored) - len(shown), axis, unit)
    if len(summary.frontier) > 1:
        _draw_staircase(figure, summary.frontier, axis, unit)
    styles = world_styles(point.world_size for point in summary.points)
    for on_frontier in (False, True):  # the frontier on top
        chosen = [point for point in summary.points if point.on_frontier is on_frontier]
        for world_size, group in groupby(chosen, key=lambda point: point.world_size):
            labelled = on_frontier or len(summary.points) <= _LABELLED
            _draw_points(figure, list(group), axis, unit, *styles[world_size], labelled=labelled)
    scaled = [cost * unit.scale for cost in costs + [trial_cost(trial, axis) for trial in shown]]
    figure.update_xaxes(title_text=axis_title(axis, unit), **log_axis(scaled))
    figure.update_yaxes(title_text="final validation accuracy", tickformat=".0%", range=[bottom, top])
    if top - bottom < 0.05:
        figure.update_yaxes(tickformat=".1%")
    return figure


def axis_title(axis: str, unit: Unit) -> str:
    """The cost axis in words, with its unit."""
    return f"{unit.label} per trial" + ("" if axis == "usd" else " (billed)")


def trial_cost(trial: TrialRecord, axis: str) -> float:
    """A trial's place on a cost axis. Raises ValueError where it has none."""
    value = getattr(trial.cost, axis)
    if value is None:
        raise ValueError(f"{axis} needs a price")
    return float(value)


def _place(trial: TrialRecord, axis: str) -> float | None:
    """The cost at which a censored trial can be drawn: it must have reported an accuracy."""
    if not trial.censored or not trial.curve or not math.isfinite(trial.curve[-1].val_accuracy):
        return None
    cost = trial_cost(trial, axis)
    return cost if cost > 0 else None


def _accuracy_range(points: Sequence[Point]) -> tuple[float, float]:
    """Room for the points and for intervals of their size: a wide interval must not flatten the frontier."""
    if not points:
        return 0.0, 1.02
    low, high = min(point.val_accuracy for point in points), max(point.val_accuracy for point in points)
    room = max(0.35 * (high - low), 0.01)
    reach = [bound for point in points for bound in point.val_accuracy_ci or ()]
    bottom = max(low - room, min([low - 0.3 * room, *(bound - 0.1 * room for bound in reach)]))
    top = min(high + room, max([high + 0.3 * room, *(bound + 0.1 * room for bound in reach)]))
    return max(0.0, bottom), min(top, 1.0 + 0.06 * (high - low + 0.05))


def _draw_censored(figure: go.Figure, trials: Sequence[TrialRecord], hidden: int, axis: str, unit: Unit) -> None:
    if not trials:
        return
    beyond = f" ({hidden} outside)" if hidden else ""
    figure.add_scatter(
        x=[trial_cost(trial, axis) * unit.scale for trial in trials],
        y=[trial.curve[-1].val_accuracy for trial in trials],
        mode="markers",
        name=f"stopped, diverged or failed{beyond}",
        legendrank=1003,
        marker={"symbol": "circle-open", "size": 7, "color": GREY, "line": {"width": 1.2}},
        hovertext=[censored_hover(trial, axis, unit) for trial in trials],
        hoverinfo="text",
    )


def _draw_staircase(figure: go.Figure, frontier: Sequence[Point], axis: str, unit: Unit) -> None:
    figure.add_scatter(
        x=[cost_of(point, axis) * unit.scale for point in frontier],
        y=[point.val_accuracy for point in frontier],
        mode="lines",
        line={"shape": "hv", "color": GREY, "width": 1.5},
        name="frontier",
        legendrank=1001,
        hoverinfo="skip",
    )


def _draw_points(
    figure: go.Figure,
    points: Sequence[Point],
    axis: str,
    unit: Unit,
    colour: str,
    symbol: str,
    labelled: bool,
) -> None:
    first = points[0]
    accuracies = [point.val_accuracy for point in points]
    intervals = [point.val_accuracy_ci or (point.val_accuracy, point.val_accuracy) for point in points]
    # An accuracy lies between 0 and 1, though the t interval of a few seeds may not.
    above = [max(min(high, 1.0) - y, 0.0) for (_, high), y in zip(intervals, accuracies, strict=True)]
    below = [max(y - max(low, 0.0), 0.0) for (low, _), y in zip(intervals, accuracies, strict=True)]
    figure.add_scatter(
        x=[cost_of(point, axis) * unit.scale for point in points],
        y=accuracies,
        error_y={
            "type": "data",
            "array": above,
            "arrayminus": below,
            "symmetric": False,
            "thickness": 1.2,
            "width": 4,
        },
        mode="markers+text" if labelled else "markers",
        text=[f"B={point.batch_size}" for point in points],
        textposition="top right",
        opacity=1.0 if first.on_frontier else 0.5,
        marker={"symbol": symbol, "size": 11, "color": colour},
        name=f"{ranks(first.world_size)}, {'on the frontier' if first.on_frontier else 'dominated'}",
        legendrank=1000 if first.on_frontier else 1002,
        hovertext=[point_hover(point, axis, unit) for point in points],
        hoverinfo="text",
    )


def point_hover(point: Point, axis: str, unit: Unit) -> str:
    """All that is known of a point, as lines of Plotly's HTML."""
    lines = [
        f"<b>Batch {point.batch_size} on {ranks(point.world_size)}</b>",
        f"{point.world_size} × {point.micro_batch} × {point.accumulation} (ranks × micro batch × accumulation)",  # noqa: RUF001
        f"learning rate {number(point.lr)}, {point.updates:,} updates",
        f"validation accuracy {accuracy(point)}% ({_seeds(point)})",
        f"best epoch {percent(point.best_val_accuracy, 2)}, test {percent(point.test_accuracy, 2)}",
        f"{unit.show(cost_of(point, axis))} a trial",
        f"search {unit.show(getattr(point.search_cost, axis) or 0.0)} in all",
        f"{number(point.samples_per_s)} samples/s",
    ]
    if axis != "usd" and point.cost.usd is not None:
        lines.insert(-2, f"{number(point.cost.usd)} USD a trial")
    return "<br>".join(lines)


def _seeds(point: Point) -> str:
    lost = f", {point.n_censored} censored" if point.n_censored else ""
    return f"{point.n_seeds} seed{'' if point.n_seeds == 1 else 's'}{lost}"


def censored_hover(trial: TrialRecord, axis: str, unit: Unit) -> str:
    """What is known of a trial without a final accuracy."""
    last = trial.curve[-1]
    return "<br>".join(
        (
            f"<b>{escaped(trial.trial_id)}</b>: {trial.outcome}",
            f"batch {trial.batch_size} on {ranks(trial.world_size)}, learning rate {number(trial.lr)}",
            f"validation accuracy {percent(last.val_accuracy, 2)} after {number(last.epochs)} epochs",
            unit.show(trial_cost(trial, axis)),
        )
    )
