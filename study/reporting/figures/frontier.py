"""The main figure: cost against the objective, with the frontier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import plotly.graph_objects as go

from study.analysis.records import COST_AXES, TIME_AXES, Point, Summary, TrialRecord
from study.analysis.statistics.uncertainty import FrontPoint
from study.config.objective import Objective
from study.config.sections import CostAxis
from study.reporting.figures.style import GREY, drawn, evenly, log_axis, series_styles, styled, tick_format
from study.reporting.text.formatting import Unit, cost_unit, number, pace, percent, series_name, series_of
from study.reporting.text.quality import axis_title as axis_title_of
from study.reporting.text.quality import is_accuracy, point_text, value_text
from study.reporting.text.quality import unit as objective_unit
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
    objective, as a fraction where it is shown in percent.
    """
    if not summary.points:
        return None
    objective = summary.objective
    axis = axis or summary.cost_axis
    fronts = summary.frontiers[axis].points
    places = [_PointOnAxis(point, front) for point, front in zip(summary.points, fronts, strict=True)]
    censored = [trial for trial in summary.trials if _drawable(trial, axis, summary)]
    unit = cost_unit([place.front.cost for place in places], axis)
    what = "accuracy" if is_accuracy(objective) else plotly_text(objective.label)
    figure = styled(f"Cost against {what}: {plotly_text(summary.study.name)}", height=500)
    bottom, top = _range(objective, summary.points)
    inside = [trial for trial in censored if bottom <= _last(objective, trial) <= top]
    if censored:
        _draw_censored(figure, evenly(inside, MOST_CENSORED), len(censored), axis, unit, summary)
    frontier = sorted((place for place in places if place.front.on_front), key=lambda place: place.front.cost)
    if len(frontier) > 1:
        _draw_staircase(figure, objective, frontier, unit)
    styles = series_styles(summary.points)
    for on_front in (False, True):  # the frontier on top
        chosen = [place for place in places if place.front.on_front is on_front]
        for series, group in groupby(chosen, key=lambda place: series_of(place.point)):
            labelled = on_front or len(places) <= _LABELLED
            _draw_points(figure, objective, list(group), axis, unit, *styles[series], labelled=labelled)
    marks = [trial_cost(trial, axis, summary.include_setup) for trial in inside]
    scaled = [cost * unit.scale for cost in _extent(places) + marks]
    figure.update_xaxes(title_text=axis_title(axis, unit, summary.leaves_out_setup), **log_axis(scaled))
    figure.update_layout(meta={"linear_range": [0, 1.18 * max(scaled)]})  # labels are to the right of points
    title = f"final {plotly_text(axis_title_of(objective))}"
    figure.update_yaxes(title_text=title, tickformat=tick_format(objective, top - bottom), range=[bottom, top])
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


def _drawable(trial: TrialRecord, axis: CostAxis, summary: Summary) -> bool:
    """Return whether a trial is censored, reported a finite objective, and has a cost above 0."""
    if not trial.censored or not trial.curve or not math.isfinite(_last(summary.objective, trial)):
        return False
    return (trial.compared(summary.include_setup).on(axis) or 0.0) > 0


def _last(objective: Objective, trial: TrialRecord) -> float:
    return drawn(objective, objective.of(trial.curve[-1]))


def _range(objective: Objective, points: Sequence[Point]) -> tuple[float, float]:
    """Return a range with room for points and usual intervals: one wide interval must not flatten the frontier."""
    values = [drawn(objective, point.quality) for point in points]
    low, high = min(values), max(values)
    share = objective.show == "percent"
    room = max(0.35 * (high - low), 0.01 * (1.0 if share else max(abs(low), abs(high))))
    reach = [drawn(objective, bound) for point in points for bound in point.quality_ci or ()]
    bottom = max(low - room, min([low - 0.3 * room, *(bound - 0.1 * room for bound in reach)]))
    top = min(high + room, max([high + 0.4 * room, *(bound + 0.1 * room for bound in reach)]))
    return (max(0.0, bottom), min(top, 1.0 + 0.35 * room)) if share else (bottom, top)  # labels need room above 100%


def _extent(places: Sequence[_PointOnAxis]) -> list[float]:
    """Return costs that the axis must show: all means, and intervals to half and twice the mean at most."""
    costs = []
    for place in places:
        mean = place.front.cost
        low, high = place.front.cost_ci or (mean, mean)
        costs += [max(low, mean / 2), mean, min(high, 2 * mean)]
    return costs


