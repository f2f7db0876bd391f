"""All that a trial needs to go on from a report as if it had never paused, as one string of bytes."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

State = dict[str, Any]
_ARGUMENTS = {
    f"{prefix}{name}" for prefix in ("", "datamodule_") for name in ("hyper_parameters", "hparams_name", "hparams_type")
}
IN_MEMORY = "memory"  # for Lightning, which asks for a path


class InMemoryCheckpoints:
    """The methods of Lightning's CheckpointIO, its extension point for the storage of checkpoints: the last is kept in
    memory.
    """

    def __init__(self, checkpoint: State | None = None) -> None:
        self.checkpoint = checkpoint

    def save_checkpoint(self, checkpoint: State, path: Any, storage_options: Any = None) -> None:
        """Keep it, without the arguments of a user's classes: those are built from the study file again."""
        self.checkpoint = {key: value for key, value in checkpoint.items() if key not in _ARGUMENTS}

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> State:
        """Return the checkpoint that is kept."""
        assert self.checkpoint is not None
        return self.checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Forget the checkpoint."""
        self.checkpoint = None


def generators() -> State:
    """Return the state of every global random number generator, as plain values and tensors."""
    numpy_state = np.random.get_state(legacy=False)
    numpy_state["state"]["key"] = torch.from_numpy(numpy_state["state"]["key"].astype(np.int64))
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "numpy": numpy_state,
        "python": random.getstate(),
    }


def set_generators(state: Mapping[str, Any]) -> None:
    """Restore a state that `generators` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])
    inner = state["numpy"]["state"]
    np.random.set_state(state["numpy"] | {"state": inner | {"key": inner["key"].numpy().astype(np.uint32)}})
    random.setstate(state["python"])


def join_parts(parts: Sequence[State]) -> bytes:
    """Return the snapshot of a group, from the parts of its ranks, in their order."""
    buffer = io.BytesIO()
    first = parts[0]
    torch.save(
        {
            "updates": first["updates"],
            "worked_s": first["worked_s"],
            "checkpoint": first["checkpoint"],
            "ranks": [part["rank"] for part in parts],
        },
        buffer,
    )
    return buffer.getvalue()


@dataclass(frozen=True)
class Resumed:
    """A snapshot as one rank reads it."""

    updates: int
    worked_s: float  # of training and validation so far, by rank 0's clock
    checkpoint: State  # Lightning's
    rank: State

    @classmethod
    def read(cls, snapshot: bytes, rank: int) -> Resumed:
        """Read tensors and plain values only; nothing that the bytes name is run. Raises pickle.UnpicklingError for
        others.
        """
        state = torch.load(io.BytesIO(snapshot), map_location="cpu", weights_only=True)
        own, checkpoint = state["ranks"][rank], state["checkpoint"]
        if checkpoint is not None and "callbacks" in own:  # a checkpoint has those of rank 0; those of 0.1 no others
            checkpoint["callbacks"] = own["callbacks"]
        return cls(state["updates"], state["worked_s"], checkpoint, own)
