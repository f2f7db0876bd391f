"""A group of ranks: one actor per rank, which imports torch only once it knows which devices to see."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray import ObjectRef
from ray.actor import ActorHandle, ActorMethod
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from study.environment import override
from study.training.distributed.error_translation import translate_errors
from study.training.distributed.process_guard import end_with_this_process
from study.training.distributed.topology import RankTopology
from study.training.messages import PeerLost
from study.tuning.heartbeat import Heartbeat, RankLost

if TYPE_CHECKING:
    from study.config.schema import StudyConfig
    from study.planning.trials import TrialSpec
    from study.training.messages import RankReport
    from study.training.rank import Rank
    from study.training.snapshot import State


NOTICE_S = 30.0  # Ray takes 15 s to declare a node dead


@dataclass(frozen=True)
class RankPlacement:
    """Where Ray placed an actor, and which GPUs it may use."""

    node_id: str
    address: str
    gpu_ids: tuple[str, ...]
    host: str = ""


class RankActor:
    """The actor around a Rank.

    Ray shows it by its repr. A Ray name would have to be free when a group is built again on its placement group.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self._rank: Rank | None = None  # until create_rank

    def __repr__(self) -> str:
        return self.label

    def where(self) -> RankPlacement:
        """Return the node, the address and the GPUs of this process."""
        context = ray.get_runtime_context()
        gpu_ids = tuple(context.get_accelerator_ids().get("GPU", ()))
        address = ray.util.get_node_ip_address()
        return RankPlacement(context.get_node_id(), address, gpu_ids, f"{socket.gethostname()} ({address})")

    def create_rank(self, topology: RankTopology, config: StudyConfig, visible_gpus: tuple[str, ...]) -> str:
        """Create the Rank and return the name of its device.

        All ranks of a node see the same list of GPUs, and each uses the one of its local rank: with one visible device
        each, NCCL may lose peer-to-peer access.
        """
        if visible_gpus:
            override("CUDA_VISIBLE_DEVICES", ",".join(visible_gpus))
        end_with_this_process()
        from study.training.rank import Rank

        self._rank = Rank(topology, config)
        if topology.device == "cpu":
            return "cpu"
        import torch

        return torch.cuda.get_device_name(topology.gpu)

    @property
    def rank(self) -> Rank:
        """The Rank. Raises AssertionError before create_rank."""
        assert self._rank is not None
        return self._rank

    @ray.method(concurrency_group="heartbeat")
    def alive(self) -> int:
        """Return a number that changes while the process makes progress, imports included. It answers while another
        method runs.
        """
        return len(sys.modules) + (self._rank.progress if self._rank is not None else 0)

    def open_store(self, host: str) -> int:
        """Call the Rank's method of this name."""
        return self.rank.open_store(host)

    def join(self, host: str, port: int) -> None:
        """Call the Rank's method of this name."""
        self.rank.join(host, port)

    def begin(self, spec: TrialSpec, snapshot: bytes | None) -> int | None:
        """Call the Rank's method of this name."""
        return translate_errors(partial(self.rank.begin, spec, snapshot))

    def advance(self) -> RankReport:
        """Call the Rank's method of this name."""
        return translate_errors(self.rank.advance)

    def snapshot(self) -> State:
        """Call the Rank's method of this name."""
        return translate_errors(self.rank.snapshot)

    def join_parts(self, *parts: State) -> bytes:
        """Join the ranks' parts into the group's snapshot. It runs here because torch is imported here."""
        from study.training.snapshot import join_parts

        return join_parts(parts)

    def halt(self) -> None:
        """Call the Rank's method of this name."""
        translate_errors(self.rank.halt)


