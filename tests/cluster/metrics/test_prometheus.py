"""A real Prometheus scrapes a study on a real Ray head, with the configuration and the rules of `dashboards/`."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
import yaml

from study.cluster.metrics.grafana import files
from tests.cluster.jobs.two_nodes import free_ports

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
PATIENCE_S = 180.0
SCRAPE_S = 10.0
STUDY = {
    "name": "watched",
    "batch_sizes": [16, 32],
    "search": {"lr": [0.05, 0.1, 0.2]},
    "budget": {"epochs": 20000, "report_every_updates": 50},
    "scheduler": {"kind": "grid"},  # the first two trials outlast the test, and none pauses for another to begin
    "confirm": {"seeds": 2},
    "workload": {"kind": "digits", "width": 16},
    "price": {"usd_per_device_hour": 2.0, "source": "made up"},
    "limits": {"usd": 1000.0},
}
# There is no hand-over and no end while the first trials run, and an image of a digit holds no tokens.
LATER = ("hand_over", "ended", "tokens")


def eventually(found: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:
    """What `found` returns once it is true."""
    deadline = time.monotonic() + within_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.5)
    return value


@contextmanager
def process(command: list[str], log: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A server, ended by its id."""
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, env=env) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.terminate()
                try:
                    running.wait(60)
                except subprocess.TimeoutExpired:
                    running.kill()


class Cluster:
    """A Ray head with a token, on ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.port, dashboard, metrics = free_ports(3)
        self.metrics_port, self.dashboard = metrics, f"http://127.0.0.1:{dashboard}"
        # Sockets lie in it, whose paths must be short.
        self.temp = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.env = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }
        self.env.pop("RAY_ADDRESS", None)
        self.command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={self.port}",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--metrics-export-port={metrics}",
            "--num-cpus=2", f"--temp-dir={self.temp}", "--disable-usage-stats",
        ]  # fmt: skip
        self.discovery = self.temp / "prom_metrics_service_discovery.json"

    def address(self) -> str:
        """Where drivers are to go; empty while it starts."""
        file = self.temp / "ray_current_cluster"
        return file.read_text().strip() if file.exists() else ""

    def names(self, what: str, field: str) -> set[str]:
        """What Ray's dashboard calls the living of a kind, and tasks that are done."""
        token = Path(self.env["RAY_AUTH_TOKEN_PATH"]).read_text()
        request = Request(f"{self.dashboard}/api/v0/{what}?detail=1", headers={"Authorization": f"Bearer {token}"})
        with urlopen(request, timeout=30) as answer:
            found = json.load(answer)["data"]["result"]["result"]
        return {one[field] for one in found if one["state"] in ("ALIVE", "CREATED", "RUNNING", "FINISHED")}

    def listed(self) -> bool:
        """Whether Ray has said what there is to scrape."""
        if not self.discovery.exists():
            return False
        return any(
            f":{self.metrics_port}" in target
            for one in json.loads(self.discovery.read_text())
            for target in one["targets"]
        )


