"""Several fronts in one figure: studies over one another, or the groups of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from study.analysis.statistics.uncertainty import FrontPoint
from study.reporting.figures.style import SERIES, log_axis, styled
from study.reporting.text.formatting import number, percent
from study.safe_text import plotly_text

_LABELLED = 12  # points beyond which none is labelled


@dataclass(frozen=True)
class Axes:
    """What the axes say; a front lies at the low end of a cost unless `more_is_cheaper`."""

    cost: str
    quality: str
    scale: float = 1.0  # costs are multiplied by it
    more_is_cheaper: bool = False


def fronts_figure(title: str, fronts: Mapping[str, Sequence[FrontPoint]], axes: Axes) -> go.Figure:
    """Each front as a staircase in its own colour, all points with 95% intervals, dominated ones faint."""
    figure = styled(plotly_text(title), height=500)
    labelled = sum(map(len, fronts.values())) <= _LABELLED
    for i, (name, points) in enumerate(fronts.items()):
        colour, symbol = SERIES[i % len(SERIES)]
        steps = sorted((point for point in points if point.on_front), key=lambda point: point.cost)
        figure.add_scatter(
            x=[point.cost * axes.scale for point in steps],
            y=[point.quality for point in steps],
            mode="lines",
            line={"shape": "vh" if axes.more_is_cheaper else "hv", "color": colour, "width": 1.5},
            showlegend=False,
            hoverinfo="skip",
        )
        for member in (True, False):
            shown = [point for point in points if point.on_front == member]
            if shown:
                _draw(figure, shown, plotly_text(name), member, (colour, symbol), labelled, axes.scale)
    costs = [point.cost * axes.scale for points in fronts.values() for point in points]
    figure.update_xaxes(title_text=plotly_text(axes.cost), **log_axis(costs))
    figure.update_yaxes(title_text=plotly_text(axes.quality))
    return figure


def _draw(
    figure: go.Figure,
    points: Sequence[FrontPoint],
    name: str,
    member: bool,
    look: tuple[str, str],
    labelled: bool,
    scale: float,
) -> None:
    colour, symbol = look
    place = "on its front" if member else "dominated"
    figure.add_scatter(
        x=[point.cost * scale for point in points],
        y=[point.quality for point in points],
        error_x=_bars([point.cost_ci for point in points], colour, scale),
        error_y=_bars([point.quality_ci for point in points], colour),
        mode="markers+text" if labelled else "markers",
        text=[plotly_text(point.label) for point in points],
        textposition="top right",
        opacity=1.0 if member else 0.5,
        marker={"symbol": symbol, "size": 10, "color": colour},
        name=f"{name}, {place}" if name else place,
        hovertext=[_hover(point, name, scale) for point in points],
        hoverinfo="text",
    )


def _bars(intervals: Sequence[tuple[float, float] | None], colour: str, scale: float = 1.0) -> dict[str, object]:
    """Student's t intervals lie evenly around their mean."""
    halves = [0.0 if ci is None else (ci[1] - ci[0]) / 2 * scale for ci in intervals]
    return {"type": "data", "array": halves, "color": colour, "thickness": 1, "width": 3}


def _hover(point: FrontPoint, name: str, scale: float) -> str:
    lines = [
        f"<b>{plotly_text(point.label)}</b>" + (f" ({name})" if name else ""),
        f"cost {number(point.cost * scale)}{_interval(point.cost_ci, scale)}",
        f"quality {number(point.quality, 4)}{_interval(point.quality_ci)}",
        f"{point.n_seeds} seeds; on the front with probability {percent(point.p_on_front, 0)}",
    ]
    return "<br>".join(lines)


def _interval(ci: tuple[float, float] | None, scale: float = 1.0) -> str:
    return "" if ci is None else f" [{number(ci[0] * scale, 4)}, {number(ci[1] * scale, 4)}]"
