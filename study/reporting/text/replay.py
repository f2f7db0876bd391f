"""A replay of schedulers, on the terminal and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from study.reporting.text.formatting import NOTHING, number, percent
from study.reporting.text.quality import difference_unit, value_text
from study.reporting.text.tables import TextTable, print_lines

if TYPE_CHECKING:
    from study.analysis.replay.replay import Estimate, Replay, Result
    from study.config.objective import Objective

DEFAULT = "ridge"  # the scheduler of a new study file
_BARE = ("cost_fraction", "runs_per_batch_size", "regret_worst", "right_rate")  # in JSON, the mean under its own name
_HEADS = ("scheduler", "runs per\nbatch size", "regret\nmean", "regret\nworst", "best rate\nchosen, %")
_MORE_HEADS = (
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


def print_replay(replay: Replay, console: Console, every_column: bool = False) -> None:
    """Print what was replayed, and a row for each scheduler; fits 80 columns."""
    print_lines(console, *replay_lines(replay))
    console.print(_printed(_HEADS, [(result_name(result), *_worth(result)) for result in replay.results]))
    if every_column:
        print_lines(console, cost_line(replay))
        rows = [(result_name(result), *_more(result, replay.objective)) for result in replay.results]
        console.print(_printed(("scheduler", *_MORE_HEADS), rows))


def _printed(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> RichTable:
    table = RichTable(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, padding=(0, 1) if heads is _HEADS else 0)
    for head in heads:
        table.add_column(head, justify="left" if head == "scheduler" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def replay_table(replay: Replay) -> TextTable:
    """Return a row for each scheduler, the one of the default marked; `replay_legend` explains the columns."""
    rows = tuple((result_name(result), *_worth(result), *_more(result, replay.objective)) for result in replay.results)
    heads = tuple(head.replace("-\n", "").replace("\n", " ") for head in (*_HEADS, *_MORE_HEADS))
    return TextTable(heads, rows, tuple(result.scheduler == DEFAULT for result in replay.results))


def _worth(result: Result) -> tuple[str, ...]:
    return (
        _with_interval(result.runs_per_batch_size),
        _with_interval(result.regret),
        f"{result.regret_worst.mean:.2f}",
        f"{100 * result.right_rate.mean:.0f}",
    )


def _with_interval(estimate: Estimate) -> str:
    interval = "" if estimate.ci is None else f" ±{(estimate.ci[1] - estimate.ci[0]) / 2:.2f}"
    return f"{estimate.mean:.2f}{interval}"


def _more(result: Result, objective: Objective) -> tuple[str, ...]:
    sizes = result.batch_sizes_completed.mean
    return (
        _points(result.cost_fraction),
        f"{_points(result.log_hv)} ±{100 * result.log_hv.sd:.1f}",
        f"{100 * result.log_hv_ge_99:.0f}",
        f"{sizes:.0f}" if sizes == round(sizes) else f"{sizes:.1f}",
        str(result.min_completions),
        _points(result.front_kept, 0),
        _points(result.front_false, 0),
        _gain(result.optimism, objective),
        _points(result.idle_share),
    )


def result_name(result: Result) -> str:
    """Return the scheduler with its profile, where it has one."""
    return f"{result.scheduler} {result.profile}".strip()


def _gain(estimate: Estimate | None, objective: Objective) -> str:
    if estimate is None:
        return NOTHING
    gain = objective.difference_scale * estimate.mean
    return f"{gain:.1f}" if objective.show == "percent" else number(gain)


def _points(estimate: Estimate | None, decimals: int = 1) -> str:
    return NOTHING if estimate is None else f"{100 * estimate.mean:.{decimals}f}"


def replay_lines(replay: Replay) -> list[str]:
    """Return what was replayed, and what cost and log-HV mean, in sentences."""
    held = f"; {replay.held_back} seeds are held back" if replay.held_back else ""
    judged = "on the seeds that are held back" if replay.held_back else "on the seeds that it searched with"
    means = "Means over draws"
    drawn = (
        f"{replay.shuffles} draws of {replay.seeds} seeds each ({replay.trials} trials, {replay.batch_sizes} batch "
        f"sizes) in random order on {replay.slots} slots{held}."
    )
    if replay.tables > 1:
        judged, means = "on seeds that are held back, where a table has them", "Means over the tables"
        drawn = f"{replay.tables} tables, {replay.shuffles} draws of each in random order on {replay.slots} slots."
    return [
        drawn,
        f"Runs: device time of the search over that of one whole trial of every batch size. Regret: "
        f"{difference_unit(replay.objective)} by which the chosen rate of a batch size falls behind the grid's best, "
        f"{judged}; mean over batch sizes, and the worst. {means}, with 95% intervals.",
    ]


def cost_line(replay: Replay) -> str:
    """Return what the columns behind the first ones are shares of."""
    most = f"{number(replay.reference_cost_s)} device-seconds, the cost of the most expensive trial"
    return (
        f"Cost and log-HV are shares of the draw's full grid = 100%. HV is the area between "
        f"{replay.objective.label}, from {value_text(replay.objective, replay.reference_quality, 0)}, and "
        f"the logarithm of cost, pooled within each batch size, up to "
        f"{most if replay.tables == 1 else 'the cost of the most expensive trial of each table'}."
    )


def replay_legend(objective: Objective) -> tuple[tuple[str, str], ...]:
    """Return each column of `replay_table` that needs it, and each baseline, with its meaning."""
    from study.analysis.replay.contenders import RANDOM_SHARE  # slow to import
    from study.analysis.replay.replay import COST_TOLERANCE

    return (
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
            f"{difference_unit(objective)} by which the chosen trial of a batch size beats its learning rate's mean on "
            "the seeds that were held back",
        ),
        ("idle", "share of the slots' time without a trial, until the last trial ended"),
        ("random", f"{percent(RANDOM_SHARE, 0)} of the grid's trials, to the end"),
        ("one_seed", "every rate of every batch size once, to the end"),
    )


def replay_record(replay: Replay) -> dict[str, Any]:
    """Return the replay as plain values; figures over draws with standard deviation and the mean's 95% interval."""
    whole = asdict(replay) | {"objective": replay.objective.model_dump(mode="json")}
    results = whole.pop("results")
    return whole | {"schedulers": [_result_record(result) for result in results]}


def _result_record(result: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, value in result.items():
        if isinstance(value, dict):  # an Estimate
            mean = name if name in _BARE else f"{name}_mean"
            plain |= {mean: value["mean"], f"{name}_sd": value["sd"], f"{name}_ci": value["ci"]}
        else:
            plain[name] = value
    return plain
