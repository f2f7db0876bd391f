"""A trial as Ray Tune runs it: a Trainable whose actor drives a warm group of ranks."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayActorError, RayTaskError

from study.config.schema import StudyConfig
from study.errors import ConfigError, DataError
from study.training.messages import Mistake, OutOfMemory, RankReport
from study.tuning.heartbeat import RankLost
from study.tuning.messages import AttemptConfig, GroupInfo, StepResult
from study.tuning.worker_group import WarmGroup
from study.workloads.user_code.build import describe

AHEAD_S = 1.0  # the longest interval that ranks train without a decision: this much more device time after a limit


class TrialRun(tune.Trainable):
    """Makes one report per step. An error of the trial's own code ends the trial; Tune retries a process that dies."""

    _group: WarmGroup | None = None  # until setup has built it

    def __repr__(self) -> str:
        """Name the actor on Ray's dashboard, because Tune gives it a name without the study."""
        return super().__repr__() if self._group is None else f"{self._group.name}/driver"

    @property
    def group(self) -> WarmGroup:
        """The ranks. Raises AssertionError before setup has built them."""
        assert self._group is not None
        return self._group

    def setup(self, config: dict[str, Any], study: StudyConfig) -> None:
        """Build the group, then begin its first trial. Raises RankLost if the group cannot be built."""
        attempt = AttemptConfig.from_tune(config)
        self.study, self.world_size = study, attempt.spec.batch.world_size
        self._build()
        self._begin(attempt)

    def _build(self) -> None:
        try:
            self._group, self.ended = WarmGroup(self.study, self.world_size), False
        except RayActorError:
            raise
        except RayTaskError as error:  # no code of a trial has run yet
            raise RankLost(f"its group could not be built: {_describe(error)}") from None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Hand the group over to the next trial."""
        self._begin(AttemptConfig.from_tune(new_config))
        return True

    def _begin(self, attempt: AttemptConfig) -> None:
        began = time.perf_counter()
        self.failed: StepResult | None = None  # the result of the next step, if the trial's code has failed
        self.lost: Exception | None = None
        self.pause_at, self.wait_at = attempt.pause_at, attempt.wait_at
        self.reported_s, self.waits = began, False
        self.checkpoint_s, self.kept_s = 0.0, began
        spec, cell = attempt.spec, attempt.spec.cell
        norm_batch = None
        try:
            if self.ended:
                self._build()  # again, on the same placement group
            self._free()
            self.group.serves = " ".join(f"{spec.phase} {cell.variant} b{cell.batch_size} w{cell.world_size}".split())
            norm_batch = self.group.begin(spec, attempt.checkpoint.read() if attempt.checkpoint else None)
        except (RankLost, RayActorError) as error:
            # The first step raises it, because Tune retries a failed step but not a failed reset.
            self.lost = error
        except RayTaskError as error:
            self._fail(error)
        group, hand_over_s = self.group, time.perf_counter() - began
        self.info = GroupInfo(group.group_id, group.nodes, group.hosts, group.device, norm_batch, hand_over_s)

    def _free(self) -> None:
        """End the previous trial on the ranks. Its end is in the ledger already: if this fails, or kills a rank, the
        next trial is not to blame, and the group is built again.
        """
        try:
            self.group.halt()
        except RayActorError:
            raise
        except (RankLost, RayTaskError):
            gone = {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
            if gone.intersection(self.group.nodes):
                raise  # its placement group has no room for the ranks any more
            self.group.kill()
            self._build()

    def describe(self) -> GroupInfo:
        """Describe the group at the start of the attempt. The driver calls it before the first step."""
        return self.info

    def step(self) -> dict[str, Any]:
        """Advance every rank by one report interval. Return a StepResult, as Tune's dict."""
        if self.lost is not None:
            raise self.lost
        if self.failed is not None:
            return self.failed.to_tune()
        try:
            return self._advance().to_tune()
        except RayActorError:
            raise
        except RayTaskError as error:
            return self._fail(error).to_tune()

    def _advance(self) -> StepResult:
        reports = self.group.advance()
        first = reports[0]
        due = not StepResult(first).last and self._is_due(first.updates)
        snapshot = self.snapshot()[0] if due else None
        ahead = self._goes_on(first)
        if ahead:
            self.group.train_on()
        report = replace(
            first,
            energy_j=_total([one.energy_j for one in reports]),
            peak_memory_bytes=_most([one.peak_memory_bytes for one in reports]),
            phases_s=first.phases_s | {"checkpoint": self.checkpoint_s},
        )
        return StepResult(report, snapshot, ahead=ahead)

    def _fail(self, error: RayTaskError) -> StepResult:
        """End the trial. If it has several ranks, kill them: the others would wait for the failed one for minutes."""
        self.failed = StepResult(None, error=_describe(error), infeasible=isinstance(error.cause, OutOfMemory))
        self.ended = self.world_size > 1
        if self.ended:
            self.group.kill()
        return self.failed

    def _goes_on(self, report: RankReport) -> bool:
        """Return whether the ranks train on while a report is written down. They do where the decision can only be
        to go on, and where intervals are short (docs/adr/028).
        """
        now_s = time.perf_counter()
        interval_s, self.reported_s = now_s - self.reported_s, now_s
        if StepResult(report).last or report.updates in self.wait_at or self.waits:
            return False
        return interval_s < AHEAD_S

    def wait_for_decisions(self) -> None:
        """Wait for the decision on each report of this attempt from the next on."""
        self.waits = True

    def _is_due(self, updates: int) -> bool:
        """Return whether a report needs a checkpoint: the trial may pause there, or has run long without one."""
        unkept_s = time.perf_counter() - self.kept_s
        return updates in self.pause_at or unkept_s >= self.study.recovery.checkpoint_every_s

    def snapshot(self) -> tuple[bytes, float]:
        """Take a snapshot of the trial after its last report. Return it, and the seconds that all snapshots of this
        attempt took. The driver calls it too, at a report at which it cuts the trial.
        """
        began = time.perf_counter()
        snapshot = self.group.snapshot()
        self.kept_s = time.perf_counter()
        self.checkpoint_s += self.kept_s - began
        return snapshot, self.checkpoint_s

    def cleanup(self) -> None:
        """End the ranks now; the removal of the placement group would end them later."""
        if self._group is not None:
            self._group.kill()


def _total(energies_j: list[float | None]) -> float | None:
    """Return the joules of all ranks together; None if one of them has no reading."""
    known = [joules for joules in energies_j if joules is not None]
    return sum(known) if len(known) == len(energies_j) else None


def _most(peaks_bytes: list[int | None]) -> int | None:
    """Return the bytes of the rank that needed most; None if one of them has no reading."""
    known = [peak for peak in peaks_bytes if peak is not None]
    return max(known) if len(known) == len(peaks_bytes) else None


def _describe(error: RayTaskError) -> str:
    """Return a rank's error in one line, without Ray's wrapping."""
    cause = error.cause if isinstance(error.cause, BaseException) else error
    return str(cause) if isinstance(cause, Mistake | ConfigError | DataError) else describe(cause)
