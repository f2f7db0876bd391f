"""A study that is hurt again and again: ranks, groups and drivers die at random, and it must end as if none had.

Processes are killed, and ranks also stopped, on a Ray that lives through it all; a study whose driver died is resumed.
Each round is one study from its beginning to its end. All are compared with one that was left alone: where they ended,
and what their drivers, and Ray's own processes, needed of memory and open files.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

os.environ["OMP_NUM_THREADS"] = "1"

import psutil
import ray
import yaml
from ray._private.ray_constants import LOG_MONITOR_MAX_OPEN_FILES
from ray.cluster_utils import Cluster
from show import show

from study.analysis.summary.summarize import summarize
from study.api.plans import recorded
from study.ledger.paths import StudyPaths
from study.ledger.schema import DecisionRow
from study.ledger.store import read
from tests.faults.ledger_audit import Audit, audit

# By cost the batch sizes lie so far apart that no clock decides how strictly each is searched, and all of them must end
# alike.
STUDY: dict[str, Any] = {
    "name": "soak",
    "batch_sizes": [16, 256],
    "search": {"lr": [0.005, 0.01, 0.02, 0.04, 0.08], "lr_rule": "sqrt", "base_batch": 16},
    "budget": {"epochs": 24},
    "confirm": {"seeds": 3},
    "hardware": {"world_size": 2},
    "report": {"cost": "samples"},  # a cost that no clock enters
    "recovery": {"checkpoint_every_s": 0, "silent_s": 10},
    "max_retries": 1000,
}
RAY_MEMORY = {  # so little of the past is kept, of 100,000 each, that the first study fills it and a leak would be seen
    "RAY_task_events_max_num_task_in_gcs": "100",
    "RAY_maximum_gcs_destroyed_actor_cached_count": "10",
}
FAULTS = ("rank killed", "rank stopped", "group killed", "driver killed")
RAY_CPUS = 4  # two trials at a time
LOOK_S = 0.2
GONE_S = 60.0  # in which all that a study had must be gone
ROUND_S = 1200.0  # a study that has not come to its end by then hangs
FLAT = 1.25  # memory and open files may be so many times those of the study that was left alone


@dataclass
class Round:
    """One study, and what it took."""

    ending: Ending
    wall_s: float
    faults: Counter[str]
    audit: Audit
    driver_rss_bytes: int  # at most, of any of its drivers
    driver_files: int  # open at once, at most
    daemons_rss_bytes: int  # of Ray's own processes, in its end
    daemons_files: OpenFiles
    left: list[str]  # processes, placement groups and files


@dataclass(frozen=True)
class OpenFiles:
    """Of Ray's own processes, less two kinds that Ray itself lets grow, which are counted apart.

    Its log monitor closes the logs of dead workers no sooner than it has 200 of them. Its GCS keeps a socket, connected
    to nothing, of each process that ends in order, of plain drivers too (github.com/ray-project/ray/issues/38248).
    """

    in_use: int
    worker_logs: int
    dead_sockets: int


@dataclass(frozen=True)
class Ending:
    """Where a study ended, less what depends on the clock."""

    trials: frozenset[tuple[str, str | None, float | None]]  # each with its outcome and final validation accuracy
    stops: frozenset[tuple[str, int]]  # and after how many updates those that were stopped were last decided on
    front: tuple[tuple[int, float, float, bool], ...]  # batch size, rate, mean validation accuracy, on the frontier


@dataclass
class Soak:
    """Studies on one Ray."""

    root: Path
    mean_s: float
    random: random.Random
    scratch: Path = field(init=False)
    driver: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.scratch = self.root / "tmp"
        self.scratch.mkdir()
        os.environ |= {  # of drivers and ranks alike; Ray's session and torch's cache, one a user, are not to be gone
            "TMPDIR": str(self.scratch),
            "RAY_TMPDIR": tempfile.gettempdir(),
            "TORCHINDUCTOR_CACHE_DIR": str(self.root / "torch-cache"),
            **RAY_MEMORY,
        }
        (self.root / "soak.yaml").write_text(yaml.safe_dump(STUDY))
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": RAY_CPUS, "include_dashboard": False})
        ray.init(self.cluster.address, log_to_driver=False)

    def close(self) -> None:
        """End the driver and Ray."""
        if self.driver is not None:
            self.driver.kill()
            self.driver.wait()
        ray.shutdown()
        self.cluster.shutdown()

    def round(self, name: str, hurt: bool) -> Round:
        """Run a study to its end, resuming it as often as it takes."""
        folder, faults, began_s = self.root / name, Counter[str](), time.monotonic()
        rss_bytes = files = 0
        next_s = began_s + self._pause_s() if hurt else float("inf")
        driver = self._drive(folder)
        while (code := driver.poll()) != 0:
            if time.monotonic() > began_s + ROUND_S:
                raise SystemExit(f"{name}: has not ended after {ROUND_S:.0f} s; see {self.root}")
            if code is not None:
                if code != -signal.SIGKILL:
                    raise SystemExit(f"{name}: a driver ended with {code}; see {self.root / 'drivers.log'}")
                driver = self._drive(folder)
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(driver.pid)
                rss_bytes, files = max(rss_bytes, process.memory_info().rss), max(files, process.num_fds())
            if time.monotonic() >= next_s:
                faults += Counter(self._hurt(driver.pid))
                next_s = time.monotonic() + self._pause_s()
            time.sleep(LOOK_S)
        wall_s = time.monotonic() - began_s
        self._scrape()
        left = self._left(folder)
        daemons = [process for process in _family() if _is_daemon(_title(process))]
        return Round(
            ending=ending(folder),
            wall_s=wall_s,
            faults=faults,
            audit=audit(read(folder).rows),
            driver_rss_bytes=rss_bytes,
            driver_files=files,
            daemons_rss_bytes=sum(process.memory_info().rss for process in daemons),
            daemons_files=open_files(daemons),
            left=left,
        )

    def _drive(self, folder: Path) -> subprocess.Popen[bytes]:
        begun = StudyPaths(folder).ledger.exists()
        command = ("resume", folder.name) if begun else ("run", "soak", "--out", folder.name)
        with (self.root / "drivers.log").open("ab") as log:
            self.driver = subprocess.Popen(
                [sys.executable, "-m", "study", *command, "--address", self.cluster.address],
                cwd=self.root, stdout=log, stderr=log,
            )  # fmt: skip
        return self.driver

    def _pause_s(self) -> float:
        return self.random.expovariate(1 / self.mean_s)

    def _hurt(self, driver_pid: int) -> list[str]:
        """One fault, or none if what it should hit is not there at the moment."""
        fault = self.random.choice(FAULTS)
        victims = {
            "rank killed": _workers("RankActor"),
            "rank stopped": _workers("RankActor"),
            "group killed": _workers("TrialRun"),
            "driver killed": [psutil.Process(driver_pid)],
        }[fault]
        if not victims:
            return []
        with suppress(psutil.NoSuchProcess):
            self.random.choice(victims).send_signal(signal.SIGSTOP if fault == "rank stopped" else signal.SIGKILL)
            return [fault]
        return []

    def _scrape(self) -> None:
        """As Prometheus would: Ray's agent forgets the metrics of processes that are gone only when it is asked."""
        (node,) = ray.nodes()
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urlopen(url, timeout=GONE_S) as page:
            page.read()

    def _left(self, folder: Path) -> list[str]:
        """What is still there some time after a study's end, and should not be."""
        deadline_s = time.monotonic() + GONE_S
        while (left := self._traces(folder)) and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)
        return left

    def _traces(self, folder: Path) -> list[str]:
        processes = [_title(process) for kind in ("RankActor", "TrialRun") for process in _workers(kind)]
        groups = [table["name"] for table in ray.util.placement_group_table().values() if table["state"] != "REMOVED"]
        paths = StudyPaths(folder)
        kept = {paths.ledger, paths.lock, paths.config, paths.report, paths.checkpoints}
        files = [path for path in folder.iterdir() if path not in kept]
        files += [*paths.checkpoints.iterdir(), *paths.report.glob(".*"), *self.scratch.iterdir()]
        return [*processes, *groups, *map(str, files)]


