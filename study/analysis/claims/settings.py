"""The settings of a study that claims compare, found by what their configuration says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from study.analysis.claims.measures import Measure
from study.analysis.records import TrialRecord
from study.analysis.statistics.hypotheses import Arm
from study.config.schema import StudyConfig
from study.planning.learning_rates import base_rates


@dataclass(frozen=True)
class Setting:
    """One batch size in one variant, with what its confirm trials gave."""

    name: str  # for people
    batch_size: int
    config: StudyConfig  # the variant's
    trials: tuple[TrialRecord, ...]  # completed ones, a seed each
    diverged: tuple[str, ...]  # ids of those that diverged

    def arm(self, measure: Measure) -> Arm:
        """The seeds that have the measure, as tests compare them."""
        known = [(trial, value) for trial in self.trials if (value := measure.value(trial)) is not None]
        return Arm(
            self.name,
            {trial.seed_index: measure.compared(value) for trial, value in known},
            tuple(trial.trial_id for trial, _ in known),
        )

    def keep(self, wanted: Callable[[TrialRecord], bool]) -> Setting:
        """With only the trials that are wanted."""
        return replace(self, trials=tuple(trial for trial in self.trials if wanted(trial)))


Series = tuple[Setting, ...]  # by batch size, ascending


def settings_of(trials: Sequence[TrialRecord], config: StudyConfig) -> tuple[Setting, ...]:
    """Every batch size of every variant, on the number of ranks that most trials completed on (the least of equals)."""
    confirm = [trial for trial in trials if trial.phase == "confirm" and trial.outcome is not None]
    counts = Counter(trial.world_size for trial in confirm if trial.outcome == "completed")
    world_size = min(config.hardware.world_sizes, key=lambda size: (-counts[size], size))
    settings = []
    for variant in config.variant_names:
        meant = config.variant(variant)
        for batch_size in sorted(meant.batch_sizes):
            here = [t for t in confirm if (t.variant, t.batch_size, t.world_size) == (variant, batch_size, world_size)]
            batch = f"batch {batch_size}"
            lone = variant and len(meant.batch_sizes) == 1
            settings.append(
                Setting(
                    name=variant if lone else ", ".join(filter(None, (variant, batch))),
                    batch_size=batch_size,
                    config=meant,
                    trials=tuple(trial for trial in here if trial.outcome == "completed" and not trial.diverged),
                    diverged=tuple(trial.trial_id for trial in here if trial.diverged),
                )
            )
    return tuple(settings)


def series_of(settings: Sequence[Setting], trait: Callable[[StudyConfig], bool]) -> list[Series]:
    """Settings with the trait, together where they differ in nothing but the batch; each of two sizes or more."""
    found: dict[str, dict[int, Setting]] = {}
    for setting in settings:
        if trait(setting.config):
            found.setdefault(likeness(setting.config), {})[setting.batch_size] = setting
    return [tuple(by_size[size] for size in sorted(by_size)) for by_size in found.values() if len(by_size) > 1]


def likeness(config: StudyConfig, but_for_epochs: bool = False) -> str:
    """The same for configs that differ in nothing but batch sizes, or epochs too."""
    plain = config.model_dump(mode="json", exclude={"batch_sizes": True, "variants": True})
    if but_for_epochs:
        plain["budget"]["epochs"] = None
    return json.dumps(plain, sort_keys=True)


def has_one_rate(config: StudyConfig) -> bool:
    """The rate is the same at every batch size."""
    return config.search.lr_rule == "none" and len(base_rates(config.search, config.seed)) == 1


def has_equal_epochs(config: StudyConfig) -> bool:
    """Every batch size takes the same passes over the data, each at one size, to their end."""
    budget = config.budget
    others = (budget.regime_batch, budget.device_seconds, budget.target_val_accuracy, budget.target_train_loss)
    return budget.epochs is not None and config.growth is None and all(other is None for other in others)


def has_margin(config: StudyConfig) -> bool:
    """There is an accuracy too small to matter, without which nothing is ever the same."""
    return config.report.margin > 0


def is_contrastive(config: StudyConfig) -> bool:
    """The loss is over the pairs of a batch, so that losses of different batch sizes cannot be compared."""
    return config.workload.kind == "contrastive"
