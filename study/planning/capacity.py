"""Whether a cluster could ever place a trial's ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.config.schema import Hardware
from study.errors import ConfigError


@dataclass(frozen=True)
class Node:
    """One machine of a cluster, empty."""

    cpus: float
    gpus: float


def ranks_that_fit(nodes: Sequence[Node], hardware: Hardware) -> int:
    """Ranks that the empty cluster can hold at once. All ranks are alike, and packed or spread each may lie anywhere,
    so that counting by node is exact.
    """
    if not hardware.on_gpu:
        return sum(int(node.cpus // hardware.cpus_per_rank) for node in nodes)
    a_gpu = int(1 / hardware.gpus_per_rank + 1e-9)  # a rank does not lie across two
    return sum(int(min(node.cpus // hardware.cpus_per_rank, node.gpus * a_gpu)) for node in nodes)


def check_capacity(nodes: Sequence[Node], hardware: Hardware) -> None:
    """Raises ConfigError if a world size could never be placed, even with the cluster to itself."""
    fit = ranks_that_fit(nodes, hardware)
    for world_size in hardware.world_sizes:
        if world_size > fit:
            cpus, gpus = sum(n.cpus for n in nodes), sum(n.gpus for n in nodes)
            raise ConfigError(
                f"{world_size} ranks of {hardware.cpus_per_rank} CPU and "
                f"{hardware.gpus_per_rank:g} GPU can never be placed on {len(nodes)} node(s) with "
                f"{cpus:g} CPUs and {gpus:g} GPUs; at most {fit}",
                "hardware.world_size",
            )
