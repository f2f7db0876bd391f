"""The quickstart study of this tree against that of an older commit, in turns: wall time, and set-up of groups.

The older tree is a worktree of git's in a temporary folder, run by the same interpreter and packages.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from show import show

from study.ledger.schema import LeaseRow
from study.ledger.store import read

HERE = Path(__file__).parents[1]
BASE = "1cea873"  # before the lean loop


def quickstart(tree: Path, out: Path) -> tuple[float, float]:
    """Return the seconds of one study, and its device-seconds of set-up."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "study", "run", "quickstart", "--out", str(out)],
        cwd=out.parent, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
    )  # fmt: skip
    wall_s = time.perf_counter() - began
    leases = [row for row in read(out).rows if isinstance(row, LeaseRow)]
    return wall_s, sum(lease.devices * lease.phases_s["setup"] for lease in leases)


def main() -> None:
    """Run both trees in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--base", default=BASE, help="the older commit")
    arguments = parser.parse_args()
    figures: dict[str, list[tuple[float, float]]] = {"this tree": [], arguments.base: []}
    with tempfile.TemporaryDirectory() as name:
        older = Path(name) / "tree"
        git = ["git", "-C", str(HERE), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(older), arguments.base], check=True)
        try:
            for turn in range(arguments.turns):
                sides = list(zip(figures, (HERE, older), strict=True))
                for side, tree in sides if turn % 2 else reversed(sides):
                    figures[side].append(quickstart(tree, Path(name) / f"{turn}-{tree.name}"))
        finally:
            subprocess.run([*git, "remove", "--force", str(older)], check=True)
    rows, medians = [], {}
    for side, turns in figures.items():
        wall_s, setup_s = (statistics.median(values) for values in zip(*turns, strict=True))
        medians[side] = wall_s, setup_s
        rows.append({"tree": side, "wall s": wall_s, "set-up, device-s": setup_s})
    wall, setup = (a / b for a, b in zip(medians["this tree"], medians[arguments.base], strict=True))
    show("The quickstart study", rows, {"wall_ratio": wall, "setup_ratio": setup}, arguments.json)


if __name__ == "__main__":
    main()
