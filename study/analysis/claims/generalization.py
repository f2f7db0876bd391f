"""Claims about the generalization gap: larger batches find sharper minima, and training longer closes the gap."""

from __future__ import annotations

from collections.abc import Sequence

from study.analysis.claims.compare import answers, ask, concluded, table, unproved
from study.analysis.claims.measures import HESSIAN_TOP, SHARPNESS, TRAIN_LOSS, UPDATES, VAL_LOSS, updates_to
from study.analysis.claims.records import ClaimVerdict, Statement
from study.analysis.claims.settings import (
    BatchSeries,
    Setting,
    batch_series,
    ends_better,
    has_equal_epochs,
    has_margin,
    has_one_rate,
)
from study.config.schema import StudyConfig

GENERALIZATION_GAP = Statement(
    "generalization_gap",
    "At the same training loss, larger batches generalize worse and sit in sharper minima",
    "Keskar et al. 2017",
    "1609.04836",
    "a small and a large batch with budget.target_train_loss and probes.sharpness",
)
TRAIN_LONGER = Statement(
    "train_longer",
    "The gap of a large batch comes from too few updates: with those of the small one it is as good or better, "
    "within report.margin",
    "Hoffer et al. 2017",
    "1705.08741",
    "variants: a small and a large batch alike in all else at one rate, and the large one with budget.regime_batch "
    "set to the small; report.margin above 0",
)


def generalization_gap(settings: Sequence[Setting]) -> ClaimVerdict:
    """Compare the smallest batch against the largest, over seeds that reached the target training loss."""
    found = batch_series(settings, lambda c: _train_loss_target(c) is not None and c.probes.sharpness)
    if not found:
        return unproved(GENERALIZATION_GAP)
    target = _train_loss_target(found[0][0].config)
    assert target is not None
    small, large = (_that_met(setting, target) for setting in (found[0][0], found[0][-1]))
    findings = answers(
        (
            ask(ends_better(small, large), "greater", small, large, small.objective),
            ask(f"{large.name} ends in a sharper minimum than {small.name}", "greater", large, small, SHARPNESS[0]),
        ),
        [_that_met(setting, target) for setting in settings],
    )
    measures = (small.objective, TRAIN_LOSS, *SHARPNESS, HESSIAN_TOP, updates_to(target))
    missed = [f"{s.name}: {n}" for s in found[0] if (n := len(s.trials) - len(_that_met(s, target).trials))]
    note = (
        f"Seeds that never met the training loss of {target:g} are left out: {', '.join(missed)}." if missed else None
    )
    return concluded(GENERALIZATION_GAP, findings, table([_that_met(s, target) for s in found[0]], measures, note))


def _train_loss_target(config: StudyConfig) -> float | None:
    return next((target.value for target in config.targets if target.metric == "train_loss"), None)


def _that_met(setting: Setting, train_loss: float) -> Setting:
    """Return the setting with only the seeds at the training loss: others are at no minimum to compare."""
    return setting.keep(lambda trial: bool(trial.curve) and trial.curve[-1].train_loss <= train_loss)


def train_longer(settings: Sequence[Setting]) -> ClaimVerdict:
    """Compare the columns of the paper's table 1: small batch, large batch, and the large batch with each remedy."""
    for series in batch_series(settings, lambda c: has_equal_epochs(c) and has_one_rate(c) and has_margin(c)):
        columns = _columns(series, settings)
        if columns is not None:
            return _remedied(columns, settings)
    return unproved(TRAIN_LONGER)


def _columns(series: BatchSeries, settings: Sequence[Setting]) -> BatchSeries | None:
    """Return small, large, further remedies, and large with as many updates as small; None if one is missing."""
    longer = [s for s in settings if _adapts(s.config, series[0].batch_size) and s.batch_size > series[0].batch_size]
    for last in longer:
        large = next((s for s in series if s.batch_size == last.batch_size), None)
        if large is not None:
            others = [s for s in settings if s.batch_size == last.batch_size and s not in (large, last)]
            return series[0], large, *others, last
    return None


def _adapts(config: StudyConfig, small_batch: int) -> bool:
    return config.budget.regime_batch == small_batch


def _remedied(columns: BatchSeries, settings: Sequence[Setting]) -> ClaimVerdict:
    small, large, longer = columns[0], columns[1], columns[-1]
    margin, objective = small.margin, small.objective
    findings = answers(
        (
            ask(ends_better(small, large), "greater", small, large, objective, margin),
            ask(ends_better(longer, small, "no less"), "no_less", longer, small, objective, margin),
        ),
        settings,
    )
    return concluded(TRAIN_LONGER, findings, table(columns, (objective, VAL_LOSS, UPDATES)))
