"""The driver's books: which group is leased to which attempt, and what each lease costs.

A lease begins when Ray has placed the group, before any of our code runs in it. It ends when the group is handed to the
next trial or the cluster has its resources back. All times are the driver's own clock.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray import tune
from ray._private.state import state as ray_state
from ray._raylet import ActorID, PlacementGroupID
from ray.core.generated.gcs_pb2 import ActorTableData
from ray.util.placement_group import PlacementGroup

from study.config.schema import StudyConfig
from study.ledger.billing import CloseReason, OpenLease
from study.tuning.messages import GroupInfo


class GroupRequest(tune.PlacementGroupFactory):
    """The placement group of a trial: an empty bundle for its driver, and one bundle per rank.

    Tune pools groups by size: requests of one world size are equal to it, whatever trial they are for.
    """

    def __init__(self, study: StudyConfig, world_size: int, leases: Leases | None = None) -> None:
        """With `leases`, every group that Tune asks for is entered there."""
        hardware = study.hardware
        bundle: dict[str, float] = {"CPU": hardware.cpus_per_rank}
        if hardware.on_gpu:
            bundle["GPU"] = hardware.gpus_per_rank
        self._devices, self._device = world_size * hardware.devices_per_rank, "gpu" if hardware.on_gpu else "cpu"
        super().__init__([{}, *[bundle] * world_size], strategy=hardware.placement.upper())
        self._study, self._leases = study.name, leases

    def __getstate__(self) -> dict[str, Any]:
        """Leave the books out of a pickled copy: only the driver's own request enters groups."""
        return {**super().__getstate__(), "_leases": None}

    def to_placement_group(self) -> PlacementGroup:
        """Ask Ray for the group. Tune calls this in the driver."""
        # Names must be unique among what lives in a cluster, and a study may share it with its own former drivers.
        name = f"{self._study}/group-{uuid.uuid4().hex[:8]}"
        placement = ray.util.placement_group(self.bundles, strategy=self.strategy, name=name)
        if self._leases is not None:
            self._leases.enter(placement.id.hex(), self._devices, self._device)
        return placement


class Cluster(Protocol):
    """What the books ask of Ray. Groups and actors go by their ids, in hex."""

    def creation_s(self, group_id: str) -> float | None:
        """Return the seconds from request to placement; None while the group is not placed."""

    def is_removed(self, group_id: str) -> bool:
        """Return whether the cluster has the group's resources back."""

    def group_of(self, actor_id: str) -> str | None:
        """Return the group that an actor, alive or dead, was placed in; None if that is not known."""


class RayCluster:
    """Asks Ray's control service (GCS)."""

    def creation_s(self, group_id: str) -> float | None:
        """See Cluster."""
        table = self._table(group_id)
        if table.get("state") in ("PENDING", None):
            return None
        latency_ms = float(table["stats"]["end_to_end_creation_latency_ms"])
        return latency_ms / 1000 if latency_ms else None  # 0: it was given back before it was placed

    def is_removed(self, group_id: str) -> bool:
        """See Cluster."""
        return self._table(group_id).get("state") in ("REMOVED", None)

    def group_of(self, actor_id: str) -> str | None:
        """See Cluster. This reads Ray's own record of the actor: the public table leaves the group out."""
        found = ray_state._connect_and_get_accessor().get_actor_info(ActorID.from_hex(actor_id))
        return ActorTableData.FromString(found).placement_group_id.hex() or None if found else None

    def _table(self, group_id: str) -> dict[str, Any]:
        table: dict[str, Any] = ray.util.placement_group_table(PlacementGroup(PlacementGroupID.from_hex(group_id)))
        return table


@dataclass(frozen=True)
class Death:
    """The death of an attempt, as far as its driver knows it."""

    why: str  # one line, for people
    actor_id: str | None = None  # of the process that drove its group, if that process died


@dataclass
class _Group:
    group_id: str
    devices: float
    device: str  # "cpu" or "gpu", until the group itself has named its device
    requested_s: float
    pending_s: float = 0.0  # when it was last seen to wait for its placement
    placed_s: float | None = None  # once Ray has placed it
    lease: OpenLease | None = None
    ended: CloseReason | None = None  # why the lease's attempt has ended; None while it runs
    gone_s: float | None = None  # when the cluster was first seen to have it back


@dataclass(frozen=True)
class ClosedLease:
    """A lease that has ended, and when and why."""

    lease: OpenLease
    closed_s: float
    reason: CloseReason


