"""Makes the frozen studies: `python -m tests.frozen.freeze [NAME ...]`, on a machine with two cores.

What lies here was made on 2026-11-30, before the package was laid out anew. It is the measure of any later code, and is
not made again: `test_frozen.py` says so of every figure. Only what a summary infers (probabilities, intervals of
differences, verdicts of claims, the recommendation) was computed again on 2026-12-01, when ADR 030 changed how.
"""

from __future__ import annotations

import lzma
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from study.ledger.paths import StudyPaths

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STARTED_S = 300.0
DIGITS = {"kind": "digits", "width": 16, "val_samples": 300, "test_samples": 300}
SMALL: dict[str, Any] = {
    "workload": DIGITS,
    "batch_sizes": [16, 64],
    "search": {"lr": [0.02, 0.1, 0.4]},
    "budget": {"epochs": 4},
    "confirm": {"seeds": 3},
    "hardware": {"world_size": 2},
}


def study(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A command of ours, in a process group of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    command = [sys.executable, "-m", "study", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)


def finished(folder: Path, *arguments: str, code: int = 0) -> None:
    """Run a command to its end."""
    found = study(folder, *arguments).wait()
    assert found == code, (arguments, found)


def rows(folder: Path) -> int:
    """Rows of the ledger so far."""
    path = StudyPaths(folder / "s").ledger
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until(true: Callable[[], bool]) -> None:
    """Look often, and not for ever."""
    deadline = time.monotonic() + STARTED_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run(folder: Path, config: dict[str, Any], *options: str, code: int = 0) -> None:
    """A study to its end."""
    (folder / "study.yaml").write_text(yaml.safe_dump({"name": folder.name, **config}))
    finished(folder, "run", "study.yaml", "--out", "s", *options, code=code)


def quickstart(folder: Path) -> None:
    """As it is shipped."""
    finished(folder, "run", "quickstart", "--out", "s")


def variants(folder: Path) -> None:
    """Regime adaptation beside the same epochs, on one rank and on two."""
    config = {
        **SMALL, "budget": {"epochs": 2}, "variants": {"same": {}, "adapted": {"budget": {"regime_batch": 16}}},
        "hardware": {"world_size": [1, 2]}, "price": {"usd_per_device_hour": 2.5}, "report": {"cost": "usd"},
    }  # fmt: skip
    run(folder, config)


def asha(folder: Path) -> None:
    """Trials stopped for good, some of them audited."""
    run(folder, {**SMALL, "scheduler": {"kind": "asha", "audit": 0.5}})


def killed(folder: Path) -> None:
    """The driver killed twice, and gone on with."""
    (folder / "study.yaml").write_text(yaml.safe_dump({"name": folder.name, **SMALL, "budget": {"epochs": 20}}))
    for command in (("run", "study.yaml", "--out", "s"), ("resume", "s")):
        before, process = rows(folder), study(folder, *command)
        wait_until(lambda before=before: rows(folder) > before + 25)  # type: ignore[misc]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finished(folder, "resume", "s")


def cut(folder: Path) -> None:
    """Ended by a limit."""
    run(folder, {**SMALL, "budget": {"epochs": 40}, "limits": {"device_hours": 0.008}}, code=3)


def growth(folder: Path) -> None:
    """Batches that grow."""
    run(folder, {
        "workload": {**DIGITS, "val_samples": 400, "test_samples": 373}, "batch_sizes": [16], "confirm": {"seeds": 3},
        "search": {"lr": [0.05], "lr_rule": "linear", "base_batch": 16}, "budget": {"epochs": 5},
        "schedule": {"kind": "constant", "warmup_fraction": 0.0}, "hardware": {"world_size": 2},
        "growth": {"milestones": [0.4, 0.8], "factor": 4, "largest_batch": 256},
        "variants": {"decay": {"growth": {"largest_batch": 16}}, "grow": {}},
    })  # fmt: skip


def probes(folder: Path) -> None:
    """Every probe, and a target that some trials miss."""
    measured = dict.fromkeys(("noise_scale", "sharpness", "curvature", "serving"), True)
    budget = {"epochs": 6, "target_val_accuracy": 0.93}
    run(folder, {**SMALL, "batch_sizes": [16, 64, 256], "search": {"lr": [0.1]}, "budget": budget, "probes": measured})


def own_module(folder: Path) -> None:
    """The worked example, with its own optimizer."""
    shutil.copytree(ROOT / "examples" / "own_model", folder, dirs_exist_ok=True)
    options = ["workload.optimizer=module", "search.lr=[0.5,1]", "hardware.world_size=2", "budget.epochs=2"]
    finished(folder, "run", "study.yaml", "--out", "s", *(part for option in options for part in ("--set", option)))


def mistaken(folder: Path) -> None:
    """A module that fails in every trial; it is mended then, and the study begins again."""
    shutil.copytree(ROOT / "examples" / "own_model", folder, dirs_exist_ok=True)
    module = folder / "net.py"
    whole = module.read_text()
    module.write_text(whole.replace("x, y = batch\n", "x, y = batch\n        assert self.global_step < 9\n", 1))
    options = ("--no-try", "--set", "budget.epochs=2", "--set", "search.lr=[0.05,0.2]")
    finished(folder, "run", "study.yaml", "--out", "s", *options, code=5)
    module.write_text(whole)
    finished(folder, "resume", "s")


def lost_machine(folder: Path) -> None:
    """A machine with one of two ranks goes away in the middle of a trial."""
    from ray.cluster_utils import Cluster

    from study.errors import LedgerError
    from study.ledger.schema import AttemptRow, ReportRow
    from study.ledger.store import read

    def at_work() -> AttemptRow | None:
        try:
            seen = read(folder / "s").rows
        except LedgerError:
            return None
        begun = [row for row in seen if isinstance(row, AttemptRow)]
        told = {(row.trial_id, row.attempt) for row in seen if isinstance(row, ReportRow)}
        last = begun[-1] if begun else None
        return last if last and len(begun) > 2 and (last.trial_id, last.attempt) in told else None

    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(3):
            cluster.add_node(num_cpus=1, wait=True)
        config = {**SMALL, "budget": {"epochs": 40}, "hardware": {"world_size": 2, "placement": "spread"}}
        (folder / "study.yaml").write_text(yaml.safe_dump({"name": folder.name, **config}))
        process = study(folder, "run", "study.yaml", "--out", "s", "--address", cluster.address)
        wait_until(lambda: at_work() is not None)
        seen = at_work()
        assert seen is not None
        gone = next(node for node in cluster.worker_nodes if node.node_id == seen.nodes[1])
        cluster.remove_node(gone, allow_graceful=False)
        assert process.wait() == 0
    finally:
        cluster.shutdown()
        del os.environ["RAY_AUTH_MODE"], os.environ["RAY_TMPDIR"]


STUDIES = (quickstart, variants, asha, killed, cut, growth, probes, own_module, mistaken, lost_machine)


def main(names: list[str]) -> None:
    """Run the studies that are named, or all, and keep what a reader of ledgers needs of each."""
    for make in STUDIES:
        if names and make.__name__ not in names:
            continue
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / make.__name__
            folder.mkdir()
            make(folder)
            finished(folder, "report", "s", "--format", "json,csv")
            kept = HERE / make.__name__
            kept.mkdir(exist_ok=True)
            shutil.copy(folder / "s" / "config.yaml", kept)
            for name in (StudyPaths.LEDGER, "report/summary.json", "report/points.csv", "report/trials.csv"):
                file = folder / "s" / name
                (kept / f"{file.name}.xz").write_bytes(lzma.compress(file.read_bytes(), preset=9))


if __name__ == "__main__":
    main(sys.argv[1:])
