"""Sums over samples, reduced over ranks once a report."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


class ReducedSums:
    """Loss, correct answers and number of samples of some batches.

    Counts are exact, so an accuracy does not depend on how the samples were spread. What a step adds stays on the
    device and is summed when it is asked for: a sum each step would be several kernels more.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._losses: list[Tensor] = []  # mean of each batch
        self._correct: list[Tensor] = []
        self._sizes: list[int] = []

    def add(self, mean_loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss, logits (n, classes) and labels (n,)."""
        if len(labels):  # the mean over an empty batch is NaN
            self._losses.append(mean_loss.detach())
            self._correct.append((logits.detach().argmax(dim=1) == labels).sum())
            self._sizes.append(len(labels))

    def reduce(self) -> tuple[float, float]:
        """Return (mean loss, accuracy) over all ranks, NaN without samples, and start again at zero. Every rank must
        call it.
        """
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        if self._sizes:
            sizes = torch.tensor(self._sizes, dtype=torch.float64, device=self.device)
            sums[0] = (torch.stack(self._losses).double() * sizes).sum()
            sums[1] = torch.stack(self._correct).sum()
            sums[2] = sizes.sum()
        self._losses, self._correct, self._sizes = [], [], []
        if dist.is_initialized():
            dist.all_reduce(sums)
        loss, correct, count = sums.tolist()
        return (loss / count, correct / count) if count else (float("nan"), float("nan"))


def average_statistics(model: nn.Module) -> None:
    """Give every rank the mean of the ranks' batch-norm running statistics. Every rank must call it.

    DDP would broadcast rank 0's before each forward pass: a collective per step, and the other ranks' batches lost.
    """
    if dist.is_initialized():
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= dist.get_world_size()
