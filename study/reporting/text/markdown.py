"""The report as Markdown, for an issue or a wiki."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from study.reporting.text.claims import claim_lines, details_table
from study.reporting.text.formatting import cost_unit
from study.reporting.text.recommendation import standings_table
from study.reporting.text.tables import TextTable, config_yaml, points_table, provenance, spend_table
from study.reporting.text.verdict import steps_table, verdict
from study.safe_text import markdown_text

if TYPE_CHECKING:
    from study.analysis.claims.records import ClaimVerdict
    from study.analysis.records import Summary


def render_markdown(summary: Summary) -> str:
    """Return verdict, frontier, spend, notes and provenance as GitHub's Markdown."""
    first, *others = verdict(summary)
    parts = [f"# {markdown_text(summary.study.name)}", f"**{markdown_text(first)}**"]
    if others:
        parts.append("\n".join(f"- {markdown_text(sentence)}" for sentence in others))
    if summary.notes:
        parts.append("\n".join(f"> {markdown_text(note)}  " for note in summary.notes))
    if summary.points:
        parts += ["## Frontier", _table(points_table(summary, frontier_only=True))]
    for heading, table in (
        ("Steps", steps_table(summary)),
        ("How good each is likely to be", standings_table(summary)),
    ):
        if table is not None:
            parts += [f"## {heading}", _table(table)]
    if len(summary.points) > len(summary.frontier):
        parts += ["## All points", _table(points_table(summary))]
    if any(claim.findings for claim in summary.claims):
        parts += ["## Claims about batch size", claims_markdown(summary.claims)]
    parts += ["## What the study cost", _table(spend_table(summary))]
    facts = "\n".join(f"- {name}: {markdown_text(value)}" for name, value in provenance(summary))
    parts += ["## Provenance", facts, _fenced(config_yaml(summary), "yaml")]
    return "\n\n".join(parts) + "\n"


def claims_markdown(claims: Sequence[ClaimVerdict]) -> str:
    """Return verdicts with their evidence; claims without any are named in one line at the end."""
    parts = []
    for claim in claims:
        if claim.findings:
            verdict = f"**{markdown_text(claim.claim)}: {claim.verdict}.** {markdown_text(claim.statement.text)}"
            source = f"({markdown_text(claim.statement.paper)}, arXiv:{markdown_text(claim.statement.arxiv)})."
            parts += [f"{verdict} {source}", "\n".join(f"- {markdown_text(line)}" for line in claim_lines(claim))]
            if claim.details is not None and claim.details.figures:
                parts.append(_table(details_table(claim.details)))
    without = [claim.claim for claim in claims if not claim.findings]
    if without:
        parts.append(f"No evidence in this study for: {markdown_text(', '.join(without))}.")
    return "\n\n".join(parts)


def study_claims_markdown(summary: Summary) -> str:
    """Return a study's verdicts under its name, with its cost, date and devices, for docs/claims.md or an issue."""
    spend = summary.spend.total_device_h
    study = summary.study
    facts = f"{cost_unit([spend]).show(spend)} on {', '.join(study.devices) or 'no device'}, {study.started[:10]}"
    head = f"### {markdown_text(study.name)}\n\n{markdown_text(facts)}, study {markdown_text(study.study_id)}."
    return "\n\n".join((head, claims_markdown(summary.claims))) + "\n"


def _table(table: TextTable) -> str:
    rule = "| " + " | ".join("---:" if head else "---" for head in table.heads) + " |"  # names have no head
    return "\n".join((_line(table.heads), rule, *(_line(row) for row in table.rows)))


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(markdown_text(cell) for cell in cells) + " |"


def _fenced(text: str, language: str) -> str:
    """Return a code block with a longer fence than any backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
