"""Verdicts on claims in words: the terminal's view, and the lines, tables and records that reports share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from study.reporting.text.formatting import NOTHING, number
from study.reporting.text.json_records import strict_json
from study.reporting.text.tables import TextTable, print_lines, rich_table

if TYPE_CHECKING:
    from study.analysis.claims.records import ClaimVerdict, Details, Finding, TableCell
    from study.analysis.records import Summary

STYLES = {"supported": "bold green", "contradicted": "bold red", "inconclusive": "bold yellow", "no_evidence": "dim"}
_MOST_COLUMNS = 5  # settings in columns; if there are more, each is a row
_ROUNDING = 1e-9  # as a share of a mean: a narrower interval is rounding
_MOST_ROWS = 4  # trials that the terminal names; of more, only the first, the last and their number


def print_claims(summary: Summary, console: Console) -> None:
    """Print each claim that the study has evidence for; then, in a line each, what the other claims would need."""
    print_lines(console, summary.study.name, style="bold")
    for note in summary.notes:
        print_lines(console, f"Note: {note}")
    _print_evidence(summary, console)
    print_lines(console, "")
    for claim in summary.claims:
        if not claim.findings:
            print_lines(
                console, f"{claim.claim}: no evidence here; it needs {claim.to_settle}", style=STYLES[claim.verdict]
            )


def print_verdicts(summary: Summary, console: Console) -> None:
    """Print the verdicts at the end of a run: with all evidence if the study compares variants, else a line a claim."""
    if summary.study.config.get("variants"):
        _print_evidence(summary, console)
        return
    for claim in summary.claims:
        if claim.deciding is not None:
            print_lines(console, f"Claim {claim.claim}: {finding_line(claim.deciding)}.")


def _print_evidence(summary: Summary, console: Console) -> None:
    for claim in summary.claims:
        if claim.findings:
            print_lines(console, "")
            print_lines(console, f"{claim.claim}: {claim.verdict}", style=STYLES[claim.verdict])
            print_lines(console, f"{claim.statement.text} ({claim.statement.paper}, arXiv:{claim.statement.arxiv}).")
            for line in claim_lines(claim):
                console.print(Padding(Text(line), (0, 0, 0, 2)))
            if claim.details is not None and claim.details.figures:
                console.print(rich_table(details_table(claim.details)))
            print_lines(console, f"Based on {_named(claim.rows)}.", style="dim")


def claim_lines(claim: ClaimVerdict) -> tuple[str, ...]:
    """Return a line for each finding, the note of the table, and what would settle an inconclusive claim."""
    lines = [finding_line(finding) for finding in claim.findings]
    if claim.details is not None and claim.details.note:
        lines.append(claim.details.note)
    if claim.verdict == "inconclusive" and claim.to_settle:
        lines.append(f"To settle it: {claim.to_settle}.")
    return tuple(lines)


def finding_line(finding: Finding) -> str:
    """Return a finding in one line: statement, verdict, effect with its 95% interval, test and number of seeds."""
    parts = [f"{finding.statement}: {finding.verdict}"]
    if finding.effect is not None and finding.ci is not None:
        low, high = finding.ci
        sign = "" if finding.effect_unit == "times" else "+"
        span = f"{_figure(finding.effect, sign)} {finding.effect_unit} [{_figure(low, sign)}, {_figure(high, sign)}]"
        parts.append(span + (f", margin {number(finding.margin)}" if finding.margin else ""))
    if finding.test is not None:
        p = "" if finding.p is None else f", p {'< 0.001' if finding.p < 0.001 else f'= {finding.p:.3f}'}"
        a, b = finding.n_seeds
        parts.append(f"{finding.test}{p}, {a if a == b else f'{a} and {b}'} seeds")
    if finding.reason is not None:
        parts.append(finding.reason)
    return "; ".join(parts)


def details_table(details: Details) -> TextTable:
    """Return means ± half of the 95% interval: a row for each measure, or for each setting where these are many."""
    columns = [[_shown(cell) for cell in figure.cells] for figure in details.figures]
    names = [f"{figure.name}, {figure.unit}" if figure.unit else figure.name for figure in details.figures]
    heads, rows = details.heads, tuple((name, *column) for name, column in zip(names, columns, strict=True))
    if len(heads) > _MOST_COLUMNS:
        heads, rows = tuple(names), tuple(zip(details.heads, *columns, strict=True))
    return TextTable(("", *heads), rows, (False,) * len(rows))


def _figure(value: float, sign: str) -> str:
    if not math.isfinite(value):
        return "unbounded"
    return f"{value:{sign},.0f}" if abs(value) >= 1000 else f"{value:{sign}.3g}"


def _shown(cell: TableCell) -> str:
    if cell.mean is None:
        return NOTHING
    if cell.ci is None:
        return f"{number(cell.mean, 4)} (1 seed)"
    half = (cell.ci[1] - cell.ci[0]) / 2
    if not half > _ROUNDING * abs(cell.mean):
        return number(cell.mean, 4)
    decimals = max(0, 1 - math.floor(math.log10(half)))
    return f"{cell.mean:,.{decimals}f} ± {half:,.{decimals}f}"


def _named(rows: Sequence[str]) -> str:
    if len(rows) <= _MOST_ROWS:
        return ", ".join(rows) or "no trial"
    return f"{len(rows)} trials, {rows[0]} to {rows[-1]}"


def claims_record(summaries: Iterable[Summary]) -> dict[str, Any]:
    """Return the verdicts of some studies as plain values for strict JSON."""
    return {
        "studies": [
            {
                "study_id": summary.study.study_id,
                "name": summary.study.name,
                "claims": [strict_json(asdict(claim)) for claim in summary.claims],
            }
            for summary in summaries
        ]
    }
