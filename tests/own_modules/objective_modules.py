"""Modules that log other figures than an accuracy. The share of ones in the validation set is 0.4."""

from __future__ import annotations

import math
from typing import Any

from tests.own_modules.user_modules import Batch, Net


class LossOnly(Net):
    """Logs a loss, as a language model does."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_loss", batch[1].float().mean(), sync_dist=True)


class Scores(Net):
    """Logs figures under names of its own, one of which is not defined at first."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        ones = batch[1].float().mean()
        self.log("val/f1", ones, sync_dist=True)
        self.log("val/ppl", ones.exp(), sync_dist=True)
        auc = ones if self.trainer.global_step > 2 else ones * math.nan
        self.log("val/auc", auc, sync_dist=True)


class Undefined(Net):
    """Its figure is never a number."""

    def validation_step(self, batch: Batch, batch_idx: int) -> Any:
        self.log("val/f1", batch[1].float().mean() * math.nan, sync_dist=True)
