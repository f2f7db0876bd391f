"""Tables that page, Markdown and terminal share, and how the terminal shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from study.config import yaml_reader as yamlfile
from study.reporting.text.formatting import (
    NOTHING,
    column,
    cost_unit,
    duration,
    half_interval,
    number,
    percent,
)
from study.reporting.text.quality import bare_text, column_head, metric_head, metric_text, point_text
from study.reporting.text.quality import unit as objective_unit
from study.safe_text import printable

if TYPE_CHECKING:
    from study.analysis.records import Summary
    from study.analysis.statistics.uncertainty import FrontPoint
    from study.config.price_list import ListPrice
    from study.config.sections import CostAxis


@dataclass(frozen=True)
class TextTable:
    """Cells of plain text under their heads."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: tuple[bool, ...]  # of each row, whether it is set off


def rich_table(table: TextTable, most_rows: int | None = None, wrap_cells: bool = True) -> RichTable:
    """Return the table for a terminal: the first column to the left, marked rows bold.

    With `wrap_cells=False` only heads wrap in a narrow terminal, and no cell does.
    """
    shown = RichTable(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for i, head in enumerate(table.heads):
        widest = None if wrap_cells else max(len(printable(row[i])) for row in table.rows)
        justify: Literal["left", "right"] = "right" if i else "left"
        shown.add_column(
            Text("\n".join(map(printable, head.split("\n")))), justify=justify, overflow="fold", min_width=widest
        )
    for row, marked in list(zip(table.rows, table.marked, strict=True))[:most_rows]:
        shown.add_row(*(Text(printable(cell)) for cell in row), style="bold" if marked else "")
    return shown


def print_lines(console: Console, *lines: str, style: str = "") -> None:
    """Print lines as they are: nothing in them is taken for markup, and control codes become blanks."""
    for line in lines:
        console.print(Text(printable(line), style=style))


def points_table(summary: Summary, axis: CostAxis | None = None, frontier_only: bool = False) -> TextTable:
    """Return a row for each point, those on the frontier marked; costs are in a readable unit.

    Costs and frontier are those of `axis`, the summary's own by default.
    """
    objective = summary.objective
    axis = axis or summary.cost_axis
    fronts = summary.frontiers[axis].points if summary.points else ()
    unit = cost_unit([front.cost for front in fronts], axis)
    both = [pair for pair in zip(summary.points, fronts, strict=True) if pair[1].on_front or not frontier_only]
    if frontier_only:
        both.sort(key=lambda pair: pair[1].cost)
    apart = [0.0 if summary.include_setup else point.search_cold_setup.on(axis) or 0.0 for point, _ in both]
    whole = [point.search_cost.on(axis) or 0.0 for point, _ in both]
    searches = column((cost - setup) * unit.scale for cost, setup in zip(whole, apart, strict=True))
    if any(apart):
        starts = column(setup * unit.scale for setup in apart)
        searches = [f"{cost} + {setup}" for cost, setup in zip(searches, starts, strict=True)]
    costs = column(front.cost * unit.scale for _, front in both)
    setups = [(point.cold_setup.on(axis) or 0.0) * unit.scale for point, _ in both]
    cold = any(point.cold_setup.on(axis) for point in summary.points)
    beside = "of which cold setup" if summary.include_setup else "plus cold setup"
    variants = any(point.variant for point in summary.points)
    further = [name for name in objective.beside if any(name in point.further for point in summary.points)]
    memory = any(point.peak_memory_bytes for point in summary.points)
    energy = axis != "energy_j" and any(point.cost.energy_j for point in summary.points)
    per_billion = [point.cost_per_billion_tokens(axis) for point, _ in both]
    tokens = summary.tokens_per_sample is not None
    bits = summary.study.of_bytes and objective.metric == "val_loss" and objective.show != "bits"
    billed = tokens and axis != "samples"
    tokens_unit = cost_unit([cost or 0.0 for cost in per_billion], axis)
    billions = [NOTHING if cost is None else number(cost * tokens_unit.scale) for cost in per_billion]
    energy_unit = cost_unit([point.cost.energy_j or 0.0 for point in summary.points], "energy_j")
    heads = (
        *(("variant",) if variants else ()),
        "batch",
        *(("tokens an update",) if tokens else ()),
        "ranks",
        "micro × accum.",  # noqa: RUF001
        "learning rate",
        "seeds",
        "updates",
        column_head(objective),
        f"best {objective_unit(objective)}".strip(),
        f"test {objective_unit(objective)}".strip(),
        *(("bits a byte",) if bits else ()),
        *map(metric_head, further),
        "samples/s",
        *(("tokens/s",) if tokens else ()),
        *(("peak memory GB",) if memory else ()),
        *((f"{energy_unit.label} a trial",) if energy else ()),
        f"{unit.label} a trial",
        *((f"{tokens_unit.label} per billion tokens",) if billed else ()),
        *((beside,) if cold else ()),
        "search, all trials" + (" + cold setup" if any(apart) else ""),
        "frontier",
    )
    rows = tuple(
        (
            *((point.variant,) if variants else ()),
            f"{point.batch_size:,}",
            *((f"{point.batch_tokens:,}",) if tokens else ()),
            str(point.world_size),
            f"{point.micro_batch} × {point.accumulation}",  # noqa: RUF001
            number(point.lr),
            f"{point.n_seeds}" + (f" (+{point.n_censored} censored)" if point.n_censored else ""),
            f"{point.updates:,}",
            point_text(objective, point) + (" (1 seed)" if point.quality_ci is None else ""),
            bare_text(objective, point.best_quality),
            bare_text(objective, point.test_quality),
            *((number(objective.value(point.quality) / math.log(2), 4),) if bits else ()),
            *(metric_text(name, point.further.get(name)) for name in further),
            number(point.samples_per_s),
            *((number(point.tokens_per_s),) if tokens else ()),
            *((_gigabytes(point.peak_memory_bytes),) if memory else ()),
            *((number((point.cost.energy_j or 0.0) * energy_unit.scale),) if energy else ()),
            cost + half_interval(front.cost_ci, unit.scale),
            *((billion,) if billed else ()),
            *((setup,) if cold else ()),
            search,
            _membership(front),
        )
        for (point, front), cost, billion, setup, search in zip(
            both, costs, billions, column(setups), searches, strict=True
        )
    )
    return TextTable(heads, rows, tuple(front.on_front for _, front in both))


def _gigabytes(size: int | None) -> str:
    return NOTHING if size is None else number(size / 1e9)


def _membership(front: FrontPoint) -> str:
    """Return whether the means are on the frontier, and the probability that the configuration is."""
    words = ["yes"] if front.on_front else []
    if front.p_on_front is not None:
        words.append(f"({percent(front.p_on_front, 0)})")
    return " ".join(words)


def spend_table(summary: Summary) -> TextTable:
    """Return the cost of the study in device time, where search and confirm add up to the total, and in US dollars."""
    spend = summary.spend
    unit = cost_unit([spend.total_device_h])
    lines = (
        ("search", spend.search_device_h),
        ("confirm", spend.confirm_device_h),
        ("total", spend.total_device_h),
        ("of which censored trials", spend.censored_device_h),
    )
    shown = column(hours * unit.scale for _, hours in lines)
    rows = [(name, text, _share(hours, spend.total_device_h)) for (name, hours), text in zip(lines, shown, strict=True)]
    usd = total_usd(summary)
    if usd is not None:
        rows.append(("total in USD", number(usd), ""))
    return TextTable(("", unit.label, "share"), tuple(rows), tuple(row[0] == "total" for row in rows))


def _share(part: float, whole: float) -> str:
    return percent(part / whole, 0) if whole > 0 else NOTHING


def total_usd(summary: Summary) -> float | None:
    """Return the price of all trials, in US dollars; None without a price."""
    prices = [trial.cost.usd for trial in summary.trials]
    return None if not prices or None in prices else sum(price for price in prices if price is not None)


def provenance(summary: Summary) -> tuple[tuple[str, str], ...]:
    """Return what a reader needs to trust or repeat the study, as names and values."""
    study = summary.study
    return (
        ("study", study.study_id),
        ("config hash", study.config_hash),
        ("protocol", summary.protocol_version),
        ("started", study.started),
        ("run time of drivers", duration(study.wall_s)),
        ("devices", ", ".join(study.devices) or NOTHING),
        *((("machines", ", ".join(study.hosts)),) if len(study.hosts) > 1 else ()),
        ("hardware", ", ".join(f"{key}: {value}" for key, value in study.hardware.items())),
        ("price", _price(study.config.get("price"))),
        ("versions", ", ".join(f"{key} {value}" for key, value in study.versions.items())),
    )


def _price(price: object) -> str:
    """Return the price of a device-hour, with its source and date."""
    given = {key: value for key, value in price.items() if value is not None} if isinstance(price, dict) else {}
    if "usd_per_device_hour" not in given:
        return "none given"
    return ", ".join(f"{key}: {value}" for key, value in given.items())


def config_yaml(summary: Summary) -> str:
    """Return the study's config as YAML, without keys that have no value."""
    return yamlfile.dump(_given(summary.study.config))


def _given(value: object) -> object:
    if isinstance(value, dict):
        return {key: _given(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_given(item) for item in value]
    return value


def print_prices(prices: Sequence[ListPrice], console: Console) -> None:
    """Print a row for each price of a device-hour, by GPU type, cheapest first."""
    table = RichTable(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("GPU type", "purchase", "provider", "USD an hour", "date", "source"):
        table.add_column(name, justify="right" if name == "USD an hour" else "left", no_wrap=name != "source")
    for price in sorted(prices, key=lambda price: (price.gpu_type, price.purchase, price.usd_per_device_hour)):
        cells = (price.gpu_type, price.purchase, price.provider, f"{price.usd_per_device_hour:.2f}", price.date)
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in (*cells, price.source)))
    console.print(table)
    print_lines(
        console,
        "List prices per GPU, of the dates shown; what you pay may differ. A file of your own wins: --prices FILE, or "
        "price.file in a study.",
    )
