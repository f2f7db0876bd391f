"""How the ranks of a group meet, and Lightning's view of processes that it did not start."""

from __future__ import annotations

import os
import socket
from contextlib import closing, suppress
from datetime import timedelta

import torch
import torch.distributed as dist

from study.environment import set_defaults
from study.training.distributed.topology import RankTopology

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
SIOCGIFADDR = 0x8915  # of Linux: the address of an interface


class PlacedEnvironment:
    """The methods of Lightning's ClusterEnvironment, its extension point for processes that it did not start."""

    def __init__(self, topology: RankTopology) -> None:
        super().__init__()
        self.topology = topology

    @property
    def creates_processes_externally(self) -> bool:
        """True: Ray or a LocalGroup has started this process."""
        return True

    @staticmethod
    def detect() -> bool:
        """Return False: the environment is passed in, and not detected."""
        return False

    # The process group is up before Lightning asks, so these two are only read for its log.
    @property
    def main_address(self) -> str:
        """The address that Lightning logs; the group has met already."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """The port that Lightning logs; the group has met already."""
        return 0

    def world_size(self) -> int:
        """Return the number of ranks in the group."""
        return self.topology.world_size

    def set_world_size(self, size: int) -> None:
        """Do nothing: the topology is fixed."""

    def global_rank(self) -> int:
        """Return this rank's number in the group."""
        return self.topology.rank

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: the topology is fixed."""

    def local_rank(self) -> int:
        """Return this rank's number on its node."""
        return self.topology.local_rank

    def node_rank(self) -> int:
        """Return the number of this rank's node."""
        return self.topology.node_rank


def open_store(host: str, world_size: int, timeout: timedelta = COLLECTIVE_TIMEOUT) -> tuple[dist.TCPStore, int]:
    """Return the store where the group meets, and its port; on rank 0.

    The system picks the port and it stays bound: no other process can take it between choosing and meeting.
    """
    store = dist.TCPStore(host, 0, world_size, is_master=True, wait_for_workers=False, timeout=timeout)
    return store, store.port


def join_group(
    topology: RankTopology,
    host: str,
    port: int,
    timeout: timedelta = COLLECTIVE_TIMEOUT,
    store: dist.TCPStore | None = None,
) -> None:
    """Start the process group; return when every rank has joined. A collective waits `timeout` for a rank.

    The backend is nccl for whole GPUs, and gloo else: nccl refuses two ranks on one GPU.
    """
    if store is None:
        store = dist.TCPStore(host, port, topology.world_size, is_master=False, timeout=timeout)
    if topology.device == "cuda":
        torch.cuda.set_device(topology.gpu)
    if topology.local_world_size < topology.world_size:
        name_interface(host)
    dist.init_process_group(
        "nccl" if topology.device == "cuda" and topology.gpu_share == 1 else "gloo",
        store=store,
        rank=topology.rank,
        world_size=topology.world_size,
        timeout=timeout,
    )


def name_interface(host: str) -> None:
    """Have nccl and gloo use the interface that leads to `host`, unless the user names another; for groups across
    nodes.

    gloo uses the node's own name, which is a loopback address on many systems, and nccl takes the first interface that
    is up.
    """
    if interface := interface_towards(host):
        set_defaults({"NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface})


def interface_towards(host: str) -> str | None:
    """Return the network interface from which this node reaches `host`; None where the system does not know it."""
    import fcntl  # not everywhere

    with suppress(OSError), closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.connect((host, 9))  # of a datagram socket: nothing is sent
        own = socket.inet_aton(probe.getsockname()[0])
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # one without an address
                request = name.encode()[:15].ljust(256, b"\0")
                if fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)[20:24] == own:
                    return name
    return None
