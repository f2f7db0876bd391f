"""A user's own module and data, for the tests of `workload: custom`."""

from __future__ import annotations

import time

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class LinearModule(pl.LightningModule):
    """A linear classifier whose training step takes `step_s` seconds, give or take nothing.

    Of more than `most` samples it runs out of memory as a GPU would, on `only_rank` if that is given.
    """

    def __init__(
        self, step_s: float = 0.0, fail_at: int | None = None, most: int | None = None, only_rank: int | None = None
    ) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.step_s, self.fail_at, self.most, self.only_rank = step_s, fail_at, most, only_rank

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Wait out the step's duration."""
        if self.fail_at is not None and self.global_step >= self.fail_at:
            raise ArithmeticError("the module broke down")
        until = time.perf_counter() + self.step_s
        x, y = batch
        if self.most is not None and len(y) > self.most and self.only_rank in (None, self.global_rank):
            activations = x * 2  # noqa: F841
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has 80 GiB.")
        loss = nn.functional.cross_entropy(self.layer(x), y)
        time.sleep(max(until - time.perf_counter(), 0))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log under names of its own."""
        x, y = batch
        logits = self.layer(x)
        accuracy = (logits.argmax(1) == y).float().mean()
        self.log_dict({"acc": accuracy, "loss": nn.functional.cross_entropy(logits, y)}, sync_dist=True)


class LinearData(pl.LightningDataModule):
    """Points on either side of a plane."""

    def __init__(self, batch_size: int, samples: int = 64) -> None:
        super().__init__()
        x = torch.randn(samples, 4, generator=torch.Generator().manual_seed(0))
        self.data, self.batch_size = TensorDataset(x, (x[:, 0] > 0).long()), batch_size

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Shuffled."""
        return DataLoader(self.data, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """The same points."""
        return DataLoader(self.data, 32)
