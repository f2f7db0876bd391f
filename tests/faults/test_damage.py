"""Checkpoints that the disk, or somebody, has changed: named, not used, and the trial ends as it would have."""

from __future__ import annotations

import os
import pickle
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from errno import EIO
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch

from study.errors import DiskError
from study.ledger.paths import StudyPaths
from study.ledger.schema import AttemptRow, DecisionRow
from study.ledger.store import read
from study.planning.trials import Plan
from study.training.snapshot import Resumed
from study.tuning.checkpoint_store import CheckpointStore
from tests.faults.conftest import Injections
from tests.faults.failing_disk import watched
from tests.faults.ledger_audit import audit
from tests.faults.test_checkpoints import shelved, updates_of
from tests.faults.test_disk import drive, here, plan, told, undisturbed

__all__ = ["here", "plan", "undisturbed"]  # fixtures
SEED = 11


@pytest.fixture
def died(plan: Plan, tmp_path: Path) -> Path:
    """A study whose driver died when a trial had two checkpoints, both of which its ledger knows of."""
    for at in range(1000):
        folder = tmp_path / str(at)
        with watched(folder) as disk, suppress(DiskError):
            disk.refuse(at, EIO, lasting=True)
            drive(plan, folder)
        for trial_id, paths in shelved(folder).items():
            decided = [row for row in read(folder).rows if isinstance(row, DecisionRow) and row.trial_id == trial_id]
            if len(paths) == 2 and {updates_of(path) for path in paths} <= {row.updates for row in decided}:
                return folder
    raise AssertionError("no trial ever had two checkpoints")


def damages(content: bytes) -> list[tuple[str, bytes]]:
    """Some of all prefixes, and of all bits flipped."""
    rng = random.Random(SEED)
    found = [("it is empty", b"")]
    found += [("its checksum does not match", content[:cut]) for cut in rng.sample(range(1, len(content)), 10)]
    for bit in rng.sample(range(8 * len(content)), 20):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        found.append(("its checksum does not match", bytes(flipped)))
    return found


@pytest.mark.parametrize("all_of_them", [False, True])
def test_a_trial_goes_on_from_the_last_sound_checkpoint_and_ends_the_same(
    all_of_them: bool,
    died: Path,
    plan: Plan,
    undisturbed: dict[str, Any],
    tmp_path: Path,
    faults: Callable[[str], Injections],
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = faults("checkpoint damaged")
    [(trial_id, paths)] = [(name, paths) for name, paths in shelved(died).items() if len(paths) == 2]
    begun = sum(isinstance(row, AttemptRow) for row in read(died).rows)
    for number, (wrong, damaged) in enumerate(damages(paths[0].read_bytes())):
        folder = tmp_path / f"damaged-{number}"
        shutil.copytree(died, folder)
        hurt = [folder / path.relative_to(died) for path in (paths if all_of_them else paths[:1])]
        line.inject(len(hurt))
        for path in hurt:
            path.write_bytes(damaged)
        caplog.clear()
        drive(plan, folder)
        goes_on = "from its beginning" if all_of_them else f"from the one before, at {updates_of(paths[1])} updates"
        assert caplog.messages == [
            f"checkpoint {path} is damaged ({wrong}): the trial goes on {goes_on}" for path in hurt
        ]
        rows = read(folder).rows
        after = next(row for row in [r for r in rows if isinstance(r, AttemptRow)][begun:] if row.trial_id == trial_id)
        assert after.from_updates == (0 if all_of_them else updates_of(paths[1]))
        assert told(folder) == undisturbed
        assert not list(StudyPaths(folder).checkpoints.iterdir())
        line.survived(audit(rows), times=len(hurt))


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def saved(state: Any, **options: Any) -> bytes:
    buffer = BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


PICKLES: dict[str, Callable[[Evil], bytes]] = {
    "alone": saved,
    "in a snapshot": lambda evil: saved({"updates": 5, "worked_s": 1.0, "checkpoint": {"x": evil}, "ranks": [{}]}),
    "in torch's old format": lambda evil: saved(evil, _use_new_zipfile_serialization=False),
    "a bare pickle": lambda evil: pickle.dumps(evil, protocol=2),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_checkpoint_with_a_right_checksum_runs_nothing(
    kind: str, tmp_path: Path, faults: Callable[[str], Injections], caplog: pytest.LogCaptureFixture
) -> None:
    line = faults("checkpoint that would run code")
    line.inject()
    marker = tmp_path / "marker"
    shelf = CheckpointStore(StudyPaths(tmp_path).checkpoints, keep=2)
    shelf.put("a", 5, PICKLES[kind](Evil(marker)))
    found = shelf.start("a", 5)
    assert caplog.messages == []  # whoever wrote it knew its checksum
    with pytest.raises(pickle.UnpicklingError):
        Resumed.read(found.path.read_bytes(), rank=0)
    assert not marker.exists()
    with suppress(Exception):  # read carelessly, it would have
        pickle.loads(pickle.dumps(Evil(marker)))
    assert marker.exists()
    line.survived()
