"""Tune's events, handed to the recorder. Reports do not come this way: the scheduler receives them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.exceptions import RayActorError, RayError
from ray.tune.experiment import Trial

from study.tuning.heartbeat import why_lost
from study.tuning.leases import Death
from study.tuning.messages import AttemptConfig, GroupInfo, StepResult
from study.tuning.recorder import Recorder


class RecorderCallback(tune.Callback):
    """Translates Tune's trials into attempts, and its quirks into plain calls of the recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._recovered: tuple[str, int] | None = None  # the trial that Tune recovered last, and in which turn

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out of Tune's pickle, which is for a restore that is never asked for."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The trial's group is ready to train, fresh or handed over."""
        try:
            group: GroupInfo = ray.get(trial.temporary_state.ray_actor.describe.remote())
        except RayError:
            return  # it has died since; Tune reports that next
        self._recorder.begin(AttemptConfig.from_tune(trial.config), group)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """The scheduler has handled the step already."""
        StepResult.drop_from(result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tune has ended the attempt, because the scheduler stopped it."""
        self._recorder.complete(AttemptConfig.from_tune(trial.config))
        # Tune keeps every trial to the end, and with it statistics of each figure, which are not used.
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The attempt died, and Tune starts the trial again with the configuration that it has after this call."""
        attempt = AttemptConfig.from_tune(trial.config)
        self._recovered = attempt.spec.trial_id, iteration
        trial.config.update(self._recorder.retry(attempt, death_of(trial)).to_tune())

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The attempt died, and Tune gives the trial up.

        Tune reports a group that dies in a hand-over twice in one turn: it recovers the trial, then gives it up.
        """
        attempt = AttemptConfig.from_tune(trial.config)
        lost_before = self._recovered == (attempt.spec.trial_id, iteration)
        self._recorder.give_up(attempt, death_of(trial), lost_before)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """A turn of Tune's loop has ended."""
        self._recorder.sweep_if_due()


def death_of(trial: Trial) -> Death:
    """Read how a trial's attempt died from the two files that Tune wrote: the text, and the exception."""
    error = None
    if trial.pickled_error_file is not None:
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        trial.run_metadata.pickled_error_filename = None  # Tune keeps it at a later death that has no exception
    return Death(why_lost(trial.error_file), error.actor_id if isinstance(error, RayActorError) else None)
