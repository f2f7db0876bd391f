"""The losses that a user's `training_step` returns: their sums since the last report, and weighted gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import wraps
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor

from study.config.workloads import Custom
from study.errors import ConfigError
from study.training.distributed.topology import RankTopology

TRAIN_LOSS = "train_loss"  # looked for where no name is given


class TrainingLosses:
    """Wraps the module's `training_step` to see every loss as the module returned it.

    Lightning passes on only its quotient by the accumulation.
    """

    def __init__(self, config: Custom, module: pl.LightningModule, topology: RankTopology, accumulation: int) -> None:
        self.config, self.module, self.topology, self.accumulation = config, module, topology, accumulation
        self._logged: dict[str, Any] = {}  # in the current training_step
        self._unit: Any = 1.0  # that weights are divided by, a power of two: it changes no digit of a gradient
        self.start()
        self._wrap_training_step()
        if config.loss_weight is not None or not module.automatic_optimization:
            self._wrap_log()

    def start(self) -> None:
        """Begin the sums of the next report."""
        self._losses: list[Tensor] = []  # float64; summed when asked for, which is fewer kernels a step
        self._weights: list[float] = []
        self.skipped = 0  # micro batches for which training_step returned no loss
        self._update_weight = 0.0  # of the micro batches since the last update

    @property
    def loss_sum(self) -> float:
        """This rank's losses since `start`, each times its weight. Waits for the device."""
        if not self._losses:
            return 0.0
        losses = torch.stack([loss.reshape(()) for loss in self._losses])
        return float((losses * torch.tensor(self._weights, dtype=torch.float64, device=losses.device)).sum())

    @property
    def weight_sum(self) -> float:
        """What `loss_sum` is divided by for the mean: 1 for each micro batch, or the weights that were logged."""
        return math.fsum(self._weights)

    def _wrap_training_step(self) -> None:
        original = self.module.training_step

        @wraps(original)
        def training_step(*args: Any, **kwargs: Any) -> Any:
            self._logged.clear()
            output = original(*args, **kwargs)
            if not self.module.automatic_optimization:
                self._add_loss_by_hand(output)
                return output
            if output is None:
                self.skipped += 1
                # DDP's other ranks wait for gradients; alone, Lightning skips the batch.
                return self.no_gradient() if self.topology.world_size > 1 else None
            loss = output.get("loss") if isinstance(output, Mapping) else output
            if not isinstance(loss, Tensor):
                raise ConfigError("its training_step returns no loss", "workload.module")
            weight = self.weight_of(output)
            if weight == 0:  # a mean over nothing is NaN, and counts nothing
                return self.no_gradient()
            self._add(loss, weight)
            if self.config.loss_weight is None:
                return output
            self._update_weight += weight
            weighted = loss * (weight / self._unit)
            return {**output, "loss": weighted} if isinstance(output, Mapping) else weighted

        self.module.training_step = training_step  # type: ignore[method-assign]

    def _add_loss_by_hand(self, output: Any) -> None:
        """Add the loss of a step that optimized by hand: as it was returned, or else logged. Raises ConfigError."""
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if loss is None:
            loss = self._logged.get(self.config.train_loss or TRAIN_LOSS)
        if not isinstance(loss, Tensor | float | int):
            named = ", ".join(sorted(self._logged)) or "nothing"
            raise ConfigError(
                "training_step optimizes by hand and returns no loss: return one, or give the name under which it logs "
                f"one; it logs {named}",
                "workload.train_loss",
            )
        self._add(loss, 1.0)

    def _add(self, loss: Any, weight: float) -> None:
        """Keep a copy: the module may change the tensor in place, or get it out of memory that is used again."""
        self._losses.append(torch.as_tensor(loss).detach().to(self.module.device, torch.float64, copy=True))
        self._weights.append(weight)

    def no_gradient(self) -> Tensor:
        """Return a loss that is zero for any weights of the network."""
        return sum((0.0 * weight.sum() for weight in self.module.parameters() if weight.requires_grad), torch.zeros(()))

    def _wrap_log(self) -> None:
        original = self.module.log

        @wraps(original)
        def log(name: str, value: Any, *args: Any, **kwargs: Any) -> None:
            self.note_logged(name, value)
            original(name, value, *args, **kwargs)

        self.module.log = log  # type: ignore[method-assign]

    def note_logged(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        """Keep what is logged in the current training step, for weights and losses; takes what `log` takes."""
        self._logged[name] = value.detach() if isinstance(value, Tensor) else value

    def weight_of(self, output: Any) -> float:
        """Return how much a loss counts: 1, or what `training_step` returned or logged as `workload.loss_weight`.

        A weight on a GPU is waited for, once: a micro batch that counts nothing must not reach the backward pass.
        Raises ConfigError if there is none, or it is no weight.
        """
        key = self.config.loss_weight
        if key is None:
            return 1.0
        weight = output.get(key) if isinstance(output, Mapping) else None
        if weight is None:
            weight = self._logged.get(key)
        if weight is None:
            raise ConfigError(
                f"its training_step neither returns a dict with {key} nor logs {key}", "workload.loss_weight"
            )
        if isinstance(weight, Tensor):
            weight = weight.detach() if weight.numel() == 1 else math.nan
        number = float(weight)
        if not (math.isfinite(number) and number >= 0):
            raise ConfigError(f"{key} must be one number of 0 or more", "workload.loss_weight")
        return number

    def scale_gradients(self) -> None:
        """Turn the gradients of weighted losses into that of the weighted mean over the global batch.

        Lightning divides each loss by the accumulation, and DDP the sum by the ranks. With weights w and losses l, the
        gradient of sum(w l) / sum(w) remains. Every rank must call it, between the last backward pass and the step.

        The weights of the next update are divided by about the mean weight of this one: losses thousands of times as
        large would overflow float16, and Lightning would leave out updates until it had a scale for them.
        """
        if self.config.loss_weight is None:
            return
        total = torch.tensor(self._update_weight, dtype=torch.float32, device=self.module.device)
        if dist.is_initialized():
            dist.all_reduce(total)
        mean = total / (self.accumulation * self.topology.world_size)
        factor = self._unit / mean.clamp(min=torch.finfo(mean.dtype).tiny)
        for weight in self.module.parameters():
            if weight.grad is not None:
                weight.grad.mul_(factor.to(weight.grad.dtype))
        self._update_weight = 0.0
        self._unit = torch.where(mean > 0, mean / torch.frexp(mean).mantissa, self._unit)
