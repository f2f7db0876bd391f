"""The books of a study's trials: attempts, reports, decisions, bills and ends, written before anything acts on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from study.ledger.billing import OpenLease
from study.ledger.schema import Decision, DecisionRow, LeaseRow, MistakeRow, Outcome, PulseRow, SeedRow, StudyRow
from study.planning.trials import TrialSpec
from study.training.messages import RankReport
from study.tuning.checkpoint_store import CheckpointStore
from study.tuning.leases import ClosedLease, Cluster, Death, Leases, RayCluster
from study.tuning.ledger_writer import LedgerWriter, attempt_row, end_row, lease_row, report_row
from study.tuning.messages import AttemptConfig, GroupInfo, StepResult
from study.tuning.progress import Progress

SWEEP_EVERY_S = 0.2
PULSE_EVERY_S = 15.0


class TrainingGroup(Protocol):
    """What the books ask of the group that has just reported."""

    def snapshot(self) -> tuple[bytes, float] | None:
        """Take a snapshot at the report. Return it, and the seconds that snapshots of the attempt took so far; None if
        the group has died.
        """

    def wait_for_decisions(self) -> None:
        """Have the group wait for the decision on its next report, whatever it is."""


class Recorder:
    """Turns what happens to trials into rows. It knows neither Tune nor the search policy's rules.

    `writer` must show its rows to `progress`, which is read here.
    """

    def __init__(
        self, writer: LedgerWriter, progress: Progress, store: CheckpointStore, cluster: Cluster | None = None
    ) -> None:
        self._writer, self._progress, self._store = writer, progress, store
        self.leases = Leases(cluster or RayCluster(), writer.clock)
        self._swept_s = 0.0
        self._failed: dict[str, StepResult] = {}  # steps without a report, of trials that Tune has not ended yet

    # The study as a whole.

    def settle(self) -> None:
        """Finish what a driver that died had begun: bill its open leases up to the last row that it wrote, end the
        trials that it had decided to stop, and those that will not go on.
        """
        rows = self._writer.rows
        last_s = rows[-1].at_s if rows else 0.0
        left_open = list(self._progress.state.open_leases.values())
        self._writer.write(*(self._bill(ClosedLease(lease, last_s, "lost")) for lease in left_open))
        stopping = [trial.trial_id for trial in self._progress.state.trials.values() if trial.stopping]
        for trial_id in sorted(stopping):
            self._end(trial_id, self._reached(trial_id), None)
        self._drop()
        self._end_study()

    def open_study(self, row: StudyRow) -> None:
        """Write the first row, or the first of a resume. After a mistake all trials start again from their beginning,
        because their checkpoints come from other code.
        """
        if self._progress.state.mistake is not None:
            with self._writer.noting_failure():
                self._store.tidy(self._progress.state.trials.keys())
        self._writer.write(row)
        self._drop()  # seeds that the last driver's limit kept from being added

    def release(self, timeout_s: float) -> None:
        """Wait until the cluster has every group back, and bill it. Call it after Tune has ended."""
        self.leases.cut_short()
        deadline = self._writer.clock() + timeout_s
        while self.leases.open and self._writer.clock() < deadline:
            self.sweep()
        self._end_study()

    def sweep_if_due(self) -> None:
        """Call `sweep`, if the last call was some time ago."""
        if self._writer.now_s() - self._swept_s > SWEEP_EVERY_S:
            self._swept_s = self._writer.now_s()
            self.sweep()

    def sweep(self) -> None:
        """Bill the groups that the cluster has back. While anything is leased and nothing else was written for long,
        write a pulse: if this driver is killed, the next one bills up to it (docs/adr/017).
        """
        self._writer.write(*map(self._bill, self.leases.sweep()))
        if self.leases.open and self._writer.quiet_s >= PULSE_EVERY_S:
            self._writer.write(PulseRow(**self._writer.stamp()))

    # One attempt, in the order of its life.

    def begin(self, attempt: AttemptConfig, info: GroupInfo) -> None:
        """Note that an attempt's group is ready to train, fresh or handed over."""
        spec = attempt.spec
        number = self._progress.state.trial(spec.trial_id).attempts + 1
        lease, closed = self.leases.start(spec.trial_id, number, self._devices(spec), info)
        self._enter(attempt, lease, closed, info.norm_batch, lease.setup_s)

    def handle_report(self, attempt: AttemptConfig, step: StepResult, group: TrainingGroup) -> bool:
        """Write a report, the policy's decision on it, and between the two the checkpoint that the decision rests on.
        Return whether the trial goes on.

        Every step of every trial comes in here, and only here. Past a limit a trial is cut, with a snapshot of its
        group if the step brought none; one that trains on already is cut at its next report.
        """
        spec, report = attempt.spec, step.report
        if report is None:
            self._failed[spec.trial_id] = step
            return False
        lease = self.leases.lease_of(spec.trial_id)
        assert lease is not None
        lease.add_report(self._writer.clock(), report.phases_s)
        curve = self._progress.state.trial(spec.trial_id).curve
        before = [point for point in curve if point.updates == attempt.from_updates]
        self._writer.write(
            report_row(self._writer.stamp(), report, attempt, lease.attempt, before),
            durable=False,  # the decision makes it durable, before anything acts on either
        )
        decision: Decision = "stop" if step.last else self._progress.verdict(spec.trial_id)
        if decision == "stop" and not step.last and self._progress.is_to_be_audited(spec.trial_id):
            decision = "audit"
        snapshot = step.snapshot
        past_limit = self._progress.state.limit is not None and decision in ("continue", "audit")
        if past_limit and step.ahead:
            group.wait_for_decisions()
        cut = past_limit and not step.ahead
        if cut and snapshot is None and (taken := group.snapshot()) is not None:
            snapshot, checkpoint_s = taken
            lease.add_report(self._writer.clock(), {**report.phases_s, "checkpoint": checkpoint_s})
        if snapshot is not None and decision != "stop":
            self._keep(lease, report, snapshot)
        cut = cut and snapshot is not None
        if not cut or decision == "audit":
            self._decide(spec.trial_id, lease.attempt, report.updates, decision)
        if cut:
            self._decide(spec.trial_id, lease.attempt, report.updates, "cut")
        return decision in ("continue", "audit") and (step.ahead or not past_limit)

    def complete(self, attempt: AttemptConfig) -> None:
        """Note that Tune has ended an attempt without a death: its trial paused, was stopped or cut, came to its end,
        diverged, did not fit, or failed with an error of its own code.
        """
        trial_id = attempt.spec.trial_id
        failed = self._failed.pop(trial_id, None)
        outcome: Outcome | None
        known = self._progress.state.trial(trial_id)
        if known.status == "paused":
            outcome = None
        elif failed is not None or not known.curve:
            outcome = "infeasible" if failed is not None and failed.infeasible else "failed"
        elif known.stopping:
            outcome = self._reached(trial_id)
        else:  # it was cut, and its group could give no snapshot
            self.lose(attempt)
            return
        self.leases.mark_ended(trial_id)
        if outcome is not None:
            error = failed.error if failed is not None else None
            self._end(trial_id, outcome, error, mistake=outcome == "failed" and error is not None)
        self._drop()
        if self._progress.idle:
            self._end_study()

    def lose(self, attempt: AttemptConfig, death: Death | None = None) -> None:
        """Note that an attempt died, or, without a death, that the driver ends it. Its work since its last checkpoint
        is lost. If its group was not ready, its AttemptRow is written here, so that it is billed.
        """
        spec = attempt.spec
        number = self._progress.state.trial(spec.trial_id).attempts
        if self.leases.lease_of(spec.trial_id) is None:  # it died before it was ready
            number += 1
        lease, closed = self.leases.mark_lost(spec.trial_id, number, self._devices(spec), death)
        if lease is not None and number > self._progress.state.trial(spec.trial_id).attempts:
            self._enter(attempt, lease, closed, None, self._writer.clock() - lease.opened_s)

    def retry(self, attempt: AttemptConfig, death: Death) -> AttemptConfig:
        """Note that an attempt died. Return the one that Tune starts next, from the trial's newest checkpoint."""
        self.lose(attempt, death)
        trial_id = attempt.spec.trial_id
        with self._writer.noting_failure():
            checkpoint = self._store.start(trial_id, self._progress.state.trial(trial_id).resume_updates)
        return replace(attempt, checkpoint=checkpoint)

    def give_up(self, attempt: AttemptConfig, death: Death, lost_before: bool) -> None:
        """End a trial as failed, because its last attempt died.

        With `lost_before`, Tune has reported this death to `retry` already, and has given the trial up only because its
        group died in a hand-over. Such a trial is handed out again, unless it was tried too often.
        """
        if not lost_before:
            self.lose(attempt, death)
        elif self._progress.again(attempt.spec):
            return
        self._end(attempt.spec.trial_id, "failed", death.why)
        self._drop()
        if self._progress.idle:
            self._end_study()

    # What the methods above have in common.

    def _devices(self, spec: TrialSpec) -> float:
        return spec.batch.world_size * self._progress.plan.config.hardware.devices_per_rank

    def _enter(
        self,
        attempt: AttemptConfig,
        lease: OpenLease,
        closed: list[ClosedLease],
        norm_batch: int | None,
        setup_s: float,
    ) -> None:
        per_rank = self._progress.plan.config.hardware.devices_per_rank
        bills = [self._bill(lease) for lease in closed]  # stamped first: rows are in the order of their times
        self._writer.write(*bills, attempt_row(self._writer.stamp(), attempt, lease, per_rank, norm_batch, setup_s))

    def _decide(self, trial_id: str, attempt: int, updates: int, decision: Decision) -> None:
        stamp = self._writer.stamp()
        self._writer.write(DecisionRow(**stamp, trial_id=trial_id, attempt=attempt, updates=updates, decision=decision))

    def _keep(self, lease: OpenLease, report: RankReport, snapshot: bytes) -> None:
        began_s = self._writer.clock()
        with self._writer.noting_failure():
            self._store.put(lease.trial_id, report.updates, snapshot)
        lease.add_checkpoint(self._writer.clock(), self._writer.clock() - began_s)

    def _drop(self) -> None:
        """End, or audit, the paused trials that are now known not to go on; end those that will not begin; add seeds
        to configurations of which it is open whether to choose them.
        """
        for trial_id in self._progress.dropped():
            known = self._progress.state.trial(trial_id)
            if known.begun and self._progress.is_to_be_audited(trial_id):
                self._decide(trial_id, known.attempts, known.updates, "audit")
            else:
                self._end(trial_id, "stopped", None)
        while (seed := self._progress.seed_to_add()) is not None:
            spec, why = seed
            stamp = self._writer.stamp()
            self._writer.write(SeedRow(**stamp, trial_id=spec.trial_id, open=why.open, probability=why.probability))

    def _end_study(self) -> None:
        """Write down that all trials fail with the same mistake, if they do: nothing starts after that."""
        found = self._progress.same_mistake
        if found is not None and self._progress.state.mistake is None:
            error, failed = found
            self._writer.write(MistakeRow(**self._writer.stamp(), error=error, failed=failed))

    def _reached(self, trial_id: str) -> Outcome:
        """Return the outcome of a trial that a decision has stopped."""
        known = self._progress.state.trial(trial_id)
        if known.curve[-1].diverged:
            return "diverged"
        return "completed" if known.final else "stopped"

    def _end(self, trial_id: str, outcome: Outcome, error: str | None, mistake: bool = False) -> None:
        known = self._progress.state.trial(trial_id)
        stamp = self._writer.stamp()
        objective = self._progress.objective
        self._writer.write(end_row(stamp, trial_id, known.attempts, known.curve, outcome, error, mistake, objective))
        with self._writer.noting_failure():
            self._store.remove(trial_id)

    def _bill(self, closed: ClosedLease) -> LeaseRow:
        return lease_row(self._writer.stamp(), closed)
