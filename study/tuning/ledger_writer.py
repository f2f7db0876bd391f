"""The one writer of a study's ledger, its clock, and the rows that it makes of what the driver knows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TypedDict

from study.config.objective import Objective
from study.ledger.billing import OpenLease
from study.ledger.schema import PHASES, AnyRow, AttemptRow, EndRow, LeaseRow, Outcome, ReportRow
from study.ledger.store import Ledger
from study.measurement import CurvePoint
from study.training.messages import RankReport
from study.tuning.leases import ClosedLease
from study.tuning.messages import AttemptConfig

Observer = Callable[[AnyRow], None]


class Stamp(TypedDict):
    """The fields that every row starts with."""

    at_s: float
    written: str


class LedgerWriter:
    """Appends rows and then shows each to the observers, in their order.

    Its clock goes on from the last row, so that a resumed study has one time axis.
    """

    def __init__(
        self, ledger: Ledger, observers: Sequence[Observer], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.clock = clock
        self.failure: Exception | None = None  # the first; nothing is written after it
        self._ledger, self._observers = ledger, list(observers)
        self._zero_s = clock() - (ledger.rows[-1].at_s if ledger.rows else 0.0)
        self._wrote_s = self.now_s()

    @property
    def rows(self) -> Sequence[AnyRow]:
        """All rows so far, those of earlier drivers included."""
        return self._ledger.rows

    def now_s(self) -> float:
        """Return the seconds since the study's first row, less the time in which no driver ran."""
        return self.clock() - self._zero_s

    def stamp(self) -> Stamp:
        """Return the fields that every row starts with."""
        return {"at_s": self.now_s(), "written": datetime.now(timezone.utc).isoformat(timespec="milliseconds")}

    @property
    def quiet_s(self) -> float:
        """Seconds since a row was written."""
        return self.now_s() - self._wrote_s

    def subscribe(self, observer: Observer) -> None:
        """Show every later row to one more observer."""
        self._observers.append(observer)

    def write(self, *rows: AnyRow, durable: bool = True) -> None:
        """Append rows, then call the observers. With `durable`, the rows are on disk when the observers see them.

        Raises what the disk or an observer raises, now and at every later call: Tune blames some exceptions on a trial
        and goes on, so the driver reads `failure` when Tune has returned.
        """
        if self.failure is not None:
            raise self.failure
        with self.noting_failure():
            if rows:
                self._ledger.append(*rows, durable=durable)
                self._wrote_s = self.now_s()
            for row in rows:
                for observer in self._observers:
                    observer(row)

    @contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Keep an exception as `failure` and raise it again."""
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error
            raise


def attempt_row(
    stamp: Stamp,
    attempt: AttemptConfig,
    lease: OpenLease,
    devices_per_rank: float,
    norm_batch: int | None,
    setup_s: float,
) -> AttemptRow:
    """Return the row of an attempt that begins on a lease after `setup_s` seconds of set-up."""
    spec = attempt.spec
    return AttemptRow(
        **stamp,
        trial_id=spec.trial_id,
        attempt=lease.attempt,
        lease_id=lease.lease_id,
        group_id=lease.group_id,
        device=lease.device,
        nodes=lease.nodes,
        hosts=lease.hosts,
        setup_s=setup_s,
        phase=spec.phase,
        variant=spec.cell.variant,
        batch_size=spec.batch.global_batch,
        world_size=spec.batch.world_size,
        devices_per_rank=devices_per_rank,
        micro_batch=spec.batch.micro_batch,
        accumulation=spec.batch.accumulation,
        norm_batch=norm_batch,
        base_lr=spec.base_lr,
        lr=spec.lr,
        seed_index=spec.seed_index,
        updates_per_epoch=spec.updates_per_epoch,
        total_updates=spec.total_updates,
        from_updates=attempt.from_updates,
    )


def report_row(
    stamp: Stamp, report: RankReport, attempt: AttemptConfig, number: int, before: Sequence[CurvePoint]
) -> ReportRow:
    """Return the row of a report of attempt `number`. `before` holds the report that it goes on from, if any."""
    spec = attempt.spec
    worked_s = report.phases_s["train"] + report.phases_s["validate"]
    return ReportRow(
        **stamp,
        trial_id=spec.trial_id,
        attempt=number,
        **report.as_stored(),
        device_seconds=spec.batch.world_size * worked_s + sum(row.device_seconds for row in before),
        phases_s=report.phases_s,
        final=report.final,
        energy_j=report.energy_j,
        peak_memory_bytes=report.peak_memory_bytes,
    )


def end_row(
    stamp: Stamp,
    trial_id: str,
    attempts: int,
    curve: Sequence[CurvePoint],
    outcome: Outcome,
    error: str | None,
    mistake: bool,
    objective: Objective,
) -> EndRow:
    """Return the row of a trial's end. `curve` holds its reports in order, `attempts` is how many it took."""
    last = curve[-1] if outcome == "completed" else None
    best = max((objective.of(point) for point in curve if not point.diverged), default=None)
    return EndRow(
        **stamp,
        trial_id=trial_id,
        attempts=attempts,
        outcome=outcome,
        final=None if last is None else last.value(objective.metric),
        best=None if best is None else objective.value(best),
        test=None if last is None else last.value(objective.test_metric),
        error=curve[-1].non_finite if outcome == "diverged" else error,
        mistake=mistake,
    )


def lease_row(stamp: Stamp, closed: ClosedLease) -> LeaseRow:
    """Return the bill of an attempt: seconds per device, by phase."""
    lease = closed.lease
    billed_s, phases_s = lease.bill(closed.closed_s, closed.reason)
    return LeaseRow(
        **stamp,
        lease_id=lease.lease_id,
        group_id=lease.group_id,
        trial_id=lease.trial_id,
        attempt=lease.attempt,
        device=lease.device,
        devices=lease.devices,
        nodes=lease.nodes,
        hosts=lease.hosts,
        reason=closed.reason,
        billed_s=billed_s,
        phases_s={phase: phases_s.get(phase, 0.0) for phase in PHASES},
        why=lease.why,
    )
