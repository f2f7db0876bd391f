"""Ledger rows to one record a trial."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from study.analysis.records import Cost, TrialRecord
from study.ledger.billing import ColdLeases
from study.ledger.schema import (
    PHASES,
    AnyRow,
    AttemptRow,
    DecisionRow,
    EndRow,
    LeaseRow,
    LimitRow,
    MistakeRow,
    ReportRow,
    StudyRow,
    WaitRow,
)
from study.measurement import CurvePoint


@dataclass
class Gathered:
    """The rows of a ledger by trial, one pass over them done."""

    study: StudyRow | None = None  # the first
    config: dict[str, object] = field(default_factory=dict)  # the last driver's: limits may change on a resume
    limit: LimitRow | None = None  # that the last driver has passed
    mistake: MistakeRow | None = None  # that has ended the study
    waiting: WaitRow | None = None  # for a larger cluster
    cut: set[str] = field(default_factory=set)  # trials that wait to go on where that limit cut them
    last_s: float = 0.0  # the writer's clock at the last row
    attempts: dict[str, AttemptRow] = field(default_factory=dict)  # the last of each trial
    curves: dict[str, list[CurvePoint]] = field(default_factory=lambda: defaultdict(list))
    energies_j: dict[str, dict[int, float | None]] = field(default_factory=lambda: defaultdict(dict))  # by attempt
    peaks_bytes: dict[str, int] = field(default_factory=dict)  # most memory that any attempt took of a GPU
    cold: ColdLeases = field(default_factory=ColdLeases)
    leases: dict[str, list[LeaseRow]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[str, EndRow] = field(default_factory=dict)
    stopped_at: dict[str, int] = field(default_factory=dict)  # updates, of audited trials


def uncollected(rows: Iterable[AnyRow]) -> Iterator[AnyRow]:
    """The rows, without the garbage collector looking over what is kept of them again and again: none is in a cycle."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield from rows
    finally:
        if was_on:
            gc.enable()


def gather(rows: Iterable[AnyRow]) -> Gathered:
    """Sort the rows by trial. They are gone through once, and reports are not kept as they are."""
    found = Gathered()
    row: AnyRow | None = None
    for row in uncollected(rows):
        if isinstance(row, ReportRow):
            found.curves[row.trial_id].append(row.point)
            found.energies_j[row.trial_id][row.attempt] = row.energy_j
            if row.peak_memory_bytes is not None:
                found.peaks_bytes[row.trial_id] = max(row.peak_memory_bytes, found.peaks_bytes.get(row.trial_id, 0))
        elif isinstance(row, DecisionRow):
            if row.decision == "audit":
                found.stopped_at[row.trial_id] = row.updates
            elif row.decision == "cut":
                found.cut.add(row.trial_id)
        elif isinstance(row, AttemptRow):
            found.attempts[row.trial_id] = row
            found.cold.follow(row)
            found.waiting = None
            found.cut.discard(row.trial_id)
            # What an attempt does not go on from was lost with the one before it.
            kept = [point for point in found.curves[row.trial_id] if point.updates <= row.from_updates]
            found.curves[row.trial_id] = kept
        elif isinstance(row, LeaseRow):
            found.leases[row.trial_id].append(row)
        elif isinstance(row, EndRow):
            found.ends[row.trial_id] = row
            found.cold.follow(row)
        elif isinstance(row, LimitRow):
            found.limit, found.waiting = row, None
        elif isinstance(row, MistakeRow):
            found.mistake, found.waiting = row, None
        elif isinstance(row, WaitRow):
            found.waiting = row
        elif isinstance(row, StudyRow):
            found.study = found.study or row
            if found.mistake is not None:  # all trials begin again; what they cost stays
                for of_trial in (found.ends, found.curves, found.stopped_at, found.peaks_bytes):
                    of_trial.clear()
                found.cut.clear()
            found.config, found.limit, found.mistake, found.waiting = row.config, None, None, None
    if row is not None:
        found.last_s = row.at_s
    return found


