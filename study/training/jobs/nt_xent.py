"""NT-Xent, the loss of SimCLR, over a batch that is spread over ranks."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize


def rank_and_world_size() -> tuple[int, int]:
    """Return (rank, world size); (0, 1) in a process without a group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


class _Gather(torch.autograd.Function):
    """All ranks' rows, in order of rank; the gradient of a row comes back from every rank that used it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rank, world_size = rank_and_world_size()
        ctx.rows = slice(rank * len(x), (rank + 1) * len(x))
        parts = [torch.empty_like(x) for _ in range(world_size)]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone()
        dist.all_reduce(gradient)
        return gradient[ctx.rows]


def gather_rows(x: Tensor) -> Tensor:
    """(n, d) of every rank as (world size x n, d), in order of rank, with gradient. Every rank must call it."""
    return _Gather.apply(x.contiguous()) if dist.is_initialized() else x


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Mean over this rank's 2n views of -log softmax(similarity to the other view of the same image).

    Chen et al. 2020, arXiv:2002.05709, equation 1. `first` and `second` are (n, d), row i of both from one image; n
    must be equal on all ranks. A view is compared with all others of all ranks. Ranks share the work: the mean of
    their losses is the loss of the whole batch, and DDP's mean of their gradients is its gradient. With accumulation
    the comparison is within a micro batch.
    """
    n, (rank, world_size) = len(first), rank_and_world_size()
    here = normalize(torch.stack([first, second]), dim=2)
    everywhere = torch.cat([gather_rows(here[0]), gather_rows(here[1])])
    similarity = here.flatten(0, 1) @ everywhere.T / temperature
    mine = torch.arange(rank * n, (rank + 1) * n, device=first.device)
    other = mine + world_size * n
    itself = torch.cat([mine, other]).unsqueeze(1)
    return cross_entropy(similarity.scatter(1, itself, float("-inf")), torch.cat([other, mine]))
