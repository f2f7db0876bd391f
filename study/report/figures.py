"""The figures of a report, one function each: frozen records in, a Plotly figure out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import plotly.graph_objects as go

from study.analysis.records import CurvePoint, Summary, TrialRecord
from study.report.frontier import frontier_figure
from study.report.style import (
    GREY,
    PHASE_COLOURS,
    batch_colours,
    escaped,
    log_axis,
    styled,
    ticks_axis,
    world_dashes,
    world_styles,
)
from study.report.words import cost_unit, number, percent, ranks

__all__ = ["cost_figure", "curves_figure", "frontier_figure", "rates_figure", "throughput_figure"]


def cost_figure(summary: Summary) -> go.Figure:
    """Billed device-hours by phase, in a readable unit: a bar for each batch size, search and confirm apart."""
    bars = _phase_hours(summary.trials)
    unit = cost_unit(sum(hours.values()) for hours in bars.values())
    figure = styled("Where the device time went", height=180 + 28 * len(bars))
    for phase, colour in PHASE_COLOURS.items():
        amounts = [hours.get(phase, 0.0) for hours in bars.values()]
        if any(amounts):
            figure.add_bar(
                orientation="h",
                y=list(bars),
                x=[amount * unit.scale for amount in amounts],
                name=phase,
                marker={"color": colour, "line": {"width": 0}},
                hovertext=[f"{bar}<br>{phase} {unit.show(amount)}" for bar, amount in zip(bars, amounts, strict=True)],
                hoverinfo="text",
            )
    figure.update_layout(barmode="stack", bargap=0.3, legend_traceorder="normal")
    figure.update_xaxes(title_text=f"{unit.label} (billed)", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def throughput_figure(summary: Summary) -> go.Figure:
    """Samples per second of training against batch size, a line for each world size."""
    figure = styled("Throughput")
    styles = world_styles(point.world_size for point in summary.points)
    for world_size, group in groupby(summary.points, key=lambda point: point.world_size):
        points = list(group)
        colour, symbol = styles[world_size]
        figure.add_scatter(
            x=[point.batch_size for point in points],
            y=[point.samples_per_s for point in points],
            mode="lines+markers",
            line={"color": colour, "width": 1.5},
            marker={"symbol": symbol, "size": 9, "color": colour},
            name=ranks(world_size),
            showlegend=True,
            hovertext=[f"batch {point.batch_size}: {number(point.samples_per_s)} samples/s" for point in points],
            hoverinfo="text",
        )
    figure.update_xaxes(title_text="global batch size", **ticks_axis(point.batch_size for point in summary.points))
    figure.update_yaxes(title_text="samples/s, all ranks together", rangemode="tozero", tickformat="~s")
    return figure


def curves_figure(summary: Summary) -> go.Figure:
    """Validation accuracy over epochs: confirm trials in full colour, search trials faint."""
    figure = styled("Learning curves")
    trials = [trial for trial in summary.trials if trial.curve]
    colours = batch_colours(trial.batch_size for trial in trials)
    dashes = world_dashes(trial.world_size for trial in trials)
    for trial in sorted(trials, key=lambda trial: trial.phase == "confirm"):
        confirm = trial.phase == "confirm"
        colour = colours[trial.batch_size]
        figure.add_scatter(
            x=[row.epochs for row in trial.curve],
            y=[row.val_accuracy for row in trial.curve],
            mode="lines" if len(trial.curve) > 1 else "markers",
            line={"color": colour, "width": 2 if confirm else 1, "dash": dashes[trial.world_size]},
            marker={"color": colour, "size": 5},
            opacity=0.9 if confirm else 0.45,
            legendgroup=f"B={trial.batch_size}",
            showlegend=False,
            hovertext=[f"{_about(trial)}<br>{_at(row)}" for row in trial.curve],
            hoverinfo="text",
        )
    _explain(figure, trials, markers=False)
    figure.update_xaxes(title_text="epochs", rangemode="tozero")
    figure.update_yaxes(title_text="validation accuracy", tickformat=".0%")
    return figure


def rates_figure(summary: Summary) -> go.Figure | None:
    """Validation accuracy of search trials where they ended, against learning rate; None without a search.

    Hollow where the trial was stopped, diverged or failed: it may have gone further.
    """
    trials = [t for t in summary.trials if t.phase == "search" and t.outcome is not None and t.curve]
    if not trials:
        return None
    figure = styled("Search: which learning rate")
    colours = batch_colours(trial.batch_size for trial in trials)
    styles = world_styles(trial.world_size for trial in trials)
    dashes = world_dashes(trial.world_size for trial in trials)
    trials.sort(key=lambda trial: (trial.world_size, trial.batch_size, trial.lr))
    for (world_size, batch_size), group in groupby(trials, key=lambda t: (t.world_size, t.batch_size)):
        members = list(group)
        symbol = styles[world_size][1]
        figure.add_scatter(
            x=[trial.lr for trial in members],
            y=[trial.curve[-1].val_accuracy for trial in members],
            mode="lines+markers",
            line={"color": colours[batch_size], "width": 1, "dash": dashes[world_size]},
            marker={
                "symbol": [f"{symbol}-open" if trial.censored else symbol for trial in members],
                "size": 9,
                "color": colours[batch_size],
            },
            legendgroup=f"B={batch_size}",
            showlegend=False,
            hovertext=[f"{_about(trial)}: {trial.outcome}<br>{_at(trial.curve[-1])}" for trial in members],
            hoverinfo="text",
        )
    _explain(figure, trials, markers=True)
    rates = [trial.lr for trial in trials]
    figure.update_xaxes(title_text="learning rate", **(ticks_axis(rates) if len(set(rates)) < 8 else log_axis(rates)))
    figure.update_yaxes(title_text="validation accuracy at the end", tickformat=".0%")
    return figure


def _about(trial: TrialRecord) -> str:
    return f"{escaped(trial.trial_id)}, learning rate {number(trial.lr)}"


def _at(row: CurvePoint) -> str:
    return f"{percent(row.val_accuracy, 2)} after {number(row.epochs)} epochs"


def _explain(figure: go.Figure, trials: Sequence[TrialRecord], markers: bool) -> None:
    """A legend of colours (batch sizes), then of dashes (world sizes) if there are several."""
    for batch_size, colour in batch_colours(trial.batch_size for trial in trials).items():
        name = f"B={batch_size}"
        line = {"color": colour, "width": 2}
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=name, legendgroup=name)
    styles = world_styles(trial.world_size for trial in trials)
    for world_size, dash in world_dashes(trial.world_size for trial in trials).items():
        if len(styles) > 1:
            figure.add_scatter(
                x=[None],
                y=[None],
                mode="lines+markers" if markers else "lines",
                line={"color": GREY, "width": 1.5, "dash": dash},
                marker={"symbol": styles[world_size][1], "color": GREY, "size": 8},
                name=ranks(world_size),
            )


def _phase_hours(trials: Sequence[TrialRecord]) -> dict[str, dict[str, float]]:
    """Device-hours by phase for each bar, in the order of the bars."""
    bars: dict[str, dict[str, float]] = {}
    several = len({trial.world_size for trial in trials}) > 1
    for trial in sorted(trials, key=lambda t: (t.world_size, t.batch_size, t.phase != "search")):
        where = f", {ranks(trial.world_size)}" if several else ""  # a phone has little room for names
        bar = bars.setdefault(f"B={trial.batch_size}{where}, {trial.phase}", {})
        for phase, seconds in trial.phases_s.items():
            bar[phase] = bar.get(phase, 0.0) + trial.world_size * seconds / 3600
    return bars