def ending(folder: Path) -> Ending:
    """Return the outcome of a finished study."""
    rows = read(folder).rows
    summary = summarize(rows, recorded(folder))
    last = {row.trial_id: row.updates for row in rows if isinstance(row, DecisionRow)}
    return Ending(
        trials=frozenset((trial.trial_id, trial.outcome, trial.final_quality) for trial in summary.trials),
        stops=frozenset(
            (trial.trial_id, last[trial.trial_id]) for trial in summary.trials if trial.outcome == "stopped"
        ),
        front=tuple((point.batch_size, point.lr, point.quality, point.on_frontier) for point in summary.points),
    )


def _family() -> list[psutil.Process]:
    """Ray's processes: children of ours."""
    return [process for process in psutil.Process().children(recursive=True) if _title(process)]


def _is_daemon(title: str) -> bool:
    return "ray::" not in title or title.startswith(("ray::DashboardAgent", "ray::RuntimeEnvAgent"))


def open_files(processes: list[psutil.Process]) -> OpenFiles:
    """By kind."""
    kinds = Counter[str]()
    for process in processes:
        connected = {connection.fd for connection in process.net_connections("all")}
        for entry in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since
                target = os.readlink(entry)
                if target.startswith("socket:") and int(entry.name) not in connected:
                    kinds["dead_sockets"] += 1
                elif Path(target).name.startswith("worker-"):
                    kinds["worker_logs"] += 1
                else:
                    kinds["in_use"] += 1
    return OpenFiles(kinds["in_use"], kinds["worker_logs"], kinds["dead_sockets"])


