"""Contrastive training in small, and the probe that judges it."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch import nn

from study.config.schema import StudyConfig
from study.config.workloads import Digits
from study.errors import ConfigError
from study.planning.trials import TrialSpec, make_plan
from study.training.distributed.local_group import LocalGroup
from study.training.distributed.topology import RankTopology
from study.training.jobs.simclr import SimCLR, few_labelled, linear_probe
from study.training.rank import Rank
from study.workloads.data.splits import Part, digits
from study.workloads.models.networks import mlp

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


ALONE = RankTopology(rank=0, world_size=1, local_rank=0, local_world_size=1, node_rank=0, device="cpu")
CONTRASTIVE = {"kind": "contrastive", "width": 16}


def confirm(config: StudyConfig) -> TrialSpec:
    plan = make_plan(config)
    return plan.confirm_trials(plan.cells[-1], 0.2)[0]


def test_two_ranks_train_as_one_and_both_know_what_the_probe_found(config: Callable[..., StudyConfig]) -> None:
    made, spread = config(workload=CONTRASTIVE), config(workload=CONTRASTIVE, hardware={"world_size": 2})
    spec, split = confirm(made), confirm(spread)
    alone = Rank(ALONE, made)
    alone.begin(spec)
    expected = [alone.advance() for _ in spec.report_at]
    alone.halt()
    with LocalGroup(spread, 2) as group:
        group._all("begin", split)
        told = [group._all("advance") for _ in split.report_at]
        group._all("halt")
    assert [first.train_loss for first, _ in told] == pytest.approx([r.train_loss for r in expected], abs=1e-5)
    assert expected[-1].train_loss < expected[0].train_loss
    for first, second in told:
        assert (first.val_loss, first.val_accuracy) == (second.val_loss, second.val_accuracy)
    # One of 300 samples may fall on the other side of a boundary.
    assert told[-1][0].val_accuracy == pytest.approx(expected[-1].val_accuracy, abs=0.004)
    assert told[-1][0].test_accuracy == pytest.approx(expected[-1].test_accuracy, abs=0.004)


@pytest.mark.parametrize(
    ("hardware", "says"),
    [
        ({"accumulation": 2}, "hardware.accumulation: 2 parts: contrastive learning compares within one"),
        ({"micro_batch": 16}, "hardware.micro_batch: 4 parts"),
    ],
)
def test_a_batch_that_would_be_split_is_refused(
    config: Callable[..., StudyConfig], hardware: dict[str, int], says: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{says}"):
        make_plan(config(workload=CONTRASTIVE, hardware=hardware))
