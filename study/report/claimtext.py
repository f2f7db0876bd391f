"""Verdicts on claims in words."""

from __future__ import annotations

from study.analysis.claims.records import ClaimVerdict, Finding
from study.report.tables import Table
from study.report.words import NOTHING, number


def findings_table(claim: ClaimVerdict) -> Table:
    """A row for each comparison, the one that the verdict turns on set off."""
    return Table(
        ("comparison", "verdict", "effect", "95% interval", "test", "p", "seeds"),
        tuple(_row(finding) for finding in claim.findings),
        tuple(finding is claim.deciding for finding in claim.findings),
    )


def _row(finding: Finding) -> tuple[str, ...]:
    interval = NOTHING if finding.ci is None else " to ".join(map(number, finding.ci))
    return (
        finding.statement,
        finding.verdict.replace("_", " "),
        f"{number(finding.effect)} {finding.effect_unit}".strip(),
        interval,
        finding.test or NOTHING,
        number(finding.p, 2),
        " and ".join(map(str, finding.n_seeds)),
    )


def claim_lines(claim: ClaimVerdict) -> tuple[str, ...]:
    """What is claimed and where, why a comparison has no verdict, and what would settle the claim."""
    reasons = [f"{finding.statement}: {finding.reason}" for finding in claim.findings if finding.reason]
    settle = [f"To settle it: {claim.to_settle}"] if claim.to_settle else []
    return (f"{claim.statement.text} ({claim.statement.paper}, arXiv:{claim.statement.arxiv})", *reasons, *settle)
