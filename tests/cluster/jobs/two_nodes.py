"""A Ray of two nodes, each with an address of its own where the machine permits, that wants a token."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

RAY = Path(sys.executable).with_name("ray")
START_TIMEOUT_S = 180.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Places:
    """Where head, worker and laptop stand: network namespaces on one bridge, or else all on the loopback."""

    NAMES = ("head", "worker", "laptop")

    def __init__(self) -> None:
        self._tag = f"st{os.getpid()}"
        self.separate = os.geteuid() == 0 and shutil.which("ip") is not None
        self.addresses = dict.fromkeys(self.NAMES, "127.0.0.1")
        if self.separate:
            try:
                self._lay()
            except subprocess.CalledProcessError:
                self.clear()
                self.separate = False

    def _lay(self) -> None:
        """The bridge lies in the laptop's namespace, so that the machine's own network is left alone."""
        _sweep()
        for number, name in enumerate(self.NAMES, start=1):
            _ip("netns", "add", self._space(name))
            _ip("-n", self._space(name), "link", "set", "lo", "up")
            self.addresses[name] = f"10.231.0.{number}"
        laptop = self._space("laptop")
        _ip("-n", laptop, "link", "add", "bridge", "type", "bridge")
        _ip("-n", laptop, "addr", "add", f"{self.addresses['laptop']}/24", "dev", "bridge")
        _ip("-n", laptop, "link", "set", "bridge", "up")
        for name in ("head", "worker"):
            space = self._space(name)
            _ip("-n", laptop, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", laptop, "link", "set", name, "master", "bridge")
            _ip("-n", laptop, "link", "set", name, "up")
            _ip("-n", space, "addr", "add", f"{self.addresses[name]}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")

    def _space(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def within(self, name: str, command: Sequence[str]) -> list[str]:
        """The command, to be run there."""
        return ["ip", "netns", "exec", self._space(name), *command] if self.separate else list(command)

    def clear(self) -> None:
        """Give the namespaces back; with them go the wires."""
        self.addresses = dict.fromkeys(self.NAMES, "127.0.0.1")
        for name in self.NAMES:
            subprocess.run(["ip", "netns", "del", self._space(name)], stderr=subprocess.DEVNULL, check=False)


def _sweep() -> None:
    """Take away the namespaces of tests that were killed."""
    for space in Path("/run/netns").glob("st*-*"):
        owner = space.name.removeprefix("st").partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            subprocess.run(["ip", "netns", "del", space.name], check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class TwoNodes:
    """Two raylets of one logical CPU each. Whoever talks to them needs `token`."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(24)
        self.root = Path(tempfile.mkdtemp(prefix="st", dir="/tmp"))  # Ray's sockets want a short path
        self._token_file = self.root / "token"
        self._token_file.write_text(self.token)
        self._started: list[subprocess.Popen[bytes]] = []
        self.places = Places()
        self._ports = free_ports(12)
        self.http = f"http://{self.places.addresses['head']}:{self._ports[1]}"

    def start(self) -> None:
        """Returns when both nodes are there and the head takes jobs."""
        head, (port, dashboard) = self.places.addresses["head"], self._ports[:2]
        self._raylet(
            "head",
            self._ports[2:6],
            "--head",
            f"--port={port}",
            f"--dashboard-port={dashboard}",
            f"--dashboard-host={head}",
            f"--ray-client-server-port={self._ports[10]}",
        )
        self._wait("the head", lambda: self.asked("/api/version"))
        self._raylet("worker", self._ports[6:10], f"--address={head}:{port}")
        self._wait("both nodes", lambda: self.asked("/nodes?view=summary").count('"ALIVE"') >= 2)

    def _raylet(self, name: str, ports: Sequence[int], *options: str) -> None:
        own = self.root / name
        own.mkdir()
        kinds = ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent")
        command = [str(RAY), "start", "--block", "--num-cpus=1", f"--temp-dir={own}", "--disable-usage-stats"]
        command += [f"--node-ip-address={self.places.addresses[name]}", "--object-store-memory=100000000", *options]
        command += [f"--{kind}-port={port}" for kind, port in zip(kinds, ports, strict=False)]
        command = self.places.within(name, command)
        environment = _plain_environment() | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._token_file),
            "PATH": f"{RAY.parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }
        with (self.root / f"{name}.out").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=own,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self._started.append(process)

    def laptop(self, command: Sequence[str], token: str | None = "", **options: Any) -> subprocess.Popen[str]:
        """Start a command on the laptop, which knows the token unless another (None: none) is given."""
        environment = _plain_environment() | options.pop("env", {})
        if token is not None:
            environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token or self.token}
        return subprocess.Popen(self.places.within("laptop", command), text=True, env=environment, **options)

    def asked(self, path: str) -> str:
        """What the head says to a request of the laptop's; nothing if it says nothing."""
        code = "import sys, urllib.request as u; r = u.Request(sys.argv[1], headers={'Authorization': sys.argv[2]})"
        code += "\nprint(u.urlopen(r, timeout=5).read().decode())"
        command = [sys.executable, "-c", code, self.http + path, f"Bearer {self.token}"]
        return subprocess.run(self.places.within("laptop", command), capture_output=True, text=True, check=False).stdout

    def _wait(self, what: str, there: Any) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not there():
            dead = [process for process in self._started if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                said = "\n".join(log.read_text(errors="replace")[-2000:] for log in self.root.glob("*.out"))
                raise RuntimeError(f"{what} did not come up:\n{said}")
            time.sleep(0.3)

    def log_folders(self) -> list[Path]:
        """Ray's log folders, one a node."""
        return [path.resolve() for path in self.root.glob("*/session_latest/logs")]

    def stop(self) -> None:
        """End every process that was started, and give back folders and namespaces."""
        for process in reversed(self._started):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=20)
            # What `ray start` has begun is of its session.
            _kill_session(process.pid)
            process.wait()
        self.places.clear()
        shutil.rmtree(self.root, ignore_errors=True)


def _end_with_parent() -> None:
    """Even if the tests are killed: `ray start --block` takes its processes along on SIGTERM."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _kill_session(session: int) -> None:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                os.kill(int(stat.parent.name), signal.SIGKILL)
        except (OSError, IndexError):
            continue


def _plain_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


_ports = iter(range(7000 + os.getpid() % 1000, 10000))


def free_ports(count: int) -> list[int]:
    """Free ports below 10002, where Ray's workers begin, each returned once: a server may be slow to bind its own."""
    return list(islice(filter(_free, _ports), count))


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