class Prometheus:
    """Its HTTP interface."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        try:
            return bool(urlopen(f"{self.url}/-/ready", timeout=5).status == 200)
        except (URLError, OSError):
            return False

    def ask(self, path: str, **query: str) -> Any:
        with urlopen(f"{self.url}/api/v1/{path}?{urlencode(query)}", timeout=30) as answer:
            told = json.load(answer)
        assert told["status"] == "success"
        return told["data"]

    def values(self, query: str) -> list[float]:
        return [float(one["value"][1]) for one in self.ask("query", query=query)["result"]]

    def value(self, query: str) -> float | None:
        found = self.values(query)
        return found[0] if found else None

    def firing(self) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}


@contextmanager
def driver(cluster: Cluster, log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with process([sys.executable, "-m", "study", *arguments, "--address", cluster.address()], log, cluster.env) as one:
        yield one


@pytest.fixture(scope="module")
def servers(
    prometheus_binary: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cluster, Prometheus, Path]]:
    folder = tmp_path_factory.mktemp("prometheus")
    cluster = Cluster(folder)
    config = yaml.safe_load(files()["prometheus.yml"])
    assert config["global"]["scrape_interval"] == f"{SCRAPE_S:g}s"
    config["scrape_configs"][0]["file_sd_configs"][0]["files"] = [str(cluster.discovery)]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "alerts.yml").write_text(files()["alerts.yml"])
    (port,) = free_ports(1)
    command = [
        prometheus_binary, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    try:
        with process(cluster.command, folder / "ray.log", cluster.env), process(command, folder / "prometheus.log"):
            prometheus = Prometheus(port)
            eventually(prometheus.ready, "Prometheus answers")
            eventually(lambda: cluster.address() and cluster.listed(), "Ray says what there is to scrape")
            yield cluster, prometheus, folder
    finally:
        shutil.rmtree(cluster.temp, ignore_errors=True)


def filled(query: str) -> str:
    """A query of the dashboard as Grafana sends it with everything chosen."""
    return query.replace("$SessionName", ".*").replace("$Cluster", ".*").replace("$study", ".+")


def test_a_study_is_scraped_from_its_start_over_a_killed_driver_to_its_end(
    servers: tuple[Cluster, Prometheus, Path],
) -> None:
    cluster, prometheus, folder = servers
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    out = str(folder / "out")

    with driver(cluster, folder / "run.log", "run", str(folder / "study.yaml"), "--out", out) as first:

        def reports() -> float:
            assert first.poll() is None, (folder / "run.log").read_text()[-2000:]
            return prometheus.value("sum(ray_study_decisions)") or 0.0

        eventually(reports, "a report is scraped")

        # What there is to see, is seen; every query can be asked.
        board = json.loads(files()["grafana/study.json"])
        told = {
            target["expr"]: prometheus.ask("query", query=filled(target["expr"]))["result"]
            for panel in board["panels"]
            for target in panel["targets"]
        }
        empty = [query for query, result in told.items() if not result and not any(name in query for name in LATER)]
        assert not empty
        for variable in board["templating"]["list"][1:]:
            metric, label = variable["definition"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
            if label != "ray_io_cluster":  # which KubeRay's monitors add
                assert all(one.get(label) for one in prometheus.ask("series", **{"match[]": filled(metric)}))
        assert prometheus.value('ray_study_trials{kind="search",state="running"}') == 2
        assert sum(prometheus.values("ray_study_trials")) == 6 + 4
        assert prometheus.value("ray_study_devices_leased") == 2
        spend, limit = prometheus.value("ray_study_spend_usd"), prometheus.value("ray_study_limit_used_ratio")
        assert spend == pytest.approx(1000 * limit)
        assert spend == pytest.approx(2 * sum(prometheus.values("ray_study_device_hours")), rel=1e-6)

        # Ray's own pages say whose is what.
        groups = {
            name
            for name in cluster.names("placement_groups", "name")
            if re.fullmatch("watched/group-[0-9a-f]{8}", name)
        }
        assert len(groups) == 2
        assert {f"{group}/{part}" for group in groups for part in ("driver", "rank-0")} <= cluster.names(
            "actors", "repr_name"
        )
        calls = eventually(
            lambda: {name for name in cluster.names("tasks", "name") if name.startswith("RankActor.advance")},
            "Ray tells of calls",
        )
        assert {re.fullmatch(r"RankActor.advance search b(16|32) w1", name) is not None for name in calls} == {True}

        # Three scrapes later and more, past the 20 s after which Ray forgets a gauge, all of them are there and new.
        names = {
            name
            for one in prometheus.ask("series", **{"match[]": '{__name__=~"ray_study_.*"}'})
            for name in [one["__name__"]]
        }
        scrapes = "count_over_time(ray_study_heartbeat_timestamp_seconds[10m])"
        before, spent_before = prometheus.value(scrapes), spend
        eventually(lambda: prometheus.value(scrapes) >= before + 4, "four more scrapes")
        for name in names:
            assert time.time() - min(prometheus.values(f"timestamp({name})")) < 2 * SCRAPE_S, name
        assert prometheus.value("ray_study_spend_usd") > spent_before
        assert time.time() - prometheus.value("ray_study_heartbeat_timestamp_seconds") < 2 * SCRAPE_S

        # Rules are evaluated, and none has anything to say.
        (group,) = prometheus.ask("rules")["groups"]
        assert {rule["name"]: (rule["health"], rule.get("lastError", "")) for rule in group["rules"]} == {
            rule["name"]: ("ok", "") for rule in group["rules"]
        }
        rules = yaml.safe_load(files()["alerts.yml"])["groups"][0]["rules"]
        assert [rule["name"] for rule in group["rules"]] == [rule["alert"] for rule in rules]
        assert prometheus.firing() == set()

        attempts = prometheus.value("ray_study_attempts")
        first.kill()
        first.wait()
    eventually(lambda: "StudyDriverGone" in prometheus.firing(), "an alert that the driver is gone")

    with driver(cluster, folder / "resume.log", "resume", out) as second:
        eventually(lambda: prometheus.value("max(ray_study_attempts)") == attempts + 2, "the true total, at once")
        assert prometheus.value("max(ray_study_lost_leases)") == 2
        eventually(lambda: not prometheus.firing(), "the alert ends")
        second.send_signal(signal.SIGINT)
        eventually(lambda: prometheus.value("max(ray_study_ended_timestamp_seconds)"), "an end in order is scraped")
        second.wait(PATIENCE_S)
    gone = next(rule["expr"] for rule in rules if rule["alert"] == "StudyDriverGone")
    assert prometheus.ask("query", query=gone, time=f"{time.time() + 120:.0f}")["result"] == []  # nor will it fire
    assert prometheus.value("max(ray_study_trials{state='failed'})") == 0