def _draw_censored(
    figure: go.Figure, some: Sequence[TrialRecord], all_of_them: int, axis: CostAxis, unit: Unit, summary: Summary
) -> None:
    include_setup = summary.include_setup
    part = f" ({len(some):,} of {all_of_them:,} shown)" if len(some) < all_of_them else ""
    figure.add_scatter(
        x=[trial_cost(trial, axis, include_setup) * unit.scale for trial in some],
        y=[_last(summary.objective, trial) for trial in some],
        mode="markers",
        name=f"stopped, diverged, failed or infeasible{part}",
        legendrank=1003,
        marker={"symbol": "circle-open", "size": 7, "color": GREY, "line": {"width": 1.2}},
        hovertext=[censored_hover(summary.objective, trial, axis, unit, include_setup) for trial in some],
        hoverinfo="text",
    )


def _draw_staircase(figure: go.Figure, objective: Objective, frontier: Sequence[_PointOnAxis], unit: Unit) -> None:
    figure.add_scatter(
        x=[place.front.cost * unit.scale for place in frontier],
        y=[drawn(objective, place.point.quality) for place in frontier],
        mode="lines",
        line={"shape": "hv", "color": GREY, "width": 1.5},
        name="frontier",
        legendrank=1001,
        hoverinfo="skip",
    )


def _draw_points(
    figure: go.Figure,
    objective: Objective,
    places: Sequence[_PointOnAxis],
    axis: CostAxis,
    unit: Unit,
    colour: str,
    symbol: str,
    labelled: bool,
) -> None:
    on_front, series = places[0].front.on_front, series_of(places[0].point)
    points = [place.point for place in places]
    # A share lies between 0 and 1 and a cost above 0, though the t interval of a few seeds may not.
    least, most = (0.0, 1.0) if objective.show == "percent" else (-math.inf, math.inf)
    qualities = [_clipped(*_drawn_with_interval(objective, point), least, most) for point in points]
    costs = [_clipped(place.front.cost, place.front.cost_ci, 0.0, math.inf) for place in places]
    figure.add_scatter(
        x=[place.front.cost * unit.scale for place in places],
        y=[drawn(objective, point.quality) for point in points],
        error_x=_bars(costs, unit.scale),
        error_y=_bars(qualities, 1.0),
        mode="markers+text" if labelled else "markers",
        text=[_label(place) for place in places],
        textposition="top right",
        opacity=1.0 if on_front else 0.5,
        marker={"symbol": symbol, "size": 11, "color": colour},
        name=f"{series_name(series)}, {'on the frontier' if on_front else 'dominated'}",
        legendrank=1000 if on_front else 1002,
        hovertext=[point_hover(objective, place.point, place.front, axis, unit) for place in places],
        hoverinfo="text",
    )


def _drawn_with_interval(objective: Objective, point: Point) -> tuple[float, tuple[float, float] | None]:
    ci = point.quality_ci
    if ci is None:
        return drawn(objective, point.quality), None
    low, high = sorted(drawn(objective, bound) for bound in ci)
    return drawn(objective, point.quality), (low, high)


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


def point_hover(objective: Objective, point: Point, front: FrontPoint, axis: CostAxis, unit: Unit) -> str:
    """Return the hover text of a point in Plotly's HTML: configuration, objective, and costs, that on `axis` first."""
    lines = [
        f"<b>{point.label[0].upper()}{point.label[1:]}</b>",
        f"{point.world_size} × {point.micro_batch} × {point.accumulation} (ranks × micro batch × accumulation)",  # noqa: RUF001
        f"learning rate {number(point.lr)}, {point.updates:,} updates",
        plotly_text(f"{objective.label} {point_text(objective, point)}{_unit_of(objective)} ({_seeds(point)})"),
        f"best epoch {value_text(objective, point.best_quality, 2)}, "
        f"test {value_text(objective, point.test_quality, 2)}",
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
    return "<br>".join([*lines, pace(point)])


def _unit_of(objective: Objective) -> str:
    units = objective_unit(objective)
    return units if units in ("", "%") else f" {units}"


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


def censored_hover(objective: Objective, trial: TrialRecord, axis: CostAxis, unit: Unit, include_setup: bool) -> str:
    """Return the hover text of a censored trial, with its last objective."""
    last = trial.curve[-1]
    return "<br>".join(
        (
            f"<b>{plotly_text(trial.trial_id)}</b>: {trial.outcome}",
            f"batch {trial.batch_size}, {series_name(series_of(trial))}, learning rate {number(trial.lr)}",
            plotly_text(f"{objective.label} {value_text(objective, objective.of(last), 2)}")
            + f" after {number(last.epochs)} epochs",
            unit.show(trial_cost(trial, axis, include_setup)),
        )
    )
