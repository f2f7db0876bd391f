"""The noise scale of models whose gradients have a known distribution."""

import math

import pytest
import torch
from torch import nn

from study.training.distributed.local_group import LocalGroup
from study.training.probes.noise import GradientNorms, NoiseScale, gradient_norms, noise_parts
from study.workloads.data.batching import Batch

NO_LABELS = torch.zeros(64)


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_linear_model_over_2000_updates(micro_batches: int) -> None:
    # The loss is the model's mean output w x, so one sample's gradient is x, whatever w: N(mean, diag(variances)).
    generator = torch.Generator().manual_seed(1)
    mean, variances = torch.linspace(-0.5, 0.5, 20), torch.linspace(0.5, 2, 20)
    model = nn.Linear(20, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    noise = NoiseScale(decay=0.999)
    for _ in range(2000):
        x = mean + variances.sqrt() * torch.randn(64, 20, generator=generator)
        batches = list(zip(x.chunk(micro_batches), NO_LABELS.chunk(micro_batches), strict=True))
        parts = noise_parts(batches, world_size=1)
        noise.add(gradient_norms(lambda batch: model(batch[0]).mean(), list(model.parameters()), parts))
        optimizer.zero_grad()
        model(x).mean().backward()
        optimizer.step()
    assert noise.b_simple == pytest.approx((variances.sum() / mean.square().sum()).item(), rel=0.05)


@pytest.mark.slow
def test_linear_regression_over_2000_batches() -> None:
    # y = w* x + e with x ~ N(0, I), e ~ N(0, s^2), at w = w* + d: the gradient is x (d x) - x e, with mean d and
    # covariance (|d|^2 + s^2) I + d d^T (Isserlis), so B_simple = (n (|d|^2 + s^2) + |d|^2) / |d|^2.
    n, s = 10, 0.5
    generator = torch.Generator().manual_seed(2)
    d = torch.linspace(0.1, 0.5, n)
    model = nn.Linear(n, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(d)
    noise = NoiseScale(decay=0.999)
    for _ in range(2000):
        x, e = torch.randn(64, n, generator=generator), s * torch.randn(64, generator=generator)
        norms = gradient_norms(
            lambda batch: ((model(batch[0]).squeeze(1) - batch[1]) ** 2).mean() / 2,
            list(model.parameters()),
            noise_parts([(x, e)], world_size=1),
        )
        noise.add(norms)
    size = (d @ d).item()
    assert noise.b_simple == pytest.approx((n * (size + s**2) + size) / size, rel=0.05)


def test_estimates_are_those_of_the_definition() -> None:
    # If E|G_B|^2 = |G|^2 + tr(S) / B holds exactly, both come out exactly.
    norms = GradientNorms(small_sq=3 + 20 / 4, big_sq=3 + 20 / 32, small_batch=4, big_batch=32)
    assert (norms.gradient_sq, norms.trace) == pytest.approx((3, 20))
    noise = NoiseScale(decay=0.9)
    noise.add(norms)
    assert noise.b_simple == pytest.approx(20 / 3)  # from the first measurement on


def test_average_is_that_of_the_estimates_not_of_their_ratio() -> None:
    noise = NoiseScale(decay=0.5)
    noise.add(GradientNorms(1 + 4 / 1, 1 + 4 / 2, 1, 2))
    noise.add(GradientNorms(3 + 8 / 1, 3 + 8 / 2, 1, 2))
    assert noise.b_simple == pytest.approx((4 / 4 + 8 / 2) / (1 / 4 + 3 / 2))


def test_a_gradient_that_does_not_stand_out_is_infinite_noise() -> None:
    noise = NoiseScale(decay=0.9)
    assert math.isnan(noise.b_simple)
    noise.add(GradientNorms(small_sq=8, big_sq=1, small_batch=1, big_batch=8))
    assert noise.b_simple == math.inf


def parts_of(x: torch.Tensor, n: int) -> list[Batch]:
    return list(zip(x.chunk(n), torch.zeros(len(x)).chunk(n), strict=True))


def test_micro_batches_are_the_parts_and_one_alone_is_split() -> None:
    x = torch.arange(24.0).unsqueeze(1)
    assert len(noise_parts(parts_of(x, 4), world_size=1)) == 4
    assert len(noise_parts(parts_of(x, 1), world_size=2)) == 1
    assert [len(y) for _, y in noise_parts(parts_of(x, 1), world_size=1)] == [3] * 8
    assert [len(y) for _, y in noise_parts(parts_of(x[:6], 1), world_size=1)] == [1] * 6
    for size in (1, 11):
        with pytest.raises(ValueError, match=f"a batch of {size}"):
            noise_parts(parts_of(x[:size], 1), world_size=1)


def norms_of_a_rank(rank: int | None, micro_batches: int) -> GradientNorms:
    """Of half of 24 fixed samples, or of all."""
    torch.manual_seed(0)
    model, x = nn.Linear(3, 1), torch.randn(24, 3)
    mine = x if rank is None else x[12 * rank : 12 * (rank + 1)]
    return gradient_norms(
        lambda batch: model(batch[0]).square().mean(), list(model.parameters()), parts_of(mine, micro_batches)
    )


def norms_here(micro_batches: int) -> GradientNorms:
    """In a process of a group."""
    return norms_of_a_rank(torch.distributed.get_rank(), micro_batches)


def test_parts_may_be_spread_over_ranks(pair: LocalGroup) -> None:
    for micro_batches in (1, 3):
        alone = norms_of_a_rank(None, 2 * micro_batches)
        for norms in pair.call(norms_here, micro_batches):
            assert (norms.small_batch, norms.big_batch) == (alone.small_batch, alone.big_batch)
            assert (norms.small_sq, norms.big_sq) == pytest.approx((alone.small_sq, alone.big_sq))
