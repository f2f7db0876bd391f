"""Claims about batch size and learning rate: larger batches are worse at one rate, and equal at adjusted rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from study.analysis.claims.compare import all_of, answers, any_of, ask, concluded, table, unproved
from study.analysis.claims.measures import TRAIN_LOSS, UPDATES, VAL_LOSS
from study.analysis.claims.records import ClaimAnswer, ClaimVerdict, Statement
from study.analysis.claims.settings import (
    Setting,
    batch_series,
    ends_better,
    has_equal_epochs,
    has_margin,
    has_one_rate,
    is_contrastive,
)

FIXED_LR = Statement(
    "fixed_lr",
    "With the batch size the sole variable, larger batches reach a worse loss and accuracy",
    "Masters and Luschi 2018",
    "1804.07612",
    "one rate for several batch sizes: search.lr with one value, lr_rule none, budget.epochs",
)
SCALED_LR = Statement(
    "scaled_lr",
    "With the rate adjusted to the batch, small and large batches end equally good, within report.margin",
    "Goyal et al. 2017; Shallue et al. 2019",
    "1706.02677, 1811.03600",
    "several batch sizes with search.lr_rule linear or sqrt, or with several rates in search.lr; budget.epochs, "
    "report.margin above 0",
)


def fixed_lr(settings: Sequence[Setting]) -> ClaimVerdict:
    """Compare the smallest batch against the largest, at one rate for the same epochs."""
    found = batch_series(settings, lambda c: has_one_rate(c) and has_equal_epochs(c) and not is_contrastive(c))
    if not found:
        return unproved(FIXED_LR)
    small, large = found[0][0], found[0][-1]
    objective = small.objective
    questions = [ask(ends_better(small, large), "greater", small, large, objective)]
    if small.config.objective.metric != "val_loss":
        says = f"{large.name} ends with a higher validation loss than {small.name}"
        questions.insert(0, ask(says, "greater", large, small, VAL_LOSS))
    return concluded(
        FIXED_LR, answers(questions, settings), table(found[0], (objective, VAL_LOSS, TRAIN_LOSS, UPDATES))
    )


def scaled_lr(settings: Sequence[Setting]) -> ClaimVerdict:
    """Compare the smallest batch against the largest under each way to adjust the rate, and at one rate if it was run.

    Supported if one way closes the gap and, where one rate was run too, there was a gap.
    """
    adjusted = batch_series(settings, lambda c: has_equal_epochs(c) and has_margin(c) and not has_one_rate(c))
    if not adjusted:
        return unproved(SCALED_LR)
    held = batch_series(settings, lambda c: has_equal_epochs(c) and has_one_rate(c))[:1]
    margin, objective = settings[0].margin, settings[0].objective
    gap = [ask(ends_better(s[0], s[-1]), "greater", s[0], s[-1], objective, margin) for s in held]
    near = [
        ask(f"{s[0].name} and {s[-1].name} end close", "equivalent", s[0], s[-1], objective, margin) for s in adjusted
    ]
    shown = [setting for series in (*held, *adjusted) for setting in (series[0], series[-1])]

    def decide(verdicts: Iterable[ClaimAnswer]) -> ClaimAnswer:
        found = list(verdicts)
        return all_of((*found[: len(gap)], any_of(found[len(gap) :])))

    return concluded(SCALED_LR, answers(gap + near, settings), table(shown, (objective, VAL_LOSS)), decide)
