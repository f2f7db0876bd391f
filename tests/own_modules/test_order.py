"""The order of the data: that of the trial's seed, on any number of ranks; and each rank's share of a set."""

from collections import Counter
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, RandomSampler

from study.errors import ConfigError
from study.training.distributed.local_group import LocalGroup
from study.training.distributed.topology import RankTopology
from study.training.user_data.sampling import TrainShare, ValidationShare
from tests.own_modules.on_ranks import alone, own, spec_of, together
from tests.own_modules.user_modules import SAMPLES

EVERY_SAMPLER = [
    "weighted",
    "generator",
    "distributed",
    "global",
    "epochs",
    "batch sampler",
    "workers",
    "workers that are sent nothing",
]


def order(outcomes: Any, accumulation: int = 1) -> list[list[int]]:
    """The samples of each update, sorted."""
    assert all(outcome.error is None for outcome in outcomes), outcomes[0].error
    micro = [sorted(chain(*parts)) for parts in zip(*(outcome.seen for outcome in outcomes), strict=True)]
    return [sorted(chain(*micro[i : i + accumulation])) for i in range(0, len(micro), accumulation)]


def drawn(sampler: str) -> dict[str, Any]:
    return {"data": "Drawn", "data_args": {"sampler": sampler}}


@pytest.mark.parametrize("changes", [{}, *map(drawn, EVERY_SAMPLER)], ids=["shuffle", *EVERY_SAMPLER])
def test_an_update_sees_the_same_samples_on_any_split_and_others_for_another_seed(
    two: LocalGroup, changes: dict[str, Any]
) -> None:
    config, pair = own(**changes), own(world_size=2, **changes)
    one = order([alone(config)])
    assert order(together(two, pair)) == one
    assert order(together(two, pair, spec_of(pair, accumulation=2)), accumulation=2) == one
    assert order([alone(config, pausing=True)]) == one
    epoch = SAMPLES // 24
    assert len({repr(one[i : i + epoch]) for i in range(0, len(one), epoch)}) == 2  # epochs differ
    other = order([alone(config, spec_of(config, seed=1))])
    assert other != one
    assert order(together(two, pair, spec_of(pair, seed=1))) == other
    if changes != drawn("weighted"):  # which draws with replacement
        assert all(sorted(chain(*one[i : i + epoch])) == list(range(SAMPLES)) for i in range(0, len(one), epoch))


def test_a_batch_sampler_of_their_own_is_shared_out_batch_by_batch(two: LocalGroup) -> None:
    config = own(world_size=2, **drawn("batches"))
    first, second = together(two, config)
    assert first.error is None
    batches = [*first.seen[:2], *second.seen[:2]]  # of the first epoch
    assert sorted(chain(*batches)) == list(range(SAMPLES))
    assert all(batch == list(range(batch[0], batch[0] + 12)) for batch in batches)
    assert first.seen != together(two, config, spec_of(config, seed=1))[0].seen


def test_a_batch_sampler_over_this_ranks_share_deals_its_own_batches(two: LocalGroup) -> None:
    first, second = together(two, own(world_size=2, data="OwnBatchesOfAShare"))
    assert first.error is None
    assert sorted(chain(*first.seen[:2], *second.seen[:2])) == list(range(SAMPLES))
    assert all(batch == sorted(batch, reverse=True) for batch in (*first.seen, *second.seen))


def test_a_smaller_batch_of_a_batch_sampler_is_refused() -> None:
    outcome = alone(own(data="Bucketed", data_args={"drop_last": False}))
    assert outcome.error is not None
    assert "workload.data: its batch sampler yields 2 samples in batch 1 of an epoch" in outcome.error


def test_ranks_with_fewer_validation_batches_have_fewer_when_it_is_tried() -> None:
    loaders = [DataLoader(range(21), 1) for _ in range(2)]  # type: ignore[arg-type,var-annotated]
    shares = [ValidationShare(loader, topology(rank, 2), (0, 0), most=4) for rank, loader in enumerate(loaders)]
    assert [[int(batch[0]) for batch in share] for share in shares] == [[0, 2, 4, 20], [1, 3, 19]]
    assert [len(share) for share in shares] == [4, 3]


def topology(rank: int, ranks: int) -> RankTopology:
    return RankTopology(rank, ranks, rank, ranks, 0, "cpu")


@given(
    samples=st.integers(1, 60), ranks=st.integers(1, 8), batch=st.integers(1, 20), seed=st.integers(0, 99),
    shuffle=st.booleans(),
)  # fmt: skip
def test_a_validation_set_is_shared_out_whole(samples: int, ranks: int, batch: int, seed: int, shuffle: bool) -> None:
    def shares() -> list[list[list[int]]]:
        loaders = [DataLoader(range(samples), batch, shuffle=shuffle) for _ in range(ranks)]  # type: ignore[arg-type]
        made = [ValidationShare(loader, topology(rank, ranks), (seed, 0)) for rank, loader in enumerate(loaders)]
        drawn = [list(share) for share in made]
        assert [len(share) for share in made] == [len(batches) for batches in drawn]
        return drawn

    if samples < ranks:
        with pytest.raises(ConfigError, match="fewer than one each"):
            shares()
        return
    drawn = shares()
    assert sorted(chain(*chain(*drawn))) == list(range(samples))  # each once
    assert all(0 < len(part) <= batch for batches in drawn for part in batches)
    counts = [len(batches) for batches in drawn]
    # A module that gathers after every batch waits for nobody, unless a rank has fewer samples than others batches.
    assert len(set(counts)) == 1 or max(counts) > samples // ranks


@given(
    updates=st.integers(1, 4), ranks=st.sampled_from([1, 2, 3, 4]), accumulation=st.integers(1, 3),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_a_training_set_is_shared_out_by_updates(updates: int, ranks: int, accumulation: int, seed: int) -> None:
    batch = 72  # divides by all
    samples = updates * batch + 5

    def drawn(ranks: int, accumulation: int) -> list[list[int]]:
        micro, count = batch // ranks // accumulation, updates * accumulation
        shares = []
        for rank in range(ranks):
            loader = DataLoader(range(samples), micro, shuffle=True)  # type: ignore[arg-type]
            shares.append(list(TrainShare(loader, topology(rank, ranks), (seed, 0), micro, count)))
        assert all([len(part) for part in share] == [micro] * count for share in shares)
        steps = [list(chain(*(share[i] for share in shares))) for i in range(count)]
        return [sorted(chain(*steps[i : i + accumulation])) for i in range(0, count, accumulation)]

    found = drawn(ranks, accumulation)
    assert found == drawn(1, 1)
    assert max(Counter(chain(*found)).values()) == 1


def test_a_distributed_sampler_of_another_rank_is_refused() -> None:
    data = range(8)
    sampler = DistributedSampler(data, num_replicas=1, rank=0)  # type: ignore[arg-type,var-annotated]
    with pytest.raises(ConfigError, match="its DistributedSampler is for rank 0 of 1, on rank 1 of 2"):
        TrainShare(DataLoader(data, 2, sampler=sampler), topology(1, 2), (0, 0), 2, 2)  # type: ignore[arg-type]


def test_what_is_drawn_moves_no_generator_of_the_training() -> None:
    import torch

    loader = DataLoader(range(8), batch_sampler=BatchSampler(RandomSampler(range(8)), 2, False))  # type: ignore
    share = TrainShare(loader, topology(0, 1), (0, 0), 2, 4)
    before = torch.get_rng_state()
    list(share)
    assert torch.equal(torch.get_rng_state(), before)
