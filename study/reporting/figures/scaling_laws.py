"""Figures of fitted laws: updates to a target over batch size, and throughput over samples per rank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

import numpy as np
import plotly.graph_objects as go

from study.analysis.records import Critical, Summary
from study.analysis.statistics.critical import StepsToTarget
from study.analysis.statistics.stepmodel import StepModel, StepTime
from study.analysis.tables.fronts import TableAnalysis
from study.reporting.figures.style import GREY, SERIES, log_axis, styled
from study.reporting.text.formatting import number, ranks

_ALONG = 60  # points of a drawn curve


def critical_figure(summary: Summary) -> go.Figure | None:
    """Draw updates to the target for each variant of a study; None without a fitted law."""
    if summary.critical is None:
        return None
    return steps_figure((summary.critical, *summary.other_criticals), summary.noise_scale)


def analysis_steps_figure(analysis: TableAnalysis) -> go.Figure | None:
    """Draw steps to the target of an analysed table, a law for each group; None where none was fitted."""
    fitted = [
        Critical(name, None, "as in the table", part.runs, part.critical_batch)
        for name, part in (analysis.groups or {"": analysis.whole}).items()
        if part.critical_batch is not None
    ]
    return steps_figure(fitted, None) if fitted else None


def steps_figure(criticals: Sequence[Critical], noise_scale: float | None) -> go.Figure:
    """Draw updates to the target against batch size, both logarithmic: runs, fitted law, critical batch size.

    Runs that never reached the target are hollow and point up: they would have taken longer. A colour for each variant.
    """
    runs = [run for critical in criticals for run in critical.runs]
    batches = [run.batch_size for run in runs]
    places = [*batches, *([] if noise_scale is None else [noise_scale])]
    for critical in criticals:
        if critical.fit.b_crit is not None:  # the axis does not follow one far outside
            places.append(min(max(critical.fit.b_crit, min(batches) / 4), 4 * max(batches)))
    shown = min(places), max(places)
    figure = styled("Updates to the target")
    for i, critical in enumerate(criticals):
        _draw_critical(figure, critical, shown, SERIES[i % len(SERIES)][0])
    if noise_scale is not None:
        _draw_batch_size(figure, noise_scale, "noise scale, measured", GREY, "dot")
    figure.update_xaxes(title_text="global batch size", **log_axis(places))
    figure.update_yaxes(title_text="updates to the target", **log_axis([run.steps for run in runs]))
    return figure


def _draw_critical(figure: go.Figure, critical: Critical, shown: tuple[float, float], colour: str) -> None:
    of = f"{critical.variant}: " if critical.variant else ""
    met = [run for run in critical.runs if run.reached]
    gave_up = [run for run in critical.runs if not run.reached]
    if met:
        _draw_runs(figure, met, f"{of}reached the target", "circle", colour)
    if gave_up:
        _draw_runs(figure, gave_up, f"{of}target not reached: a lower bound", "triangle-up-open", colour)
    fit = critical.fit
    if fit.b_crit is None or fit.s_min is None:
        return
    batches = [run.batch_size for run in critical.runs]
    along = np.geomspace(min(batches), max(batches), _ALONG)
    figure.add_scatter(
        x=along,
        y=fit.s_min * (1 + fit.b_crit / along),
        mode="lines",
        line={"color": colour, "width": 1.5},
        name=f"{of}fitted law",
        hoverinfo="skip",
    )
    if shown[0] <= fit.b_crit <= shown[1]:
        _draw_batch_size(figure, fit.b_crit, f"{of}critical batch size, 95% interval", colour, "dash")
        if fit.b_crit_ci is not None:
            low, high = (min(max(bound, shown[0]), shown[1]) for bound in fit.b_crit_ci)
            figure.add_vrect(low, high, fillcolor=colour, opacity=0.12, line_width=0)


def _draw_runs(figure: go.Figure, runs: Sequence[StepsToTarget], name: str, symbol: str, colour: str) -> None:
    figure.add_scatter(
        x=[run.batch_size for run in runs],
        y=[run.steps for run in runs],
        mode="markers",
        marker={"symbol": symbol, "size": 9, "color": colour, "line": {"width": 1.5, "color": colour}},
        name=name,
        hovertext=[f"batch {number(run.batch_size)}: {number(run.steps)} updates, {name}" for run in runs],
        hoverinfo="text",
    )


def _draw_batch_size(figure: go.Figure, batch: float, name: str, colour: str, dash: str) -> None:
    line = {"color": colour, "width": 1.5, "dash": dash}
    figure.add_vline(x=batch, line=line)
    figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=name)  # vlines have no entry in the legend


def model_figure(summary: Summary) -> go.Figure | None:
    """Draw samples/s against samples per rank: medians of runs, the fitted step time, its extrapolation dotted.

    Curves are for steps without accumulation, on the world sizes that were run, half the least and twice the most.
    """
    model = summary.throughput_model
    if model is None:
        return None
    figure = styled("Throughput: measured, fitted, extrapolated")
    measured = _medians(summary.step_times)
    least, most = model.micro_batches
    sizes = sorted({*model.world_sizes, max(1, model.world_sizes[0] // 2), 2 * model.world_sizes[-1]})
    for i, world_size in enumerate(sizes):
        colour, symbol = SERIES[i % len(SERIES)]
        of_size = {micro: step_s for (size, micro), step_s in measured.items() if size == world_size}
        figure.add_scatter(
            x=list(of_size),
            y=[world_size * micro / step_s for micro, step_s in of_size.items()],
            mode="markers",
            marker={"symbol": symbol, "size": 7, "color": colour},
            name=f"{ranks(world_size)}, measured",
            showlegend=bool(of_size),
            hovertemplate=f"{ranks(world_size)} × %{{x}}: %{{y:,.0f}} samples/s<extra></extra>",  # noqa: RUF001
        )
        for extrapolated in (False, True):
            _draw_model(figure, model, world_size, (max(1, least // 2), 2 * most), extrapolated, colour)
    figure.update_xaxes(title_text="samples per rank in one step", **log_axis([max(1, least // 2), 2 * most]))
    figure.update_yaxes(title_text="samples/s, all ranks", type="log", dtick=1)
    return figure


def _medians(steps: Sequence[StepTime]) -> dict[tuple[int, int], float]:
    """Return the median seconds of a step without accumulation, by world size and micro batch."""
    runs: dict[tuple[int, int], list[float]] = defaultdict(list)
    for step in steps:
        if step.accumulation == 1:
            runs[step.world_size, step.micro_batch].append(step.step_s)
    return {shape: median(runs[shape]) for shape in sorted(runs)}


def _draw_model(
    figure: go.Figure, model: StepModel, world_size: int, between: tuple[int, int], extrapolated: bool, colour: str
) -> None:
    places = sorted({*map(round, np.geomspace(*between, _ALONG)), *model.micro_batches})
    paces = [_pace(model, world_size, place, extrapolated) for place in places]
    if any(pace is not None for pace in paces):
        figure.add_scatter(
            x=places,
            y=paces,
            mode="lines",
            line={"color": colour, "width": 1.5, "dash": "dot" if extrapolated else "solid"},
            name=f"{ranks(world_size)}, {'extrapolated' if extrapolated else 'fitted'}",
            hovertemplate="%{fullData.name}<br>%{x:.3g} samples per rank: %{y:,.0f} samples/s<extra></extra>",
        )


def _pace(model: StepModel, world_size: int, micro_batch: int, extrapolated: bool) -> float | None:
    """Return predicted samples/s; None unless the prediction is extrapolated as asked."""
    predicted = model.predict(world_size, micro_batch)
    if predicted is None or predicted.extrapolated != extrapolated:
        return None
    return predicted.samples_per_s
