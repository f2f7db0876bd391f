"""The report as Markdown, for an issue or a wiki."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from study.reporting.text.claims import claim_lines, details_table
from study.reporting.text.formatting import cost_unit, printable
from study.reporting.text.tables import TextTable, config_yaml, points_table, provenance, spend_table
from study.reporting.text.verdict import verdict

if TYPE_CHECKING:
    from study.analysis.claims.records import ClaimVerdict
    from study.analysis.records import Summary


def render_markdown(summary: Summary) -> str:
    """Verdict, frontier, spend, notes and provenance as GitHub's Markdown."""
    first, *others = verdict(summary)
    parts = [f"# {escaped(summary.study.name)}", f"**{escaped(first)}**"]
    if others:
        parts.append("\n".join(f"- {escaped(sentence)}" for sentence in others))
    if summary.notes:
        parts.append("\n".join(f"> {escaped(note)}  " for note in summary.notes))
    if summary.points:
        parts += ["## Frontier", _table(points_table(summary, frontier_only=True))]
    if len(summary.points) > len(summary.frontier):
        parts += ["## All points", _table(points_table(summary))]
    if any(claim.findings for claim in summary.claims):
        parts += ["## Claims about batch size", claims_markdown(summary.claims)]
    parts += ["## What the study cost", _table(spend_table(summary))]
    facts = "\n".join(f"- {name}: {escaped(value)}" for name, value in provenance(summary))
    parts += ["## Provenance", facts, _fenced(config_yaml(summary), "yaml")]
    return "\n\n".join(parts) + "\n"


def claims_markdown(claims: Sequence[ClaimVerdict]) -> str:
    """Verdicts with their evidence; those without any in one line at the end."""
    parts = []
    for claim in claims:
        if claim.findings:
            verdict = f"**{escaped(claim.claim)}: {claim.verdict}.** {escaped(claim.statement.text)}"
            source = f"({escaped(claim.statement.paper)}, arXiv:{escaped(claim.statement.arxiv)})."
            parts += [f"{verdict} {source}", "\n".join(f"- {escaped(line)}" for line in claim_lines(claim))]
            if claim.details is not None and claim.details.figures:
                parts.append(_table(details_table(claim.details)))
    without = [claim.claim for claim in claims if not claim.findings]
    if without:
        parts.append(f"No evidence here on: {escaped(', '.join(without))}.")
    return "\n\n".join(parts)


def study_claims_markdown(summary: Summary) -> str:
    """A study's verdicts under its name, with what they cost and rest on: for docs/claims.md, an issue or a wiki."""
    spend = summary.spend.total_device_h
    study = summary.study
    facts = f"{cost_unit([spend]).show(spend)} on {', '.join(study.devices) or 'no device'}, {study.started[:10]}"
    head = f"### {escaped(study.name)}\n\n{escaped(facts)}, study {escaped(study.study_id)}."
    return "\n\n".join((head, claims_markdown(summary.claims))) + "\n"


def escaped(text: str) -> str:
    """One line of plain text that Markdown leaves as it is, pipes included."""
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", html.escape(printable(text), quote=False))


def _table(table: TextTable) -> str:
    rule = "| " + " | ".join("---:" for _ in table.heads) + " |"
    return "\n".join((_line(table.heads), rule, *(_line(row) for row in table.rows)))


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(escaped(cell) for cell in cells) + " |"


def _fenced(text: str, language: str) -> str:
    """A code block that no run of backticks inside can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
