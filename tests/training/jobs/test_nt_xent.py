"""NT-Xent over two ranks against one process, and against its formula."""

import math

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from study.training.distributed.local_group import LocalGroup
from study.training.jobs.nt_xent import gather_rows, nt_xent, rank_and_world_size

N, TEMPERATURE = 6, 0.3  # images on a rank


def loss_and_gradient(half: int | None) -> tuple[float, Tensor]:
    """Of a small network on the first or the second half of 12 fixed pairs, or on all; under DDP where there is one."""
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4))
    x, jitter = torch.randn(2 * N, 5), 0.3 * torch.randn(2 * N, 5)
    if half is not None:
        model = DistributedDataParallel(model)
        x, jitter = x[half * N : (half + 1) * N], jitter[half * N : (half + 1) * N]
    first, second = model(torch.cat([x, x + jitter])).chunk(2)
    loss = nt_xent(first, second, TEMPERATURE)
    loss.backward()
    return loss.item(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def of_this_rank() -> tuple[float, Tensor]:
    """In a process of a group."""
    return loss_and_gradient(dist.get_rank())


def test_two_ranks_have_the_loss_and_gradient_of_one_process(pair: LocalGroup) -> None:
    loss, gradient = loss_and_gradient(None)
    losses, gradients = zip(*pair.call(of_this_rank), strict=True)
    assert sum(losses) / 2 == pytest.approx(loss, abs=1e-6)
    assert gradient.norm() > 1e-3
    for of_a_rank in gradients:  # DDP's mean
        torch.testing.assert_close(of_a_rank, gradient, atol=1e-6, rtol=0)


def gathered() -> tuple[Tensor, Tensor]:
    """All rows, and the gradient of a sum that weighs row i of this rank's copy by (rank + 1) (i + 1)."""
    rank, world_size = rank_and_world_size()
    x = torch.full((2, 3), float(rank), requires_grad=True)
    rows = gather_rows(x)
    weights = (rank + 1) * torch.arange(1.0, 2 * world_size + 1)
    (weights @ rows).sum().backward()
    return rows.detach(), x.grad


def test_the_gradient_of_a_row_comes_from_every_rank(pair: LocalGroup) -> None:
    for rank, (rows, gradient) in enumerate(pair.call(gathered)):
        assert rows[:, 0].tolist() == [0, 0, 1, 1]
        # Row i is used with weight i + 1 on rank 0 and with twice that on rank 1.
        assert gradient[:, 0].tolist() == [3 * (2 * rank + 1), 3 * (2 * rank + 2)]
    rows, gradient = gathered()
    assert (rows.shape, gradient[:, 0].tolist()) == ((2, 3), [1, 2])


def test_loss_is_the_papers_formula() -> None:
    torch.manual_seed(1)
    first, second = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    z = torch.cat([first, second]).tolist()

    def similarity(i: int, j: int) -> float:
        return sum(a * b for a, b in zip(z[i], z[j], strict=True)) / (math.hypot(*z[i]) * math.hypot(*z[j]))

    terms = []
    for i in range(8):
        others = sum(math.exp(similarity(i, k) / TEMPERATURE) for k in range(8) if k != i)
        terms.append(-math.log(math.exp(similarity(i, (i + 4) % 8) / TEMPERATURE) / others))
    assert nt_xent(first, second, TEMPERATURE).item() == pytest.approx(sum(terms) / 8)


def test_closed_forms() -> None:
    # All views alike: the right one is one of 2n - 1.
    assert nt_xent(torch.ones(4, 3), torch.ones(4, 3), 0.5).item() == pytest.approx(math.log(7))
    # Orthogonal pairs: one similarity is 1, the other 2n - 2 are 0.
    expected = math.log(1 + 6 * math.exp(-1 / 0.5))
    assert nt_xent(torch.eye(4), 3 * torch.eye(4), 0.5).item() == pytest.approx(expected)
