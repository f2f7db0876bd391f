"""Frozen records of the claims: statements of the literature, and the verdict of a study on each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ClaimAnswer = Literal["supported", "contradicted", "inconclusive", "no_evidence"]


@dataclass(frozen=True)
class Statement:
    """A claim of the literature, with its source."""

    claim: str  # short name, also of the shipped study that tests it
    text: str
    paper: str
    arxiv: str
    needs: str  # the configuration that gives evidence, for people


@dataclass(frozen=True)
class Finding:
    """One comparison that a claim rests on. Effect, interval and margin are in `effect_unit`."""

    statement: str
    verdict: ClaimAnswer
    effect: float | None  # None where nothing could be compared
    effect_unit: str
    ci: tuple[float, float] | None  # 95%
    margin: float | None  # of an equivalence, or the smallest effect worth having
    test: str | None
    p: float | None  # p-value of the verdict being wrong, of support where inconclusive; Holm-corrected
    n_seeds: tuple[int, int]  # of the two sides
    rows: tuple[str, ...]  # ids of the trials that were compared
    reason: str | None  # why there is no verdict, where more seeds alone would not give one
    to_settle: str | None  # the change that would give a verdict; None where there is one


@dataclass(frozen=True)
class TableCell:
    """Mean and 95% interval of a measure over seeds."""

    mean: float | None  # None where no seed has the measure
    ci: tuple[float, float] | None  # Student's t; None under two seeds
    n_seeds: int


@dataclass(frozen=True)
class TableRow:
    """One measure across the settings of a table."""

    name: str
    unit: str
    cells: tuple[TableCell, ...]


@dataclass(frozen=True)
class Details:
    """The table behind a verdict: a row for each measure, a column for each setting."""

    heads: tuple[str, ...]
    figures: tuple[TableRow, ...]
    note: str | None = None


@dataclass(frozen=True)
class ClaimVerdict:
    """The verdict of a study on one claim."""

    statement: Statement
    verdict: ClaimAnswer
    findings: tuple[Finding, ...]  # empty without evidence
    details: Details | None
    to_settle: str | None  # the change that would give a verdict; None where there is one

    @property
    def claim(self) -> str:
        """The short name of the claim."""
        return self.statement.claim

    @property
    def deciding(self) -> Finding | None:
        """The finding that the verdict turns on; None without evidence."""
        return next((finding for finding in self.findings if finding.verdict == self.verdict), None)

    @property
    def rows(self) -> tuple[str, ...]:
        """Ids of all trials that the findings compare, each once."""
        return tuple(dict.fromkeys(row for finding in self.findings for row in finding.rows))
