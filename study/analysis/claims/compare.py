"""Questions asked of a study, their answers as findings, and the verdict that follows from several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from study.analysis.claims.measures import Measure
from study.analysis.claims.records import Answer, ClaimVerdict, Details, Figure, Finding, Statement, TableCell
from study.analysis.claims.settings import Setting
from study.analysis.statistics.hypotheses import Arm, Claim, Verdict, judge
from study.analysis.statistics.samples import mean_interval

Kind = Literal["greater", "equivalent", "no_less"]


@dataclass(frozen=True)
class Question:
    """A comparison of two arms; `margin` is in recorded units of the measure, of logarithms for a ratio."""

    statement: str
    kind: Kind
    a: Arm
    b: Arm
    measure: Measure
    margin: float = 0.0
    diverged: tuple[str, ...] = ()  # ids of trials that either side lost


def ask(statement: str, kind: Kind, a: Setting, b: Setting, measure: Measure, margin: float = 0.0) -> Question:
    """The question of two settings."""
    return Question(statement, kind, a.arm(measure), b.arm(measure), measure, margin, a.diverged + b.diverged)


def answers(questions: Sequence[Question]) -> tuple[Finding, ...]:
    """A finding each; the questions are one family under Holm's correction."""
    verdicts = judge([Claim(q.statement, q.kind, q.a, q.b, q.margin) for q in questions])
    return tuple(_finding(question, verdict) for question, verdict in zip(questions, verdicts, strict=True))


def _finding(question: Question, verdict: Verdict) -> Finding:
    found, measure = verdict.difference, question.measure
    finding = Finding(
        statement=question.statement,
        verdict=verdict.verdict,
        effect=measure.effect(found.effect) if found else None,
        effect_unit=measure.effect_unit,
        ci=(measure.effect(found.ci[0]), measure.effect(found.ci[1])) if found else None,
        margin=measure.effect(question.margin) if question.margin else None,
        test=found.test if found else None,
        p=verdict.p_contradicted if verdict.verdict == "contradicted" else verdict.p_supported,
        n_seeds=found.n if found else (len(question.a.values), len(question.b.values)),
        rows=verdict.rows,
        reason=verdict.reason if verdict.p_supported is None else None,
        to_settle=_to_settle(verdict) if verdict.verdict == "inconclusive" else None,
    )
    if question.diverged and verdict.verdict != "inconclusive":
        # The seeds that are left are the lucky ones.
        return replace(
            finding,
            verdict="inconclusive",
            reason=f"{len(question.diverged)} seed(s) diverged, and those left flatter their side",
            to_settle="a rate at which no seed diverges",
        )
    return finding


def _to_settle(verdict: Verdict) -> str:
    if verdict.difference is None:
        return "two or more completed seeds on each side; confirm.seeds of 3 at least"
    if verdict.p_supported is None:
        return "more seeds, or a larger validation set"
    if verdict.more_seeds is None:
        return "another margin: as things stand, a thousand seeds a side would not do"
    return f"about {verdict.more_seeds} more seed(s) a side, if effect and spread stay as they are"


def all_of(verdicts: Iterable[Answer]) -> Answer:
    """Of a claim that says all of several things."""
    verdicts = list(verdicts)
    if "contradicted" in verdicts:
        return "contradicted"
    return "supported" if set(verdicts) == {"supported"} else "inconclusive"


def any_of(verdicts: Iterable[Answer]) -> Answer:
    """Of a claim that says at least one of several things."""
    verdicts = list(verdicts)
    if "supported" in verdicts:
        return "supported"
    return "contradicted" if set(verdicts) == {"contradicted"} else "inconclusive"


def concluded(
    statement: Statement,
    findings: tuple[Finding, ...],
    details: Details,
    decide: Callable[[Iterable[Answer]], Answer] = all_of,
) -> ClaimVerdict:
    """The claim's verdict, from those of its findings."""
    verdict = decide(finding.verdict for finding in findings)
    drafted = ClaimVerdict(statement, verdict, findings, details, None)
    deciding = drafted.deciding
    return replace(drafted, to_settle=deciding.to_settle if deciding else None)


def unproved(statement: Statement) -> ClaimVerdict:
    """For a study that holds no evidence."""
    return ClaimVerdict(statement, "no_evidence", (), None, statement.needs)


def table(settings: Sequence[Setting], measures: Iterable[Measure], note: str | None = None) -> Details:
    """The measures of each setting over its seeds, those left out that no trial has."""
    figures = [
        Figure(measure.name, measure.unit, tuple(cell(setting, measure) for setting in settings))
        for measure in measures
    ]
    known = tuple(figure for figure in figures if any(cell.n_seeds for cell in figure.cells))
    return Details(tuple(setting.name for setting in settings), known, note)


def cell(setting: Setting, measure: Measure) -> TableCell:
    """A measure of a setting, in the unit that it is shown in."""
    found = [measure.value(trial) for trial in setting.trials]
    return cell_of([measure.scale * value for value in found if value is not None])


def cell_of(values: Sequence[float]) -> TableCell:
    """Mean and 95% interval of values, one a seed."""
    mean = sum(values) / len(values) if values else None
    return TableCell(mean, mean_interval(values), len(values))
