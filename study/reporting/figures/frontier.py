"""The main figure: cost against accuracy, with the frontier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import plotly.graph_objects as go

from study.analysis.records import COST_AXES, TIME_AXES, Point, Summary, TrialRecord
from study.analysis.statistics.uncertainty import FrontPoint
from study.config.sections import CostAxis
from study.reporting.figures.style import GREY, evenly, log_axis, series_styles, styled
from study.reporting.text.formatting import Unit, accuracy, cost_unit, number, percent, series_name, series_of
from study.safe_text import plotly_text

MOST_CENSORED = 600  # hollow marks that are drawn at most
_LABELLED = 8  # with more points only the frontier is labelled


@dataclass(frozen=True)
class _PointOnAxis:
    """A point with its cost on one axis, and whether it is on the frontier over that axis."""

    point: Point
    front: FrontPoint


def frontier_figure(summary: Summary, axis: CostAxis | None = None) -> go.Figure | None:
    """Draw every point with its 95% intervals, the frontier as a staircase, censored trials hollow; None if no points.

    x is `axis`, one of `summary.frontiers` and the summary's own by default, in a readable unit; y is the final
    validation accuracy as a fraction.
    """
    if not summary.points:
        return None
    axis = axis or summary.cost_axis
    fronts = summary.frontiers[axis].points
    places = [_PointOnAxis(point, front) for point, front in zip(summary.points, fronts, strict=True)]
    censored = [trial for trial in summary.trials if _drawable(trial, axis, summary.include_setup)]
    unit = cost_unit([place.front.cost for place in places], axis)
    figure = styled(f"Cost against accuracy: {plotly_text(summary.study.name)}", height=500)
    bottom, top = _accuracy_range(summary.points)
    inside = [trial for trial in censored if bottom <= trial.curve[-1].val_accuracy <= top]
    if censored:
        drawn = evenly(inside, MOST_CENSORED)
        _draw_censored(figure, drawn, len(censored), axis, unit, summary.include_setup)
    frontier = sorted((place for place in places if place.front.on_front), key=lambda place: place.front.cost)
    if len(frontier) > 1:
        _draw_staircase(figure, frontier, unit)
    styles = series_styles(summary.points)
    for on_front in (False, True):  # the frontier on top
        chosen = [place for place in places if place.front.on_front is on_front]
        for series, group in groupby(chosen, key=lambda place: series_of(place.point)):
            labelled = on_front or len(places) <= _LABELLED
            _draw_points(figure, list(group), axis, unit, *styles[series], labelled=labelled)
    marks = [trial_cost(trial, axis, summary.include_setup) for trial in inside]
    scaled = [cost * unit.scale for cost in _extent(places) + marks]
    figure.update_xaxes(title_text=axis_title(axis, unit, summary.leaves_out_setup), **log_axis(scaled))
    figure.update_layout(meta={"linear_range": [0, 1.18 * max(scaled)]})  # labels are to the right of points
    figure.update_yaxes(title_text="final validation accuracy", tickformat=".0%", range=[bottom, top])
    if top - bottom < 0.05:
        figure.update_yaxes(tickformat=".1%")
    return figure


def axis_title(axis: CostAxis, unit: Unit, leaves_out_setup: bool) -> str:
    """Return the title of a cost axis, with its unit, and that it leaves out setup."""
    kind = {"billed_device_h": "billed", "billed_gpu_h": "billed", "wall_h": "wall-clock"}.get(axis, "")
    words = [kind] if kind else []
    if leaves_out_setup and axis in TIME_AXES:
        words.append("without setup of cold groups")
    return f"{unit.label} per trial" + (f" ({', '.join(words)})" if words else "")


def trial_cost(trial: TrialRecord, axis: CostAxis, include_setup: bool) -> float:
    """Return a trial's cost on an axis, in the unit of `Cost`. Raises ValueError where it is unknown."""
    value = trial.compared(include_setup).on(axis)
    if value is None:
        raise ValueError(f"{axis} is not known for {trial.trial_id}")
    return value


