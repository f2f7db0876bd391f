"""The settings of a study that claims compare, selected by their configuration."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from study.analysis.claims.measures import Measure, objective_measure
from study.analysis.records import TrialRecord
from study.analysis.statistics.hypotheses import Arm
from study.config.objective import ACCURACY
from study.config.schema import StudyConfig
from study.planning.learning_rates import base_rates


@dataclass(frozen=True)
class Setting:
    """One batch size in one variant, with its confirm trials."""

    name: str  # for people
    batch_size: int
    config: StudyConfig  # the variant's
    trials: tuple[TrialRecord, ...]  # completed ones, one for each seed
    diverged: tuple[str, ...]  # ids of trials that diverged

    @property
    def objective(self) -> Measure:
        """The final objective as a measure."""
        return objective_measure(self.config.objective)

    @property
    def margin(self) -> float:
        """The difference of the objective that is too small to matter."""
        return self.config.margin

    def arm(self, measure: Measure) -> Arm:
        """Return the values by seed that tests compare, of the trials that have the measure."""
        known = [(trial, value) for trial in self.trials if (value := measure.value(trial)) is not None]
        return Arm(
            self.name,
            {trial.seed_index: measure.compared(value) for trial, value in known},
            tuple(trial.trial_id for trial, _ in known),
        )

    def keep(self, wanted: Callable[[TrialRecord], bool]) -> Setting:
        """Return the setting with only the trials for which `wanted` is true."""
        return replace(self, trials=tuple(trial for trial in self.trials if wanted(trial)))


BatchSeries = tuple[Setting, ...]  # by batch size, ascending


def settings_of(trials: Sequence[TrialRecord], config: StudyConfig) -> tuple[Setting, ...]:
    """Return every batch size of every variant, at the world size with most completed trials (the least of equals)."""
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


def batch_series(settings: Sequence[Setting], trait: Callable[[StudyConfig], bool]) -> list[BatchSeries]:
    """Return groups of settings with the trait that differ in batch size alone, each of two sizes or more."""
    found: dict[str, dict[int, Setting]] = {}
    for setting in settings:
        if trait(setting.config):
            found.setdefault(likeness(setting.config), {})[setting.batch_size] = setting
    return [tuple(by_size[size] for size in sorted(by_size)) for by_size in found.values() if len(by_size) > 1]


def likeness(config: StudyConfig, but_for_epochs: bool = False) -> str:
    """Return a text that is equal for configs that differ in batch sizes, or with `but_for_epochs` in epochs too."""
    plain = config.model_dump(mode="json", exclude={"batch_sizes": True, "variants": True})
    if but_for_epochs:
        plain["budget"]["epochs"] = None
    return json.dumps(plain, sort_keys=True)


def has_one_rate(config: StudyConfig) -> bool:
    """Say whether every batch size has one and the same rate."""
    return config.search.lr_rule == "none" and len(base_rates(config.search, config.seed)) == 1


def has_equal_epochs(config: StudyConfig) -> bool:
    """Say whether every batch size trains the same epochs to their end, without growing the batch."""
    budget = config.budget
    others = budget.regime_batch is not None or budget.device_seconds is not None or config.targets
    return budget.epochs is not None and config.growth is None and not others


def ends_better(a: Setting, b: Setting, how: str = "better") -> str:
    """Return the statement that setting `a` ends better than `b`, in words of the objective."""
    objective = a.config.objective
    if objective.metric == ACCURACY.metric and objective.mode == "max":
        return f"{a.name} ends {'more' if how == 'better' else how} accurate than {b.name}"
    direction = "lower" if objective.mode == "min" else "higher"
    if how != "better":
        return f"{a.name} ends with no worse a {objective.logged_label} than {b.name}"
    return f"{a.name} ends with a better ({direction}) {objective.logged_label} than {b.name}"


def has_margin(config: StudyConfig) -> bool:
    """Say whether the config has a margin, without which no two settings are ever equivalent."""
    return config.margin > 0


def is_contrastive(config: StudyConfig) -> bool:
    """Say whether the loss contrasts the pairs of a batch: losses of different batch sizes are then incomparable."""
    return config.workload.kind == "contrastive"
