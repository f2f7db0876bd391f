"""The thin actor around a Rank. Imports torch only once it knows which devices to see."""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from study.training.distributed.error_translation import translate_errors
from study.training.distributed.process_guard import end_with_this_process
from study.training.distributed.topology import RankTopology
from study.training.messages import PeerLost
from study.tuning.heartbeat import Heartbeat, RankLost

if TYPE_CHECKING:
    from study.config.schema import StudyConfig
    from study.planning.trials import TrialSpec
    from study.training.messages import RankReport
    from study.training.snapshot import State


NOTICE_S = 30.0  # Ray takes 15 s to declare a node dead


@dataclass(frozen=True)
class RankPlacement:
    """What Ray gave an actor."""

    node_id: str
    address: str
    gpu_ids: tuple[str, ...]
    host: str = ""


class RankActor:
    """Delegates to a Rank.

    Known by its repr, and not by a name of Ray's, which would have to be free when a group is built anew in place.
    """

    def __init__(self, label: str) -> None:
        self.label = label

    def __repr__(self) -> str:
        return self.label

    def where(self) -> RankPlacement:
        """The node and devices of this process."""
        context = ray.get_runtime_context()
        gpu_ids = tuple(context.get_accelerator_ids().get("GPU", ()))
        address = ray.util.get_node_ip_address()
        return RankPlacement(context.get_node_id(), address, gpu_ids, f"{socket.gethostname()} ({address})")

    def create_rank(self, place: RankTopology, config: StudyConfig, visible_gpus: tuple[str, ...]) -> str:
        """Create the Rank; returns the device's name.

        The ranks of a node see the same list of GPUs and pick theirs by local rank: with one visible device
        each, NCCL may lose peer-to-peer access.
        """
        if visible_gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible_gpus)
        end_with_this_process()
        from study.training.rank import Rank

        self.rank = Rank(place, config)
        if place.device == "cpu":
            return "cpu"
        import torch

        return torch.cuda.get_device_name(place.gpu)

    @ray.method(concurrency_group="heartbeat")
    def alive(self) -> int:
        """Another number whenever something got done, imports included. Answers while any other method works."""
        return len(sys.modules) + (self.rank.progress if hasattr(self, "rank") else 0)

    def open_store(self, host: str) -> int:
        """See Rank."""
        return self.rank.open_store(host)

    def join(self, host: str, port: int) -> None:
        """See Rank."""
        self.rank.join(host, port)

    def begin(self, spec: TrialSpec, snapshot: bytes | None) -> int | None:
        """See Rank."""
        return translate_errors(partial(self.rank.begin, spec, snapshot))

    def advance(self) -> RankReport:
        """See Rank."""
        return translate_errors(self.rank.advance)

    def snapshot(self) -> State:
        """See Rank."""
        return translate_errors(self.rank.snapshot)

    def join_parts(self, *parts: State) -> bytes:
        """The group's snapshot from what its ranks gave: here, where torch is imported."""
        from study.training.snapshot import join_parts

        return join_parts(parts)

    def halt(self) -> None:
        """See Rank."""
        translate_errors(self.rank.halt)


