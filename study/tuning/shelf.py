"""Where paused trials lie: files of the driver's, which any node can read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.ledger.files import write_atomic


@dataclass(frozen=True)
class Shelved:
    """One snapshot: the driver's node, and the file there."""

    node_id: str
    path: Path

    def read(self) -> bytes:
        """The snapshot. Called in a group's own process, wherever it is; needs no shared storage."""
        if ray.get_runtime_context().get_node_id() == self.node_id:
            return self.path.read_bytes()
        there = NodeAffinitySchedulingStrategy(self.node_id, soft=False)
        fetch = ray.remote(Path.read_bytes).options(num_cpus=0, scheduling_strategy=there)
        data: bytes = ray.get(fetch.remote(self.path))
        return data


class Shelf:
    """One file a paused trial, replaced when it pauses again and removed when it is over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()  # a group on this node stands elsewhere

    def put(self, trial_id: str, updates: int, snapshot: bytes) -> None:
        """Returns when the snapshot is on disk and older ones of the trial are gone."""
        self.folder.mkdir(exist_ok=True)
        path = self._path(trial_id, updates)
        write_atomic(path, snapshot)
        self._remove(trial_id, but=path)

    def find(self, trial_id: str, updates: int) -> Shelved | None:
        """The trial's snapshot after so many updates, if it is there."""
        path = self._path(trial_id, updates)
        return Shelved(ray.get_runtime_context().get_node_id(), path) if path.exists() else None

    def remove(self, trial_id: str) -> None:
        """The trial is over."""
        self._remove(trial_id)

    def _remove(self, trial_id: str, but: Path | None = None) -> None:
        for path in self.folder.glob(f"{trial_id}@*.pt"):
            if path != but:
                path.unlink()

    def _path(self, trial_id: str, updates: int) -> Path:
        return self.folder / f"{trial_id}@{updates}.pt"
