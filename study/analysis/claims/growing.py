"""Claims about growing batches in training, and about larger batches for contrastive learning."""

from __future__ import annotations

from collections.abc import Sequence

from study.analysis.claims.compare import answers, ask, concluded, table, unproved
from study.analysis.claims.measures import DEVICE_S, SAMPLES, UPDATES, VAL_LOSS
from study.analysis.claims.records import ClaimVerdict, Statement
from study.analysis.claims.settings import Setting, batch_series, ends_better, has_margin, is_contrastive, likeness

GROW_BATCH = Statement(
    "grow_batch",
    "Growing the batch replaces decaying the rate: equally good, within report.margin, after fewer updates",
    "Smith et al. 2018",
    "1711.00489",
    "variants with growth at the same milestones: one whose largest_batch is the first (it decays the rate), one or "
    "more that grow; report.margin above 0",
)
CONTRASTIVE = Statement(
    "contrastive",
    "Contrastive learning gains from larger batches and from more epochs",
    "Chen et al. 2020",
    "2002.05709",
    "workload.kind contrastive, several batch sizes, and variants that differ in budget.epochs",
)


def grow_batch(settings: Sequence[Setting]) -> ClaimVerdict:
    """Compare each variant that grows its batch against the one that decays the rate, over the same epochs."""
    staged = [setting for setting in settings if setting.config.growth is not None and has_margin(setting.config)]
    decays = next((setting for setting in staged if not _grows(setting)), None)
    grown = [s for s in staged if _grows(s) and decays and s.config.budget.epochs == decays.config.budget.epochs]
    if decays is None or not grown:
        return unproved(GROW_BATCH)
    margin, objective = decays.margin, decays.objective
    findings = answers(
        [ask(f"{s.name} and {decays.name} end close", "equivalent", s, decays, objective, margin) for s in grown],
        settings,
    )
    return concluded(GROW_BATCH, findings, table((decays, *grown), (objective, VAL_LOSS, UPDATES, SAMPLES, DEVICE_S)))


def _grows(setting: Setting) -> bool:
    growth = setting.config.growth
    return growth is not None and setting.batch_size * growth.factor <= growth.largest_batch


def contrastive(settings: Sequence[Setting]) -> ClaimVerdict:
    """Compare the largest batch against the smallest at the fewest epochs, and more epochs against fewest."""
    found = batch_series(settings, lambda c: is_contrastive(c) and c.budget.epochs is not None)
    for series in found:
        alike = [s for s in found if likeness(s[0].config, True) == likeness(series[0].config, True)]
        by_epochs = sorted(alike, key=lambda s: s[0].config.budget.epochs or 0)
        short, long = by_epochs[0], by_epochs[-1]
        if short is not long and short[0].batch_size == long[0].batch_size:
            small, large, longer = short[0], short[-1], long[0]
            findings = answers(
                (
                    ask(ends_better(large, small), "greater", large, small, small.objective),
                    ask(ends_better(longer, small), "greater", longer, small, small.objective),
                ),
                settings,
            )
            shown = [setting for each in by_epochs for setting in each]
            return concluded(CONTRASTIVE, findings, table(shown, (small.objective, UPDATES, DEVICE_S)))
    return unproved(CONTRASTIVE)