class WarmGroup:
    """The rank actors of one placement group, kept from trial to trial."""

    def __init__(self, config: StudyConfig, world_size: int) -> None:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        hardware = config.hardware
        placement = ray.util.get_current_placement_group()
        self.group_id: str = placement.id.hex()
        self.serves = ""  # what Ray's pages are to show beside each call; it keeps every one as a tag (docs/adr/010)
        self.name: str = ray.util.placement_group_table(placement)["name"]
        actor = ray.remote(concurrency_groups={"heartbeat": 1})(RankActor)
        # Tune drops the empty driver bundle, so that bundle r is rank r's.
        self.actors = [
            actor.options(
                num_cpus=hardware.cpus_per_rank,
                num_gpus=hardware.gpus_per_rank,
                scheduling_strategy=PlacementGroupSchedulingStrategy(placement, placement_group_bundle_index=rank),
            ).remote(f"{self.name}/rank-{rank}")
            for rank in range(world_size)
        ]
        self._heartbeat = Heartbeat(self.actors, config.recovery)
        seats: list[RankPlacement] = self.all("where")
        self._heartbeat.hosts = [seat.host for seat in seats]
        hosts = {seat.node_id: seat.host for seat in seats}
        self.nodes, self.hosts = tuple(hosts), tuple(hosts.values())
        places, visible = _places(seats, "cuda" if hardware.on_gpu else "cpu", hardware.devices_per_rank)
        names = self._answers(
            [
                actor.create_rank.remote(place, config, gpus)
                for actor, place, gpus in zip(self.actors, places, visible, strict=True)
            ]
        )
        self.device: str = names[0]
        port = 0
        if world_size > 1:
            (port,) = self._answers([self.actors[0].open_store.remote(seats[0].address)])
        self.all("join", seats[0].address, port)

    def all(self, method: str, *args: Any) -> list[Any]:
        """Call every rank. Raises at once if one of them fails, and RankLost if it is for another's death or if nothing
        more is to be expected.
        """
        name = f"RankActor.{method} {self.serves}".rstrip()
        return self._answers([getattr(actor, method).options(name=name).remote(*args) for actor in self.actors])

    def snapshot(self) -> bytes:
        """What the trial needs to go on from its last report. Raises as `all`."""
        parts = [actor.snapshot.remote() for actor in self.actors]
        whole: bytes
        (whole,) = self._answers([self.actors[0].join_parts.remote(*parts)], parts)
        return whole

    def _answers(self, calls: list[Any], behind: list[Any] | None = None) -> list[Any]:
        """Of calls that rest on others, those are `behind` them."""
        try:
            return self._heartbeat.get(calls)
        except RayActorError as error:
            if error.preempted:  # which Tune does not count as a try
                raise
            raise RankLost(self._who(error)) from None
        except RayTaskError as error:
            if not isinstance(error.cause, PeerLost):
                raise
            died = _await_notice(behind or calls)
            raise RankLost(self._who(died) if died else str(error.cause)) from None

    def _who(self, died: RayActorError) -> str:
        ids = [actor._actor_id.hex() for actor in self.actors]
        return f"{self._heartbeat.name(ids.index(died.actor_id))} died" if died.actor_id in ids else "a rank died"

    def kill(self) -> None:
        """End the processes."""
        for actor in self.actors:
            ray.kill(actor)


def _await_notice(calls: list[Any]) -> RayActorError | None:
    """Return when Ray has noticed the death: until then it would place the next group on a node that is gone."""
    deadline = time.monotonic() + NOTICE_S
    for call in calls:
        try:
            ray.get(call, timeout=max(deadline - time.monotonic(), 0.0))
        except RayActorError as died:
            return died
        except (RayTaskError, GetTimeoutError):
            continue
    return None


def _places(
    seats: list[RankPlacement], device: str, devices_per_rank: float = 1.0
) -> tuple[list[RankTopology], list[tuple[str, ...]]]:
    """Each rank's place, and the GPUs that it is to see: those of all ranks on its node, in rank order, each once."""
    nodes = list(dict.fromkeys(seat.node_id for seat in seats))
    by_node = {node: [rank for rank, seat in enumerate(seats) if seat.node_id == node] for node in nodes}
    places, visible = [], []
    for rank, seat in enumerate(seats):
        neighbours = by_node[seat.node_id]
        gpus = tuple(dict.fromkeys(gpu for neighbour in neighbours for gpu in seats[neighbour].gpu_ids))
        places.append(
            RankTopology(
                rank=rank,
                world_size=len(seats),
                local_rank=neighbours.index(rank),
                local_world_size=len(neighbours),
                node_rank=nodes.index(seat.node_id),
                device=device,
                gpu=gpus.index(seat.gpu_ids[0]) if seat.gpu_ids else 0,
                gpu_share=devices_per_rank,
            )
        )
        visible.append(gpus)
    return places, visible