class WarmGroup:
    """The rank actors of one placement group, kept from trial to trial."""

    def __init__(self, config: StudyConfig, world_size: int) -> None:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        hardware = config.hardware
        placement = ray.util.get_current_placement_group()
        self.group_id: str = placement.id.hex()
        self.serves = ""  # shown beside each call on Ray's pages, which keep every value as a tag (docs/adr/010)
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
        self._ahead: list[ObjectRef] = []  # the calls of `train_on`
        placements: list[RankPlacement] = self._call("where", lambda actor: actor.where)
        self._heartbeat.hosts = [placement.host for placement in placements]
        hosts = {placement.node_id: placement.host for placement in placements}
        self.nodes, self.hosts = tuple(hosts), tuple(hosts.values())
        topologies, visible = _topologies(placements, "cuda" if hardware.on_gpu else "cpu", hardware.devices_per_rank)
        names = self._answers(
            [
                actor.create_rank.remote(topology, config, gpus)
                for actor, topology, gpus in zip(self.actors, topologies, visible, strict=True)
            ]
        )
        self.device: str = names[0]
        port = 0
        if world_size > 1:
            (port,) = self._answers([self.actors[0].open_store.remote(placements[0].address)])
        self._call("join", lambda actor: actor.join, placements[0].address, port)

    # Each of these calls every rank. It raises at once if one of them fails, and RankLost if a rank has died or none
    # makes progress any more.

    def begin(self, spec: TrialSpec, snapshot: bytes | None) -> int | None:
        """Begin a trial on every rank, or go on with it from a snapshot. Return the samples behind one batch-norm
        statistic, None without batch norm.
        """
        norm_batch: int | None = self._call("begin", lambda actor: actor.begin, spec, snapshot)[0]
        return norm_batch

    def train_on(self) -> None:
        """Start to train to the next report, and return at once. Only `advance` or `halt` may come next."""
        self._ahead = self._start("advance", lambda actor: actor.advance)

    def advance(self) -> list[RankReport]:
        """Train to the next report, or wait for it after `train_on`. Return the ranks' reports, in their order."""
        if not self._ahead:
            self.train_on()
        calls, self._ahead = self._ahead, []
        return self._answers(calls)

    def halt(self) -> None:
        """End the trial on every rank, and keep the ranks."""
        self._ahead = []
        self._call("halt", lambda actor: actor.halt)

    def snapshot(self) -> bytes:
        """Return the state that the trial goes on from after its last report."""
        parts = [actor.snapshot.remote() for actor in self.actors]
        whole: bytes
        (whole,) = self._answers([self.actors[0].join_parts.remote(*parts)], parts)
        return whole

    def _call(self, label: str, method: Callable[[ActorHandle], ActorMethod], *args: Any) -> list[Any]:
        return self._answers(self._start(label, method, *args))

    def _start(self, label: str, method: Callable[[ActorHandle], ActorMethod], *args: Any) -> list[ObjectRef]:
        name = f"RankActor.{label} {self.serves}".rstrip()  # on Ray's pages
        return [method(actor).options(name=name).remote(*args) for actor in self.actors]

    def _answers(self, calls: list[ObjectRef], behind: list[ObjectRef] | None = None) -> list[Any]:
        """Return the results of calls. `behind` holds the calls whose results these calls take."""
        try:
            return self._heartbeat.get(calls)
        except RayActorError as error:
            if error.preempted:  # Tune does not count this as a failure
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
        """End the processes of all ranks at once."""
        for actor in self.actors:
            ray.kill(actor)


def _await_notice(calls: list[ObjectRef]) -> RayActorError | None:
    """Wait until Ray has noticed a death, and return it: before, Ray would place the next group on a lost node."""
    deadline = time.monotonic() + NOTICE_S
    for call in calls:
        try:
            ray.get(call, timeout=max(deadline - time.monotonic(), 0.0))
        except RayActorError as died:
            return died
        except (RayTaskError, GetTimeoutError):
            continue
    return None


def _topologies(
    placements: list[RankPlacement], device: str, devices_per_rank: float = 1.0
) -> tuple[list[RankTopology], list[tuple[str, ...]]]:
    """Return each rank's topology, and the GPUs that it sees: those of all ranks on its node, in rank order."""
    nodes = list(dict.fromkeys(placement.node_id for placement in placements))
    by_node = {node: [rank for rank, one in enumerate(placements) if one.node_id == node] for node in nodes}
    topologies, visible = [], []
    for rank, placement in enumerate(placements):
        neighbours = by_node[placement.node_id]
        gpus = tuple(dict.fromkeys(gpu for neighbour in neighbours for gpu in placements[neighbour].gpu_ids))
        topologies.append(
            RankTopology(
                rank=rank,
                world_size=len(placements),
                local_rank=neighbours.index(rank),
                local_world_size=len(neighbours),
                node_rank=nodes.index(placement.node_id),
                device=device,
                gpu=gpus.index(placement.gpu_ids[0]) if placement.gpu_ids else 0,
                gpu_share=devices_per_rank,
            )
        )
        visible.append(gpus)
    return topologies, visible
