"""Tune's question what becomes of a report, answered from the rows; and where Tune keeps groups or waits for them."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from study.tuning.leases import GroupRequest
from study.tuning.limit_watch import LimitWatch
from study.tuning.messages import AttemptConfig, StepResult
from study.tuning.progress import Progress
from study.tuning.recorder import Recorder
from study.tuning.tune_searcher import ClusterCapacity

UNLIMITED = 1_000_000  # groups to keep


class LedgerScheduler(FIFOScheduler):
    """Has each report written down, and returns the decision of the study's policy to Tune."""

    def __init__(self, recorder: Recorder, limits: LimitWatch, progress: Progress, capacity: ClusterCapacity) -> None:
        super().__init__()
        self._recorder, self._limits, self._progress, self._capacity = recorder, limits, progress, capacity
        self._kept: set[int] = set()  # world sizes whose idle groups are kept

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out of Tune's pickle, which is for a restore that is never asked for."""
        return {}

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        """Give the trial a request that enters its group in the books. One that came with the trainable could not lead
        there, because Tune pickles that.
        """
        world_size = AttemptConfig.from_tune(trial.config).spec.batch.world_size
        trial.update_resources(GroupRequest(self._progress.plan.config, world_size, self._recorder.leases))

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Handle a step. A trial that pauses has given its snapshot: to Tune it ends."""
        attempt, step = AttemptConfig.from_tune(trial.config), StepResult.from_tune(result)
        goes_on = self._recorder.handle_report(attempt, step, _Group(trial))
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """A group died. If it was being handed over, Tune would wait for that without an end."""
        tune_controller._resetting_trials.discard(trial)

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """Look after limits and groups at every turn of Tune's loop; always return None.

        With None, pending trials start in their order, each in an idle group or in a new one. A trial named here would
        take an idle group, and the group that was starting for it would be lost.
        """
        self._limits.wait(self._capacity)
        self._keep_limits(tune_controller)
        self._keep_groups(tune_controller)
        return None

    def _keep_limits(self, controller: TuneController) -> None:
        """Past a limit, end at once the trials that wait for a group, or for their group to be ready. Running ones end
        at their next report.

        This reaches into Tune, which would let a group finish its set-up first. After a mistake that has ended the
        study nothing waits or runs.
        """
        passed = None if self._progress.ends_early else self._limits.passed()
        if passed is None and not self._progress.ends_early:
            return
        controller.search_alg.set_finished()
        waiting = [trial for trial in controller.get_live_trials() if trial.status == Trial.PENDING]
        for trial in waiting:
            if trial in controller._staged_trials:
                controller._unstage_trial_with_resources(trial)
        for trial in waiting:
            trial.init_local_path()  # Tune lists its trials' folders in the end
            self._recorder.lose(AttemptConfig.from_tune(trial.config))
            actor = controller._trial_to_actor.get(trial)
            controller._schedule_trial_stop(trial)
            if actor is not None and controller._actor_manager.is_actor_started(actor):
                controller._actor_manager.remove_actor(actor, kill=True)
        if passed is not None:
            self._limits.record(passed)

    def _keep_groups(self, controller: TuneController) -> None:
        """Keep every idle group while there may be work for it, and no longer.

        Tune by itself keeps one idle actor and builds the others again. This reaches into it; a test counts groups.
        """
        cache = controller._actor_cache
        cache._may_keep_one = False
        config = self._progress.plan.config
        for world_size in config.hardware.world_sizes:
            request = GroupRequest(config, world_size)
            wanted, kept = self._progress.wants_groups(world_size), world_size in self._kept
            if wanted and not kept:
                cache.increase_max(request, UNLIMITED)
                self._kept.add(world_size)
            elif kept and not wanted:
                cache.decrease_max(request, UNLIMITED)
                self._kept.remove(world_size)
                self._recorder.leases.let_go(world_size * config.hardware.devices_per_rank)


class _Group:
    """The group of a Tune trial, as the recorder asks it."""

    def __init__(self, trial: Trial) -> None:
        self._actor = trial.temporary_state.ray_actor

    def snapshot(self) -> tuple[bytes, float] | None:
        """See TrainingGroup."""
        try:
            taken: tuple[bytes, float] = ray.get(self._actor.snapshot.remote())
        except RayError:
            return None
        return taken

    def wait_for_decisions(self) -> None:
        """See TrainingGroup. The actor does this before the next step, which Tune asks of it after this."""
        self._actor.wait_for_decisions.remote()