class Leases:
    """Opens and closes leases. A lease that a method returns as closed does not change any more."""

    def __init__(self, cluster: Cluster, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._cluster = now, cluster
        self._groups: dict[str, _Group] = {}  # not given back yet, by id, in the order of their requests

    def enter(self, group_id: str, devices: float, device: str) -> None:
        """Enter a group that Tune has just asked Ray for."""
        self._groups[group_id] = _Group(group_id, devices, device, self._now())

    def start(
        self, trial_id: str, attempt: int, devices: float, info: GroupInfo
    ) -> tuple[OpenLease, list[ClosedLease]]:
        """Open the lease of an attempt that is ready to train. Return it, and the lease that its group had before, if
        any.
        """
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

    def mark_lost(
        self, trial_id: str, attempt: int, devices: float, death: Death | None = None
    ) -> tuple[OpenLease | None, list[ClosedLease]]:
        """End an attempt that died, or, without a death, one that the driver ends. Return its lease, and the lease that
        its group had before, if any.

        The lease of an attempt that was not ready to train is opened here. It is None if the attempt had no group.
        """
        closed: list[ClosedLease] = []
        group = self._running(trial_id)
        if group is None:
            group = self._unclaimed_group(devices) if death is None else self._group_of(death, devices)
            if group is None:
                return None, closed
            before, opened_s = group.lease, self._placed_s(group) or group.requested_s
            info = GroupInfo(group.group_id, (), (), group.device, None, 0.0)
            if before is not None:  # it died in the hand-over, whose length only its driver knew
                opened_s = self._now()
                closed.append(ClosedLease(before, opened_s, "hand_over"))
                info = GroupInfo(before.group_id, before.nodes, before.hosts, before.device, None, 0.0)
            self._open(group, trial_id, attempt, devices, opened_s, info)
        group.ended = "lost"
        if group.lease is not None:
            group.lease.why = death.why if death else ""
        return group.lease, closed

    def mark_ended(self, trial_id: str) -> None:
        """End a trial's attempt; its group waits for the next, or is given back."""
        if (group := self._running(trial_id)) is not None and group.lease is not None:
            group.ended = "released"
            group.lease.known_until_s = self._now()

    def let_go(self, devices: float) -> None:
        """Note that idle groups of this size are about to be given back: until now they waited."""
        for group in self._groups.values():
            if group.ended == "released" and group.lease is not None and group.lease.devices == devices:
                group.lease.known_until_s = self._now()

    def cut_short(self) -> None:
        """End all running attempts, because Tune has ended: their work since their last report is lost."""
        for group in self._groups.values():
            group.ended = group.ended or "lost"

    def lease_of(self, trial_id: str) -> OpenLease | None:
        """Return the lease of a trial's attempt that runs; None if none does."""
        group = self._running(trial_id)
        return group.lease if group else None

    def sweep(self) -> list[ClosedLease]:
        """Close and return the leases whose groups the cluster has back."""
        closed = []
        for key, group in list(self._groups.items()):
            if group.lease is None:
                self._placed_s(group)
            works = group.lease is not None and group.ended is None  # on a trial: the cluster need not be asked
            gone_s = None if works else self._gone_s(group)
            if group.lease and group.ended and gone_s is not None:
                closed.append(ClosedLease(group.lease, gone_s, group.ended))
                del self._groups[key]
        return closed

    def starting_device_s(self) -> float:
        """Return the device-seconds so far of groups that are placed, and that no trial has started on."""
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
        """The leases that are not closed yet, idle groups' ones included."""
        return [group.lease for group in self._groups.values() if group.lease is not None]

    def _running(self, trial_id: str) -> _Group | None:
        """Return the group that works on a trial. Other groups may still hold leases of its earlier attempts."""
        held = (group for group in self._groups.values() if group.lease and group.lease.trial_id == trial_id)
        return next((group for group in held if group.ended is None), None)

    def _group_of(self, death: Death, devices: float) -> _Group | None:
        """Return the group whose driving process died; where Ray does not say which, for want of memory or of a runtime
        environment, one of this size that the cluster has got back since the last look.
        """
        group_id = None if death.actor_id is None else self._cluster.group_of(death.actor_id)
        if group_id in self._groups:
            return self._groups[group_id]
        candidates = [
            group
            for group in self._groups.values()
            if group.devices == devices
            and group.gone_s is None
            and (group.ended == "released" if group.lease is not None else self._placed_s(group) is not None)
        ]
        gone = [group for group in candidates if self._gone_s(group) is not None]
        return min(gone, key=lambda group: group.lease is not None, default=None)

    def _unclaimed(self) -> Iterator[tuple[_Group, float]]:
        """Yield the groups that no trial has started on, and when they were placed; the oldest first."""
        for group in self._groups.values():
            if group.lease is None and (placed_s := self._placed_s(group)) is not None:
                yield group, placed_s

    def _unclaimed_group(self, devices: float) -> _Group | None:
        """Return a group of this size that no trial has started on; one that the cluster has back only if all are."""
        unclaimed = [group for group, _ in self._unclaimed() if group.devices == devices]
        return min(unclaimed, key=lambda group: self._gone_s(group) is not None, default=None)

    def _gone_s(self, group: _Group) -> float | None:
        """Return when the cluster was first seen to have the group back; None while it has not."""
        if group.gone_s is None and self._cluster.is_removed(group.group_id):
            group.gone_s = self._now()
        return group.gone_s

    def _placed_s(self, group: _Group) -> float | None:
        """Return when Ray placed the group; None while it has not."""
        if group.placed_s is None:
            waited_s = self._cluster.creation_s(group.group_id)
            if waited_s is None:
                group.pending_s = self._now()
            else:  # Ray measures it by the wall clock, which may have been set meanwhile
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
