"""The rows about a trial, from what its plan, its lease and its ranks say; each takes what every row starts with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from study.ledger.billing import OpenLease
from study.ledger.schema import PHASES, AttemptRow, EndRow, LeaseRow, Outcome, ReportRow
from study.measurement import CurvePoint
from study.planning.trials import TrialSpec
from study.training.messages import RankReport
from study.tuning.leases import ClosedLease


def attempt_row(
    stamp: Mapping[str, Any],
    spec: TrialSpec,
    lease: OpenLease,
    devices_per_rank: float,
    norm_batch: int | None,
    setup_s: float,
    from_updates: int,
) -> AttemptRow:
    """One that begins."""
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
        from_updates=from_updates,
    )


def report_row(
    stamp: Mapping[str, Any], report: RankReport, spec: TrialSpec, attempt: int, before: Sequence[CurvePoint]
) -> ReportRow:
    """What the ranks measured; `before` is the report that the attempt goes on from, where there is one."""
    worked_s = report.phases_s["train"] + report.phases_s["validate"]
    return ReportRow(
        **stamp,
        trial_id=spec.trial_id,
        attempt=attempt,
        **report.as_stored(),
        device_seconds=spec.batch.world_size * worked_s + sum(row.device_seconds for row in before),
        phases_s=report.phases_s,
        final=report.final,
        energy_j=report.energy_j,
        peak_memory_bytes=report.peak_memory_bytes,
    )


def end_row(
    stamp: Mapping[str, Any],
    trial_id: str,
    attempts: int,
    curve: Sequence[CurvePoint],
    outcome: Outcome,
    error: str | None,
    mistake: bool,
) -> EndRow:
    """What came of a trial."""
    completed = outcome == "completed"
    return EndRow(
        **stamp,
        trial_id=trial_id,
        attempts=attempts,
        outcome=outcome,
        final_val_accuracy=curve[-1].val_accuracy if completed else None,
        best_val_accuracy=max((row.headline for row in curve if not row.diverged), default=None),
        test_accuracy=curve[-1].test_accuracy if completed else None,
        error=curve[-1].non_finite if outcome == "diverged" else error,
        mistake=mistake,
    )


def lease_row(stamp: Mapping[str, Any], closed: ClosedLease) -> LeaseRow:
    """The bill."""
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
