"""Studies of a user's own module that fails in every trial, on a real Ray, as a user meets them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from study.ledger.schema import AttemptRow, EndRow, LeaseRow, MistakeRow
from study.ledger.store import read
from tests.faults.ledger_audit import Audit, audit

pytestmark = pytest.mark.slow

# Later than what is tried before a study.
BROKEN = """
from tests.linear import LinearModule

class Net(LinearModule):
    def training_step(self, batch, batch_idx):
        if self.global_step >= 6:
            raise IndexError(f"index {len(batch[1])} is out of bounds at {id(self):#x}")
        return super().training_step(batch, batch_idx)
"""
MENDED = BROKEN.replace(">= 6", ">= 10**6")
STUDY = {
    "name": "own", "batch_sizes": [8, 16], "search": {"lr": [0.01, 0.05, 0.1]}, "confirm": {"seeds": 1},
    "budget": {"epochs": 3}, "scheduler": {"kind": "grid"}, "hardware": {"world_size": 2},
    "workload": {
        "kind": "custom", "module": "net:Net", "data": "tests.linear:LinearData", "train_samples": 64,
        "val_accuracy": "acc", "val_loss": "loss",
    },
}  # fmt: skip


def study(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "study", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "100"},
    )  # fmt: skip


def ends(folder: Path) -> list[EndRow]:
    return [row for row in read(folder / "s").rows if isinstance(row, EndRow)]


def test_a_module_that_fails_everywhere_is_paid_for_once_and_goes_on_once_it_is_mended(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(STUDY))
    (tmp_path / "net.py").write_text(BROKEN)
    done = study(tmp_path, "run", "own", "--out", "s", "--cpus", "2")
    assert done.returncode == 5, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(
        r"Ended early: the first trial of every batch size failed with the same mistake, IndexError: index \d is out "
        r"of bounds at 0x[0-9a-f]+ \(net\.py:7\)\. 2 trials failed with it, 6 were not run\. Correct it, then go on "
        r"with: study resume s",
        last,
    )
    assert len(ends(tmp_path)) == 2
    summary = json.loads((tmp_path / "s" / "report" / "summary.json").read_text())
    assert (summary["mistaken"]["failed"], summary["mistaken"]["not_run"]) == (2, 6)
    status = study(tmp_path, "status", "s")
    assert status.returncode == 0
    assert "ended   by the same mistake in every batch size: IndexError" in status.stdout
    assert study(tmp_path, "report", "s").returncode == 0

    again = study(tmp_path, "resume", "s", "--cpus", "2")  # not mended: others are tried first, and fail alike
    assert again.returncode == 5, again.stdout + again.stderr
    assert "Resumed: 0 of 8 trials finished; all begin again" in again.stdout
    assert len({row.trial_id for row in ends(tmp_path)}) == 4

    (tmp_path / "net.py").write_text(MENDED)
    mended = study(tmp_path, "resume", "s", "--cpus", "2")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    rows = read(tmp_path / "s").rows
    assert len([row for row in rows if isinstance(row, MistakeRow)]) == 2
    assert [row.outcome for row in ends(tmp_path)] == ["failed"] * 4 + ["completed"] * 8
    assert audit(rows) == Audit(0.0, 0)
    assert len([row for row in rows if isinstance(row, LeaseRow)]) == len(
        [row for row in rows if isinstance(row, AttemptRow)]
    )
    summary = json.loads((tmp_path / "s" / "report" / "summary.json").read_text())
    assert summary["mistaken"] is None
    assert len(summary["points"]) == 2
    billed_h = sum(row.billed_device_h for row in rows if isinstance(row, LeaseRow))
    assert summary["spend"]["total_device_h"] == pytest.approx(billed_h)
    assert study(tmp_path, "resume", "s", "--cpus", "2").returncode == 0  # and it is finished


def test_a_study_in_which_nothing_completes_for_several_reasons_has_a_code_of_its_own(tmp_path: Path) -> None:
    other = BROKEN.replace("raise IndexError(", "raise (KeyError if len(batch[1]) > 4 else IndexError)(")
    changes = {"batch_sizes": [8, 16], "search": {"lr": [0.05]}, "budget": {"epochs": 2}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(STUDY | changes))
    (tmp_path / "net.py").write_text(other)
    done = study(tmp_path, "run", "own", "--out", "s", "--cpus", "2")
    assert done.returncode == 5, done.stdout + done.stderr
    assert re.fullmatch(
        r"No trial completed: 2 failed \(\w+Error: .* \(net\.py:7\), and others\)\.", done.stdout.splitlines()[-1]
    )
    again = study(tmp_path, "resume", "s", "--cpus", "2")
    assert again.returncode == 5
    assert len(ends(tmp_path)) == 2
