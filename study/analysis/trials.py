"""Ledger rows to one record a trial."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import fields

from study.analysis.records import Cost, CurvePoint, TrialRecord
from study.ledger.rows import PHASES, AnyRow, AttemptRow, DecisionRow, EndRow, LeaseRow, ReportRow


def trial_records(rows: Iterable[AnyRow], usd_per_device_hour: float | None) -> tuple[TrialRecord, ...]:
    """Every trial that was ever started, in the order in which they were."""
    attempts: dict[str, AttemptRow] = {}
    curves: dict[str, list[CurvePoint]] = defaultdict(list)
    leases: dict[str, list[LeaseRow]] = defaultdict(list)
    ends: dict[str, EndRow] = {}
    stopped_at: dict[str, int] = {}
    for row in rows:
        if isinstance(row, AttemptRow):
            attempts[row.trial_id] = row
            # What an attempt does not go on from was lost with the one before it.
            curves[row.trial_id] = [point for point in curves[row.trial_id] if point.updates <= row.from_updates]
        elif isinstance(row, ReportRow):
            curves[row.trial_id].append(_curve_point(row))
        elif isinstance(row, LeaseRow):
            leases[row.trial_id].append(row)
        elif isinstance(row, DecisionRow) and row.decision == "audit":
            stopped_at[row.trial_id] = row.updates
        elif isinstance(row, EndRow):
            ends[row.trial_id] = row
    return tuple(
        _record(
            attempt,
            curves[trial_id],
            leases[trial_id],
            ends.get(trial_id),
            stopped_at.get(trial_id),
            usd_per_device_hour,
        )
        for trial_id, attempt in attempts.items()
    )


def _record(
    attempt: AttemptRow,
    curve: list[CurvePoint],
    leases: list[LeaseRow],
    end: EndRow | None,
    stopped_at: int | None,
    usd: float | None,
) -> TrialRecord:
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
        cost=bill(leases, curve[-1] if curve else None, usd),
        phases_s={phase: sum(lease.phases_s[phase] for lease in leases) for phase in PHASES},
        final_val_accuracy=end.final_val_accuracy if end else None,
        best_val_accuracy=end.best_val_accuracy if end else None,
        test_accuracy=end.test_accuracy if end else None,
        samples_per_s=throughput(curve),
        curve=tuple(curve),
    )


def _curve_point(row: ReportRow) -> CurvePoint:
    return CurvePoint(**{field.name: getattr(row, field.name) for field in fields(CurvePoint)})


def bill(leases: Sequence[LeaseRow], last: CurvePoint | None, usd_per_device_hour: float | None) -> Cost:
    """What a trial cost: the sum of its leases, and how far it came."""
    device_h = sum(lease.billed_device_h for lease in leases)
    return Cost(
        billed_device_h=device_h,
        billed_gpu_h=sum(lease.billed_gpu_h for lease in leases),
        usd=None if usd_per_device_hour is None else device_h * usd_per_device_hour,
        wall_h=sum(lease.billed_s for lease in leases) / 3600,
        energy_j=None,
        samples=last.samples if last else 0,
        updates=last.updates if last else 0,
    )


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