def _drawable(trial: TrialRecord, axis: CostAxis, include_setup: bool) -> bool:
    """Return whether a trial is censored, reported a finite accuracy, and has a cost above 0."""
    if not trial.censored or not trial.curve or not math.isfinite(trial.curve[-1].val_accuracy):
        return False
    return (trial.compared(include_setup).on(axis) or 0.0) > 0


def _accuracy_range(points: Sequence[Point]) -> tuple[float, float]:
    """Return a range with room for points and usual intervals: one wide interval must not flatten the frontier."""
    low, high = min(point.val_accuracy for point in points), max(point.val_accuracy for point in points)
    room = max(0.35 * (high - low), 0.01)
    reach = [bound for point in points for bound in point.val_accuracy_ci or ()]
    bottom = max(low - room, min([low - 0.3 * room, *(bound - 0.1 * room for bound in reach)]))
    top = min(high + room, max([high + 0.4 * room, *(bound + 0.1 * room for bound in reach)]))
    return max(0.0, bottom), min(top, 1.0 + 0.35 * room)  # labels of points need room above 100%


def _extent(places: Sequence[_PointOnAxis]) -> list[float]:
    """Return costs that the axis must show: all means, and intervals to half and twice the mean at most."""
    costs = []
    for place in places:
        mean = place.front.cost
        low, high = place.front.cost_ci or (mean, mean)
        costs += [max(low, mean / 2), mean, min(high, 2 * mean)]
    return costs


def _draw_censored(
    figure: go.Figure, drawn: Sequence[TrialRecord], all_of_them: int, axis: CostAxis, unit: Unit, include_setup: bool
) -> None:
    part = f" ({len(drawn):,} of {all_of_them:,} shown)" if len(drawn) < all_of_them else ""
    figure.add_scatter(
        x=[trial_cost(trial, axis, include_setup) * unit.scale for trial in drawn],
        y=[trial.curve[-1].val_accuracy for trial in drawn],
        mode="markers",
        name=f"stopped, diverged, failed or infeasible{part}",
        legendrank=1003,
        marker={"symbol": "circle-open", "size": 7, "color": GREY, "line": {"width": 1.2}},
        hovertext=[censored_hover(trial, axis, unit, include_setup) for trial in drawn],
        hoverinfo="text",
    )


def _draw_staircase(figure: go.Figure, frontier: Sequence[_PointOnAxis], unit: Unit) -> None:
    figure.add_scatter(
        x=[place.front.cost * unit.scale for place in frontier],
        y=[place.point.val_accuracy for place in frontier],
        mode="lines",
        line={"shape": "hv", "color": GREY, "width": 1.5},
        name="frontier",
        legendrank=1001,
        hoverinfo="skip",
    )


def _draw_points(
    figure: go.Figure,
    places: Sequence[_PointOnAxis],
    axis: CostAxis,
    unit: Unit,
    colour: str,
    symbol: str,
    labelled: bool,
) -> None:
    on_front, series = places[0].front.on_front, series_of(places[0].point)
    points = [place.point for place in places]
    # An accuracy lies between 0 and 1 and a cost above 0, though the t interval of a few seeds may not.
    accuracies = [_clipped(point.val_accuracy, point.val_accuracy_ci, 0.0, 1.0) for point in points]
    costs = [_clipped(place.front.cost, place.front.cost_ci, 0.0, math.inf) for place in places]
    figure.add_scatter(
        x=[place.front.cost * unit.scale for place in places],
        y=[point.val_accuracy for point in points],
        error_x=_bars(costs, unit.scale),
        error_y=_bars(accuracies, 1.0),
        mode="markers+text" if labelled else "markers",
        text=[_label(place) for place in places],
        textposition="top right",
        opacity=1.0 if on_front else 0.5,
        marker={"symbol": symbol, "size": 11, "color": colour},
        name=f"{series_name(series)}, {'on the frontier' if on_front else 'dominated'}",
        legendrank=1000 if on_front else 1002,
        hovertext=[point_hover(place.point, place.front, axis, unit) for place in places],
        hoverinfo="text",
    )


