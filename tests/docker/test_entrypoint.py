"""The image's entrypoint, run for real: it refuses, waits, starts a cluster that studies, and ends it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from ray.scripts.scripts import start

from study.ledger.schema import EndRow
from study.ledger.store import read
from tests.cluster.jobs.two_nodes import Places
from tests.conftest import lacking

ROOT = Path(__file__).parents[2]
ENTRYPOINT = ROOT / "docker" / "entrypoint.sh"
START_TIMEOUT_S = 180.0
STUDY = {
    "name": "tiny",
    "batch_sizes": [16, 64],
    "search": {"lr": [0.05]},
    "budget": {"epochs": 2},
    "confirm": {"seeds": 2},
    "hardware": {"world_size": 2},
    "workload": {"kind": "digits", "width": 16},
}


def environment(home: Path, **more: str) -> dict[str, str]:
    """That of a container: nothing of Ray's but what is given."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "STUDY_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{ours['PATH']}"
    return ours | {"HOME": str(home), "PATH": path, "RAY_TMPDIR": str(home), "PYTHONPATH": str(ROOT)} | more


def refusal(*arguments: str, env: dict[str, str]) -> str:
    """What the entrypoint says when it does not start, on one line."""
    done = subprocess.run([ENTRYPOINT, *arguments], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("role", [("head",), ("worker", "head:6379")], ids=lambda role: role[0])
def test_no_node_starts_without_a_token(tmp_path: Path, role: tuple[str, ...]) -> None:
    assert "RAY_AUTH_TOKEN" in refusal(*role, env=environment(tmp_path))
    assert "RAY_AUTH_TOKEN" in refusal(*role, env=environment(tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=""))


def test_an_empty_token_file_is_no_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("")
    assert "no token" in refusal("head", env=environment(tmp_path, RAY_AUTH_TOKEN_PATH=str(tmp_path / "token")))


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({"RAY_AUTH_TOKEN": "x" * 32}, "token"),
        ({"RAY_AUTH_TOKEN_PATH": "token"}, "token"),
        ({"STUDY_WITHOUT_TOKEN": "1"}, "disabled"),
    ],
)
def test_what_a_head_is_started_with(tmp_path: Path, given: dict[str, str], mode: str) -> None:
    (tmp_path / "token").write_text("x" * 32)
    ray = tmp_path / "bin" / "ray"
    ray.parent.mkdir()
    ray.write_text('#!/bin/sh\necho "$RAY_AUTH_MODE"\nprintf "%s\\n" "$@"\n')
    ray.chmod(0o755)
    env = environment(tmp_path, **given)
    env["PATH"] = f"{ray.parent}:{env['PATH']}"
    done = subprocess.run(
        [ENTRYPOINT, "head", "--num-cpus", "0"], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    told, *arguments = done.stdout.splitlines()
    assert told == mode
    assert arguments[:3] == ["start", "--head", "--block"]
    assert arguments[-2:] == ["--num-cpus", "0"]
    ports = {arguments[at]: int(arguments[at + 1]) for at, word in enumerate(arguments) if word.endswith("-port")}
    assert len(set(ports.values())) == len(ports)
    assert max(ports.values()) < 10002  # Ray's workers take theirs from here
    pinnable = {name for option in start.params for name in option.opts if name.endswith("-port")}
    assert set(ports) == pinnable - {"--min-worker-port", "--max-worker-port"}


def test_other_commands_are_run_as_they_are(tmp_path: Path) -> None:
    done = subprocess.run(
        [ENTRYPOINT, "sh", "-c", "echo $0 $1; exit 7", "a b", "c"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (7, "a b c\n")


def test_nothing_to_run_and_nowhere_to_go(tmp_path: Path) -> None:
    assert "head, worker" in refusal(env=environment(tmp_path))
    assert "worker HEAD:6379" in refusal("worker", env=environment(tmp_path))


def test_a_container_without_a_node_is_not_well(tmp_path: Path) -> None:
    assert subprocess.run([ENTRYPOINT, "health"], env=environment(tmp_path), capture_output=True).returncode == 1


@pytest.fixture
def places() -> Iterator[Places]:
    """A network namespace for each container. Skips where there can be none, or fails if REQUIRE_NETNS is set."""
    places = Places()
    if not places.separate:
        lacking("network namespaces need root and iproute2", "REQUIRE_NETNS")
    for name in ("head", "worker"):  # Ray takes the address of the way out for the node's own
        subprocess.run(places.within(name, ["ip", "route", "add", "default", "dev", "eth0"]), check=True)
    yield places
    places.clear()


def eventually(holds: Callable[[], bool], within_s: float, what: str) -> None:
    """Asks every quarter of a second."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.25)


class Container:
    """What stands for one: an address, a home, an environment that marks its processes."""

    def __init__(self, places: Places, name: str, token: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="study-", dir="/tmp"))  # short: Ray keeps sockets below it
        self.env = environment(
            self.home,
            RAY_AUTH_TOKEN=token,
            STUDY_HEAD_WAIT_S="180",
            RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S="5",
            OMP_NUM_THREADS="1",
        )
        self.enter = places.within(name, [str(ENTRYPOINT)])
        self.log = self.home / "log"

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Its first process, which is the node: the script replaces itself."""
        with self.log.open("w") as log:
            return subprocess.Popen([*self.enter, *arguments], env=self.env, stdout=log, stderr=log)

    def call(self, *arguments: str, timeout_s: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
        """A command beside it."""
        return subprocess.run(
            [*self.enter, *arguments], env=self.env | env, capture_output=True, text=True, timeout=timeout_s
        )

    def well(self) -> bool:
        """As the image's HEALTHCHECK asks."""
        return self.call("health").returncode == 0

    def processes(self) -> list[psutil.Process]:
        """All that run in it, orphans too."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("RAY_TMPDIR") == str(self.home):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def remove(self) -> None:
        """Nothing of it stays, whatever happened."""
        for process in self.processes():
            process.kill()
        shutil.rmtree(self.home)


FETCH = """
import sys, urllib.request
headers = {"Authorization": "Bearer " + sys.argv[2]} if sys.argv[2:] else {}
request = urllib.request.Request(sys.argv[1], headers=headers)
try:
    answer = urllib.request.urlopen(request, timeout=10)
    print(answer.status, answer.read().decode(), sep="\\n")
except urllib.error.HTTPError as error:
    print(error.code)
"""


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_cluster_from_its_first_process_to_its_last(places: Places, tmp_path: Path) -> None:
    token = secrets.token_hex(32)
    head_ip, worker_ip = places.addresses["head"], places.addresses["worker"]
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    grace_s = float(compose["services"]["head"]["stop_grace_period"].removesuffix("s"))
    head, worker = (Container(places, name, token) for name in ("head", "worker"))
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump(STUDY))
    try:
        late = worker.start("worker", f"{head_ip}:6379", "--num-cpus", "2")  # before there is a head: it waits
        first = head.start("head", "--num-cpus", "0")
        eventually(head.well, START_TIMEOUT_S, f"a head: {head.log}")
        eventually(worker.well, START_TIMEOUT_S, f"a worker: {worker.log}")
        assert late.poll() is first.poll() is None

        stranger = worker.call("worker", f"{head_ip}:6379", RAY_AUTH_TOKEN="w" * 64, STUDY_HEAD_WAIT_S="1")
        assert stranger.returncode == 2
        assert stranger.stderr.startswith(f"entrypoint.sh: no head at {head_ip}:6379 after 1 s: ")

        jobs = f"http://{head_ip}:8265/api/jobs/"
        assert worker.call("python", "-c", FETCH, jobs).stdout.split()[0] == "401"
        assert worker.call("python", "-c", FETCH, jobs, token).stdout.split()[0] == "200"

        # Prometheus reads the first from the shared folder and asks the addresses in it, without a token.
        discovery = head.home / "ray" / "prom_metrics_service_discovery.json"
        metrics = {f"{head_ip}:8080", f"{worker_ip}:8080"}
        eventually(lambda: metrics <= set(json.loads(discovery.read_text())[0]["targets"]), 30, "targets to scrape")
        for address in metrics:
            assert worker.call("python", "-c", FETCH, f"http://{address}/metrics").stdout.startswith("200\n# HELP")

        done = head.call("study", "run", str(study), "--out", str(tmp_path / "run"), "--address", "auto")
        assert done.returncode == 0, done.stderr
        over = [row for row in read(tmp_path / "run").rows if isinstance(row, EndRow)]
        assert len(over) == 4  # two batch sizes on two seeds; one rate needs no search
        assert {row.outcome for row in over} == {"completed"}

        for process, container in ((late, worker), (first, head)):
            process.send_signal(signal.SIGTERM)
            process.wait(grace_s)
            eventually(lambda box=container: not box.processes(), 5, f"no process left: {container.processes()}")
    finally:
        head.remove()
        worker.remove()
