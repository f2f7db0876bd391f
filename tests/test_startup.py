"""The commands load only the libraries they need: `benchmarks/startup.py` measures what that saves."""

from __future__ import annotations

import lzma
import os
import subprocess
import sys
from pathlib import Path

import pytest

from study import __version__

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "tests" / "frozen" / "quickstart"
HEAVY = {"ray", "torch", "scipy", "pandas", "plotly", "lightning", "pytorch_lightning"}


def run_and_list(code: str) -> tuple[str, set[str]]:
    """Return what a fresh interpreter prints for `code`, and the top-level modules that it has loaded then."""
    lister = "import atexit, sys; atexit.register(lambda: print(*sys.modules, sep='\\n', file=sys.stderr))"
    done = subprocess.run(
        [sys.executable, "-c", f"{lister}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return done.stdout, {name.partition(".")[0] for name in done.stderr.splitlines()}


def command(*arguments: str) -> str:
    return f"sys.argv = ['study', *{arguments!r}]; from study.cli.app import main; main()"


@pytest.mark.parametrize(
    ("code", "says"),
    [(command("--help"), "Usage"), (command("--version"), __version__), ("import study", "")],
    ids=["help", "version", "import"],
)
def test_help_and_import_load_no_heavy_library(code: str, says: str) -> None:
    printed, loaded = run_and_list(code)
    assert says in printed
    assert not loaded & (HEAVY | {"numpy"})


def test_status_loads_neither_ray_nor_torch_nor_plotly(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes((QUICKSTART / "config.yaml").read_bytes())
    (tmp_path / "ledger.jsonl").write_bytes(lzma.decompress((QUICKSTART / "ledger.jsonl.xz").read_bytes()))
    printed, loaded = run_and_list(command("status", str(tmp_path)))
    assert "25/25" in printed
    assert not loaded & (HEAVY | {"numpy", "rich"})
