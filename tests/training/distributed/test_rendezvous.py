"""Which interface the ranks of several nodes meet over; and that they do, in two network namespaces."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.training.distributed import rendezvous
from study.training.distributed.rendezvous import interface_towards, name_interface
from tests.conftest import lacking

ROOT = Path(__file__).parents[3]
RANK = """
import os, sys, torch, torch.distributed as dist
from study.training.distributed.rendezvous import join_group, open_store
from study.training.distributed.topology import RankTopology
rank, host, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = None
if rank == 0:
    store, port = open_store(host, 2)
    print(port, flush=True)
join_group(RankTopology(rank, 2, 0, 1, rank, "cpu"), host, port, store=store)
total = torch.tensor(rank + 1.0)
dist.all_reduce(total)
print(os.environ["GLOO_SOCKET_IFNAME"], total.item(), flush=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for interfaces")
def test_this_machine_reaches_itself_by_loopback() -> None:
    assert interface_towards("127.0.0.1") == "lo"


def test_where_nothing_leads_there_is_no_interface() -> None:
    assert interface_towards("no such host") is None


def test_what_the_user_set_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "interface_towards", lambda host: "eth7")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")  # restored afterwards
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    name_interface("10.0.0.1")
    assert (os.environ["NCCL_SOCKET_IFNAME"], os.environ["GLOO_SOCKET_IFNAME"]) == ("ib0", "eth7")


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Two machines with a cable between them, as far as the kernel is concerned; they know no other network."""
    one, other = (f"study-{os.getpid()}-{name}" for name in "ab")

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        ip("netns", "add", one)
        ip("netns", "add", other)
        ip("-n", one, "link", "add", "cable0", "type", "veth", "peer", "name", "cable1", "netns", other)
        for name, device, address in ((one, "cable0", "10.77.0.1/24"), (other, "cable1", "10.77.0.2/24")):
            ip("-n", name, "address", "add", address, "dev", device)
            ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError) as error:
        lacking(f"no network namespaces here (they need root and iproute2): {error}", "REQUIRE_NETNS")
    else:
        yield one, other
    finally:
        for name in (one, other):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.cluster
def test_ranks_of_two_nodes_meet_over_the_cable(namespaces: tuple[str, str]) -> None:
    def start(rank: int, port: str) -> subprocess.Popen[str]:
        command = ["ip", "netns", "exec", namespaces[rank], sys.executable, "-c", RANK, str(rank), "10.77.0.1", port]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    first = start(0, "0")
    ranks = [first]
    try:
        assert first.stdout is not None
        ranks.append(start(1, first.stdout.readline().strip()))
        told = [rank.communicate(timeout=120)[0].strip() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert told == ["cable0 3.0", "cable1 3.0"]
