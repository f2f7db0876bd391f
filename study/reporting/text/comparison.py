"""Studies side by side, on the terminal and as plain data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from study.reporting.text.formatting import NOTHING, Unit, cost_unit, half_interval, interval, number, percent
from study.reporting.text.json_records import strict_json
from study.reporting.text.quality import column_head, is_accuracy, with_interval
from study.reporting.text.tables import TextTable, print_lines, rich_table

if TYPE_CHECKING:
    from study.analysis.comparison import Compared, Comparison
    from study.config.objective import Objective


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the points of all studies, what differs in their configs, and their hypervolumes."""
    for table in (compared_points_table(comparison), changes_table(comparison)):
        if table.rows:
            console.print(rich_table(table))
    print_lines(console, *hypervolume_lines(comparison))


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as plain values for strict JSON; costs in the unit in which summaries record them."""
    record = asdict(comparison) | {"objective": comparison.objective.model_dump(mode="json")}
    return {key: strict_json(value) for key, value in record.items()}


def compared_points_table(comparison: Comparison) -> TextTable:
    """Return a row for each point of each study; those on the front of all studies together are marked."""
    unit = compared_unit(comparison)
    heads = (
        "study",
        "configuration",
        "seeds",
        f"{unit.label}\na trial",
        _head(comparison.objective),
        "own\nfront",
        "joint\nfront",
    )
    rows = [
        (
            study.name,
            point.label,
            str(point.n_seeds),
            f"{number(point.cost * unit.scale)}{half_interval(point.cost_ci, unit.scale)}",
            with_interval(comparison.objective, point.quality, point.quality_ci),
            ("yes" if point.on_front else "") + (f" {percent(point.p_on_front, 0)}" if point.p_on_front else ""),
            "yes" if joint else "",
        )
        for study in comparison.studies
        for point, joint in zip(study.points, study.on_joint_front, strict=True)
    ]
    marked = tuple(joint for study in comparison.studies for joint in study.on_joint_front)
    return TextTable(heads, tuple(rows), marked)


def _head(objective: Objective) -> str:
    return "accuracy %" if is_accuracy(objective) else column_head(objective)


def changes_table(comparison: Comparison) -> TextTable:
    """Return a row for each key of the configs that differs, with each study's value as JSON."""
    heads = ("key", *(study.name for study in comparison.studies))
    rows = tuple((change.key, *map(_value, change.values)) for change in comparison.changes)
    return TextTable(heads, rows, (False,) * len(rows))


def hypervolume_lines(comparison: Comparison) -> tuple[str, ...]:
    """Return each front's hypervolume as a multiple of the first one's, and what to know before comparing them."""
    first, *others = comparison.studies
    lines = [f"Hypervolume of {first.name}: {number(first.hypervolume, 4)}."]
    lines += [f"Hypervolume of {other.name}: {_ratio(other)}." for other in others]
    if comparison.leaves_out_setup:
        lines.append("Costs leave out the setup of cold groups.")
    if not comparison.changes:
        lines.append("The configs are the same.")
    if any(change.key.startswith("workload") for change in comparison.changes):
        lines.append("Note: the workloads differ, so their objectives may mean different things.")
    return tuple(lines)


def compared_unit(comparison: Comparison) -> Unit:
    """Return one unit for the costs of all studies."""
    costs: Sequence[float] = [point.cost for study in comparison.studies for point in study.points]
    return cost_unit(costs, comparison.cost_axis)


def _ratio(study: Compared) -> str:
    if study.ratio is None:
        return NOTHING
    known = study.ratio_ci is not None
    return f"{study.ratio:.3f}{interval(study.ratio_ci) if known else ''} times that of the first" + (
        "" if known else " (too few seeds for an interval)"
    )


def _value(value: object) -> str:
    return NOTHING if value is None else json.dumps(value, ensure_ascii=False)
