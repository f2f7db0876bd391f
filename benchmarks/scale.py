"""How much one driver can drive: 64 trials at a time on many nodes, 1,000 trials, a step of known duration.

Nodes are raylets of one machine, as many as fit; a trial is one rank that sleeps instead of training. All else is what
a study runs: Tune, placement groups, two processes a group, the ledger. A step's length is known, so that time spent
otherwise is the driver's: how busy the slots are between the moment that all of them are set up and the one when no
trial is left to hand out, what a report costs the driver in CPU time, and what the driver's memory grows by.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import psutil
import ray
from ray.cluster_utils import Cluster
from show import show

from study.cluster.target import LOCAL
from study.config.schema import Budget, Confirm, GridConfig, Search, StudyConfig
from study.ledger.schema import AnyRow, AttemptRow
from study.planning.trials import Plan, TrialSpec, make_plan
from study.training.distributed.topology import RankTopology
from study.training.messages import RankReport

STEP_S = 2.0
REPORTS = 5
BATCH_SIZES = (16, 32, 64, 128, 256)


class SleepingRank:
    """Takes the place of `study.training.rank.Rank`: a report every `STEP_S` seconds, and no work."""

    def __init__(self, topology: RankTopology, config: StudyConfig) -> None:
        pass

    def join(self, host: str, port: int) -> None:
        """Alone."""

    def begin(self, spec: TrialSpec, snapshot: bytes | None) -> None:
        """The next trial."""
        self.spec, self.reported = spec, 0

    def advance(self) -> RankReport:
        """One interval."""
        time.sleep(STEP_S)
        spec, updates = self.spec, self.spec.report_at[self.reported]
        self.reported += 1
        return RankReport(
            updates=updates,
            samples=spec.samples_at(updates),
            epochs=spec.epochs_at(updates),
            lr=spec.lr,
            train_loss=1 / updates,
            train_accuracy=None,
            val_loss=1 / updates,
            val_accuracy=1 - 1 / (updates + 1),
            test_accuracy=None,
            samples_per_s=spec.updates_per_epoch * spec.batch.global_batch / STEP_S,
            phases_s={"train": self.reported * STEP_S, "validate": 0.0, "probe": 0.0},
            final=self.reported == len(spec.report_at),
        )

    def halt(self) -> None:
        """Nothing runs."""


def seat_sleepers() -> None:
    """In every process that Ray starts: no rank trains."""
    module: Any = types.ModuleType("study.training.rank")
    module.Rank = SleepingRank
    sys.modules[module.__name__] = module


@dataclass(frozen=True)
class Seen:
    """The driver at one row, which is not kept: its size would be counted."""

    kind: str
    group_id: str  # of an attempt
    at_s: float
    cpu_s: float
    rss_bytes: int


def plan_of(trials: int) -> Plan:
    """So many trials of `REPORTS` reports, all of which train to the end."""
    rates = tuple(0.01 * 1.1**i for i in range(10))
    seeds = trials // (len(BATCH_SIZES) * len(rates))
    return make_plan(
        StudyConfig(
            name="scale",
            batch_sizes=BATCH_SIZES,
            search=Search(lr=rates, seeds=seeds),
            budget=Budget(epochs=REPORTS),
            scheduler=GridConfig(kind="grid"),
            confirm=Confirm(seeds=1),
        )
    )


def run(plan: Plan, nodes: int, slots: int) -> list[Seen]:
    """The driver at every row of the study."""
    from study.tuning.driver import run_study

    process, seen = psutil.Process(), []

    def observe(row: AnyRow) -> None:
        group_id = row.group_id if isinstance(row, AttemptRow) and row.phase == "search" else ""
        seen.append(Seen(row.kind, group_id, time.monotonic(), time.process_time(), process.memory_info().rss))

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": slots // nodes, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=slots // nodes)
        ray.init(cluster.address, log_to_driver=False, runtime_env={"worker_process_setup_hook": seat_sleepers})
        with tempfile.TemporaryDirectory() as folder:
            run_study(plan, Path(folder) / "study", LOCAL, None, observe)
    finally:
        ray.shutdown()
        cluster.shutdown()
    return seen


def figures(seen: list[Seen], slots: int) -> dict[str, float]:
    """While every slot had a trial to run."""
    attempts = [at for at in seen if at.group_id]
    started = {at.group_id: at for at in reversed(attempts)}  # a group's first trial
    full = max(started.values(), key=lambda at: at.at_s)
    window = [at for at in seen if full.at_s < at.at_s <= attempts[-1].at_s]
    reports = sum(at.kind == "report" for at in window)
    wall_s = window[-1].at_s - full.at_s
    quarter = len(window) // 4
    early, late = window[quarter : 2 * quarter], window[-quarter:]
    return {
        "busy_fraction": reports * STEP_S / (slots * wall_s),
        "driver_cpu_ms_per_report": 1000 * (window[-1].cpu_s - full.cpu_s) / reports,
        "rss_growth_bytes": statistics.median(at.rss_bytes for at in late)
        - statistics.median(at.rss_bytes for at in early),
        "reports": reports,
        "wall_s": wall_s,
    }


def main() -> None:
    """One study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--trials", type=int, default=1000, help="a multiple of 50")
    parser.add_argument("--slots", type=int, default=64, help="trials at a time")
    parser.add_argument("--nodes", type=int, default=16, help="raylets to spread the slots over")
    arguments = parser.parse_args()
    result = figures(run(plan_of(arguments.trials), arguments.nodes, arguments.slots), arguments.slots)
    show(
        f"{arguments.trials} trials on {arguments.slots} slots of {arguments.nodes} nodes, steps of {STEP_S} s",
        [result],
        result,
        arguments.json,
    )


if __name__ == "__main__":
    main()
