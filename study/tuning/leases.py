"""The driver's books: which group is leased to which attempt, and what each lease costs.

A lease begins when Ray has placed the group, before any of our code runs in it, and ends when the group is
handed to the next trial or the cluster has its resources back. All times are the driver's own clock.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray import tune

from study.config.schema import StudyConfig
from study.ledger.billing import CloseReason, OpenLease
from study.tuning.trainable import GroupInfo

# Tune makes its groups from a pickled copy of the trainable, so that nothing but a module's name leads from there
# to the books: groups asked for in this process and not yet entered.
_asked: list[_Group] = []


class GroupRequest(tune.PlacementGroupFactory):
    """The placement group of a trial: an empty driver bundle, and one bundle a rank. Notes when Tune asks for it.

    Requests of one size are equal to Tune, whatever study they are for: the name of a group is not part of its request.
    """

    def __init__(self, study: StudyConfig, world_size: int) -> None:
        hardware = study.hardware
        bundle: dict[str, float] = {"CPU": hardware.cpus_per_rank}
        if hardware.on_gpu:
            bundle["GPU"] = hardware.gpus_per_rank
        self._devices, self._device = world_size * hardware.devices_per_rank, "gpu" if hardware.on_gpu else "cpu"
        super().__init__([{}, *[bundle] * world_size], strategy=hardware.placement.upper())
        self._study = study.name

    def to_placement_group(self) -> Any:
        """Called by Tune in the driver."""
        # Names must be unique among what lives in a cluster, and a study may share it with its own former drivers.
        name = f"{self._study}/group-{uuid.uuid4().hex[:8]}"
        placement = ray.util.placement_group(self.bundles, strategy=self.strategy, name=name)
        _asked.append(_Group(placement, self._devices, self._device, time.monotonic()))
        return placement


class Cluster(Protocol):
    """What the books ask of Ray."""

    def creation_s(self, placement: Any) -> float | None:
        """Seconds from request to placement; None while it is not placed."""

    def is_removed(self, placement: Any) -> bool:
        """Whether the cluster has the resources back."""


class RayCluster:
    """Asks the control service."""

    def creation_s(self, placement: Any) -> float | None:
        """See Cluster."""
        table = ray.util.placement_group_table(placement)
        if table.get("state") in ("PENDING", None):
            return None
        latency_ms = float(table["stats"]["end_to_end_creation_latency_ms"])
        return latency_ms / 1000 if latency_ms else None  # given back before it was placed

    def is_removed(self, placement: Any) -> bool:
        """See Cluster."""
        return bool(ray.util.placement_group_table(placement).get("state") in ("REMOVED", None))


@dataclass
class _Group:
    placement: Any
    devices: float
    device: str  # before the group itself has said which
    requested_s: float
    pending_s: float = 0.0  # when it was last seen to wait for its place
    placed_s: float | None = None  # once Ray has said so
    lease: OpenLease | None = None
    ended: CloseReason | None = None  # the current trial is over, for this reason
    gone_s: float | None = None  # when it was seen first that the cluster has it back


@dataclass(frozen=True)
class ClosedLease:
    """A lease and its end."""

    lease: OpenLease
    closed_s: float
    reason: CloseReason


class Leases:
    """Opens and closes leases; what it returns is closed for good."""

    def __init__(self, cluster: Cluster, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._cluster = now, cluster
        self._known: dict[str, _Group] = {}

    @property
    def _groups(self) -> dict[str, _Group]:
        """Groups not given back yet, by id, in the order in which they were asked for."""
        while _asked:
            group = _asked.pop(0)
            self._known[group.placement.id.hex()] = group
        return self._known

    def start(
        self, trial_id: str, attempt: int, devices: float, info: GroupInfo
    ) -> tuple[OpenLease, list[ClosedLease]]:
        """A trial is ready to train. Returns its lease, and the one whose group it took over, if any."""
        group = self._groups[info.group_id]
        now = self._now()
        closed = []
        if group.lease is None:
            opened_s = self._placed_s(group) or group.requested_s
        else:
            opened_s = now - info.hand_over_s
            closed.append(ClosedLease(group.lease, opened_s, "hand_over"))
        lease = self._open(group, trial_id, attempt, devices, opened_s, info)
        lease.add_setup(now)
        return lease, closed

    def lost(
        self, trial_id: str, attempt: int, devices: float, why: str = ""
    ) -> tuple[OpenLease | None, list[ClosedLease]]:
        """An attempt died, of `why`, or is ended by the driver. Returns its lease, opened only now if it was not ready
        to train, and the one whose group it was about to take over, if any.

        A group that never spoke cannot say whose it is. Tune gives that of an attempt that died back before it tells.
        """
        closed: list[ClosedLease] = []
        group = self._of(trial_id)
        if group is None:
            group = self._died(devices) if why else self._unready(devices)
            if group is None:
                return None, closed
            before, opened_s = group.lease, self._placed_s(group) or group.requested_s
            info = GroupInfo(group.placement.id.hex(), (), (), group.device, None, 0.0)
            if before is not None:  # how long the hand-over took, its driver cannot say any longer
                opened_s = self._now()
                closed.append(ClosedLease(before, opened_s, "hand_over"))
                info = GroupInfo(before.group_id, before.nodes, before.hosts, before.device, None, 0.0)
            self._open(group, trial_id, attempt, devices, opened_s, info)
        group.ended = "lost"
        if group.lease is not None:
            group.lease.why = why
        return group.lease, closed

    def ended(self, trial_id: str) -> None:
        """A trial is over; its group waits for the next, or is given back."""
        if (group := self._of(trial_id)) is not None and group.lease is not None:
            group.ended = "released"
            group.lease.known_until_s = self._now()

    def let_go(self, devices: float) -> None:
        """Idle groups are about to be given back: until now they waited."""
        for group in self._groups.values():
            if group.ended == "released" and group.lease is not None and group.lease.devices == devices:
                group.lease.known_until_s = self._now()

    def cut_short(self) -> None:
        """Tune has ended with trials still running: what they did since their last report is lost."""
        for group in self._groups.values():
            group.ended = group.ended or "lost"

    def lease_of(self, trial_id: str) -> OpenLease | None:
        """The lease of a trial's attempt that runs; None if none does."""
        group = self._of(trial_id)
        return group.lease if group else None

    def sweep(self) -> list[ClosedLease]:
        """Close the leases whose groups the cluster has back. Asks only about groups that work on no trial."""
        closed = []
        for key, group in list(self._groups.items()):
            if group.lease is None:
                self._placed_s(group)
            works = group.lease is not None and group.ended is None
            gone_s = None if works else self._gone_s(group)
            if group.lease and group.ended and gone_s is not None:
                closed.append(ClosedLease(group.lease, gone_s, group.ended))
                del self._known[key]
        return closed

    def starting_device_s(self) -> float:
        """Device-seconds so far of groups that are placed, and that no trial has started on."""
        return sum(
            group.devices * (self._now() - placed_s)
            for group, placed_s in self._unclaimed()
            if self._gone_s(group) is None
        )

    @property
    def running(self) -> bool:
        """Whether any group works on a trial."""
        return any(group.lease is not None and group.ended is None for group in self._groups.values())

    @property
    def open(self) -> list[OpenLease]:
        """Leases not closed yet."""
        return [group.lease for group in self._groups.values() if group.lease is not None]

    def _of(self, trial_id: str) -> _Group | None:
        """The group that works on a trial. Where it has worked on it before, groups may wait, or be gone and not yet
        seen to be, with the leases of attempts that are over.
        """
        own = (group for group in self._groups.values() if group.lease and group.lease.trial_id == trial_id)
        return next((group for group in own if group.ended is None), None)

    def _unclaimed(self) -> Iterator[tuple[_Group, float]]:
        """Groups that no trial has started on, and when they were placed; the oldest first."""
        for group in self._groups.values():
            if group.lease is None and (placed_s := self._placed_s(group)) is not None:
                yield group, placed_s

    def _died(self, devices: float) -> _Group | None:
        """The group of an attempt that has just died before it was ready: one that was given back since the last look,
        in its setup, else about to be handed over; else one that was given back before, and is on nobody's bill.
        """
        unclaimed = [group for group, _ in self._unclaimed() if group.devices == devices]
        waiting = [group for group in self._groups.values() if group.ended == "released" and group.devices == devices]
        for group in (*unclaimed, *waiting):
            if group.gone_s is None and self._cluster.is_removed(group.placement):
                return group
        return next((group for group in unclaimed if group.gone_s is not None), None)

    def _unready(self, devices: float) -> _Group | None:
        """A group that no trial has started on, and that is about to be ended."""
        unclaimed = [group for group, _ in self._unclaimed() if group.devices == devices]
        return min(unclaimed, key=lambda group: self._gone_s(group) is not None, default=None)

    def _gone_s(self, group: _Group) -> float | None:
        """When the cluster was first seen to have the group back; None while it has not."""
        if group.gone_s is None and self._cluster.is_removed(group.placement):
            group.gone_s = self._now()
        return group.gone_s

    def _placed_s(self, group: _Group) -> float | None:
        """When Ray placed the group; None while it has not."""
        if group.placed_s is None:
            waited_s = self._cluster.creation_s(group.placement)
            if waited_s is None:
                group.pending_s = self._now()
            else:  # Ray reckons by the wall clock, which may have been set meanwhile
                earliest_s = max(group.requested_s, group.pending_s)
                group.placed_s = min(max(group.requested_s + waited_s, earliest_s), self._now())
        return group.placed_s

    def _open(
        self, group: _Group, trial_id: str, attempt: int, devices: float, opened_s: float, info: GroupInfo
    ) -> OpenLease:
        group.lease = OpenLease(
            lease_id=f"{trial_id}#{attempt}",
            group_id=info.group_id,
            trial_id=trial_id,
            attempt=attempt,
            device=info.device,
            devices=devices,
            nodes=info.nodes,
            hosts=info.hosts,
            opened_s=opened_s,
            known_until_s=opened_s,
        )
        group.ended = None
        return group.lease
