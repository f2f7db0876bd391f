"""The look of figures: palette, layout, axes. Readable on light and dark, and with colour blindness."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from study.analysis.records import Point, TrialRecord
from study.config.objective import Objective
from study.reporting.text.formatting import Series, number, series_of
from study.reporting.text.quality import shown

# Okabe and Ito (2008), without black and yellow: each must contrast with white and with black.
BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
GREY, FAINT = "#8A8F98", "#C4C8CF"
SERIES = ((BLUE, "circle"), (VERMILION, "square"), (GREEN, "diamond"), (PURPLE, "triangle-up"), (ORANGE, "cross"))
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
# Viridis without its ends: they are hard to see on black and on white.
SEQUENTIAL = sample_colorscale("Viridis", [0.15 + 0.08 * i for i in range(10)])
PHASE_COLOURS = {
    "setup": ORANGE,
    "train": BLUE,
    "validate": SKY,
    "checkpoint": PURPLE,
    "probe": GREEN,
    "idle": GREY,
    "teardown": "#B8BCC4",
    "lost": VERMILION,
}
_TEXT = "#737984"
Item = TypeVar("Item")
_GRID = "rgba(128, 128, 128, 0.22)"


def evenly(items: Sequence[Item], most: int) -> Sequence[Item]:
    """Return at most `most` of the items (2 or more), evenly spread, with the first and the last."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def styled(title: str, height: int = 440, panels: int = 1) -> go.Figure:
    """Return an empty figure, `height` pixels high, of panels one above the other over one x axis.

    The title may hold Plotly's markup, so escape text of users.
    """
    figure = make_subplots(rows=panels, cols=1, shared_xaxes=True, vertical_spacing=0.07)
    figure.update_layout(
        template=go.layout.Template(),  # Plotly's default template has its own colours
        title={"text": title, "x": 0, "xref": "paper", "font": {"size": 16}},
        height=height,
        font={"family": "system-ui, sans-serif", "size": 13, "color": _TEXT},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 8, "r": 12, "t": 48, "b": 8},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": BLUE},
        hovermode="closest",
        hoverlabel={"align": "left", "font": {"family": "system-ui, sans-serif", "size": 13}},
    )
    axis = {
        "gridcolor": _GRID,
        "linecolor": _GRID,
        "showline": True,
        "zeroline": False,
        "automargin": True,
        "title": {"standoff": 12},
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def drawn(objective: Objective, quality: float) -> float:
    """Return a quality as figures draw it: a fraction for percent, which the axis formats, else as shown."""
    return objective.value(quality) if objective.show == "percent" else shown(objective, quality)


def tick_format(objective: Objective, span: float) -> str:
    """Return the format of ticks at values of the objective, over a range of `span`."""
    if objective.show != "percent":
        return ""
    return ".1%" if span < 0.05 else ".0%"


def series_styles(items: Iterable[Point | TrialRecord]) -> dict[Series, tuple[str, str]]:
    """Return a colour and a marker symbol for each series; from the sixth series on they are combined differently."""
    styles = {}
    for i, series in enumerate(sorted({series_of(item) for item in items})):
        turn, index = divmod(i, len(SERIES))
        styles[series] = SERIES[index][0], SERIES[(index + turn) % len(SERIES)][1]
    return styles


def series_dashes(items: Iterable[Point | TrialRecord]) -> dict[Series, str]:
    """Return the dash style of the lines of each series."""
    return {series: DASHES[i % len(DASHES)] for i, series in enumerate(sorted({series_of(item) for item in items}))}


def batch_colours(batch_sizes: Iterable[int]) -> dict[int, str]:
    """Return a colour for each batch size, evenly along a sequential scale in their order."""
    sizes = sorted(set(batch_sizes))
    places = [0.28 + 0.54 * i / (len(sizes) - 1) if len(sizes) > 1 else 0.5 for i in range(len(sizes))]
    return dict(zip(sizes, sample_colorscale("Viridis", places), strict=True)) if sizes else {}


def log_axis(values: Sequence[float]) -> Mapping[str, object]:
    """Return the layout of a log axis around `values`, ticks at 1, 2 and 5; of a linear one if any is not positive."""
    if not values or min(values) <= 0:
        return {}
    span = math.log10(max(values) / min(values))
    # Labels are to the right of points, and need room on a phone too.
    low = min(values) / 10 ** max(0.06 * span, 0.04)
    high = max(values) * 10 ** max(0.2 * span, 0.08)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), tuple(range(1, 10)), tuple(i / 10 for i in range(10, 100))):
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(ticks) >= 3:
            break
    return {
        "type": "log",
        "range": [math.log10(low), math.log10(high)],
        "tickvals": ticks,
        "ticktext": [number(tick) for tick in ticks],
    }


def ticks_axis(values: Iterable[float]) -> Mapping[str, object]:
    """Return the layout of a log axis with a tick at each value."""
    ticks = sorted(set(values))
    return {"type": "log", "tickvals": ticks, "ticktext": [number(tick) for tick in ticks]}