def trial_records(found: Gathered, usd_per_device_hour: float | None) -> tuple[TrialRecord, ...]:
    """Every trial that was ever started, in the order in which they were."""
    return tuple(
        _record(
            attempt,
            found.curves[trial_id],
            found.leases[trial_id],
            list(found.energies_j[trial_id].values()),
            found.ends.get(trial_id),
            found.stopped_at.get(trial_id),
            found.peaks_bytes.get(trial_id),
            usd_per_device_hour,
            found.cold.attempts,
        )
        for trial_id, attempt in found.attempts.items()
    )


def _record(
    attempt: AttemptRow,
    curve: list[CurvePoint],
    leases: list[LeaseRow],
    energies_j: list[float | None],
    end: EndRow | None,
    stopped_at: int | None,
    peak_bytes: int | None,
    usd: float | None,
    cold: Container[tuple[str, int]],
) -> TrialRecord:
    started = [lease for lease in leases if (lease.trial_id, lease.attempt) in cold and lease.phases_s["setup"] > 0]
    return TrialRecord(
        trial_id=attempt.trial_id,
        phase=attempt.phase,
        variant=attempt.variant,
        batch_size=attempt.batch_size,
        world_size=attempt.world_size,
        micro_batch=attempt.micro_batch,
        accumulation=attempt.accumulation,
        norm_batch=attempt.norm_batch,
        lr=attempt.lr,
        seed_index=attempt.seed_index,
        outcome=end.outcome if end else None,
        error=end.error if end else None,
        attempts=attempt.attempt,
        total_updates=attempt.total_updates,
        audited_from=stopped_at,
        cost=bill(leases, energies_j, curve[-1] if curve else None, usd),
        phases_s={phase: sum(lease.phases_s[phase] for lease in leases) for phase in PHASES},
        final_val_accuracy=end.final_val_accuracy if end else None,
        best_val_accuracy=end.best_val_accuracy if end else None,
        test_accuracy=end.test_accuracy if end else None,
        samples_per_s=throughput(curve),
        peak_memory_bytes=peak_bytes,
        devices_per_rank=attempt.devices_per_rank,
        cold_setup=_setup(started, usd),
        cold_starts=len(started),
        curve=tuple(curve),
    )


def bill(
    leases: Sequence[LeaseRow],
    energies_j: Sequence[float | None],
    last: CurvePoint | None,
    usd_per_device_hour: float | None,
) -> Cost:
    """What a trial cost: the sum of its leases and of what its attempts used, and how far it came."""
    known_j = [joules for joules in energies_j if joules is not None]
    device_h = sum(lease.billed_device_h for lease in leases)
    return Cost(
        billed_device_h=device_h,
        billed_gpu_h=sum(lease.billed_gpu_h for lease in leases),
        usd=None if usd_per_device_hour is None else device_h * usd_per_device_hour,
        wall_h=sum(lease.billed_s for lease in leases) / 3600,
        energy_j=sum(known_j) if known_j and len(known_j) == len(energies_j) else None,
        samples=last.samples if last else 0,
        updates=last.updates if last else 0,
    )


def _setup(leases: Sequence[LeaseRow], usd_per_device_hour: float | None) -> Cost:
    """What the setup of leases cost."""
    setups = [lease.model_copy(update={"billed_s": lease.phases_s["setup"]}) for lease in leases]
    return bill(setups, (), None, usd_per_device_hour)


def throughput(curve: list[CurvePoint]) -> float | None:
    """Samples per second of training, over all intervals after the first where there are several.

    The first holds what happens once: DDP rebuilds its buckets, allocators and kernel caches fill.
    """
    if not curve:
        return None
    intervals = [
        (row.samples - before, (row.samples - before) / row.samples_per_s)
        for before, row in zip([0, *(row.samples for row in curve[:-1])], curve, strict=True)
    ]
    warm = intervals[1:] or intervals
    return sum(samples for samples, _ in warm) / sum(seconds for _, seconds in warm)
