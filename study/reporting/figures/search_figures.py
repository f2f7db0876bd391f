"""Figures of single trials: learning rates, learning curves, and what early stopping cut."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import plotly.graph_objects as go

from study.analysis.records import RateRidge, Summary, TrialRecord
from study.config.objective import Objective
from study.reporting.figures.style import (
    BLUE,
    FAINT,
    GREY,
    SEQUENTIAL,
    batch_colours,
    drawn,
    evenly,
    log_axis,
    series_dashes,
    styled,
    tick_format,
    ticks_axis,
)
from study.reporting.text.formatting import Series, number, percent, series_name, series_of
from study.reporting.text.quality import axis_title, is_accuracy
from study.reporting.text.verdict import ridge_text
from study.safe_text import plotly_text

GroupKey = TypeVar("GroupKey", Series, tuple[Series, int], tuple[tuple[Series, int], str])
MOST_CURVES = 120  # learning curves that are drawn at most
MOST_RATES = 1500  # search trials that are drawn at most
_MOST_REPORTS = 60  # of one curve
_EDGE_PX = 3  # of hollow marks


def rates_figure(summary: Summary) -> go.Figure | None:
    """Draw the last objective of search trials by batch size and learning rate; None without such trials.

    Marks of censored trials are hollow. There is a panel for each series. Of more than MOST_RATES trials, those drawn
    are evenly spread over the rates of each batch size.
    """
    trials = [t for t in summary.trials if t.phase == "search" and t.outcome is not None and t.curve]
    if not trials:
        return None
    objective = summary.objective
    digits = _digits(objective)
    panels = _by(series_of, thinned(trials, MOST_RATES, lambda trial: trial.lr))
    batches, rates = sorted({t.batch_size for t in trials}), sorted({t.lr for t in trials})
    figure = styled("Search: which learning rate", height=60 + 380 * len(panels), panels=len(panels))
    for row, (series, members) in enumerate(sorted(panels.items()), start=1):
        figure.add_scatter(
            x=[batches.index(trial.batch_size) for trial in members],
            y=[trial.lr for trial in members],
            mode="markers",
            marker={
                "symbol": ["square-open" if trial.censored else "square" for trial in members],
                "size": 22 if len(rates) <= 40 else 10,
                "line": {"width": [_EDGE_PX if trial.censored else 0 for trial in members]},
                "color": [_last(objective, trial) for trial in members],
                "coloraxis": "coloraxis",
            },
            text=[str(trial.outcome) for trial in members],
            customdata=[trial.batch_size for trial in members],
            hovertemplate="batch %{customdata}, learning rate %{y:.3g}<br>"
            f"%{{marker.color:{digits}}}, %{{text}}<extra></extra>",
            showlegend=False,
            row=row,
            col=1,
        )
        ridge = next((one for one in summary.ridges if one.variant == members[0].variant), None)
        if ridge is not None:
            figure.add_scatter(**_ridge_line(ridge, batches), row=row, col=1)
        title = "learning rate" + (f", {series_name(series)}" if len(panels) > 1 else "")
        few = len(rates) < 8
        figure.update_yaxes(title_text=title, **(ticks_axis(rates) if few else log_axis(rates)), row=row, col=1)
    figure.update_xaxes(tickvals=list(range(len(batches))), ticktext=[f"{batch:,}" for batch in batches])
    figure.update_xaxes(range=[-0.6, len(batches) - 0.4], showgrid=False)
    figure.update_xaxes(title_text="global batch size", row=len(panels), col=1)
    seen = sorted(quality for t in trials if math.isfinite(quality := objective.of(t.curve[-1])))
    # From the median on: rates that fail would otherwise use up the colours that distinguish good ones.
    middle, best = (drawn(objective, quality) for quality in (seen[len(seen) // 2], seen[-1])) if seen else (0.0, 1.0)
    title = "accuracy" if is_accuracy(objective) else plotly_text(axis_title(objective))
    bar = {"thickness": 12, "outlinewidth": 0, "title": {"text": title, "side": "right"}}
    bar["tickformat"] = tick_format(objective, abs(best - middle))
    # The bright end of the scale is the better one.
    scale = {"colorscale": SEQUENTIAL, "colorbar": bar, "cmin": min(middle, best), "cmax": max(middle, best)}
    scale["reversescale"] = objective.mode == "min"
    figure.update_layout(coloraxis=scale)
    return figure


def _ridge_line(ridge: RateRidge, batches: Sequence[int]) -> dict[str, Any]:
    """Return the trace of the best rates, with their intervals."""
    ys = [best.lr for best in ridge.rates]
    hovers = [
        f"batch {best.batch_size}: best rate about {number(best.lr)} [{number(best.ci[0])}, {number(best.ci[1])}]"
        for best in ridge.rates
    ]
    return {
        "x": [batches.index(best.batch_size) for best in ridge.rates],
        "y": ys,
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [best.ci[1] - best.lr for best in ridge.rates],
            "arrayminus": [best.lr - best.ci[0] for best in ridge.rates],
            "color": BLUE,
            "thickness": 1.5,
        },
        "mode": "lines+markers",
        "line": {"color": BLUE, "width": 2},
        "marker": {"color": BLUE, "size": 6},
        "hovertext": hovers,
        "hoverinfo": "text",
        "name": f"best rate, {ridge_text(ridge)}",
        "showlegend": False,
    }


def curves_figure(summary: Summary) -> go.Figure | None:
    """Draw the objective over epochs, search trials faint; None without reports.

    Of more than MOST_CURVES trials, those drawn are evenly spread from best to worst in each batch size and phase.
    """
    trials = [trial for trial in summary.trials if trial.curve]
    if not trials:
        return None
    objective = summary.objective
    figure = styled("Learning curves")
    colours = batch_colours(trial.batch_size for trial in trials)
    dashes = series_dashes(trials)
    for trial in sorted(
        thinned(trials, MOST_CURVES, lambda trial: objective.of(trial.curve[-1])),
        key=lambda trial: trial.phase == "confirm",
    ):
        confirm = trial.phase == "confirm"
        colour = colours[trial.batch_size]
        reports = evenly(trial.curve, _MOST_REPORTS)
        figure.add_scatter(
            x=[report.epochs for report in reports],
            y=[drawn(objective, objective.of(report)) for report in reports],
            mode="lines" if len(reports) > 1 else "markers",
            line={"color": colour, "width": 2 if confirm else 1, "dash": dashes[series_of(trial)]},
            marker={"color": colour, "size": 5},
            opacity=0.9 if confirm else 0.45,
            legendgroup=f"B={trial.batch_size}",
            showlegend=False,
            text=f"{plotly_text(trial.trial_id)}, learning rate {number(trial.lr)}",
            hovertemplate=f"%{{text}}<br>%{{y:{_digits(objective)}}} after %{{x:.3g}} epochs<extra></extra>",
        )
    _add_legend(figure, colours, dashes)
    figure.update_xaxes(title_text="epochs", rangemode="tozero")
    ticks = ".0%" if objective.show == "percent" else ""
    figure.update_yaxes(title_text=plotly_text(axis_title(objective)), tickformat=ticks)
    return figure


def thinned(trials: Sequence[TrialRecord], most: int, rank: Callable[[TrialRecord], float]) -> Sequence[TrialRecord]:
    """Return about `most` trials, equally many of each batch size, series and phase, evenly spread by `rank`."""
    if len(trials) <= most:
        return trials
    groups = _by(lambda trial: (_cell(trial), trial.phase), trials).values()
    share = max(2, most // len(groups))
    return [trial for group in groups for trial in evenly(sorted(group, key=rank), share)]


def _last(objective: Objective, trial: TrialRecord) -> float:
    return drawn(objective, objective.of(trial.curve[-1]))


def _digits(objective: Objective) -> str:
    """Return the format of values in hover texts."""
    return ".2%" if objective.show == "percent" else ".4g"


def stopping_figure(summary: Summary) -> go.Figure | None:
    """Draw the updates that were trained and cut, as shares of each batch size's full grid; None without a search.

    An audited trial counts up to where it would have been stopped.
    """
    trials = [t for t in summary.trials if t.phase == "search" and t.outcome is not None and t.curve]
    if not trials:
        return None
    cells = dict(sorted(_by(_cell, trials).items()))
    several = len(set(map(series_of, trials))) > 1
    names = [f"B={batch}" + (f", {series_name(series)}" if several else "") for series, batch in cells]
    trained = [sum(map(_share, group)) / len(group) for group in cells.values()]
    hover = [
        f"{_outcomes(group)}<br>{percent(share, 0)} trained"
        for group, share in zip(cells.values(), trained, strict=True)
    ]
    figure = styled("What early stopping cut", height=160 + 28 * len(cells))
    for name, shares, colour in (
        ("trained", trained, BLUE),
        ("cut", [1 - share for share in trained], FAINT),
    ):
        figure.add_bar(
            orientation="h",
            y=names,
            x=shares,
            name=name,
            marker={"color": colour, "line": {"width": 0}},
            hovertext=hover,
            hoverinfo="text",
        )
    figure.update_layout(barmode="stack", bargap=0.3, legend_traceorder="normal")
    figure.update_xaxes(title_text="share of the updates of the full grid", tickformat=".0%", range=[0, 1.02])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def _cell(trial: TrialRecord) -> tuple[Series, int]:
    return series_of(trial), trial.batch_size


def _share(trial: TrialRecord) -> float:
    """Return the share of a whole trial's updates that were trained before it ended, or would have been stopped."""
    return (trial.audited_from or trial.curve[-1].updates) / trial.total_updates


def _outcomes(trials: Sequence[TrialRecord]) -> str:
    """Return the number of trials by outcome: `2 completed, 3 stopped`."""
    return ", ".join(f"{n} {outcome}" for outcome, n in Counter(str(trial.outcome) for trial in trials).items())


def _by(key: Callable[[TrialRecord], GroupKey], trials: Iterable[TrialRecord]) -> dict[GroupKey, list[TrialRecord]]:
    groups: dict[GroupKey, list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        groups[key(trial)].append(trial)
    return groups


def _add_legend(figure: go.Figure, colours: Mapping[int, str], dashes: Mapping[Series, str]) -> None:
    """Add a legend of colours (batch sizes), then of dashes (series) if there are several."""
    for batch_size, colour in colours.items():
        name = f"B={batch_size}"
        line = {"color": colour, "width": 2}
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=name, legendgroup=name)
    for series, dash in dashes.items():
        if len(dashes) > 1:
            line = {"color": GREY, "width": 1.5, "dash": dash}
            figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=series_name(series))
