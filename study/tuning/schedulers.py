"""Early stopping, for search trials only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from study.ledger.rows import AnyRow, AttemptRow, EndRow, ReportRow
from study.plan.config import StudyConfig
from study.plan.trials import Plan, budget_in_unit

METRIC, MODE = "val_accuracy", "max"


def make_scheduler(plan: Plan) -> TrialScheduler:
    """The scheduler that the config asks for."""
    if plan.config.scheduler.kind == "none" or not plan.search:
        return FIFOScheduler()
    return SearchOnly(ray_asha(plan.config, max(budget_in_unit(plan.config, spec) for spec in plan.search)))


def ray_asha(config: StudyConfig, end: float) -> ASHAScheduler:
    """Ray's ASHA with its rungs in our unit. A trial's own end is not its business: `end` is only the last rung."""
    scheduler = config.scheduler
    return ASHAScheduler(
        time_attr=scheduler.unit,
        metric=METRIC,
        mode=MODE,
        max_t=end,
        grace_period=scheduler.grace,
        reduction_factor=scheduler.eta,
    )


@dataclass(frozen=True)
class _Recalled:
    """As much of a Tune trial as a scheduler looks at."""

    trial_id: str


class SearchOnly(FIFOScheduler):
    """Lets an inner scheduler judge the search trials; confirm trials always train to the end."""

    def __init__(self, inner: TrialScheduler) -> None:
        super().__init__()
        self.inner = inner

    def recall(self, rows: Iterable[AnyRow]) -> None:
        """Take back into the rungs what trials that are over had reported before a resume."""
        rows = list(rows)
        over = {row.trial_id: row for row in rows if isinstance(row, EndRow) and row.outcome != "failed"}
        last_attempt = {
            row.trial_id: row.attempt for row in rows if isinstance(row, AttemptRow) and row.phase == "search"
        }
        for trial_id in over.keys() & last_attempt.keys():
            self.inner.on_trial_add(None, _Recalled(trial_id))
        for row in rows:
            if isinstance(row, ReportRow) and row.trial_id in over and row.attempt == last_attempt.get(row.trial_id):
                self.inner.on_trial_result(None, _Recalled(row.trial_id), row.model_dump())

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """See TrialScheduler."""
        if _judged(trial):
            self.inner.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """See TrialScheduler."""
        if not _judged(trial):
            return str(TrialScheduler.CONTINUE)
        return str(self.inner.on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """See TrialScheduler. A diverged or failed trial sets no bar for the others."""
        if _judged(trial):
            if result.get("error") is None and not result.get("diverged"):
                self.inner.on_trial_complete(tune_controller, trial, result)
            else:
                self.inner.on_trial_remove(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """See TrialScheduler."""
        if _judged(trial):
            self.inner.on_trial_error(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """See TrialScheduler."""
        if _judged(trial):
            self.inner.on_trial_remove(tune_controller, trial)


def _judged(trial: Trial) -> bool:
    return bool(trial.config["spec"].phase == "search")
