"""Splits that share no sample, and batches that do not depend on the ranks."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from study.config.workloads import Digits, Teacher
from study.planning.batch_split import BatchPlan
from study.planning.trials import Stage
from study.workloads.data.batching import EvalBatches, TrainBatches
from study.workloads.data.splits import Part, digits, teacher


def rows(part: Part) -> set[tuple[float, ...]]:
    return {tuple(row) for row in part.x.flatten(1).tolist()}


def test_digits_are_split_apart_and_the_same_every_time() -> None:
    splits = digits(Digits())
    assert (len(splits.train), len(splits.val), len(splits.test)) == (1197, 300, 300)
    assert splits.train.x.shape == (1197, 1, 8, 8)
    assert 0 <= splits.train.x.min() < splits.train.x.max() <= 1
    assert not rows(splits.train) & rows(splits.val)
    assert not rows(splits.train) & rows(splits.test)
    assert not rows(splits.val) & rows(splits.test)
    again, other = digits(Digits()), digits(Digits(data_seed=1))
    assert torch.equal(splits.val.x, again.val.x)
    assert not torch.equal(splits.val.x, other.val.x)


def test_label_noise_is_the_share_asked_for() -> None:
    clean = teacher(Teacher(kind="teacher", label_noise=0, train_samples=20_000))
    noisy = teacher(Teacher(kind="teacher", label_noise=0.3, train_samples=20_000))
    assert torch.equal(clean.train.x, noisy.train.x)
    assert torch.equal(clean.val.y, noisy.val.y)
    # A redrawn label is the old one in 1 of 10 cases: 27% differ, give or take 4 standard errors.
    differ = (clean.train.y != noisy.train.y).float().mean().item()
    assert abs(differ - 0.27) < 4 * (0.27 * 0.73 / 20_000) ** 0.5


def stages(batch: BatchPlan, samples: int, updates: int) -> tuple[Stage, ...]:
    """One stage of so many updates."""
    return (Stage(0, updates, batch, samples // batch.global_batch, 1.0),)


def part(n: int) -> Part:
    return Part(torch.arange(n, dtype=torch.float32).unsqueeze(1), torch.arange(n))


@settings(deadline=None)
@given(
    world=st.sampled_from([1, 2, 3, 4]),
    accumulation=st.sampled_from([1, 2, 4]),
    micro=st.integers(1, 4),
    extra=st.integers(0, 20),
    total=st.integers(1, 10),
    done=st.integers(0, 10),
)
def test_an_update_sees_the_same_samples_however_it_is_split(
    world: int, accumulation: int, micro: int, extra: int, total: int, done: int
) -> None:
    batch = world * accumulation * micro
    data = part(3 * batch + extra)
    alone = stages(BatchPlan(batch, 1, batch, 1), len(data), total)
    shared = stages(BatchPlan(batch, world, micro, accumulation), len(data), total)
    whole = list(TrainBatches(data, alone, 0, (1, 2)))
    ranks = [TrainBatches(data, shared, rank, (1, 2)) for rank in range(world)]
    split = [list(loader) for loader in ranks]
    assert len(whole) == total
    for update, (_, expected) in enumerate(whole):
        micro_batches = slice(update * accumulation, (update + 1) * accumulation)
        seen = torch.cat([y for loader in split for _, y in loader[micro_batches]])
        assert sorted(seen.tolist()) == sorted(expected.tolist())
    # Within an epoch no sample comes twice, and no more than a batch is dropped.
    an_epoch = len(data) // batch
    for first in range(0, total, an_epoch):
        seen = torch.cat([y for _, y in whole[first : first + an_epoch]])
        assert len(set(seen.tolist())) == len(seen)
    assert all(len(loader) == len(batches) for loader, batches in zip(ranks, split, strict=True))
    # What is left of a trial is what it would have seen.
    left = list(TrainBatches(data, alone, 0, (1, 2), min(done, total)))
    assert [y.tolist() for _, y in left] == [y.tolist() for _, y in whole[min(done, total) :]]


def test_a_growing_batch_goes_through_whole_epochs() -> None:
    data = part(32)
    growing = (
        Stage(0, 16, BatchPlan(4, 1, 4, 1), 8, 1.0),
        Stage(16, 4, BatchPlan(8, 1, 8, 1), 4, 1.0),
        Stage(20, 4, BatchPlan(16, 1, 16, 1), 2, 1.0),
    )
    batches = list(TrainBatches(data, growing, 0, (1, 2)))
    assert [len(y) for _, y in batches] == [4] * 16 + [8] * 4 + [16] * 4
    seen = torch.cat([y for _, y in batches]).tolist()
    assert all(sorted(seen[i : i + 32]) == list(range(32)) for i in range(0, len(seen), 32))
    assert len({tuple(seen[i : i + 32]) for i in range(0, len(seen), 32)}) == 5
    for done in range(25):
        left = list(TrainBatches(data, growing, 0, (1, 2), done))
        assert [y.tolist() for _, y in left] == [y.tolist() for _, y in batches[done:]]


def test_epochs_and_seeds_have_permutations_of_their_own() -> None:
    data = part(64)

    def order(seed: tuple[int, int], epoch: int) -> list[int]:
        plan = stages(BatchPlan(64, 1, 64, 1), 64, 9)
        return TrainBatches(data, plan, 0, seed).indices(epoch, plan[0]).flatten().tolist()

    orders = [order((0, 0), 0), order((0, 0), 1), order((0, 1), 0), order((1, 0), 0)]
    assert len({tuple(o) for o in orders}) == 4
    assert order((0, 0), 0) == orders[0]


@given(n=st.integers(0, 40), world=st.integers(1, 6), size=st.integers(1, 7))
def test_validation_shards_hold_each_sample_once(n: int, world: int, size: int) -> None:
    shards = [list(EvalBatches(part(n), rank, world, size)) for rank in range(world)]
    seen = [int(label) for shard in shards for _, y in shard for label in y]
    assert sorted(seen) == list(range(n))
    assert all(len(shard) == len(EvalBatches(part(n), rank, world, size)) >= 1 for rank, shard in enumerate(shards))
