"""Sums over samples, reduced over ranks once."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Tally:
    """Loss, correct answers and number of samples, summed on the device in float64.

    Counts are exact, so an accuracy does not depend on how the samples were spread.
    """

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)

    def add(self, mean_loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: its mean loss, logits (n, classes) and labels (n,)."""
        n = len(labels)
        if n:  # the mean over an empty batch is NaN
            correct = (logits.argmax(dim=1) == labels).sum()
            self.sums += torch.stack((mean_loss.detach() * n, correct, correct.new_tensor(n)))

    def reduce(self) -> tuple[float, float]:
        """(mean loss, accuracy) over all ranks, and start again at zero. Every rank must call it."""
        if dist.is_initialized():
            dist.all_reduce(self.sums)
        loss, correct, count = self.sums.tolist()
        self.sums.zero_()
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
