"""The ranks that a cluster can hold, and the check that every world size of a study fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.config.schema import Hardware
from study.errors import ConfigError


@dataclass(frozen=True)
class Node:
    """The resources of one machine of a cluster when it is empty."""

    cpus: float
    gpus: float


def ranks_that_fit(nodes: Sequence[Node], hardware: Hardware) -> int:
    """Return how many ranks the empty cluster can hold at once.

    Counting by node is exact: all ranks are alike, and each may run on any node, packed or spread.
    """
    if not hardware.on_gpu:
        return sum(int(node.cpus // hardware.cpus_per_rank) for node in nodes)
    ranks_per_gpu = int(1 / hardware.gpus_per_rank + 1e-9)  # a rank never has parts of two GPUs
    return sum(int(min(node.cpus // hardware.cpus_per_rank, node.gpus * ranks_per_gpu)) for node in nodes)


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
