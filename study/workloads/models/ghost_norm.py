"""Ghost batch norm: each part of a batch is normalized by itself (Hoffer et al. 2017, arXiv:1705.08741)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm


class _GhostNorm(_BatchNorm):
    """Batch norm over ghost batches of `ghost_batch` consecutive samples; in evaluation plain batch norm.

    The running statistics move as if the n ghost batches had come one after the other, which is the sum of the
    paper's algorithm 1: (1 - eta)^n run + sum_i (1 - eta)^(n - i) eta mu_i for i = 1 to n. The exponents printed there
    cannot be meant, as their weights do not add up to 1. What is averaged is torch's unbiased variance.
    """

    def __init__(self, num_features: int, ghost_batch: int, *, eps: float, momentum: float, affine: bool) -> None:
        super().__init__(num_features, eps, momentum, affine)
        self.eta, self.ghost_batch = momentum, ghost_batch

    def extra_repr(self) -> str:
        """Return batch norm's own text, and the ghost batch."""
        return f"{super().extra_repr()}, ghost_batch={self.ghost_batch}"

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (n, channels, ...) as batch norm takes it. Raises ValueError in training if ghost batches do not
        fill x.
        """
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        ghosts, rest = divmod(len(x), self.ghost_batch)
        if rest or not ghosts:
            raise ValueError(f"a batch of {len(x)} cannot be cut into ghost batches of {self.ghost_batch}")
        # A ghost batch's channels become channels of their own, so that one call normalizes them all. Momentum 1
        # leaves the statistics of this batch alone.
        channels, shape = ghosts * self.num_features, x.shape[2:]
        assert self.running_mean is not None
        mean, var = self.running_mean.new_zeros(channels), self.running_mean.new_ones(channels)
        split = x.unflatten(0, (ghosts, self.ghost_batch)).transpose(0, 1)
        weight = None if self.weight is None else self.weight.repeat(ghosts)
        bias = None if self.bias is None else self.bias.repeat(ghosts)
        y = batch_norm(split.reshape(self.ghost_batch, channels, *shape), mean, var, weight, bias, True, 1.0, self.eps)
        self._follow(mean.view(ghosts, -1), var.view(ghosts, -1))
        return y.view(split.shape).transpose(0, 1).reshape(x.shape)

    @torch.no_grad()
    def _follow(self, means: Tensor, variances: Tensor) -> None:
        """Move the running statistics past all ghost batches, (ghosts, channels)."""
        ghosts = len(means)
        later = torch.arange(ghosts - 1, -1, -1, dtype=means.dtype, device=means.device)  # ghosts after each
        weights = self.eta * (1 - self.eta) ** later
        for running, values in ((self.running_mean, means), (self.running_var, variances)):
            assert running is not None
            running.mul_((1 - self.eta) ** ghosts).add_(weights @ values)
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += ghosts


class GhostNorm1d(_GhostNorm, nn.BatchNorm1d):
    """Ghost norm of (n, channels) or (n, channels, length)."""


class GhostNorm2d(_GhostNorm, nn.BatchNorm2d):
    """Ghost norm of (n, channels, height, width)."""


_GHOSTS: dict[type[nn.Module], type[_GhostNorm]] = {nn.BatchNorm1d: GhostNorm1d, nn.BatchNorm2d: GhostNorm2d}


def with_ghost_norm(model: nn.Module, ghost_batch: int) -> nn.Module:
    """Return the model with each batch norm replaced by its ghost, in place; parameters and statistics are kept.

    Raises ValueError for a batch norm that has none: of another kind, without momentum or running statistics.
    """
    if isinstance(model, _BatchNorm):
        return _ghost_of(model, ghost_batch)
    for name, child in model.named_children():
        setattr(model, name, with_ghost_norm(child, ghost_batch))
    return model


def _ghost_of(norm: _BatchNorm, ghost_batch: int) -> _GhostNorm:
    kind = _GHOSTS.get(type(norm))
    if kind is None or norm.momentum is None or not norm.track_running_stats:
        raise ValueError(f"no ghost batch norm for {norm!r}")
    ghost = kind(norm.num_features, ghost_batch, eps=norm.eps, momentum=norm.momentum, affine=norm.affine)
    # The same tensors, so that an optimizer that holds them goes on.
    for name, tensor in (*norm.named_parameters(), *norm.named_buffers()):
        setattr(ghost, name, tensor)
    return ghost.train(norm.training)
