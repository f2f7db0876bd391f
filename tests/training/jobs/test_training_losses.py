"""The sum of a module's losses, kept until a report asks for it."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from study.config.workloads import Custom
from study.training.jobs.training_losses import TrainingLosses
from study.training.preflight.dry_run import ALONE


class Running(pl.LightningModule):
    """Returns one buffer, which it changes in place at each step."""

    def __init__(self, automatic: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.automatic_optimization = automatic
        self.register_buffer("loss", torch.zeros((), dtype=dtype))

    def training_step(self, batch: float, batch_idx: int) -> Tensor:
        """Return the running sum of the batches."""
        return self.loss.add_(batch)  # type: ignore[no-any-return, operator]


@pytest.mark.parametrize("automatic", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loss_that_is_changed_in_place_later_counts_as_it_was(automatic: bool, dtype: torch.dtype) -> None:
    module = Running(automatic, dtype)
    losses = TrainingLosses(Custom(module="a:B", train_samples=4), module, ALONE, 1)
    for number, batch in enumerate((1.0, 2.0, 4.0)):
        module.training_step(batch, number)
    assert (losses.loss_sum, losses.weight_sum) == (1 + 3 + 7, 3)
    losses.start()
    assert (losses.loss_sum, losses.weight_sum) == (0, 0)
