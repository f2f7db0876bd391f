"""Shifted and mirrored images, the same for every number of ranks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from study.planning.batch_split import BatchPlan
from study.planning.trials import Stage
from study.workloads.data.batching import TrainBatches
from study.workloads.data.crops import crop, draw_crops
from study.workloads.data.splits import Part


@pytest.mark.parametrize("up", [-2, 0, 1])
@pytest.mark.parametrize("left", [-1, 0, 2])
@pytest.mark.parametrize("mirrored", [0, 1])
def test_a_crop_is_what_slicing_a_padded_image_gives(up: int, left: int, mirrored: int) -> None:
    x = torch.rand(2, 3, 5, 4)
    padded = torch.zeros(2, 3, 9, 8)
    padded[:, :, 2:7, 2:6] = x
    expected = padded[:, :, 2 + up : 7 + up, 2 + left : 6 + left]
    expected = expected.flip(3) if mirrored else expected
    cropped = crop(x, torch.tensor([[0, 0, 0], [up, left, mirrored]]), 2)
    assert torch.equal(cropped[0], x[0])
    assert torch.equal(cropped[1], expected[1])


def test_all_crops_are_drawn_and_none_beyond() -> None:
    drawn = draw_crops(5000, 2, torch.Generator().manual_seed(0))
    assert {tuple(row) for row in drawn.tolist()} == {
        (up, left, mirrored) for up in range(-2, 3) for left in range(-2, 3) for mirrored in (0, 1)
    }


@settings(deadline=None, max_examples=30)
@given(
    world=st.sampled_from([1, 2, 3]),
    accumulation=st.sampled_from([1, 2]),
    micro=st.integers(1, 3),
    done=st.integers(0, 5),
)
def test_an_update_sees_the_same_crops_however_it_is_split(
    world: int, accumulation: int, micro: int, done: int
) -> None:
    size = world * accumulation * micro
    generator = torch.Generator().manual_seed(0)
    part = Part(torch.rand(3 * size + 1, 1, 4, 4, generator=generator), torch.arange(3 * size + 1), crop_px=1)

    def batches(world: int, accumulation: int, rank: int, done: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
        batch = BatchPlan(size, world, size // world // accumulation, accumulation)
        return list(TrainBatches(part, [Stage(0, 5, batch, 3, 1.0)], rank, (1, 2), done))

    whole = batches(1, 1, 0)
    ranks = [batches(world, accumulation, rank) for rank in range(world)]
    for update, (x, y) in enumerate(whole):
        micro_batches = range(update * accumulation, (update + 1) * accumulation)
        split = [ranks[rank][number] for number in micro_batches for rank in range(world)]
        assert torch.equal(torch.cat([y for _, y in split]), y)
        assert torch.equal(torch.cat([x for x, _ in split]), x)
    left = batches(1, 1, 0, done)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(left, whole[done:], strict=True))
    assert not torch.equal(whole[0][0], part.x[whole[0][1]])
