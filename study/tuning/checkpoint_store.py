"""Where the checkpoints of a study's trials lie: files of the driver's, which any node can read."""

from __future__ import annotations

import glob
import logging
import re
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.errors import DiskError, error_context
from study.ledger.atomic_files import remove_unfinished, write_atomic

_NAME = re.compile(r"(?P<trial>.+)@(?P<updates>\d+)-(?P<crc32>[0-9a-f]{8})\.pt")
_CHUNK_BYTES = 1 << 20
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointRef:
    """One checkpoint: the driver's node, and the file there."""

    node_id: str
    path: Path

    def read(self) -> bytes:
        """The checkpoint. Called in a group's own process, wherever it is; needs no shared storage."""
        if ray.get_runtime_context().get_node_id() == self.node_id:
            return self.path.read_bytes()
        there = NodeAffinitySchedulingStrategy(self.node_id, soft=False)
        fetch = ray.remote(Path.read_bytes).options(num_cpus=0, scheduling_strategy=there)
        data: bytes = ray.get(fetch.remote(self.path))
        return data


class CheckpointStore:
    """The newest checkpoints of each trial that is not over, `keep` of them at most.

    A file is named after its trial, the updates that it was taken after, and its own checksum: as a rename gives it
    name and content at once, it is never found half written, and what the disk has done to it since is noticed.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder.absolute(), keep  # a group on this node stands elsewhere

    def put(self, trial_id: str, updates: int, checkpoint: bytes) -> None:
        """Returns when the checkpoint is on disk and the oldest of the trial are gone. Raises DiskError."""
        path = self.folder / f"{trial_id}@{updates}-{zlib.crc32(checkpoint):08x}.pt"
        with error_context(DiskError, path):
            self.folder.mkdir(exist_ok=True)
        write_atomic(path, checkpoint)
        others = [file for file in self._newest_first(trial_id) if file != path]
        _remove(others[self.keep - 1 :])

    def start(self, trial_id: str, updates: int) -> dict[str, Any]:
        """Where an attempt begins, as a part of its configuration: at the newest sound checkpoint of the trial that was
        taken after no more than so many updates, else at the trial's beginning. What is newer or damaged is removed:
        nobody may go on from it. A line is logged on each that is damaged.
        """
        damaged: list[str] = []
        for path in self._newest_first(trial_id):
            at = _updates(path)
            if at <= updates:
                wrong = _damage(path)
                if wrong is None:
                    _tell(damaged, f"from the one before, at {at} updates")
                    return {
                        "snapshot": CheckpointRef(ray.get_runtime_context().get_node_id(), path),
                        "from_updates": at,
                    }
                damaged.append(f"checkpoint {path} is damaged ({wrong})")
            _remove([path])
        _tell(damaged, "from its beginning")
        return {"snapshot": None, "from_updates": 0}

    def remove(self, trial_id: str) -> None:
        """The trial is over."""
        _remove(self.folder.glob(f"{glob.escape(trial_id)}@*.pt"))

    def tidy(self, over: Collection[str]) -> None:
        """Take away what a driver that was killed has left: files half written, checkpoints of trials that are over."""
        remove_unfinished(self.folder)
        _remove(path for path in self.folder.glob("*@*.pt") if path.name.rpartition("@")[0] in over)

    def _newest_first(self, trial_id: str) -> list[Path]:
        found = [path for path in self.folder.glob(f"{glob.escape(trial_id)}@*.pt") if _NAME.fullmatch(path.name)]
        return sorted(found, key=_updates, reverse=True)


def _tell(damaged: list[str], goes_on: str) -> None:
    for one in damaged:
        log.warning("%s: the trial goes on %s", one, goes_on)


def _updates(path: Path) -> int:
    named = _NAME.fullmatch(path.name)
    assert named is not None
    return int(named["updates"])


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, if anything is."""
    crc32 = length = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                crc32, length = zlib.crc32(chunk, crc32), length + len(chunk)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not length:
        return "it is empty"
    return None if path.stem.endswith(f"-{crc32:08x}") else "its checksum does not match"


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with error_context(DiskError, path):
            path.unlink(missing_ok=True)
