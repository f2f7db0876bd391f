"""Contrastive training in small, and the probe that judges it."""

import math

import pytest
import torch
import torch.distributed as dist
from torch import nn

from study.config.workloads import Digits
from study.training.distributed.local_group import LocalGroup
from study.training.jobs.simclr import SimCLR, few_labelled, linear_probe
from study.workloads.data.splits import Part, digits
from study.workloads.models.small import mlp

N = 8  # images on a rank


def step_loss(half: int | None) -> float:
    """Of a fresh SimCLR on one half of 16 fixed images, or on all."""
    torch.manual_seed(0)
    module = SimCLR(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh()), 16, temperature=0.5, seed=(1, 2))
    x = torch.rand(2 * N, 1, 8, 8)
    if half is not None:
        x = x[half * N : (half + 1) * N]
    return module.training_step((x, torch.zeros(len(x))), 0).item()


def step_here() -> float:
    """In a process of a group."""
    return step_loss(dist.get_rank())


def test_a_step_is_the_same_over_two_ranks(pair: LocalGroup) -> None:
    assert sum(pair.call(step_here)) / 2 == pytest.approx(step_loss(None), abs=1e-6)


def test_views_are_new_at_each_batch_and_the_same_at_each_run() -> None:
    x = torch.rand(4, 1, 8, 8)
    first, again = (SimCLR(nn.Flatten(), 64, temperature=0.5, seed=(3, 4)) for _ in range(2))
    assert torch.equal(first.views(x, 7), again.views(x, 7))
    one, other = first.views(x, 7).chunk(2)
    assert not torch.allclose(one, other)
    assert not torch.allclose(first.views(x, 7), first.views(x, 8))


def test_trained_features_need_fewer_labels_than_random_ones() -> None:
    torch.manual_seed(0)
    splits = digits(Digits())
    few = few_labelled(splits.train, 50)
    module = SimCLR(mlp(64, 64, 10)[:-1], 64, temperature=0.5, seed=(0, 0))
    before = linear_probe(module.encoder, few, splits.test)
    optimizer = torch.optim.Adam(module.parameters(), 2e-3)
    for epoch in range(10):
        for number, batch in enumerate(
            zip(splits.train.x[:1152].split(64), splits.train.y[:1152].split(64), strict=True)
        ):
            loss = module.training_step(batch, 18 * epoch + number)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    after = linear_probe(module.encoder, few, splits.test)
    # Two standard errors of an accuracy over 300 test images.
    assert after.accuracy > before.accuracy + 0.05
    assert after.loss < before.loss


def test_probe_reads_what_a_line_can_separate_and_no_more() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 6, generator=generator)
    separable, noise = (x[:, 0] > 0).long(), torch.randint(0, 2, (2000,), generator=generator)
    encoder = nn.Linear(6, 6).train()
    nn.init.orthogonal_(encoder.weight, generator=generator)
    for y, low, high in ((separable, 0.98, 1.0), (noise, 0.41, 0.59)):  # one half, give or take 4 standard errors
        found = linear_probe(encoder, Part(x[:1500], y[:1500]), Part(x[1500:], y[1500:]))
        assert low <= found.accuracy <= high
        # A probe that knows nothing says one half: log 2.
        assert found.loss < 0.1 if y is separable else abs(found.loss - 0.693) < 0.05
    assert encoder.training


def test_features_that_are_no_numbers_diverge_and_raise_nothing() -> None:
    part = Part(torch.full((20, 4), float("nan")), torch.arange(20) % 2)
    found = linear_probe(nn.Linear(4, 4), part, part)
    assert math.isnan(found.loss)
    assert found.accuracy == 0


def test_few_labels_are_spread_over_the_classes() -> None:
    part = Part(torch.arange(8.0), torch.tensor([0, 0, 0, 0, 1, 2, 2, 0]))
    assert few_labelled(part, 5).x.tolist() == [0, 4, 5, 1, 6]
    assert few_labelled(part, 7).y.tolist() == [0, 1, 2, 0, 2, 0, 0]  # of class 1 there is no second
