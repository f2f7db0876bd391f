"""The bill of a lease: device time from its opening to its close, by phase, on the driver's clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from study.ledger.schema import AttemptRow

CloseReason = Literal["hand_over", "released", "lost"]
_LAST_PHASE: dict[CloseReason, str] = {"hand_over": "idle", "released": "teardown", "lost": "lost"}


@dataclass
class OpenLease:
    """A lease that is running. All times are seconds on the writer's monotonic clock."""

    lease_id: str
    group_id: str
    trial_id: str
    attempt: int
    device: str
    devices: float  # ranks x devices per rank
    nodes: tuple[str, ...]
    opened_s: float
    known_until_s: float  # the last time up to which its phases are known: ready, a report, a checkpoint, or the end
    hosts: tuple[str, ...] = ()
    setup_s: float = 0.0
    worked_s: Mapping[str, float] = field(default_factory=dict)  # by phase, cumulative, as measured in the rank
    why: str = ""  # it was lost
    checkpoint_s: float = 0.0  # in which the group waited for the driver to write its checkpoints

    @classmethod
    def of_attempt(cls, row: AttemptRow) -> OpenLease:
        """Return the lease that an attempt began on, as it was when the attempt's row was written."""
        return cls(
            lease_id=row.lease_id,
            group_id=row.group_id,
            trial_id=row.trial_id,
            attempt=row.attempt,
            device=row.device,
            devices=row.world_size * row.devices_per_rank,
            nodes=row.nodes,
            hosts=row.hosts,
            opened_s=row.at_s - row.setup_s,
            known_until_s=row.at_s,
            setup_s=row.setup_s,
        )

    def add_setup(self, at_s: float) -> None:
        """Count all time until `at_s`, when the group is ready to train, as setup."""
        self.setup_s = at_s - self.opened_s
        self.known_until_s = at_s

    def add_report(self, at_s: float, worked_s: Mapping[str, float]) -> None:
        """Take over the seconds by phase, cumulative, of a report that came at `at_s`."""
        self.worked_s = worked_s
        self.known_until_s = at_s

    def add_checkpoint(self, at_s: float, seconds: float) -> None:
        """Count `seconds` until `at_s` in which the group waited for the driver to write a checkpoint."""
        self.checkpoint_s += seconds
        self.known_until_s = at_s

    def bill(self, at_s: float, reason: CloseReason) -> tuple[float, dict[str, float]]:
        """Return (billed seconds, seconds by phase that add up to them) per device, for a lease that closes at `at_s`.

        Time that the group measured is billed as measured. The time after `known_until_s` is tear-down, loss or waiting
        for the next trial, by `reason`. The rest was spent waiting for decisions, and is idle.
        """
        billed = max(at_s - self.opened_s, 0.0)
        phases = {"setup": self.setup_s, **self.worked_s}
        if self.checkpoint_s:
            phases["checkpoint"] = phases.get("checkpoint", 0.0) + self.checkpoint_s
        last = _LAST_PHASE[reason]
        phases[last] = phases.get(last, 0.0) + max(at_s - self.known_until_s, 0.0)
        phases["idle"] = phases.get("idle", 0.0) + billed - sum(phases.values())
        return billed, phases
