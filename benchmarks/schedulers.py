"""What a search costs and what its choices are worth: every scheduler replayed on full grids of learning curves.

Two grids that the product itself runs, of 7 batch sizes x 6 rates x 9 seeds, 27 epochs each: scikit-learn's digits, on
which the brackets were tuned, and a synthetic teacher, on which they were not. A draw is a study of one of the seeds in
random order on 2 slots, and the others judge its choices. With --tables, a folder of public curves of one seed: as they
are, on 16 slots, and with the rates of each batch size permuted, so that batch sizes have nothing in common.
Then the simulator's speed: 100,000 trials over 1,000 slots, on curves made by formula.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console
from show import show

from study.analysis.replay.contenders import CONTENDERS, contenders
from study.analysis.replay.curve_table import read_curves
from study.analysis.replay.curves import Curve, curves_of
from study.analysis.replay.replay import play, pooled, replay
from study.analysis.summary.summarize import summarize
from study.config.loader import load_study
from study.ledger.store import read
from study.planning.trials import Cell, make_plan
from study.reporting.text.replay import print_replay, replay_record

WORKLOADS = {"digits": {"kind": "digits"}, "teacher": {"kind": "teacher", "train_samples": 2048}}
BATCH_SIZES = [16, 32, 64, 128, 256, 512, 1024]
EPOCHS = 27
SLOTS = 2
MANY_TRIALS, MANY_SLOTS = 100_000, 1_000


def make_grid(name: str, folder: Path) -> None:
    """Run a study that stops nothing."""
    config = {
        "name": name,
        "workload": WORKLOADS[name],
        "batch_sizes": BATCH_SIZES,
        "search": {"lr": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0], "seeds": 9},
        "budget": {"epochs": EPOCHS},
        "scheduler": {"kind": "grid"},
        "confirm": {"seeds": 1},
    }
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "study", "run", str(file), "--out", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})


def read_grid(folder: Path) -> tuple[Curve, ...]:
    """The curves of a grid that was run."""
    plan = make_plan(load_study(folder / "config.yaml").config)
    return curves_of(summarize(read(folder).rows, plan))


def permuted(curves: Sequence[Curve], chance: np.random.Generator) -> tuple[Curve, ...]:
    """The same curves, with the rates of each batch size exchanged among themselves."""
    rates = sorted({curve.lr for curve in curves})
    becomes = {}
    for cell in sorted({curve.cell for curve in curves}, key=lambda cell: cell.batch_size):
        for rate, other in zip(rates, chance.permutation(rates), strict=True):
            becomes[cell, rate] = float(other)
    return tuple(replace(curve, lr=becomes[curve.cell, curve.lr]) for curve in curves)


def replay_tables(folder: Path, draws: int) -> dict[str, object]:
    """Replay the main searches on a folder of tables."""
    chosen = contenders("ridge,ridge:careful,frontier_asha,frontier_asha:quick,asha,random,grid")
    curves = {path.name: read_curves(path) for path in sorted(folder.glob("*.csv"))}
    chance = np.random.default_rng(0)
    mixed = {name: permuted(table, chance) for name, table in curves.items()}
    result = {}
    for title, tables, slots in (
        ("tables", curves, SLOTS), ("tables_16_slots", curves, 16), ("permuted_tables", mixed, SLOTS)
    ):  # fmt: skip
        replayed = pooled([replay(name, table, chosen, draws, slots) for name, table in tables.items()])
        print(f"\n{title}")
        print_replay(replayed, Console())
        result[f"{title}_schedulers"] = replay_record(replayed)["schedulers"]
    return result


def many_curves() -> list[Curve]:
    """Learning curves by formula: rates differ in how good they get, seeds and reports in luck."""
    chance = np.random.default_rng(0)
    epochs = np.arange(1, EPOCHS + 1)
    curves = []
    for i in range(MANY_TRIALS):
        cell = Cell(BATCH_SIZES[i % len(BATCH_SIZES)], 1)
        accuracy = chance.uniform() * (1 - np.exp(-epochs / 5)) + chance.normal(0, 0.02, EPOCHS)
        cost_s = epochs * (16 / cell.batch_size + 0.1) * chance.uniform(0.97, 1.03)
        curves.append(
            Curve(
                trial_id=f"t{i}",
                cell=cell,
                lr=0.1,
                seed=i,
                epochs=tuple(epochs.tolist()),
                shares=tuple((epochs / EPOCHS).tolist()),
                cost_s=tuple(cost_s.tolist()),
                quality=tuple(accuracy.tolist()),
                test_quality=None,
                completed=True,
            )
        )
    return curves


def seconds_for_many(names: list[str]) -> dict[str, float]:
    """How long each scheduler's replay of the many trials takes."""
    curves, seconds = many_curves(), {}
    for name in names:
        began = time.perf_counter()
        play(CONTENDERS[name], curves, np.random.default_rng(0), MANY_SLOTS)
        seconds[name] = time.perf_counter() - began
    return seconds


def main() -> None:
    """Make what grids are missing, replay, and time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--curves", type=Path, help="folder of grids: used if they are there, else made there")
    parser.add_argument("--shuffles", type=int, default=100, help="draws of each grid to replay")
    parser.add_argument("--tables", type=Path, help="folder of public curves, as `study replay` reads them")
    parser.add_argument("--draws", type=int, default=3, help="draws of each table")
    arguments = parser.parse_args()
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as scratch:
        home: Path = arguments.curves or Path(scratch)
        home.mkdir(parents=True, exist_ok=True)
        for name in WORKLOADS:
            if not (home / name).exists():
                make_grid(name, home / name)
            replayed = replay(name, read_grid(home / name), CONTENDERS.values(), arguments.shuffles, SLOTS, seeds=1)
            print(f"\n{name}")
            print_replay(replayed, Console(), every_column=True)
            result["schedulers" if name == "digits" else f"{name}_schedulers"] = replay_record(replayed)["schedulers"]
    if arguments.tables is not None and arguments.tables.is_dir():
        result |= replay_tables(arguments.tables, arguments.draws)
    else:
        print("\nNo folder of public curves (--tables): skipped.")
    seconds = seconds_for_many(["frontier_asha", "frontier_asha:async", "asha"])
    result["many_trials_s"] = seconds
    title = f"{MANY_TRIALS:,} trials over {MANY_SLOTS:,} slots"
    show(title, [{"scheduler": name, "seconds": taken} for name, taken in seconds.items()], result, arguments.json)


if __name__ == "__main__":
    main()
