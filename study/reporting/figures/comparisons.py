"""Several things on one plane of cost and quality: studies, groups of a table, or replayed schedulers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import plotly.graph_objects as go

from study.analysis.comparison import Comparison
from study.analysis.replay.replay import Estimate, Result
from study.analysis.statistics.uncertainty import FrontPoint
from study.analysis.tables.fronts import TableAnalysis
from study.config.objective import Objective
from study.reporting.figures.frontier import axis_title
from study.reporting.figures.style import SERIES, drawn, log_axis, styled
from study.reporting.text.comparison import compared_unit
from study.reporting.text.formatting import interval, number, percent
from study.reporting.text.quality import axis_title as quality_title
from study.reporting.text.replay import result_name
from study.safe_text import plotly_text

_LABELLED = 12  # a figure with more points labels none


@dataclass(frozen=True)
class PlaneAxes:
    """The titles of the two axes; a front lies at the low end of a cost unless `more_is_cheaper`."""

    cost: str
    quality: str
    cost_scale: float = 1.0  # costs are multiplied by it
    more_is_cheaper: bool = False


def analysis_figure(analysis: TableAnalysis) -> go.Figure | None:
    """Draw cost against quality of an analysed table, a front for each group; None without both objectives."""
    if analysis.cost is None or analysis.quality is None or not analysis.whole.points:
        return None
    axes = PlaneAxes(analysis.cost.column, analysis.quality.column, more_is_cheaper=analysis.cost.maximize)
    parts = analysis.groups or {"": analysis.whole}
    return fronts_figure("Fronts", {name: part.points for name, part in parts.items()}, axes)


def comparison_figure(comparison: Comparison) -> go.Figure:
    """Draw the fronts of compared studies over one another."""
    unit, objective = compared_unit(comparison), comparison.objective
    title = axis_title(comparison.cost_axis, unit, comparison.leaves_out_setup)
    figure = fronts_figure(
        "Fronts over one another",
        {study.name: [_as_drawn(objective, point) for point in study.points] for study in comparison.studies},
        PlaneAxes(title, f"final {quality_title(objective)}", unit.scale),
    )
    if objective.show == "percent":
        figure.update_yaxes(tickformat=".1~%")
    return figure


def _as_drawn(objective: Objective, point: FrontPoint) -> FrontPoint:
    """Return the point with its quality as a value to draw."""
    ends = sorted(drawn(objective, bound) for bound in point.quality_ci or ())
    return replace(point, quality=drawn(objective, point.quality), quality_ci=(ends[0], ends[1]) if ends else None)


def fronts_figure(title: str, fronts: Mapping[str, Sequence[FrontPoint]], axes: PlaneAxes) -> go.Figure:
    """Draw each front as a staircase in its own colour, all points with 95% intervals, dominated ones faint."""
    figure = styled(plotly_text(title), height=500)
    labelled = sum(map(len, fronts.values())) <= _LABELLED
    for i, (name, points) in enumerate(fronts.items()):
        colour, symbol = SERIES[i % len(SERIES)]
        steps = sorted((point for point in points if point.on_front), key=lambda point: point.cost)
        figure.add_scatter(
            x=[point.cost * axes.cost_scale for point in steps],
            y=[point.quality for point in steps],
            mode="lines",
            line={"shape": "vh" if axes.more_is_cheaper else "hv", "color": colour, "width": 1.5},
            showlegend=False,
            hoverinfo="skip",
        )
        for on_front in (True, False):
            shown = [point for point in points if point.on_front == on_front]
            if shown:
                _draw_points(figure, shown, plotly_text(name), (colour, symbol), labelled, axes.cost_scale)
    costs = [point.cost * axes.cost_scale for points in fronts.values() for point in points]
    figure.update_xaxes(title_text=plotly_text(axes.cost), **log_axis(costs))
    figure.update_yaxes(title_text=plotly_text(axes.quality))
    return figure


def _draw_points(
    figure: go.Figure,
    points: Sequence[FrontPoint],
    name: str,
    look: tuple[str, str],
    labelled: bool,
    cost_scale: float,
) -> None:
    """Draw points that are all on their front, or all dominated."""
    colour, symbol = look
    on_front = points[0].on_front
    place = "on its front" if on_front else "dominated"
    figure.add_scatter(
        x=[point.cost * cost_scale for point in points],
        y=[point.quality for point in points],
        error_x=_bars([_half(point.cost_ci, cost_scale) for point in points], colour),
        error_y=_uneven_bars(points, colour),
        mode="markers+text" if labelled else "markers",
        text=[plotly_text(point.label) for point in points],
        textposition="top right",
        opacity=1.0 if on_front else 0.5,
        marker={"symbol": symbol, "size": 10, "color": colour},
        name=f"{name}, {place}" if name else place,
        hovertext=[_front_hover(point, name, cost_scale) for point in points],
        hoverinfo="text",
    )


def _half(ci: tuple[float, float] | None, scale: float = 1.0) -> float:
    return 0.0 if ci is None else (ci[1] - ci[0]) / 2 * scale  # Student's t lies evenly around its mean


def _front_hover(point: FrontPoint, name: str, cost_scale: float) -> str:
    seeds = f"{point.n_seeds} seed{'' if point.n_seeds == 1 else 's'}"
    known = "" if point.p_on_front is None else f"; on the front with probability {percent(point.p_on_front, 0)}"
    lines = [
        f"<b>{plotly_text(point.label)}</b>" + (f" ({name})" if name else ""),
        f"cost {number(point.cost * cost_scale)}{interval(point.cost_ci, cost_scale, digits=4)}",
        f"quality {number(point.quality, 4)}{interval(point.quality_ci, digits=4)}",
        seeds + known,
    ]
    return "<br>".join(lines)


def replay_figure(results: Sequence[Result], unit: str) -> go.Figure:
    """Draw the cost of a search, in full runs per batch size, against the regret of its choices, in `unit`; a mark for
    each scheduler.

    Bars reach one standard deviation over draws to either side.
    """
    figure = styled("Cost of the search, and regret of its choices", height=480)
    for i, result in enumerate(results):
        colour, symbol = SERIES[i % len(SERIES)]
        repeated = ("", "-open", "-dot")[i // len(SERIES)]  # colours repeat, marks do not
        figure.add_scatter(
            x=[result.runs_per_batch_size.mean],
            y=[result.regret.mean],
            error_x=_bars([result.runs_per_batch_size.sd], colour),
            error_y=_bars([result.regret.sd], colour),
            mode="markers",
            marker={"color": colour, "symbol": f"{symbol}{repeated}", "size": 11},
            name=result_name(result),
            hovertext=[
                f"{result_name(result)}<br>{_mean_interval(result.runs_per_batch_size)} full runs per batch size"
                f"<br>regret {_mean_interval(result.regret)} {unit}"
            ],
            hoverinfo="text",
        )
    figure.update_xaxes(title_text="full runs per batch size", rangemode="tozero")
    figure.update_yaxes(title_text=f"regret, {unit}", rangemode="tozero")
    return figure


def _uneven_bars(points: Sequence[FrontPoint], colour: str) -> dict[str, object]:
    """Return bars of qualities, whose intervals need not lie evenly around their means."""
    ends = [point.quality_ci or (point.quality, point.quality) for point in points]
    below = [point.quality - low for point, (low, _) in zip(points, ends, strict=True)]
    above = [high - point.quality for point, (_, high) in zip(points, ends, strict=True)]
    return _bars(above, colour) | {"symmetric": False, "arrayminus": below}


def _bars(halves: Sequence[float], colour: str) -> dict[str, object]:
    return {"type": "data", "array": list(halves), "color": colour, "thickness": 1, "width": 3}


def _mean_interval(estimate: Estimate) -> str:
    low, high = estimate.ci or (estimate.mean, estimate.mean)
    return f"{number(estimate.mean)} [{number(low)}, {number(high)}]"
