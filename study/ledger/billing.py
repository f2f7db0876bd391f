"""The bill of a lease, phase by phase, on one clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from study.ledger.schema import AnyRow, AttemptRow, EndRow, LeaseRow, ReportRow

Reason = Literal["hand_over", "released", "lost"]
_TAIL: dict[Reason, str] = {"hand_over": "idle", "released": "teardown", "lost": "lost"}


def unbilled(rows: Iterable[AnyRow]) -> list[OpenLease]:
    """The leases of attempts that no bill was written for, since the driver died.

    They are known up to the last row that speaks of them; what came after it died with the driver.
    """
    leases = OpenLeases()
    for row in rows:
        leases.follow(row)
    return list(leases.open.values())


class OpenLeases:
    """The leases of attempts that no bill was written for yet, row by row."""

    def __init__(self) -> None:
        self.open: dict[tuple[str, int], OpenLease] = {}  # by trial and attempt

    def follow(self, row: AnyRow) -> None:
        """Take in one more row."""
        if isinstance(row, AttemptRow):
            self.open[row.trial_id, row.attempt] = OpenLease(
                lease_id=row.lease_id,
                group_id=row.group_id,
                trial_id=row.trial_id,
                attempt=row.attempt,
                device=row.device,
                devices=row.world_size * row.devices_per_rank,
                nodes=row.nodes,
                hosts=row.hosts,
                opened_s=row.at_s - row.setup_s,
                heard_s=row.at_s,
                setup_s=row.setup_s,
            )
        elif isinstance(row, ReportRow):
            self.open[row.trial_id, row.attempt].heard(row.at_s, row.phases_s)
        elif isinstance(row, LeaseRow):
            del self.open[row.trial_id, row.attempt]


class ColdLeases:
    """The attempts that paid for the start of their group, from the rows of attempts and ends (docs/adr/022).

    A group starts for its first attempt, and again after a trial that failed or did not fit on several ranks: its ranks
    are ended then.
    """

    def __init__(self) -> None:
        self.attempts: set[tuple[str, int]] = set()  # by trial and number
        self._warm: set[str] = set()  # groups whose ranks are up
        self._last: dict[str, AttemptRow] = {}  # by trial

    def follow(self, row: AttemptRow | EndRow) -> None:
        """Take in the next row of the two kinds."""
        if isinstance(row, AttemptRow):
            if row.group_id not in self._warm:
                self.attempts.add((row.trial_id, row.attempt))
                self._warm.add(row.group_id)
            self._last[row.trial_id] = row
        elif row.outcome in ("failed", "infeasible"):
            last = self._last.get(row.trial_id)
            if last is not None and last.world_size > 1:
                self._warm.discard(last.group_id)


class Spent:
    """Device-time on the bill of a study, from its rows: closed leases, and open ones up to now."""

    def __init__(self) -> None:
        self._closed_h = 0.0
        self._open: dict[tuple[str, int], tuple[float, float]] = {}  # devices, and when the lease began

    def follow(self, row: AnyRow) -> None:
        """Take in one more row."""
        if isinstance(row, AttemptRow):
            self._open[row.trial_id, row.attempt] = row.world_size * row.devices_per_rank, row.at_s - row.setup_s
        elif isinstance(row, LeaseRow):
            self._open.pop((row.trial_id, row.attempt), None)
            self._closed_h += row.billed_device_h

    def device_h(self, at_s: float) -> float:
        """Device-hours up to `at_s` of the study's clock."""
        return self._closed_h + sum(n * max(at_s - opened_s, 0.0) for n, opened_s in self._open.values()) / 3600


@dataclass
class OpenLease:
    """A lease that is running. All times are seconds on the writer's monotonic clock."""

    lease_id: str
    group_id: str
    trial_id: str
    attempt: int
    device: str
    devices: float
    nodes: tuple[str, ...]
    opened_s: float
    heard_s: float  # up to when all is told: the group spoke, its checkpoint was written, or its trial ended
    hosts: tuple[str, ...] = ()
    setup_s: float = 0.0
    worked_s: Mapping[str, float] = field(default_factory=dict)  # cumulative, as measured in the rank
    why: str = ""  # it was lost
    shelved_s: float = 0.0  # in which the group waited for the driver to write its checkpoints

    def started(self, at_s: float) -> None:
        """The group is ready to train; all until now was setup."""
        self.setup_s = at_s - self.opened_s
        self.heard_s = at_s

    def heard(self, at_s: float, worked_s: Mapping[str, float]) -> None:
        """A report came in."""
        self.worked_s = dict(worked_s)
        self.heard_s = at_s

    def shelved(self, at_s: float, seconds: float) -> None:
        """The driver has written a checkpoint, and the group waited for it."""
        self.shelved_s += seconds
        self.heard_s = at_s

    def bill(self, at_s: float, reason: Reason) -> tuple[float, dict[str, float]]:
        """(billed seconds, seconds by phase that add up to them) for a lease that closes at `at_s`.

        What the group measured is taken as measured; the time since it last spoke is tear-down, loss or waiting
        for the next trial, by `reason`; what is left was spent waiting for decisions, and is idle.
        """
        billed = max(at_s - self.opened_s, 0.0)
        phases = {"setup": self.setup_s, **self.worked_s}
        if self.shelved_s:
            phases["checkpoint"] = phases.get("checkpoint", 0.0) + self.shelved_s
        tail = _TAIL[reason]
        phases[tail] = phases.get(tail, 0.0) + max(at_s - self.heard_s, 0.0)
        phases["idle"] = phases.get("idle", 0.0) + billed - sum(phases.values())
        return billed, phases
