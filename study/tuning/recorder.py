"""The one writer: turns what Tune tells the driver into rows, on disk before anything rests on them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from study.ledger.accounts import OpenLease, unbilled
from study.ledger.rows import (
    PHASES,
    AnyRow,
    AttemptRow,
    DecisionRow,
    EndRow,
    LeaseRow,
    Outcome,
    ReportRow,
    StudyRow,
)
from study.ledger.store import Ledger
from study.plan.trials import TrialSpec
from study.training.report import Report
from study.tuning.leases import ClosedLease, Leases, RayCluster
from study.tuning.progress import Progress

Observer = Callable[[AnyRow], None]
SWEEP_EVERY_S = 0.2


class Recorder(tune.Callback):
    """A Tune callback. Its clock goes on from the last row, so that a resumed study has one time axis."""

    def __init__(self, ledger: Ledger, progress: Progress, observe: Observer) -> None:
        self._ledger, self._progress, self._observe = ledger, progress, observe
        self._zero = time.monotonic() - (ledger.rows[-1].at_s if ledger.rows else 0.0)
        self.leases = Leases(RayCluster())
        self._best: dict[str, float] = {}
        self._last: dict[str, Report] = {}
        self._swept = 0.0
        self.failure: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a restore that we never ask for: a ledger has one writer, here."""
        return {}

    def now(self) -> float:
        """Seconds since the study's first row, less the time in which no driver ran."""
        return time.monotonic() - self._zero

    def stamp(self) -> dict[str, Any]:
        """What every row starts with."""
        return {"at_s": self.now(), "written": datetime.now(timezone.utc).isoformat(timespec="milliseconds")}

    def write(self, *rows: AnyRow) -> None:
        """Append, then let everyone know.

        Tune takes an exception for the trial's fault here and there, so the first is kept: nothing is written after
        it, and whoever runs Tune raises it again.
        """
        if self.failure is not None:
            raise self.failure
        try:
            if rows:
                self._ledger.append(*rows)
            for row in rows:
                self._progress.follow(row)
                self._observe(row)
        except Exception as error:
            self.failure = error
            raise

    def open_study(self, **fields: Any) -> None:
        """The first row, and the first of each resume."""
        self.write(StudyRow(**self.stamp(), **fields))

    def settle(self) -> None:
        """Bill what a driver that died left open, up to the last it wrote."""
        last_s = self._ledger.rows[-1].at_s if self._ledger.rows else 0.0
        self.write(*(self._bill(ClosedLease(lease, last_s, "lost")) for lease in unbilled(self._ledger.rows)))

    def release(self, timeout_s: float) -> None:
        """After Tune has ended: wait until the cluster has every group back, and bill it."""
        self.leases.cut_short()
        deadline = time.monotonic() + timeout_s
        while self.leases.open and time.monotonic() < deadline:
            self.sweep()

    # Tune's events, in the order in which they come.

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The trial's group is ready to train, fresh or handed over."""
        spec: TrialSpec = trial.config["spec"]
        described = ray.get(trial.temporary_state.ray_actor.describe.remote())
        attempt = self._progress.attempts.get(spec.trial_id, 0) + 1
        lease, closed = self.leases.start(spec.trial_id, attempt, spec.batch.world_size, described)
        self.write(*map(self._bill, closed), self._attempt(spec, lease, described.norm_batch))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """A report, and what the scheduler has just made of it."""
        report: Report | None = result.pop("report")
        if report is None:
            return
        spec: TrialSpec = trial.config["spec"]
        lease = self.leases.lease_of(spec.trial_id)
        assert lease is not None
        lease.heard(time.monotonic(), report.phases_s)
        self._last[spec.trial_id] = report
        self._best[spec.trial_id] = max(self._best.get(spec.trial_id, 0.0), report.val_accuracy)
        at: dict[str, Any] = {"trial_id": spec.trial_id, "attempt": lease.attempt, "updates": report.updates}
        self.write(
            ReportRow(
                **self.stamp(),
                **at,
                samples=report.samples,
                epochs=report.epochs,
                lr=report.lr,
                train_loss=report.train_loss,
                train_accuracy=report.train_accuracy,
                val_loss=report.val_loss,
                val_accuracy=report.val_accuracy,
                test_accuracy=report.test_accuracy,
                samples_per_s=report.samples_per_s,
                device_seconds=result["device_seconds"],
                phases_s=report.phases_s,
            ),
            DecisionRow(**self.stamp(), **at, decision="stop" if result.get("done") else "continue"),
        )

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The trial is over: at its end, stopped, diverged, or by a mistake of its own."""
        spec: TrialSpec = trial.config["spec"]
        self.leases.ended(spec.trial_id)
        report = self._last.get(spec.trial_id)
        error = trial.last_result.get("error")
        outcome: Outcome = "stopped"
        if error is not None or report is None:
            outcome = "failed"
        elif report.diverged:
            outcome = "diverged"
        elif report.final:
            outcome = "completed"
        self.write(self._end(spec, outcome, error))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """An attempt died and will be tried again."""
        self._lose(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The last attempt died."""
        self._lose(trial)
        self.write(self._end(trial.config["spec"], "failed", "a process of the trial died"))

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Every turn of Tune's loop."""
        if self.now() - self._swept > SWEEP_EVERY_S:
            self._swept = self.now()
            self.sweep()

    def sweep(self) -> None:
        """Bill what the cluster has back."""
        self.write(*map(self._bill, self.leases.sweep()))

    def _lose(self, trial: Trial) -> None:
        spec: TrialSpec = trial.config["spec"]
        attempt = self._progress.attempts.get(spec.trial_id, 0)
        if self.leases.lease_of(spec.trial_id) is None:  # it died before it was ready
            attempt += 1
        lease = self.leases.lost(spec.trial_id, attempt, spec.batch.world_size)
        if lease is not None and attempt > self._progress.attempts.get(spec.trial_id, 0):
            self.write(self._attempt(spec, lease, None))
        self._last.pop(spec.trial_id, None)
        self._best.pop(spec.trial_id, None)

    def _attempt(self, spec: TrialSpec, lease: OpenLease, norm_batch: int | None) -> AttemptRow:
        return AttemptRow(
            **self.stamp(),
            trial_id=spec.trial_id,
            attempt=lease.attempt,
            lease_id=lease.lease_id,
            group_id=lease.group_id,
            device=lease.device,
            nodes=lease.nodes,
            setup_s=lease.setup_s,
            phase=spec.phase,
            batch_size=spec.batch.global_batch,
            world_size=spec.batch.world_size,
            micro_batch=spec.batch.micro_batch,
            accumulation=spec.batch.accumulation,
            norm_batch=norm_batch,
            base_lr=spec.base_lr,
            lr=spec.lr,
            seed_index=spec.seed_index,
            updates_per_epoch=spec.updates_per_epoch,
            total_updates=spec.total_updates,
        )

    def _end(self, spec: TrialSpec, outcome: Outcome, error: str | None) -> EndRow:
        report = self._last.get(spec.trial_id)
        return EndRow(
            **self.stamp(),
            trial_id=spec.trial_id,
            attempts=self._progress.attempts.get(spec.trial_id, 0),
            outcome=outcome,
            final_val_accuracy=report.val_accuracy if report and outcome == "completed" else None,
            best_val_accuracy=self._best.get(spec.trial_id),
            test_accuracy=report.test_accuracy if report else None,
            error=error,
        )

    def _bill(self, closed: ClosedLease) -> LeaseRow:
        lease = closed.lease
        billed_s, phases_s = lease.bill(closed.closed_s, closed.reason)
        return LeaseRow(
            **self.stamp(),
            lease_id=lease.lease_id,
            group_id=lease.group_id,
            trial_id=lease.trial_id,
            attempt=lease.attempt,
            device=lease.device,
            devices=lease.devices,
            nodes=lease.nodes,
            reason=closed.reason,
            billed_s=billed_s,
            phases_s={phase: phases_s.get(phase, 0.0) for phase in PHASES},
        )
