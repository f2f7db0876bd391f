"""Comparisons of settings, their findings, and the verdict on a claim that follows from several findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from study.analysis.claims.measures import Measure
from study.analysis.claims.records import ClaimAnswer, ClaimVerdict, Details, Finding, Statement, TableCell, TableRow
from study.analysis.claims.settings import Setting
from study.analysis.statistics.hypotheses import Arm, Hypothesis, HypothesisKind, Judgement, judge
from study.analysis.statistics.samples import mean_interval


@dataclass(frozen=True)
class Question:
    """A hypothesis about two arms; `margin` is in recorded units of the measure, of logarithms for a ratio."""

    statement: str
    kind: HypothesisKind
    a: Arm
    b: Arm
    measure: Measure
    margin: float = 0.0
    diverged: tuple[str, ...] = ()  # ids of trials of either side that diverged


def ask(
    statement: str, kind: HypothesisKind, a: Setting, b: Setting, measure: Measure, margin: float = 0.0
) -> Question:
    """Return the comparison of two settings by a measure."""
    return Question(statement, kind, a.arm(measure), b.arm(measure), measure, margin, a.diverged + b.diverged)


def answers(questions: Sequence[Question], settings: Sequence[Setting] = ()) -> tuple[Finding, ...]:
    """Return a finding for each question; all are one family under Holm's correction.

    The other `settings` of the study help to know how noisy a seed is.
    """
    verdicts = judge(
        [
            Hypothesis(q.statement, q.kind, q.a, q.b, q.margin, tuple(setting.arm(q.measure) for setting in settings))
            for q in questions
        ]
    )
    return tuple(_finding(question, verdict) for question, verdict in zip(questions, verdicts, strict=True))


def _effects(measure: Measure, ci: tuple[float, float]) -> tuple[float, float]:
    low, high = sorted(map(measure.effect, ci))
    return low, high


def _finding(question: Question, verdict: Judgement) -> Finding:
    found, measure = verdict.difference, question.measure
    finding = Finding(
        statement=question.statement,
        verdict=verdict.verdict,
        effect=measure.effect(found.effect) if found else None,
        effect_unit=measure.effect_unit,
        ci=_effects(measure, found.ci) if found else None,
        margin=abs(measure.effect(question.margin)) if question.margin else None,
        test=found.test if found else None,
        p=verdict.p_contradicted if verdict.verdict == "contradicted" else verdict.p_supported,
        n_seeds=found.n if found else (len(question.a.values), len(question.b.values)),
        rows=verdict.rows,
        reason=verdict.reason if verdict.p_supported is None else None,
        to_settle=_to_settle(verdict) if verdict.verdict == "inconclusive" else None,
    )
    if question.diverged and verdict.verdict != "inconclusive":
        # The seeds that remain are the lucky ones.
        return replace(
            finding,
            verdict="inconclusive",
            reason=f"{len(question.diverged)} seed(s) diverged, and those left flatter their side",
            to_settle="a rate at which no seed diverges",
        )
    return finding


def _to_settle(verdict: Judgement) -> str:
    if verdict.difference is None:
        return "two or more completed seeds on each side; confirm.seeds of 3 at least"
    if verdict.p_supported is None:
        return "more seeds, or a larger validation set"
    if verdict.more_seeds is None:
        return "another margin: as things stand, a thousand seeds a side would not do"
    return f"about {verdict.more_seeds} more seed(s) a side, if effect and spread stay as they are"


def all_of(verdicts: Iterable[ClaimAnswer]) -> ClaimAnswer:
    """Return the verdict on a conjunction: contradicted if any part is, supported if all parts are."""
    verdicts = list(verdicts)
    if "contradicted" in verdicts:
        return "contradicted"
    return "supported" if set(verdicts) == {"supported"} else "inconclusive"


def any_of(verdicts: Iterable[ClaimAnswer]) -> ClaimAnswer:
    """Return the verdict on a disjunction: supported if any part is, contradicted if all parts are."""
    verdicts = list(verdicts)
    if "supported" in verdicts:
        return "supported"
    return "contradicted" if set(verdicts) == {"contradicted"} else "inconclusive"


def concluded(
    statement: Statement,
    findings: tuple[Finding, ...],
    details: Details,
    decide: Callable[[Iterable[ClaimAnswer]], ClaimAnswer] = all_of,
) -> ClaimVerdict:
    """Return the verdict on a claim that `decide` draws from the verdicts of its findings."""
    verdict = decide(finding.verdict for finding in findings)
    drafted = ClaimVerdict(statement, verdict, findings, details, None)
    deciding = drafted.deciding
    return replace(drafted, to_settle=deciding.to_settle if deciding else None)


def unproved(statement: Statement) -> ClaimVerdict:
    """Return the verdict of a study that holds no evidence on a claim."""
    return ClaimVerdict(statement, "no_evidence", (), None, statement.needs)


def table(settings: Sequence[Setting], measures: Iterable[Measure], note: str | None = None) -> Details:
    """Return the measures of each setting over its seeds, without measures that no trial has."""
    by_name: dict[str, Measure] = {}
    for measure in measures:
        by_name.setdefault(measure.name, measure)  # the objective may be the validation loss
    figures = [
        TableRow(name, measure.unit, tuple(cell(setting, measure) for setting in settings))
        for name, measure in by_name.items()
    ]
    known = tuple(figure for figure in figures if any(cell.n_seeds for cell in figure.cells))
    return Details(tuple(setting.name for setting in settings), known, note)


def cell(setting: Setting, measure: Measure) -> TableCell:
    """Return a measure of a setting, in the unit for display."""
    found = [measure.value(trial) for trial in setting.trials]
    return cell_over_seeds([measure.shown(value) for value in found if value is not None])


def cell_over_seeds(values: Sequence[float]) -> TableCell:
    """Return mean and 95% interval of values, one for each seed."""
    mean = sum(values) / len(values) if values else None
    return TableCell(mean, mean_interval(values), len(values))
