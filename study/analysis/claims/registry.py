"""All claims, asked of one study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from study.analysis.claims.costs import cost, serving
from study.analysis.claims.generalization import generalization_gap, train_longer
from study.analysis.claims.growing import contrastive, grow_batch
from study.analysis.claims.noise import noise_scale
from study.analysis.claims.rates import fixed_lr, scaled_lr
from study.analysis.claims.records import ClaimVerdict
from study.analysis.claims.settings import Setting, settings_of
from study.analysis.records import TrialRecord
from study.config.schema import StudyConfig

# By the name of the claim, which is that of its shipped study.
CLAIMS: Mapping[str, Callable[[Sequence[Setting]], ClaimVerdict]] = {
    "fixed_lr": fixed_lr,
    "scaled_lr": scaled_lr,
    "generalization_gap": generalization_gap,
    "train_longer": train_longer,
    "grow_batch": grow_batch,
    "cost": cost,
    "serving": serving,
    "contrastive": contrastive,
    "noise_scale": noise_scale,
}


def claims_of(trials: Sequence[TrialRecord], config: StudyConfig) -> tuple[ClaimVerdict, ...]:
    """A study's verdict on every claim; it need not have been made for any of them."""
    settings = settings_of(trials, config)
    return tuple(judged(settings) for judged in CLAIMS.values())
