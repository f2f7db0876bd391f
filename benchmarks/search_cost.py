"""What a search costs in real studies, and what its choices are worth: ridge against frontier_asha, balanced.

Both run the same study file but for the scheduler, one after the other on this machine: the embedded digits, and the
language model that ships. Costs are billed device time without the setup of cold groups. Both confirm the rates that
they chose with the same fresh seeds; the difference of the confirmed objective is the mean over batch sizes, seed by
seed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from scipy.stats import ttest_1samp
from show import show

import study

LM = Path(__file__).parents[1] / "tune_configs" / "lm.yaml"
DIGITS = {
    "workload": {"kind": "digits"},
    "batch_sizes": [16, 32, 64, 128, 256, 512],
    "search": {"lr": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]},
    "budget": {"epochs": 12},
    "confirm": {"seeds": 5},
}
SCHEDULERS = ("ridge", "frontier_asha")


def main() -> None:
    """Run both searches on both workloads, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, config in (("digits", DIGITS), ("lm", yaml.safe_load(LM.read_text()))):
            ridge, asha = (_run(Path(scratch), name, config, kind) for kind in SCHEDULERS)
            rows.append({"study": name, **_compared(ridge, asha)})
    result = {f"{row['study']}_{key}": value for row in rows for key, value in row.items() if key != "study"}
    shown = [{key: str(value) if isinstance(value, list) else value for key, value in row.items()} for row in rows]
    show("Ridge over frontier_asha, real studies", shown, result, args.json)


def _run(folder: Path, name: str, config: dict[str, object], kind: str) -> study.StudyResults:
    out, file = folder / f"{name}-{kind}", folder / f"{name}-{kind}.yaml"
    file.write_text(yaml.safe_dump({**config, "name": f"{name}-{kind}", "scheduler": {"kind": kind}}))
    command = [sys.executable, "-m", "study", "run", str(file), "--out", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return study.load(out)


def _compared(ridge: study.StudyResults, asha: study.StudyResults) -> dict[str, object]:
    metric, mode = ridge.summary.objective.metric, ridge.summary.objective.mode
    searches = [_device_h(one, "search") for one in (ridge, asha)]
    totals = [search + _device_h(one, "confirm") for search, one in zip(searches, (ridge, asha), strict=True)]
    ours, theirs = _by_seed(ridge, metric), _by_seed(asha, metric)
    gains = np.array([ours[seed] - theirs[seed] for seed in ours.keys() & theirs.keys()])
    gains = gains if mode == "max" else -gains
    interval = ttest_1samp(gains, 0).confidence_interval()
    return {
        "search_cost_ratio": searches[0] / searches[1],
        "total_cost_ratio": totals[0] / totals[1],
        "objective_difference": float(gains.mean()),  # positive: ridge's choices are better
        "interval": [float(interval.low), float(interval.high)],
    }


def _device_h(results: study.StudyResults, phase: str) -> float:
    chosen = [trial for trial in results.summary.trials if trial.phase == phase]
    return sum(trial.compared(include_setup=False).billed_device_h for trial in chosen)


def _by_seed(results: study.StudyResults, metric: str) -> dict[int, float]:
    """Return the mean of the final objective over batch sizes, for each confirm seed that all of them completed."""
    frame = results.trials.query("phase == 'confirm' and outcome == 'completed'")
    table = frame.pivot_table(index="seed_index", columns="batch_size", values=f"final_{metric}").dropna()
    return {int(seed): float(value) for seed, value in table.mean(axis=1).items()}


if __name__ == "__main__":
    main()