def _label(place: _PointOnAxis) -> str:
    p = place.front.p_on_front
    return f"B={place.point.batch_size}" + ("" if p is None else f"<br>{percent(p, 0)}")


def _clipped(mean: float, interval: tuple[float, float] | None, least: float, most: float) -> tuple[float, float]:
    """Return how far an interval reaches below and above its mean, cut to the range from `least` to `most`."""
    low, high = interval or (mean, mean)
    return max(mean - max(low, least), 0.0), max(min(high, most) - mean, 0.0)


def _bars(reaches: Sequence[tuple[float, float]], scale: float) -> dict[str, object]:
    return {
        "type": "data",
        "arrayminus": [below * scale for below, _ in reaches],
        "array": [above * scale for _, above in reaches],
        "symmetric": False,
        "thickness": 1.2,
        "width": 4,
    }


def point_hover(point: Point, front: FrontPoint, axis: CostAxis, unit: Unit) -> str:
    """Return the hover text of a point in Plotly's HTML: configuration, accuracy, and costs, that on `axis` first."""
    lines = [
        f"<b>{point.label[0].upper()}{point.label[1:]}</b>",
        f"{point.world_size} × {point.micro_batch} × {point.accumulation} (ranks × micro batch × accumulation)",  # noqa: RUF001
        f"learning rate {number(point.lr)}, {point.updates:,} updates",
        f"validation accuracy {accuracy(point)}% ({_seeds(point)})",
        f"best epoch {percent(point.best_val_accuracy, 2)}, test {percent(point.test_accuracy, 2)}",
        f"{_spread(front, unit)} a trial",
    ]
    if front.p_on_front is not None:
        lines.insert(1, f"on the frontier with probability {percent(front.p_on_front, 0)}")
    lines += [
        cost_unit([cost], other).show(cost) + " a trial" + (" (wall-clock)" if other == "wall_h" else "")
        for other in COST_AXES
        if other not in (axis, "updates") and (cost := point.compared.on(other))
    ]
    setup = point.cold_setup.on(axis)
    if setup:
        lines.append(f"its bill includes {unit.show(setup)} a trial for setup of cold groups")
    search = point.search_cost.on(axis)
    if search:
        lines.append(f"its search was billed {unit.show(search)} in all{_search_setup(point, axis, unit)}")
    return "<br>".join([*lines, f"{number(point.samples_per_s)} samples/s"])


def _search_setup(point: Point, axis: CostAxis, unit: Unit) -> str:
    setup = point.search_cold_setup.on(axis)
    return f", of which {unit.show(setup)} for setup of cold groups" if setup else ""


def _spread(front: FrontPoint, unit: Unit) -> str:
    if front.cost_ci is None:
        return unit.show(front.cost)
    low, high = (number(bound * unit.scale) for bound in front.cost_ci)
    return f"{unit.show(front.cost)} [{low}, {high}]"


def _seeds(point: Point) -> str:
    lost = f", {point.n_censored} censored" if point.n_censored else ""
    return f"{point.n_seeds} seed{'' if point.n_seeds == 1 else 's'}{lost}"


def censored_hover(trial: TrialRecord, axis: CostAxis, unit: Unit, include_setup: bool) -> str:
    """Return the hover text of a censored trial, with its last validation accuracy."""
    last = trial.curve[-1]
    return "<br>".join(
        (
            f"<b>{plotly_text(trial.trial_id)}</b>: {trial.outcome}",
            f"batch {trial.batch_size}, {series_name(series_of(trial))}, learning rate {number(trial.lr)}",
            f"validation accuracy {percent(last.val_accuracy, 2)} after {number(last.epochs)} epochs",
            unit.show(trial_cost(trial, axis, include_setup)),
        )
    )
