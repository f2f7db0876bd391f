"""Tune's two ways of asking, both answered from the rows: what runs next, and what becomes of a report."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from study.tuning.checkpoint_store import CheckpointStore
from study.tuning.cluster_capacity import ClusterCapacity
from study.tuning.leases import GroupRequest
from study.tuning.policies import METRIC, MODE
from study.tuning.progress import Progress
from study.tuning.recorder import Recorder

MANY = 1_000_000  # groups: as many as there are


class PlanSearcher(Searcher):
    """To Tune, every attempt is a trial: one that pauses ends, and goes on later as another (docs/adr/006)."""

    def __init__(self, progress: Progress, shelf: CheckpointStore, room: ClusterCapacity) -> None:
        super().__init__(metric=METRIC, mode=MODE)
        self.progress, self.shelf, self.room = progress, shelf, room

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next attempt, None while there is none, FINISHED after the last. While nothing runs, Tune would wait ten
        minutes for another answer than None.
        """
        if self.progress.finished or self.progress.state.mistake is not None:
            return str(Searcher.FINISHED)
        assignment = self.progress.hand_out(self.room.ranks)
        if assignment is None:
            return None
        start = self.shelf.start(assignment.spec.trial_id, assignment.from_updates)
        return {"spec": assignment.spec, "pause_at": assignment.pause_at, **start}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The ledger knows."""

    def save(self, checkpoint_path: str) -> None:
        """A study resumes from its ledger, not from Tune's files."""

    def restore(self, checkpoint_path: str) -> None:
        """See save."""


class LedgerScheduler(FIFOScheduler):
    """Has each report written down, and passes on what the study's policy says to it."""

    def __init__(self, recorder: Recorder, progress: Progress, room: ClusterCapacity) -> None:
        super().__init__()
        self.recorder, self.progress, self.room = recorder, progress, room
        self._kept: set[int] = set()  # world sizes whose idle groups are kept

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """A trial that pauses has given its snapshot: to Tune it is over."""
        goes_on = self.recorder.handle_report(trial, result)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """A group died. If it was being handed over, Tune would wait for that without an end."""
        tune_controller._resetting_trials.discard(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Called at every turn of Tune's loop. None: pending trials start in their order, each in an idle group or
        one of its own. A trial that is named here takes an idle group, and the one that was starting for it is lost.
        """
        self.recorder.wait(self.room.ranks)
        self._keep_limits(tune_controller)
        self._keep_groups(tune_controller)
        return None

    def _keep_limits(self, controller: Any) -> None:
        """Past a limit, end at once what waits for a group, or for its group to be ready. What runs ends at its next
        report. This reaches into Tune, which would let a group finish its setup first. After a mistake that has ended
        the study nothing waits or runs.
        """
        passed = None if self.progress.ends_early else self.recorder.limit_passed()
        if passed is None and not self.progress.ends_early:
            return
        controller.search_alg.set_finished()
        waiting = [trial for trial in controller.get_live_trials() if trial.status == Trial.PENDING]
        for trial in waiting:
            if trial in controller._staged_trials:
                controller._unstage_trial_with_resources(trial)
        for trial in waiting:
            trial.init_local_path()  # Tune lists its trials' folders in the end
            self.recorder.lose(trial)
            actor = controller._trial_to_actor.get(trial)
            controller._schedule_trial_stop(trial)
            if actor is not None and controller._actor_manager.is_actor_started(actor):
                controller._actor_manager.remove_actor(actor, kill=True)
        if passed is not None:
            self.recorder.write(passed)

    def _keep_groups(self, controller: Any) -> None:
        """Keep every idle group while there may yet be work for it, and none longer.

        Left alone, Tune keeps one idle actor and rebuilds the others. This reaches into it; a test counts groups.
        """
        cache = controller._actor_cache
        cache._may_keep_one = False
        config = self.progress.plan.config
        for world_size in config.hardware.world_sizes:
            request = GroupRequest(config, world_size)
            wanted, kept = self.progress.wants_groups(world_size), world_size in self._kept
            if wanted and not kept:
                cache.increase_max(request, MANY)
                self._kept.add(world_size)
            elif kept and not wanted:
                cache.decrease_max(request, MANY)
                self._kept.remove(world_size)
                self.recorder.leases.let_go(world_size * config.hardware.devices_per_rank)
