"""Figures over batch sizes: where the time went, and what a batch size does to the objective, pace and updates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import plotly.graph_objects as go

from study.analysis.records import Point, Summary, TrialRecord
from study.config.objective import Objective
from study.reporting.figures.style import PHASE_COLOURS, drawn, series_styles, styled, ticks_axis
from study.reporting.text.formatting import cost_unit, pace, series_name, series_of
from study.reporting.text.quality import axis_title, point_text, unit
from study.safe_text import plotly_text


def cost_figure(summary: Summary) -> go.Figure | None:
    """Draw billed device time by phase: a bar for each batch size, search and confirm apart; None without any."""
    if not any(trial.cost.billed_device_h for trial in summary.trials):
        return None
    bars = _phase_device_h(summary.trials)
    cost_in = cost_unit(sum(hours.values()) for hours in bars.values())
    figure = styled("Where the device time went", height=180 + 28 * len(bars))
    for phase, colour in PHASE_COLOURS.items():
        amounts = [hours.get(phase, 0.0) for hours in bars.values()]
        if any(amounts):
            figure.add_bar(
                orientation="h",
                y=list(bars),
                x=[amount * cost_in.scale for amount in amounts],
                name=phase,
                marker={"color": colour, "line": {"width": 0}},
                hovertext=[
                    f"{bar}<br>{phase} {cost_in.show(amount)}" for bar, amount in zip(bars, amounts, strict=True)
                ],
                hoverinfo="text",
            )
    figure.update_layout(barmode="stack", bargap=0.3, legend_traceorder="normal")
    figure.update_xaxes(title_text=f"{cost_in.label} (billed)", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def batch_figure(summary: Summary) -> go.Figure | None:
    """Draw the objective, samples/s and updates over global batch size, a line for each series; None if no points."""
    if not summary.points:
        return None
    figure = styled("What the batch size does", height=760, panels=3)
    styles = series_styles(summary.points)
    for series, group in groupby(summary.points, key=series_of):
        points = list(group)
        colour, symbol = styles[series]
        for row, (values, hover) in enumerate(_panels(summary.objective, points), start=1):
            figure.add_scatter(
                x=[point.batch_size for point in points],
                y=values,
                error_y=_quality_bars(summary.objective, points) if row == 1 else None,
                mode="lines+markers",
                line={"color": colour, "width": 1.5},
                marker={"symbol": symbol, "size": 9, "color": colour},
                name=series_name(series),
                legendgroup=series_name(series),
                showlegend=row == 1,
                hovertext=[f"batch {point.batch_size}: {text}" for point, text in zip(points, hover, strict=True)],
                hoverinfo="text",
                row=row,
                col=1,
            )
    figure.update_xaxes(**ticks_axis(point.batch_size for point in summary.points))
    figure.update_xaxes(title_text="global batch size", row=3, col=1)
    ticks = ".1%" if summary.objective.show == "percent" else ""
    # A panel is a third of the figure high.
    title = plotly_text(axis_title(summary.objective)).replace(" (", "<br>(", 1)
    figure.update_yaxes(title_text=title, tickformat=ticks, row=1, col=1)
    figure.update_yaxes(title_text="samples/s, all ranks", rangemode="tozero", tickformat="~s", row=2, col=1)
    figure.update_yaxes(title_text="updates per trial", rangemode="tozero", tickformat="~s", row=3, col=1)
    return figure


def _panels(objective: Objective, points: Sequence[Point]) -> list[tuple[list[float], list[str]]]:
    """Return the values and the hover texts of each panel, from the top."""
    return [
        (
            [drawn(objective, point.quality) for point in points],
            [plotly_text(f"{point_text(objective, point)} {unit(objective)}".replace(" %", "%")) for point in points],
        ),
        ([point.samples_per_s for point in points], [pace(point) for point in points]),
        ([float(point.updates) for point in points], [f"{point.updates:,} updates" for point in points]),
    ]


def _quality_bars(objective: Objective, points: Sequence[Point]) -> dict[str, object]:
    means = [drawn(objective, point.quality) for point in points]
    reaches = [point.quality_ci or (point.quality, point.quality) for point in points]
    ends = [sorted(drawn(objective, end) for end in reach) for reach in reaches]
    least, most = (0.0, 1.0) if objective.show == "percent" else (-math.inf, math.inf)
    return {
        "type": "data",
        "array": [min(high, most) - mean for mean, (_, high) in zip(means, ends, strict=True)],
        "arrayminus": [mean - max(low, least) for mean, (low, _) in zip(means, ends, strict=True)],
        "thickness": 1.2,
        "width": 4,
    }


def _phase_device_h(trials: Sequence[TrialRecord]) -> dict[str, dict[str, float]]:
    """Return device-hours by phase for each bar, by its name, in the order of the bars."""
    bars: dict[str, dict[str, float]] = {}
    several = len(set(map(series_of, trials))) > 1
    for trial in sorted(trials, key=lambda t: (t.variant, t.world_size, t.batch_size, t.phase != "search")):
        where = f", {series_name(series_of(trial))}" if several else ""  # a phone has little room for names
        bar = bars.setdefault(f"B={trial.batch_size}{where}, {trial.phase}", {})
        for phase, seconds in trial.phases_s.items():
            bar[phase] = bar.get(phase, 0.0) + trial.world_size * trial.devices_per_rank * seconds / 3600
    return bars
