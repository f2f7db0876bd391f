"""The one writer: turns what Tune tells the driver into rows, on disk before anything rests on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from study.config.sections import LimitsConfig
from study.ledger.billing import OpenLease
from study.ledger.schema import (
    AnyRow,
    AttemptRow,
    Decision,
    DecisionRow,
    LeaseRow,
    LimitRow,
    MistakeRow,
    Outcome,
    PulseRow,
    StudyRow,
    WaitRow,
)
from study.ledger.store import Ledger
from study.planning.trials import TrialSpec
from study.training.messages import RankReport
from study.tuning.checkpoint_store import CheckpointStore
from study.tuning.heartbeat import why_lost
from study.tuning.leases import ClosedLease, Cluster, Leases, RayCluster
from study.tuning.progress import Progress
from study.tuning.row_builders import attempt_row, end_row, lease_row, report_row

Observer = Callable[[AnyRow], None]
SWEEP_EVERY_S = 0.2
PULSE_EVERY_S = 15.0


class Recorder(tune.Callback):
    """A Tune callback. Its clock goes on from the last row, so that a resumed study has one time axis."""

    def __init__(
        self,
        ledger: Ledger,
        progress: Progress,
        shelf: CheckpointStore,
        observe: Observer,
        cluster: Cluster | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger, self._progress, self._shelf, self._observe = ledger, progress, shelf, observe
        self._clock = clock
        self._zero = clock() - (ledger.rows[-1].at_s if ledger.rows else 0.0)
        self.leases = Leases(cluster or RayCluster(), clock)
        self._swept = 0.0
        self._wrote_s = self.now()
        self._waits_since_s: float | None = None
        self._recovered: tuple[str, int] | None = None  # the trial that was told of last, and in which turn
        self.failure: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a restore that we never ask for: a ledger has one writer, here."""
        return {}

    def now(self) -> float:
        """Seconds since the study's first row, less the time in which no driver ran."""
        return self._clock() - self._zero

    def stamp(self) -> dict[str, Any]:
        """What every row starts with."""
        return {"at_s": self.now(), "written": datetime.now(timezone.utc).isoformat(timespec="milliseconds")}

    def write(self, *rows: AnyRow, durable: bool = True) -> None:
        """Append, then let everyone know.

        Tune takes an exception for the trial's fault here and there, so the first is kept: nothing is written after
        it, and whoever runs Tune raises it again.
        """
        if self.failure is not None:
            raise self.failure
        with self._noting_failure():
            if rows:
                self._ledger.append(*rows, durable=durable)
                self._wrote_s = self.now()
            for row in rows:
                if isinstance(row, AttemptRow):  # it had room, if only for a moment in which nobody asked
                    self._waits_since_s = None
                self._progress.follow(row)
                self._observe(row)

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failure = error
            raise

    def open_study(self, **fields: Any) -> None:
        """The first row, and the first of each resume. After a mistake all trials begin again: none goes on from a
        checkpoint that other code has made.
        """
        if self._progress.state.mistake is not None:
            with self._noting_failure():
                self._shelf.tidy(self._progress.state.trials.keys())
        self.write(StudyRow(**self.stamp(), **fields))

    def settle(self) -> None:
        """Finish what a driver that died had begun: bill what it left open, up to the last it wrote; end what it had
        decided to stop, and what will not go on.
        """
        last_s = self._ledger.rows[-1].at_s if self._ledger.rows else 0.0
        left_open = list(self._progress.state.open_leases.values())
        self.write(*(self._bill(ClosedLease(lease, last_s, "lost")) for lease in left_open))
        stopping = [trial.trial_id for trial in self._progress.state.trials.values() if trial.stopping]
        for trial_id in sorted(stopping):
            self._end(trial_id, self._reached(trial_id), None)
        self._drop()
        self._end_study()

    def release(self, timeout_s: float) -> None:
        """After Tune has ended: wait until the cluster has every group back, and bill it."""
        self.leases.cut_short()
        deadline = self._clock() + timeout_s
        while self.leases.open and self._clock() < deadline:
            self.sweep()
        self._end_study()

    def wait(self, ranks: int) -> None:
        """Told every turn how many ranks the cluster holds. Too few for one trial, and nothing runs: the study waits.

        Its clock stops where the room is there again, before a group is ready, and at an attempt, even one that died
        in its setup; a new driver begins anew.
        """
        needed = 0 if self.leases.running else self._progress.needed
        if ranks >= needed:
            self._waits_since_s = None
        elif self._waits_since_s is None:
            self.write(WaitRow(**self.stamp(), ranks=ranks, needed=needed))
            self._waits_since_s = self.now()

    def limit_passed(self) -> LimitRow | None:
        """The first limit that the study has passed by now, as a row that is not written yet."""
        config = self._progress.plan.config
        if config.limits == LimitsConfig():
            return None
        device_h = self._progress.state.device_h(self.now()) + self.leases.starting_device_s() / 3600
        wait_h = 0.0 if self._waits_since_s is None else (self.now() - self._waits_since_s) / 3600
        figures = config.limits.against(device_h, self.now() / 3600, config.price.usd_per_device_hour, wait_h)
        for name, (spent, allowed) in figures.items():
            if spent >= allowed:
                return LimitRow(**self.stamp(), limit=name, allowed=allowed, spent=spent)
        return None

    def handle_report(self, trial: Trial, result: Mapping[str, Any]) -> bool:
        """Write down a report and what the policy makes of it; between the two, the checkpoint that came with it.
        Returns whether the trial goes on.
        """
        report: RankReport = result["report"]
        spec: TrialSpec = trial.config["spec"]
        lease = self.leases.lease_of(spec.trial_id)
        assert lease is not None
        lease.add_report(self._clock(), report.phases_s)
        at: dict[str, Any] = {"trial_id": spec.trial_id, "attempt": lease.attempt, "updates": report.updates}
        curve = self._progress.state.trial(spec.trial_id).curve
        before = [point for point in curve if point.updates == trial.config["from_updates"]]
        self.write(
            report_row(self.stamp(), report, spec, lease.attempt, before),
            durable=False,  # nothing is acted on before the decision is on disk, and this with it
        )
        decision: Decision = "stop" if result["over"] else self._progress.verdict(spec.trial_id)
        if decision == "stop" and not result["over"] and self._progress.is_to_be_audited(spec.trial_id):
            decision = "audit"
        snapshot: bytes | None = result["snapshot"]
        cut = self._progress.state.limit is not None and decision in ("continue", "audit")
        if cut and snapshot is None:
            snapshot = self._snapshot(trial, lease, report)
        if snapshot is not None and decision != "stop":
            self._shelve(lease, report.updates, snapshot)
        cut = cut and snapshot is not None
        if not cut or decision == "audit":
            self.write(DecisionRow(**self.stamp(), **at, decision=decision))
        if cut:
            self.write(DecisionRow(**self.stamp(), **at, decision="cut"))
        return self._progress.state.limit is None and decision in ("continue", "audit")

    def _snapshot(self, trial: Trial, lease: OpenLease, report: RankReport) -> bytes | None:
        """Of a trial that is cut, from its waiting group; None if that cannot give one."""
        try:
            snapshot, checkpoint_s = ray.get(trial.temporary_state.ray_actor.snapshot.remote())
        except ray.exceptions.RayError:
            return None
        lease.add_report(self._clock(), {**report.phases_s, "checkpoint": checkpoint_s})
        data: bytes = snapshot
        return data

    def _shelve(self, lease: OpenLease, updates: int, snapshot: bytes) -> None:
        """On disk before the decision that lets the trial go on from there is."""
        began_s = self._clock()
        with self._noting_failure():
            self._shelf.put(lease.trial_id, updates, snapshot)
        lease.add_checkpoint(self._clock(), self._clock() - began_s)

    # Tune's events, in the order in which they come.

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The trial's group is ready to train, fresh or handed over."""
        spec: TrialSpec = trial.config["spec"]
        try:
            described = ray.get(trial.temporary_state.ray_actor.describe.remote())
        except ray.exceptions.RayError:
            return  # it has died since, as Tune is about to hear
        attempt = self._progress.state.trial(spec.trial_id).attempts + 1
        lease, closed = self.leases.start(spec.trial_id, attempt, self._devices(spec), described)
        self.write(*map(self._bill, closed), self._attempt(trial, lease, described.norm_batch, lease.setup_s))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """A report. Tune has not shown the scheduler one after which the trial is over by itself."""
        if result["over"] and result["report"] is not None:
            self.handle_report(trial, result)
        result.pop("report")
        result.pop("snapshot", None)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The attempt is over: the trial pauses, was stopped or cut, came to its end, diverged, did not fit, or made a
        mistake.
        """
        trial_id = trial.config["spec"].trial_id
        error = trial.last_result.get("error")
        outcome: Outcome | None
        known = self._progress.state.trial(trial_id)
        if known.status == "paused":
            outcome = None
        elif trial.last_result.get("infeasible"):
            outcome = "infeasible"
        elif error is not None or not known.curve:
            outcome = "failed"
        elif known.stopping:
            outcome = self._reached(trial_id)
        else:  # cut, and its group could give no snapshot
            self.lose(trial)
            return
        self.leases.ended(trial_id)
        if outcome is not None:
            self._end(trial_id, outcome, error, mistake=outcome == "failed" and error is not None)
        # Tune keeps every trial to the end, and with it statistics of each figure that nobody asks for.
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()
        self._drop()
        if self._progress.idle:
            self._end_study()

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """An attempt died and will be tried again: Tune starts it with the same configuration, so that goes on from the
        trial's last checkpoint now.
        """
        self.lose(trial, why_lost(trial.error_file))
        trial_id = trial.config["spec"].trial_id
        self._recovered = trial_id, iteration
        with self._noting_failure():
            trial.config.update(self._shelf.start(trial_id, self._progress.state.trial(trial_id).resume_updates))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The last attempt died."""
        spec, why = trial.config["spec"], why_lost(trial.error_file)
        if self._recovered != (spec.trial_id, iteration):
            self.lose(trial, why)
        elif self._progress.again(spec):
            # Tune tells twice of a group that dies while it is handed over, and has given the trial up the second time.
            return
        self._end(spec.trial_id, "failed", why)
        self._drop()
        if self._progress.idle:
            self._end_study()

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Every turn of Tune's loop."""
        if self.now() - self._swept > SWEEP_EVERY_S:
            self._swept = self.now()
            self.sweep()

    def sweep(self) -> None:
        """Bill what the cluster has back. Where anything is leased and there was nothing to write for long, give a sign
        of life: should this driver be killed, the next one bills up to here (docs/adr/017).
        """
        self.write(*map(self._bill, self.leases.sweep()))
        if self.leases.open and self.now() - self._wrote_s >= PULSE_EVERY_S:
            self.write(PulseRow(**self.stamp()))

    def _devices(self, spec: TrialSpec) -> float:
        return spec.batch.world_size * self._progress.plan.config.hardware.devices_per_rank

    def lose(self, trial: Trial, why: str = "") -> None:
        """An attempt ends, and what it did since its last checkpoint is lost; `why`, where it died. One whose group was
        not ready is entered now, to be billed.
        """
        spec: TrialSpec = trial.config["spec"]
        attempt = self._progress.state.trial(spec.trial_id).attempts
        if self.leases.lease_of(spec.trial_id) is None:  # it died before it was ready
            attempt += 1
        lease, closed = self.leases.lost(spec.trial_id, attempt, self._devices(spec), why)
        if lease is not None and attempt > self._progress.state.trial(spec.trial_id).attempts:
            entered = self._attempt(trial, lease, None, self._clock() - lease.opened_s)
            self.write(*map(self._bill, closed), entered)

    def _drop(self) -> None:
        """Paused trials of which it is now known that they do not go on."""
        for trial_id in self._progress.dropped():
            if self._progress.is_to_be_audited(trial_id):
                known = self._progress.state.trial(trial_id)
                at: dict[str, Any] = {"trial_id": trial_id, "attempt": known.attempts, "updates": known.updates}
                self.write(DecisionRow(**self.stamp(), **at, decision="audit"))
            else:
                self._end(trial_id, "stopped", None)

    def _end_study(self) -> None:
        """Write down that all trials fail with the same mistake, if they do: nothing starts after that."""
        found = self._progress.same_mistake
        if found is not None and self._progress.state.mistake is None:
            error, failed = found
            self.write(MistakeRow(**self.stamp(), error=error, failed=failed))

    def _attempt(self, trial: Trial, lease: OpenLease, norm_batch: int | None, setup_s: float) -> AttemptRow:
        per_rank = self._progress.plan.config.hardware.devices_per_rank
        spec, from_updates = trial.config["spec"], trial.config["from_updates"]
        return attempt_row(self.stamp(), spec, lease, per_rank, norm_batch, setup_s, from_updates)

    def _reached(self, trial_id: str) -> Outcome:
        """What came of a trial that was told to stop."""
        known = self._progress.state.trial(trial_id)
        if known.curve[-1].diverged:
            return "diverged"
        return "completed" if known.final else "stopped"

    def _end(self, trial_id: str, outcome: Outcome, error: str | None, mistake: bool = False) -> None:
        known = self._progress.state.trial(trial_id)
        self.write(end_row(self.stamp(), trial_id, known.attempts, known.curve, outcome, error, mistake))
        with self._noting_failure():
            self._shelf.remove(trial_id)

    def _bill(self, closed: ClosedLease) -> LeaseRow:
        return lease_row(self.stamp(), closed)
