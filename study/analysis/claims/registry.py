"""The registry of claims, and the verdicts of one study on all of them."""

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

# By short name, which is also the name of the shipped study that tests the claim.
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
    """Return the verdict of any study on every claim, "no_evidence" where it lacks the trials."""
    settings = settings_of(trials, config)
    return tuple(judged(settings) for judged in CLAIMS.values())
