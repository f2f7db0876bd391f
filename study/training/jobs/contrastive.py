"""SimCLR as a trial: trained on NT-Xent, judged by a linear probe of its features."""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl

from study.config.workloads import Contrastive
from study.measurement import Metrics
from study.planning.trials import TrialSpec
from study.training.distributed.topology import RankTopology
from study.training.jobs.base import TensorJob
from study.training.jobs.simclr import SimCLR, few_labelled, probe_together
from study.training.snapshot import Resumed
from study.workloads.data.splits import Splits
from study.workloads.models.small import mlp


class ContrastiveJob(TensorJob):
    """Validation loss and accuracy are those of a linear probe, fitted anew at each report on a few labels."""

    def __init__(
        self, config: Contrastive, spec: TrialSpec, place: RankTopology, splits: Splits, resumed: Resumed | None
    ) -> None:
        super().__init__(spec, place, splits, resumed)
        encoder = mlp(splits.train.x[0].numel(), config.width, splits.classes)[:-1]
        self.module = SimCLR(encoder, config.width, config.temperature, spec.seed)
        self.labelled = few_labelled(splits.train, config.probe_labels)
        self.splits = splits

    def metrics(self, trainer: pl.Trainer) -> Metrics:
        """Fit the linear probe and judge it on the validation split."""
        probe = probe_together(self.module.encoder, self.labelled, self.splits.val)
        return Metrics(
            train_loss=self.module.mean_loss(), train_accuracy=None, val_loss=probe.loss, val_accuracy=probe.accuracy
        )

    def test_accuracy(self, done: Callable[[], None]) -> float:
        """The probe on the test split, in one go."""
        return probe_together(self.module.encoder, self.labelled, self.splits.test).accuracy

    def probed(self) -> None:
        """The loss depends on views and ranks: it is no function of a batch."""
