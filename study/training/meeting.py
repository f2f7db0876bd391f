"""How the ranks of a group meet, and what Lightning asks of processes that somebody else has started."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments import ClusterEnvironment

from study.training.place import Place

SIOCGIFADDR = 0x8915  # linux/sockios.h; elsewhere the call fails, and gloo is left alone
COLLECTIVE_TIMEOUT = timedelta(minutes=10)


class PlacedEnvironment(ClusterEnvironment):
    """Lightning's extension point for processes that somebody else has started."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    @property
    def creates_processes_externally(self) -> bool:
        """Always: by Ray, or by whoever made this rank."""
        return True

    @staticmethod
    def detect() -> bool:
        """Never found by looking around; it is passed in."""
        return False

    # The process group is up before Lightning asks, so these two are only read for its log.
    @property
    def main_address(self) -> str:
        """Not used to meet."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """Not used to meet."""
        return 0

    def world_size(self) -> int:
        """Ranks of the group."""
        return self.place.world_size

    def set_world_size(self, size: int) -> None:
        """Fixed by the place."""

    def global_rank(self) -> int:
        """Rank in the group."""
        return self.place.rank

    def set_global_rank(self, rank: int) -> None:
        """Fixed by the place."""

    def local_rank(self) -> int:
        """Rank on the node."""
        return self.place.local_rank

    def node_rank(self) -> int:
        """Number of the node."""
        return self.place.node_rank


def open_store(host: str, world_size: int) -> tuple[dist.TCPStore, int]:
    """On rank 0: the store where the group meets, and its port.

    The system picks the port and it stays bound: nobody can take it between choosing and meeting.
    """
    store = dist.TCPStore(host, 0, world_size, is_master=True, wait_for_workers=False, timeout=COLLECTIVE_TIMEOUT)
    return store, store.port


def join_group(place: Place, host: str, port: int, store: dist.TCPStore | None = None) -> None:
    """Bring up the process group, nccl on GPUs and gloo else; blocks until every rank has come."""
    if store is None:
        store = dist.TCPStore(host, port, place.world_size, is_master=False, timeout=COLLECTIVE_TIMEOUT)
    if place.device == "cuda":
        torch.cuda.set_device(place.local_rank)
    elif name := interface_towards(host):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    dist.init_process_group(
        "nccl" if place.device == "cuda" else "gloo",
        store=store,
        rank=place.rank,
        world_size=place.world_size,
        timeout=COLLECTIVE_TIMEOUT,
    )


def interface_towards(host: str) -> str | None:
    """The network interface that this machine reaches another by; None where the system does not tell.

    Left alone, gloo listens on the address that the machine's own name stands for, often a loopback in /etc/hosts,
    and the ranks of other nodes wait for ten minutes.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # a datagram socket: nothing is sent
            own = probe.getsockname()[0]
            for _, name in socket.if_nameindex():
                with suppress(OSError):  # an interface without an address
                    asked = struct.pack("256s", name.encode()[:15])
                    if socket.inet_ntoa(fcntl.ioctl(probe, SIOCGIFADDR, asked)[20:24]) == own:
                        return name
        except OSError:
            return None
    return None
