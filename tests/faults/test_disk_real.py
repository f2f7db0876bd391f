"""A disk that is really full: a file system in memory, and a study in it that is refused row, checkpoint and report."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import yaml

from study.ledger.paths import StudyPaths
from study.ledger.schema import ReportRow
from study.ledger.store import read
from tests.conftest import TINY, lacking, make_config, run_for_real, wait_for
from tests.faults.conftest import Injections
from tests.faults.failing_disk import unfinished
from tests.faults.ledger_audit import audit, curves
from tests.faults.test_machines import begin, rows_of

DISK_BYTES = 3 << 20  # too small for the page of a report
LONG: dict[str, Any] = TINY | {
    "batch_sizes": [16],
    "search": {"lr": [0.1]},
    "budget": {"epochs": 200},
    "confirm": {"seeds": 1},
    "scheduler": {"kind": "grid"},
}


def accuracies(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    """What each trial reported, without the clock."""
    found = curves(read(folder).rows).items()
    return {name: [(row.updates, row.train_loss, row.val_accuracy) for row in curve] for name, curve in found}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(place)]
    refused = subprocess.run(mount, capture_output=True, text=True) if shutil.which("mount") else None
    if refused is None or refused.returncode:
        lacking(f"cannot mount a tmpfs here: {refused.stderr if refused else 'no mount'}", "REQUIRE_TMPFS")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, leave_bytes: int = 0) -> Path:
    """All of it but so much."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while shutil.disk_usage(disk).free > leave_bytes:
            file.write(bytes(4096))
    return ballast


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_a_real_disk_is_full_three_times_and_the_study_ends_as_an_undisturbed_one(
    local_ray: None, small_disk: Path, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    """At a row, then at a checkpoint, then at the report."""
    line = faults("disk full, for real")
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(LONG))
    folder = small_disk / "s"

    def refused_at(process: subprocess.Popen[str], file: str, go_on: str) -> None:
        printed, _ = process.communicate(timeout=200)
        assert process.returncode == 4, printed
        assert "Traceback" not in printed
        [told] = [one for one in printed.splitlines() if one.startswith("study: ")]
        reason = "No space left on device. Once that is mended, go on with"
        assert re.fullmatch(rf"study: \S*disk/s/{file}: {reason}: study {go_on} disk/s", told)
        assert not unfinished(folder)

    processes = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        processes.append(begin(tmp_path, *arguments))
        return processes[-1]

    try:
        process = start("run", "long", "--out", "disk/s", "--cpus", "1")
        wait_for(lambda: len(rows_of(folder, ReportRow)) > 2, process)
        line.inject()
        before = list(read(folder).rows)
        ballast = fill(small_disk)
        refused_at(process, re.escape(StudyPaths.LEDGER), "resume")
        assert list(read(folder).rows)[: len(before)] == before
        ballast.unlink()

        process = start("resume", "disk/s", "--cpus", "1", "--set", "recovery.checkpoint_every_s=0")
        wait_for(lambda: len(list(folder.glob(f"{StudyPaths.CHECKPOINTS}/*.pt"))) == 2, process)
        line.inject()
        ballast = fill(small_disk, leave_bytes=12 << 10)
        refused_at(process, rf"{StudyPaths.CHECKPOINTS}/\S+\.pt", "resume")
        kept = list(folder.glob(f"{StudyPaths.CHECKPOINTS}/*.pt"))
        assert len(kept) == 2
        assert all(f"{crc32(path.read_bytes()):08x}" in path.name for path in kept)
        ballast.unlink()

        line.inject()
        process = start("resume", "disk/s", "--cpus", "1")
        refused_at(process, r"report/report\.html", "report")
        assert not list(folder.glob("report/*"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
        printed, _ = start("report", "disk/s").communicate(timeout=100)
        assert "report.html" in printed
    finally:
        for process in processes:
            process.kill()
            process.wait()
    run_for_real(make_config(**LONG), tmp_path / "undisturbed")
    assert accuracies(folder) == accuracies(tmp_path / "undisturbed")
    assert not list(folder.glob(f"{StudyPaths.CHECKPOINTS}/*"))
    line.survived(audit(read(folder).rows), times=3)
