"""The gradient noise scale, from gradients at two batch sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from study.training.probes.objective import Loss, flat_gradient
from study.workloads.data.batching import Batch

MOST_PARTS = 8


@dataclass(frozen=True)
class GradientNorms:
    """Squared gradient norms at one point, at two batch sizes."""

    small_sq: float  # mean of the parts' |G|^2
    big_sq: float  # |G|^2 of the mean of the parts
    small_batch: int  # samples behind a part
    big_batch: int  # samples behind all parts

    @property
    def gradient_sq(self) -> float:
        """Estimate of the true gradient's |G|^2, without bias; may be negative (McCandlish et al. 2018, A.1)."""
        return (self.big_batch * self.big_sq - self.small_batch * self.small_sq) / (self.big_batch - self.small_batch)

    @property
    def trace(self) -> float:
        """Estimate of tr(S), S the covariance of one sample's gradient, without bias; may be negative (A.1)."""
        return (self.small_sq - self.big_sq) / (1 / self.small_batch - 1 / self.big_batch)


class NoiseScale:
    """B_simple = tr(S) / |G|^2 in samples (McCandlish et al. 2018, arXiv:1812.06162, appendix A.1).

    The ratio of two noisy estimates is biased, so each is averaged first: exponentially, the last 1 / (1 - decay)
    counting most. The averages need no correction for their start at 0, for it is the same factor in both.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._trace = self._gradient_sq = 0.0

    def add(self, norms: GradientNorms) -> None:
        """Add one measurement to the averages."""
        self._trace += (1 - self.decay) * (norms.trace - self._trace)
        self._gradient_sq += (1 - self.decay) * (norms.gradient_sq - self._gradient_sq)

    @property
    def b_simple(self) -> float:
        """In samples; infinite while the gradient is hidden by the noise, NaN before the first measurement."""
        if self._gradient_sq <= 0:
            return math.inf if self._trace > 0 else math.nan
        return max(self._trace, 0.0) / self._gradient_sq


def noise_parts(micro_batches: Sequence[Batch], world_size: int) -> list[Batch]:
    """Return a rank's part of an update as the parts to compare: its micro batches.

    With one rank and one micro batch there is nothing to compare, so that is split into up to 8 equal parts. Raises
    ValueError where a batch cannot be split.
    """
    if world_size * len(micro_batches) > 1:
        return list(micro_batches)
    x, y = micro_batches[0]
    parts = next((n for n in range(MOST_PARTS, 1, -1) if len(y) % n == 0), None)
    if parts is None:
        raise ValueError(f"a batch of {len(y)} has no equal parts (2 to {MOST_PARTS}) to compare")
    return list(zip(x.chunk(parts), y.chunk(parts), strict=True))


def gradient_norms(loss: Loss, parameters: Sequence[nn.Parameter], parts: Sequence[Batch]) -> GradientNorms:
    """Return norms over this rank's parts and those of the other ranks; every rank must call it.

    All parts, on every rank, hold the same number of samples. `loss` is the plain module's, not DDP's, whose hooks
    would average before there is anything to compare.
    """
    total = sum(parameter.numel() for parameter in parameters)
    # Gradient, its squared norm, and a count, summed over the parts: one collective for all three.
    sums = torch.zeros(total + 2, dtype=torch.float64, device=parameters[0].device)
    for part in parts:
        gradient = flat_gradient(loss(part), parameters).double()
        sums[:total] += gradient
        sums[total] += gradient @ gradient
        sums[total + 1] += 1
    if dist.is_initialized():
        dist.all_reduce(sums)
    count = int(sums[-1])
    mean = sums[:total] / count
    size = len(parts[0][1])
    return GradientNorms(float(sums[total]) / count, float(mean @ mean), size, size * count)
