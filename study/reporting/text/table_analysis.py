"""An analysed table on the terminal and as plain data."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from study.analysis.statistics.critical import CriticalBatch
from study.analysis.tables.fronts import Findings, GroupPoint, TableAnalysis
from study.analysis.tables.table import Understood
from study.reporting.exports import strict_json
from study.reporting.text.formatting import NOTHING, number, percent
from study.reporting.text.tables import TextTable
from study.safe_text import printable

_LISTED = 40  # configurations that the terminal shows of one group; all are in summary.json


def analysis_record(analysis: TableAnalysis) -> dict[str, Any]:
    """The analysis as plain values for strict JSON: an interval's open side is null."""
    record: dict[str, Any] = {
        "source": analysis.source,
        "cost": asdict(analysis.cost) if analysis.cost else None,
        "quality": asdict(analysis.quality) if analysis.quality else None,
        "understood": asdict(analysis.understood),
        **_findings_record(analysis.whole),
    }
    if analysis.groups:
        record["groups"] = {name: _findings_record(findings) for name, findings in analysis.groups.items()}
    plain = strict_json(record)
    assert isinstance(plain, dict)
    return plain


def analysis_json(analysis: TableAnalysis, indent: int | None = None) -> str:
    """The record as text."""
    return json.dumps(analysis_record(analysis), indent=indent, ensure_ascii=False, allow_nan=False)


def print_analysis(analysis: TableAnalysis, console: Console) -> None:
    """How the table was read, then its configurations and the critical batch size, of each group by itself."""
    for line in understood_lines(analysis.understood):
        console.print(Text(printable(line)))
    for name, findings in (analysis.groups or {"": analysis.whole}).items():
        if name:
            console.print(Text(f"\n{printable(name)}", style="bold"))
        if findings.points:
            shown = RichTable(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
            table = findings_table(analysis, findings)
            for i, head in enumerate(table.heads):
                widest = max(len(printable(row[i])) for row in table.rows)  # a header may fold, no figure may
                shown.add_column(
                    Text(printable(head)), justify="left" if i == 0 else "right", overflow="fold", min_width=widest
                )
            for row, marked in list(zip(table.rows, table.marked, strict=True))[:_LISTED]:
                shown.add_row(*(Text(printable(cell)) for cell in row), style="bold" if marked else "dim")
            console.print(shown)
            if len(table.rows) > _LISTED:
                console.print(f"... and {len(table.rows) - _LISTED} more in summary.json", highlight=False)
        for line in findings_lines(findings):
            console.print(Text(printable(line)))


def understood_lines(understood: Understood) -> tuple[str, ...]:
    """How the table was read, in sentences: columns, rows, and notes on what was assumed or left out."""
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


def findings_table(analysis: TableAnalysis, findings: Findings) -> TextTable:
    """A row for each configuration, those on the front marked."""
    cost = analysis.cost.column if analysis.cost else ""
    quality = analysis.quality.column if analysis.quality else ""
    several = len({place.group for place in findings.points}) > 1
    columns = tuple(dict.fromkeys(name for place in findings.points for name in place.settings))
    heads = (*(("group",) if several else ()), *columns, "seeds", cost, quality, "front", "P(front)")
    return TextTable(
        heads,
        tuple(_row(place, several, columns) for place in findings.points),
        tuple(place.on_front for place in findings.points),
    )


def findings_lines(findings: Findings) -> tuple[str, ...]:
    """What stands beside the table, in sentences."""
    lines = []
    if findings.hypervolume is not None:
        lines.append(f"Hypervolume {number(findings.hypervolume, 4)}{interval(findings.hypervolume_ci)}.")
    if findings.critical_batch is not None:
        lines += critical_lines(findings.critical_batch)
    return (*lines, *(f"Note: {note}" for note in findings.notes))


def critical_lines(fit: CriticalBatch) -> list[str]:
    """The critical batch size, or why the law is not to be trusted; nothing is called known that is not."""
    censored = f", {fit.n_censored} of them censored" if fit.n_censored else ""
    runs = f"{fit.n_runs} runs{censored}"
    if fit.b_crit is None:
        lines = [f"Critical batch size: not fitted from {runs}{_bounds(fit)}."]
    else:
        lines = [
            f"Critical batch size {number(fit.b_crit)}{interval(fit.b_crit_ci)}: at least {number(fit.s_min)} steps"
            f"{interval(fit.s_min_ci)} and {number(fit.e_min)} samples{interval(fit.e_min_ci)}; "
            f"{runs}, R² {NOTHING if fit.r2 is None else f'{fit.r2:.3f}'}."
        ]
    if fit.misfit:
        lines.append(f"Do not trust the law here: {fit.misfit_reason}.")
    return lines


def interval(ci: tuple[float, float] | None) -> str:
    """` [low, high]`, or nothing."""
    if ci is None:
        return ""
    return f" [{', '.join(number(bound) if math.isfinite(bound) else '∞' for bound in ci)}]"


def half(ci: tuple[float, float] | None, scale: float = 1.0) -> str:
    """` ± x`: Student's t intervals lie evenly around their mean."""
    return "" if ci is None else f" ± {number((ci[1] - ci[0]) / 2 * scale, 2)}"


def _bounds(fit: CriticalBatch) -> str:
    return f"; it lies in{interval(fit.b_crit_ci)}" if fit.b_crit_ci else ""


def _row(place: GroupPoint, several: bool, columns: Sequence[str]) -> tuple[str, ...]:
    return (
        *((place.group,) if several else ()),
        *(place.settings.get(column, NOTHING) for column in columns),
        str(place.n_seeds) + (f" (+{place.n_censored})" if place.n_censored else ""),
        f"{number(place.cost, 4)}{half(place.cost_ci)}",
        f"{number(place.quality, 4)}{half(place.quality_ci)}",
        "yes" if place.on_front else "",
        percent(place.p_on_front, 0),
    )


def _findings_record(findings: Findings) -> dict[str, Any]:
    return {
        "points": [asdict(point) for point in findings.points],
        "frontier": [asdict(point) for point in findings.frontier],
        "hypervolume": findings.hypervolume,
        "hypervolume_ci": findings.hypervolume_ci,
        "critical_batch": asdict(findings.critical_batch) if findings.critical_batch else None,
        "notes": findings.notes,
    }
