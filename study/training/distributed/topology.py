"""Where a rank is. The process that drives a group needs it too, so torch is imported only by a rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RankTopology:
    """One rank's position in its group, on its node and on its device."""

    rank: int
    world_size: int
    local_rank: int  # among the ranks of its node
    local_world_size: int
    node_rank: int
    device: str  # "cpu" or "cuda"
    gpu: int = 0  # number of its GPU, among those that its process sees
    gpu_share: float = 1.0  # below 1, other ranks are on the same GPU

    @property
    def torch_device(self) -> torch.device:
        """Return the torch device that this rank trains on."""
        import torch

        return torch.device("cpu") if self.device == "cpu" else torch.device("cuda", self.gpu)
