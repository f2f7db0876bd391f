"""Studies side by side: on the terminal, as JSON, and as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from study.analysis.comparison import Compared, Comparison
from study.ledger.atomic_files import write_atomic
from study.reporting.figures.front_overlay import Axes, fronts_figure
from study.reporting.figures.frontier import axis_title
from study.reporting.html.document import rendered, section
from study.reporting.text.formatting import NOTHING, Unit, cost_unit, number, percent
from study.reporting.text.table_analysis import half, interval
from study.reporting.text.tables import TextTable
from study.safe_text import printable


def print_comparison(comparison: Comparison, console: Console) -> None:
    """The points of all studies, the hypervolumes, and what changed."""
    for table in (points_table(comparison), changes_table(comparison)):
        if table.rows:
            shown = RichTable(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
            for i, head in enumerate(table.heads):
                shown.add_column(Text(head), justify="left" if i == 0 else "right")
            for row, marked in zip(table.rows, table.marked, strict=True):
                shown.add_row(*(Text(printable(cell)) for cell in row), style="bold" if marked else "")
            console.print(shown)
    for line in hypervolume_lines(comparison):
        console.print(Text(printable(line)))


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain data; costs in the unit in which summaries record them."""
    return asdict(comparison)


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """compare.json and compare.html; where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    data, page = folder / "compare.json", folder / "compare.html"
    write_atomic(data, json.dumps(comparison_json(comparison), indent=2, ensure_ascii=False) + "\n")
    write_atomic(page, render_comparison(comparison))
    return [data, page]


def render_comparison(comparison: Comparison) -> str:
    """A self-contained HTML document."""
    unit = _unit(comparison)
    figure = fronts_figure(
        "Fronts over one another",
        {study.name: study.points for study in comparison.studies},
        Axes(
            axis_title(comparison.cost_axis, unit, comparison.leaves_out_setup), "final validation accuracy", unit.scale
        ),
    )
    return rendered(
        "fronts.html.j2",
        title="Studies compared",
        headline=" against ".join(study.name for study in comparison.studies),
        lines=hypervolume_lines(comparison),
        sections=[
            section(
                "Fronts over one another",
                "Left and up is better. Means over confirm seeds with 95% intervals; dominated points are faint.",
                "fronts",
                {"": figure},
            )
        ],
        tables=[("Points", points_table(comparison)), ("What changed", changes_table(comparison))],
    )


def points_table(comparison: Comparison) -> TextTable:
    """A row for each point of each study; those on the joint front marked."""
    unit = _unit(comparison)
    heads = (
        "study",
        "configuration",
        "seeds",
        f"{unit.label}\na trial",
        "accuracy %",
        "own\nfront",
        "joint\nfront",
    )
    rows = [
        (
            study.name,
            point.label,
            str(point.n_seeds),
            f"{number(point.cost * unit.scale)}{half(point.cost_ci, unit.scale)}",
            f"{100 * point.quality:.2f}{half(point.quality_ci, 100)}",
            ("yes" if point.on_front else "") + (f" {percent(point.p_on_front, 0)}" if point.p_on_front else ""),
            "yes" if joint else "",
        )
        for study in comparison.studies
        for point, joint in zip(study.points, study.on_joint_front, strict=True)
    ]
    marked = tuple(joint for study in comparison.studies for joint in study.on_joint_front)
    return TextTable(heads, tuple(rows), marked)


def changes_table(comparison: Comparison) -> TextTable:
    """A row for each key of the configs that differs."""
    heads = ("key", *(study.name for study in comparison.studies))
    rows = tuple((change.key, *map(_value, change.values)) for change in comparison.changes)
    return TextTable(heads, rows, (False,) * len(rows))


def hypervolume_lines(comparison: Comparison) -> tuple[str, ...]:
    """How much area each front dominates, as a share of the first one's; and whether the task is the same."""
    first, *others = comparison.studies
    lines = [f"Hypervolume of {first.name}: {number(first.hypervolume, 4)}."]
    lines += [f"{other.name}: {_ratio(other)} of that." for other in others]
    if comparison.leaves_out_setup:
        lines.append("Costs leave out the setup of cold groups.")
    if not comparison.changes:
        lines.append("The configs are the same.")
    if any(change.key.startswith("workload") for change in comparison.changes):
        lines.append("Note: the workloads differ, so their accuracies may mean different things.")
    return tuple(lines)


def _ratio(study: Compared) -> str:
    if study.ratio is None:
        return NOTHING
    known = study.ratio_ci is not None
    return f"{study.ratio:.3f} times{interval(study.ratio_ci) if known else ' (too few seeds for an interval)'}"


def _unit(comparison: Comparison) -> Unit:
    costs: Sequence[float] = [point.cost for study in comparison.studies for point in study.points]
    return cost_unit(costs, comparison.cost_axis)


def _value(value: object) -> str:
    return NOTHING if value is None else json.dumps(value, ensure_ascii=False)
