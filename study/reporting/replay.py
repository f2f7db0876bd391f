"""A replay as a terminal table, a JSON object, and a page with a figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import plotly.graph_objects as go
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from study.analysis.replay.contenders import RANDOM_SHARE
from study.analysis.replay.replay import COST_TOLERANCE, Estimate, Replay, Result
from study.errors import DiskError, error_context
from study.ledger.atomic_files import write_atomic
from study.reporting.figures.style import SERIES, styled
from study.reporting.html.document import rendered, section
from study.reporting.text.formatting import NOTHING, number, percent
from study.reporting.text.tables import TextTable

_HEADS = (
    "scheduler",
    "cost\n%",
    "log-HV %\n± sd",
    "≥99%\nin %",
    "batch\nsizes",
    "least\ndone",
    "kept\n%",
    "false\n%",
    "flat-\nters",
    "idle\n%",
)


def print_replay(replay: Replay, console: Console) -> None:
    """What was replayed, and a row for each scheduler."""
    table = RichTable(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, padding=0)
    for head in _HEADS:
        table.add_column(head, justify="left" if head == "scheduler" else "right", no_wrap=True)
    for row in replay_table(replay).rows:
        table.add_row(*row)
    for sentence in _about(replay):
        console.print(sentence, markup=False, highlight=False)
    console.print(table)


def replay_table(replay: Replay) -> TextTable:
    """A row for each scheduler."""
    rows = tuple(_row(result) for result in replay.results)
    heads = tuple(head.replace("-\n", "").replace("\n", " ") for head in _HEADS)
    return TextTable(heads, rows, tuple(result.scheduler == "frontier_asha" for result in replay.results))


def _row(result: Result) -> tuple[str, ...]:
    sizes = result.batch_sizes_completed.mean
    return (
        _name(result),
        _points(result.cost_fraction),
        f"{_points(result.log_hv)} ±{100 * result.log_hv.sd:.1f}",
        f"{100 * result.log_hv_ge_99:.0f}",
        f"{sizes:.0f}" if sizes == round(sizes) else f"{sizes:.1f}",
        str(result.min_completions),
        _points(result.front_kept, 0),
        _points(result.front_false, 0),
        _points(result.optimism),
        _points(result.idle_share),
    )


def _name(result: Result) -> str:
    return f"{result.scheduler} {result.profile}".strip()


def _points(estimate: Estimate | None, decimals: int = 1) -> str:
    return NOTHING if estimate is None else f"{100 * estimate.mean:.{decimals}f}"


def _about(replay: Replay) -> list[str]:
    held = f"; {replay.held_back} seeds are held back" if replay.held_back else ""
    return [
        f"{replay.shuffles} draws of {replay.seeds} seeds each ({replay.trials} trials, {replay.batch_sizes} batch "
        f"sizes) in random order on {replay.slots} slots{held}.",
        f"Cost and log-HV are those of the draw's full grid = 100%; HV is the area between cost, in logarithms and "
        f"pooled within each batch size, and accuracy, up to {number(replay.reference_cost_s)} device-seconds, what "
        "the dearest trial costs, and down to 0.",
    ]


def replay_json(replay: Replay) -> dict[str, object]:
    """The replay as plain data; figures over draws with their standard deviation and the mean's 95% interval."""
    plain = {field.name: getattr(replay, field.name) for field in fields(replay) if field.name != "results"}
    return plain | {"schedulers": [_plain(result) for result in replay.results]}


def _plain(result: Result) -> dict[str, object]:
    plain: dict[str, object] = {}
    for field in fields(result):
        value = getattr(result, field.name)
        if isinstance(value, Estimate):
            mean = field.name if field.name == "cost_fraction" else f"{field.name}_mean"
            plain |= {mean: value.mean, f"{field.name}_sd": value.sd, f"{field.name}_ci": value.ci}
        else:
            plain[field.name] = value
    return plain


def write_replay(replay: Replay, folder: Path) -> list[Path]:
    """replay.json and replay.html; where they are. Raises DiskError."""
    with error_context(DiskError, folder):
        folder.mkdir(parents=True, exist_ok=True)
    data, page = folder / "replay.json", folder / "replay.html"
    write_atomic(data, json.dumps(replay_json(replay), indent=2) + "\n")
    write_atomic(page, render_replay(replay))
    return [data, page]


def render_replay(replay: Replay) -> str:
    """A self-contained HTML document."""
    return rendered(
        "replay.html.j2",
        name=replay.source,
        about=_about(replay),
        figure=section(
            "What a scheduler costs, and what it keeps",
            "Left and up is better. Each mark is a scheduler's mean over all draws; its bars reach one standard "
            "deviation to either side, which is what a single study may meet. Hover for the mean's 95% interval.",
            "replay",
            {"": replay_figure(replay.results)},
        ),
        table=replay_table(replay),
        legend=_LEGEND,
    )


_LEGEND = (
    ("≥99% in", "share of the draws in which at least 99% of the grid's log-HV was kept"),
    ("batch sizes", "batch sizes with a trial that was trained to the end, mean"),
    ("least done", "trials of any batch size trained to the end, the fewest in any draw"),
    (
        "kept, false",
        f"batch sizes of the true frontier that were found, and of those found that are not on it; costs within "
        f"{percent(COST_TOLERANCE, 0)} count as equal, and the truth is the mean over all seeds of the grid",
    ),
    (
        "flatters",
        "points of accuracy by which the chosen trial of a batch size beats its learning rate's mean on the seeds that "
        "were held back",
    ),
    ("idle", "share of the slots' time without a trial, until the last was over"),
    ("random", f"{percent(RANDOM_SHARE, 0)} of the grid's trials, to the end"),
    ("one_seed", "every rate of every batch size once, to the end"),
)


def replay_figure(results: Sequence[Result]) -> go.Figure:
    """Cost against log-hypervolume, both as shares of the grid's, a mark for each scheduler."""
    figure = styled("What a scheduler costs, and what it keeps", height=480)
    for i, result in enumerate(results):
        colour, symbol = SERIES[i % len(SERIES)]
        again = i // len(SERIES)  # the second time round, hollow
        figure.add_scatter(
            x=[result.cost_fraction.mean],
            y=[result.log_hv.mean],
            error_x=_bar(result.cost_fraction, colour),
            error_y=_bar(result.log_hv, colour),
            mode="markers",
            marker={"color": colour, "symbol": f"{symbol}-open" if again else symbol, "size": 11},
            name=_name(result),
            hovertext=[
                f"{_name(result)}<br>cost {_interval(result.cost_fraction)}<br>log-HV {_interval(result.log_hv)}"
            ],
            hoverinfo="text",
        )
    figure.update_xaxes(title_text="cost, of the full grid's", tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(title_text="log-hypervolume, of the full grid's", tickformat=".0%")
    return figure


def _bar(estimate: Estimate, colour: str) -> dict[str, object]:
    return {"type": "data", "array": [estimate.sd], "color": colour, "thickness": 1, "width": 3}


def _interval(estimate: Estimate) -> str:
    low, high = estimate.ci or (estimate.mean, estimate.mean)
    return f"{percent(estimate.mean)} [{percent(low)}, {percent(high)}]"
