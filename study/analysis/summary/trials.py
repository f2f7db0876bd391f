"""Records of trials, from the state of a study."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence

from study.analysis.records import Cost, TrialRecord
from study.config.objective import Objective
from study.ledger.schema import PHASES, AnyRow, AttemptRow, LeaseRow
from study.ledger.state import StudyState, TrialState
from study.measurement import CurvePoint


def state_of(rows: Iterable[AnyRow]) -> StudyState:
    """Return what the rows say. They are gone through once, and reports are not kept as they are."""
    return StudyState(_without_garbage_collection(rows))


def _without_garbage_collection(rows: Iterable[AnyRow]) -> Iterator[AnyRow]:
    """Yield the rows with the collector off: it would scan all that is kept of them again and again, and none is in a
    cycle.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield from rows
    finally:
        if was_on:
            gc.enable()


def trial_records(state: StudyState, usd_per_device_hour: float | None) -> tuple[TrialRecord, ...]:
    """Return every trial that ever began, in the order in which they did; dollars are None without a price."""
    return tuple(_record(trial, attempt, usd_per_device_hour, state.objective) for trial, attempt in state.begun)


def _record(trial: TrialState, attempt: AttemptRow, usd: float | None, objective: Objective) -> TrialRecord:
    leases, end = trial.leases, trial.end

    def quality(value: float | None) -> float | None:
        return None if value is None else objective.quality(value)

    cold = [lease for lease in leases if lease.attempt in trial.cold_attempts and lease.phases_s["setup"] > 0]
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
        audited_from=trial.audited_updates,
        cost=cost_of(leases, list(trial.energies_j.values()), trial.last, usd),
        phases_s={phase: sum(lease.phases_s[phase] for lease in leases) for phase in PHASES},
        final_quality=quality(end.final) if end else None,
        best_quality=quality(end.best) if end else None,
        test_quality=quality(end.test) if end else None,
        samples_per_s=throughput(trial.curve),
        peak_memory_bytes=trial.peak_memory_bytes,
        devices_per_rank=attempt.devices_per_rank,
        cold_setup=_setup(cold, usd),
        cold_starts=len(cold),
        curve=tuple(trial.curve),
    )


def cost_of(
    leases: Sequence[LeaseRow],
    energies_j: Sequence[float | None],
    last: CurvePoint | None,
    usd_per_device_hour: float | None,
) -> Cost:
    """Return what a trial cost: the sum over its leases, joules over its attempts (None if any is unknown), and how far
    it came by its last report.
    """
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
    setups = [lease.model_copy(update={"billed_s": lease.phases_s["setup"]}) for lease in leases]
    return cost_of(setups, (), None, usd_per_device_hour)


def throughput(curve: Sequence[CurvePoint]) -> float | None:
    """Return samples per second of training, over all intervals after the first where there are several; None without a
    report. The first interval holds what happens once: DDP rebuilds its buckets, allocators and kernel caches fill.
    """
    if not curve:
        return None
    intervals = [
        (row.samples - before, (row.samples - before) / row.samples_per_s)
        for before, row in zip([0, *(row.samples for row in curve[:-1])], curve, strict=True)
    ]
    warm = intervals[1:] or intervals
    return sum(samples for samples, _ in warm) / sum(seconds for _, seconds in warm)
