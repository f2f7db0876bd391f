"""An analysed table on the terminal and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from study.reporting.text.formatting import NOTHING, half_interval, interval, number, percent
from study.reporting.text.json_records import strict_json
from study.reporting.text.scaling_laws import fit_sentences
from study.reporting.text.tables import TextTable, print_lines, rich_table

if TYPE_CHECKING:
    from study.analysis.tables.fronts import FrontFindings, GroupPoint, TableAnalysis
    from study.analysis.tables.table import Interpretation

_LISTED = 40  # configurations of one group that the terminal shows; summary.json has all


def analysis_record(analysis: TableAnalysis) -> dict[str, Any]:
    """Return the analysis as plain values for strict JSON: an interval's open side is None."""
    record: dict[str, Any] = {
        "source": analysis.source,
        "cost": asdict(analysis.cost) if analysis.cost else None,
        "quality": asdict(analysis.quality) if analysis.quality else None,
        "understood": asdict(analysis.understood),
        **_findings_record(analysis.whole),
    }
    if analysis.groups:
        record["groups"] = {name: _findings_record(findings) for name, findings in analysis.groups.items()}
    return {key: strict_json(value) for key, value in record.items()}


def print_analysis(analysis: TableAnalysis, console: Console) -> None:
    """Print how the table was read, then the configurations and the critical batch size of each group."""
    print_lines(console, *understood_lines(analysis.understood))
    for name, findings in (analysis.groups or {"": analysis.whole}).items():
        if name:
            print_lines(console, "", name, style="bold")
        if findings.points:
            table = findings_table(analysis, findings)
            console.print(rich_table(table, most_rows=_LISTED, wrap_cells=False))
            if len(table.rows) > _LISTED:
                print_lines(console, f"... and {len(table.rows) - _LISTED} more in summary.json")
        print_lines(console, *findings_lines(findings))


def understood_lines(understood: Interpretation) -> tuple[str, ...]:
    """Return how the table was read, in sentences: columns, rows, and notes on what was assumed or left out."""
    columns = "; ".join(f"{meaning}: {column}" for meaning, column in understood.columns.items())
    why = ", ".join(f"{n} {word}" for word, n in understood.why.items())
    rows = f"Rows: {understood.n_rows}, of them {understood.n_final} final"
    if understood.n_censored:
        rows += f", {understood.n_censored} censored ({why})"
    if understood.n_left_out:
        rows += f", {understood.n_left_out} left out"
    lines = [f"Columns: {columns}.", f"{rows}."]
    if understood.as_seeds:
        lines.append(f"Counted as seeds: {', '.join(understood.as_seeds)}.")
    return (*lines, *(f"Note: {note}" for note in understood.notes))


def findings_table(analysis: TableAnalysis, findings: FrontFindings) -> TextTable:
    """Return a row for each configuration, those on the front marked."""
    cost = analysis.cost.column if analysis.cost else ""
    quality = analysis.quality.column if analysis.quality else ""
    several = len({point.group for point in findings.points}) > 1
    columns = tuple(dict.fromkeys(name for point in findings.points for name in point.settings))
    heads = (*(("group",) if several else ()), *columns, "seeds", cost, quality, "front", "P(front)")
    return TextTable(
        heads,
        tuple(_row(point, several, columns) for point in findings.points),
        tuple(point.on_front for point in findings.points),
    )


def findings_lines(findings: FrontFindings) -> tuple[str, ...]:
    """Return hypervolume, critical batch size and notes in sentences."""
    lines = []
    if findings.hypervolume is not None:
        lines.append(f"Hypervolume {number(findings.hypervolume, 4)}{interval(findings.hypervolume_ci)}.")
    if findings.critical_batch is not None:
        lines += fit_sentences(findings.critical_batch)
    return (*lines, *(f"Note: {note}" for note in findings.notes))


def _row(point: GroupPoint, several: bool, columns: Sequence[str]) -> tuple[str, ...]:
    return (
        *((point.group,) if several else ()),
        *(point.settings.get(column, NOTHING) for column in columns),
        str(point.n_seeds) + (f" (+{point.n_censored} censored)" if point.n_censored else ""),
        f"{number(point.cost, 4)}{half_interval(point.cost_ci)}",
        f"{number(point.quality, 4)}{half_interval(point.quality_ci)}",
        "yes" if point.on_front else "",
        percent(point.p_on_front, 0),
    )


def _findings_record(findings: FrontFindings) -> dict[str, Any]:
    return {
        "points": [asdict(point) for point in findings.points],
        "frontier": [asdict(point) for point in findings.frontier],
        "hypervolume": findings.hypervolume,
        "hypervolume_ci": findings.hypervolume_ci,
        "critical_batch": asdict(findings.critical_batch) if findings.critical_batch else None,
        "notes": findings.notes,
    }