def _workers(kind: str) -> list[psutil.Process]:
    return [process for process in _family() if _title(process).startswith(f"ray::{kind}")]


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline()).strip()
    return ""


def show_rounds(rounds: list[Round], as_json: bool) -> bool:
    """Print what was seen; whether all is as it should be, memory and open files included."""
    alone, *hurt = rounds
    result = {
        "rounds": len(hurt),
        "faults": sum(one.faults.total() for one in hurt),
        "ended_elsewhere": sum(one.ending != alone.ending for one in hurt),
        "device_hours_lost": sum(one.audit.device_h_lost for one in rounds),
        "double_counted": sum(one.audit.double_counted for one in rounds),
        "left_behind": sum(len(one.left) for one in rounds),
        "driver_rss_ratio": max(one.driver_rss_bytes for one in hurt) / alone.driver_rss_bytes,
        "driver_files_ratio": max(one.driver_files for one in hurt) / alone.driver_files,
        "daemons_rss_ratio": hurt[-1].daemons_rss_bytes / alone.daemons_rss_bytes,
        "daemons_files_ratio": hurt[-1].daemons_files.in_use / alone.daemons_files.in_use,
        "daemons_worker_logs": max(one.daemons_files.worker_logs for one in rounds),
        "daemons_dead_sockets": rounds[-1].daemons_files.dead_sockets,
        "wall_ratio": max(one.wall_s for one in hurt) / alone.wall_s,
    }
    table = [
        {
            "round": "alone" if one is alone else str(number),
            **{fault: one.faults[fault] for fault in FAULTS},
            "same end": "yes" if one.ending == alone.ending else "NO",
            "left": len(one.left),
            "wall_s": one.wall_s,
            "driver MB": one.driver_rss_bytes // 10**6,
            "files": one.driver_files,
            "Ray MB": one.daemons_rss_bytes // 10**6,
            "Ray files": one.daemons_files.in_use,
        }
        for number, one in enumerate(rounds)
    ]
    show("A study under random kills", table, result, as_json)
    for one in rounds:
        for trace in one.left:
            print(f"left behind: {trace}")
    wrong = ("ended_elsewhere", "device_hours_lost", "double_counted", "left_behind")
    grown = ("driver_rss_ratio", "driver_files_ratio", "daemons_rss_ratio", "daemons_files_ratio")
    return (
        not any(result[name] for name in wrong)
        and all(result[name] <= FLAT for name in grown)
        and result["daemons_worker_logs"] <= LOG_MONITOR_MAX_OPEN_FILES
    )


def main() -> None:
    """One study left alone, then others that are hurt until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--minutes", type=float, default=20, help="no round is begun after so many; at least one is")
    parser.add_argument("--mean-s", type=float, default=12, help="seconds between faults, exponentially distributed")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    soak = Soak(root, arguments.mean_s, random.Random(arguments.seed))
    try:
        rounds = [soak.round("alone", hurt=False)]
        deadline_s = time.monotonic() + 60 * arguments.minutes
        while len(rounds) == 1 or time.monotonic() < deadline_s:
            rounds.append(soak.round(f"round-{len(rounds)}", hurt=True))
    finally:
        soak.close()
    if not show_rounds(rounds, arguments.json):
        raise SystemExit(f"not as it should be; see {root}")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
