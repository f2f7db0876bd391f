"""What is reported of a claim: frozen records, computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Answer = Literal["supported", "contradicted", "inconclusive", "no_evidence"]


@dataclass(frozen=True)
class Statement:
    """A claim of the literature."""

    claim: str  # its short name, which is also that of the shipped study that tests it
    text: str
    paper: str
    arxiv: str
    needs: str  # which configuration gives evidence


@dataclass(frozen=True)
class Finding:
    """One comparison that a claim rests on. Effect, interval and margin are in `effect_unit`."""

    statement: str
    verdict: Answer
    effect: float | None  # None where nothing could be compared
    effect_unit: str
    ci: tuple[float, float] | None  # 95%
    margin: float | None  # that of an equivalence, or the smallest effect worth having
    test: str | None
    p: float | None  # of the verdict being wrong, or of support where inconclusive; Holm-corrected
    n_seeds: tuple[int, int]  # of the two sides
    rows: tuple[str, ...]  # ids of the trials it rests on
    reason: str | None  # why there is no verdict, where more seeds alone are not what it lacks
    to_settle: str | None  # what would settle an inconclusive one


@dataclass(frozen=True)
class TableCell:
    """A figure over seeds."""

    mean: float | None  # None where no seed has it
    ci: tuple[float, float] | None  # 95%, Student's t; None under two seeds
    n_seeds: int


@dataclass(frozen=True)
class Figure:
    """One measure across the columns of a table."""

    name: str
    unit: str
    cells: tuple[TableCell, ...]


@dataclass(frozen=True)
class Details:
    """The figures behind a verdict, a column for each setting."""

    heads: tuple[str, ...]
    figures: tuple[Figure, ...]
    note: str | None = None


@dataclass(frozen=True)
class ClaimVerdict:
    """What a study says of a claim."""

    statement: Statement
    verdict: Answer
    findings: tuple[Finding, ...]  # empty without evidence
    details: Details | None
    to_settle: str | None  # what would give a verdict; None where there is one

    @property
    def claim(self) -> str:
        """Its short name."""
        return self.statement.claim

    @property
    def deciding(self) -> Finding | None:
        """The finding that the verdict turns on; None without evidence."""
        return next((finding for finding in self.findings if finding.verdict == self.verdict), None)

    @property
    def rows(self) -> tuple[str, ...]:
        """Ids of all trials it rests on, each once."""
        return tuple(dict.fromkeys(row for finding in self.findings for row in finding.rows))
