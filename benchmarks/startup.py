"""How fast the command answers: `study --help`, `--version`, `status FOLDER` and `import study`.

Each is the wall time of a fresh interpreter as a ratio to `python -c "import typer, rich, pydantic"`, the packages that
the command is made of. Repeats are interleaved, so that a busy machine slows both sides alike; the ratio is of medians.
`status` reads the ledger of a quickstart, 40 trials, from tests/frozen.
"""

from __future__ import annotations

import argparse
import lzma
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from show import show

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "tests" / "frozen" / "quickstart"
BASE = "base"
LIMITS = {"help": 1.6, "version": 1.6, "status": 3.0, "import": 1.0}


def commands(folder: Path) -> dict[str, list[str]]:
    """Return what follows `python`, by name."""
    return {
        BASE: ["-c", "import typer, rich, pydantic"],
        "help": ["-m", "study", "--help"],
        "version": ["-m", "study", "--version"],
        "status": ["-m", "study", "status", str(folder)],
        "import": ["-c", "import study"],
    }


def make_folder(folder: Path) -> None:
    """Write the study folder that `status` reads."""
    shutil.copy(QUICKSTART / "config.yaml", folder)
    (folder / "ledger.jsonl").write_bytes(lzma.decompress((QUICKSTART / "ledger.jsonl.xz").read_bytes()))


def medians_s(repeats: int) -> dict[str, float]:
    """Return the median wall time of each command, in seconds; the first round, which fills caches, does not count."""
    # Bytecode is cached, as it is where the package is installed.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(ROOT)
    with tempfile.TemporaryDirectory() as name:
        make_folder(Path(name))
        times_s: dict[str, list[float]] = {name: [] for name in commands(Path(name))}
        for round_ in range(repeats + 1):
            for command, arguments in commands(Path(name)).items():
                began = time.perf_counter()
                subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE, env=environment)
                if round_:
                    times_s[command].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times_s.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    found_s = medians_s(arguments.repeats)
    rows = [
        {"command": name, "seconds": f"{seconds:.2f}", "ratio": f"{seconds / found_s[BASE]:.2f}",
         "at most": f"{LIMITS[name]:g}" if name in LIMITS else ""}
        for name, seconds in found_s.items()
    ]  # fmt: skip
    result = {f"{name}_ratio": round(found_s[name] / found_s[BASE], 3) for name in LIMITS}
    show("Start of the command", rows, result, arguments.json)


if __name__ == "__main__":
    main()
