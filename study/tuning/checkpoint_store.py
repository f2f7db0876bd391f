"""The checkpoints of a study's trials: files on the driver's node, which any node can read."""

from __future__ import annotations

import glob
import logging
import re
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.errors import DiskError, error_context
from study.ledger.atomic_files import remove_unfinished, write_atomic

_NAME = re.compile(r"(?P<trial>.+)@(?P<updates>\d+)-(?P<crc32>[0-9a-f]{8})\.pt")
_CHUNK_BYTES = 1 << 20
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointRef:
    """A checkpoint by the driver's node and the file there; plain data, so that it can cross to any process."""

    node_id: str
    path: Path
    updates: int  # that it was taken after

    def read(self) -> bytes:
        """Return the checkpoint. Works in a process on any node of the cluster, without shared storage."""
        if ray.get_runtime_context().get_node_id() == self.node_id:
            return self.path.read_bytes()
        there = NodeAffinitySchedulingStrategy(self.node_id, soft=False)
        fetch = ray.remote(Path.read_bytes).options(num_cpus=0, scheduling_strategy=there)
        data: bytes = ray.get(fetch.remote(self.path))
        return data


class CheckpointStore:
    """Holds the newest checkpoints of each trial that has not ended, at most `keep` per trial.

    A file is named after its trial, the updates that it was taken after, and its own checksum. A rename gives it name
    and content at once, so that it is never found half written; the checksum detects later damage.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder.absolute(), keep  # actors run in another working directory

    def put(self, trial_id: str, updates: int, checkpoint: bytes) -> None:
        """Write a checkpoint durably, then remove the trial's oldest beyond `keep`. Raises DiskError."""
        path = self.folder / f"{trial_id}@{updates}-{zlib.crc32(checkpoint):08x}.pt"
        with error_context(DiskError, path):
            self.folder.mkdir(exist_ok=True)
        write_atomic(path, checkpoint)
        others = [file for file in self._newest_first(trial_id) if file != path]
        _remove(others[self.keep - 1 :])

    def start(self, trial_id: str, updates: int) -> CheckpointRef | None:
        """Return the checkpoint that the next attempt starts from; None: it starts at the trial's beginning.

        This is the newest sound one that was taken after at most `updates` updates. Newer and damaged ones are removed,
        because no attempt may go on from them. A damaged one is also logged.
        """
        damaged: list[str] = []
        for path in self._newest_first(trial_id):
            at = _updates(path)
            if at <= updates:
                wrong = _damage(path)
                if wrong is None:
                    _log(damaged, f"from the one before, at {at} updates")
                    return CheckpointRef(ray.get_runtime_context().get_node_id(), path, at)
                damaged.append(f"checkpoint {path} is damaged ({wrong})")
            _remove([path])
        _log(damaged, "from its beginning")
        return None

    def remove(self, trial_id: str) -> None:
        """Remove all checkpoints of a trial, because it has ended. Raises DiskError."""
        _remove(self.folder.glob(f"{glob.escape(trial_id)}@*.pt"))

    def tidy(self, ended: Collection[str]) -> None:
        """Remove what a killed driver has left: half-written files, and checkpoints of the `ended` trials."""
        remove_unfinished(self.folder)
        _remove(path for path in self.folder.glob("*@*.pt") if path.name.rpartition("@")[0] in ended)

    def _newest_first(self, trial_id: str) -> list[Path]:
        found = [path for path in self.folder.glob(f"{glob.escape(trial_id)}@*.pt") if _NAME.fullmatch(path.name)]
        return sorted(found, key=_updates, reverse=True)


def _log(damaged: list[str], goes_on: str) -> None:
    for one in damaged:
        log.warning("%s: the trial goes on %s", one, goes_on)


def _updates(path: Path) -> int:
    named = _NAME.fullmatch(path.name)
    assert named is not None
    return int(named["updates"])


def _damage(path: Path) -> str | None:
    """Return what is wrong with a checkpoint's file, None if nothing is."""
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
