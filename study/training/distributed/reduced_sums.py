"""Sums over samples, reduced over ranks once a report."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

MOST_WAITING = 2**20  # logits that wait to be counted


class ReducedSums:
    """Loss, correct answers and number of samples of some batches.

    Counts are exact, so an accuracy does not depend on how the samples were spread. Batches wait on the device and are
    counted together: counting at each step would be several kernels more.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._losses: list[Tensor] = []  # mean of each batch
        self._sizes: list[int] = []
        self._logits: list[Tensor] = []  # of batches whose correct answers are not counted yet
        self._labels: list[Tensor] = []
        self._waiting = 0  # logits
        self._correct: list[Tensor] = []

    def add(self, mean_loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss, logits (n, classes) and labels (n,)."""
        if len(labels):  # the mean over an empty batch is NaN
            self._losses.append(mean_loss.detach())
            self._sizes.append(len(labels))
            self._logits.append(logits.detach())
            self._labels.append(labels)
            self._waiting += logits.numel()
            if self._waiting > MOST_WAITING:
                self._count_correct()

    def _count_correct(self) -> None:
        if self._logits:
            logits, labels = (
                parts[0] if len(parts) == 1 else torch.cat(parts) for parts in (self._logits, self._labels)
            )
            self._correct.append((logits.argmax(dim=1) == labels).sum())
        self._logits, self._labels, self._waiting = [], [], 0

    def reduce(self) -> tuple[float, float]:
        """Return (mean loss, accuracy) over all ranks, NaN without samples, and start again at zero. Every rank must
        call it.
        """
        self._count_correct()
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
