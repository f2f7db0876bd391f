"""Audits a ledger after a fault: every attempt must have one bill, and nothing may be recorded twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from study.ledger.schema import AnyRow, AttemptRow, DecisionRow, EndRow, LeaseRow, MistakeRow, ReportRow, StudyRow

STAMP_S = 0.1  # a row is stamped a moment after the clock was read for it


@dataclass(frozen=True)
class Audit:
    """Errors in the ledger of a finished study; all zero if it is sound."""

    device_h_lost: float  # of attempts without a bill, and of bills whose phases do not add up to them
    double_counted: int  # bills, ends, reports and device-seconds that are recorded twice
    misbooked: int = 0  # reports and decisions of an attempt that had ended, or had not begun


def audit(rows: Iterable[AnyRow]) -> Audit:
    """Count errors from the rows alone, without the code that writes or adds them up."""
    rows = list(rows)
    attempts = {(row.trial_id, row.attempt): row for row in rows if isinstance(row, AttemptRow)}
    leases = [row for row in rows if isinstance(row, LeaseRow)]
    billed = Counter((row.trial_id, row.attempt) for row in leases)
    last_s = rows[-1].at_s if rows else 0.0
    lost_s = sum(
        row.world_size * row.devices_per_rank * (last_s - row.at_s + row.setup_s)
        for key, row in attempts.items()
        if key not in billed
    )
    lost_s += sum(row.devices * gap for row in leases if (gap := abs(row.billed_s - sum(row.phases_s.values()))) > 1e-6)
    ends = Counter(_ends(rows))
    twice = sum(n - 1 for counter in (billed, ends) for n in counter.values())
    return Audit(lost_s / 3600, twice + _reported_twice(rows) + _overlaps(attempts, leases), _misbooked(rows))


def curves(rows: Iterable[AnyRow]) -> dict[str, list[ReportRow]]:
    """Return the reports of each trial, without those that were lost with an attempt that died."""
    found: dict[str, list[ReportRow]] = {}
    for row in rows:
        if isinstance(row, AttemptRow):
            found[row.trial_id] = [
                report for report in found.get(row.trial_id, []) if report.updates <= row.from_updates
            ]
        elif isinstance(row, ReportRow):
            found[row.trial_id].append(row)
    return found


def trial_facts(rows: list[AnyRow]) -> dict[str, Any]:
    """Return outcomes, curves and decisions of a study's trials, to compare a disturbed study with an undisturbed one.

    A decision holds even if its attempt is lost: a trial that will be audited stays so. A later attempt that reports at
    the same number of updates can only continue.
    """
    decisions: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for row in rows:
        if isinstance(row, DecisionRow):
            taken = decisions.setdefault((row.trial_id, row.updates), [])
            if taken and row.attempt > taken[0][0]:
                assert row.decision == "continue"
            else:
                taken.append((row.attempt, row.decision))
    return {
        "ends": {row.trial_id: row.outcome for row in rows if isinstance(row, EndRow)},
        "curves": {
            name: [(row.updates, row.val_accuracy, row.device_seconds) for row in curve]
            for name, curve in curves(rows).items()
        },
        "decisions": {at: [decision for _, decision in taken] for at, taken in decisions.items()},
    }  # fmt: skip


def _ends(rows: list[AnyRow]) -> list[tuple[int, str]]:
    """Return the trials that ended, each with how often the study had begun again before."""
    found, began_again, mistake = [], 0, False
    for row in rows:
        if isinstance(row, MistakeRow):
            mistake = True
        elif isinstance(row, StudyRow):
            began_again, mistake = began_again + mistake, False
        elif isinstance(row, EndRow):
            found.append((began_again, row.trial_id))
    return found


def _reported_twice(rows: list[AnyRow]) -> int:
    """Count reports of a trial at the same number of updates."""
    return sum(len(curve) - len({report.updates for report in curve}) for curve in curves(rows).values())


def _misbooked(rows: list[AnyRow]) -> int:
    """Count rows of another attempt of their trial than the last that began."""
    last: dict[str, int] = {}
    found = 0
    for row in rows:
        if isinstance(row, AttemptRow):
            last[row.trial_id] = row.attempt
        elif isinstance(row, ReportRow | DecisionRow):
            found += row.attempt != last[row.trial_id]
    return found


def _overlaps(attempts: dict[tuple[str, int], AttemptRow], leases: list[LeaseRow]) -> int:
    """Count bills that begin before the previous bill of the same group has ended."""
    by_group: dict[str, list[tuple[float, float]]] = {}
    for lease in leases:
        attempt = attempts[lease.trial_id, lease.attempt]
        opened_s = attempt.at_s - attempt.setup_s
        by_group.setdefault(lease.group_id, []).append((opened_s, opened_s + lease.billed_s))
    overlaps = 0
    for spans in by_group.values():
        spans.sort()
        overlaps += sum(then < end - STAMP_S for (_, end), (then, _) in pairwise(spans))
    return overlaps
