"""Distortions one at a time, and independent of how a batch is split."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from study.planning.batch_split import BatchPlan
from study.planning.trials import Stage
from study.workloads.data.augment import HOLE_PX, Distortions, crop, distort, draw_crops, draw_distortions
from study.workloads.data.batching import TrainBatches
from study.workloads.data.splits import Part

N, SIDE = 6, 8


def nothing(n: int = N, height: int = SIDE, width: int = SIDE) -> Distortions:
    return Distortions(
        turn=torch.zeros(n),
        scaling=torch.ones(n),
        shift_px=torch.zeros(n, 2),
        hole=torch.zeros(n, height, width, dtype=torch.bool),
        contrast=torch.ones(n),
        brightness=torch.zeros(n),
        noise=torch.zeros(n, height, width),
    )


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(N, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def drawn(seed: int, n: int = N) -> Distortions:
    return draw_distortions(n, SIDE, SIDE, torch.Generator().manual_seed(seed))


def test_no_distortion_changes_nothing(x: torch.Tensor) -> None:
    torch.testing.assert_close(distort(x, nothing()), x)


def test_a_shift_by_whole_pixels_moves_right_and_down(x: torch.Tensor) -> None:
    moved = distort(x, replace(nothing(), shift_px=torch.tensor([2.0, 1.0]).expand(N, 2)))
    torch.testing.assert_close(moved[:, :, 1:, 2:], x[:, :, :-1, :-2])
    assert moved[:, :, 0].abs().max() < 1e-5
    assert moved[:, :, :, :2].abs().max() < 1e-5


@pytest.mark.parametrize("shape", [(8, 8), (4, 8)])
def test_a_half_turn_flips_both_ways(shape: tuple[int, int]) -> None:
    x = torch.rand(N, 1, *shape)
    turned = distort(x, replace(nothing(N, *shape), turn=torch.full((N,), math.pi)))
    torch.testing.assert_close(turned, x.flip(2, 3), atol=1e-5, rtol=0)


def test_a_quarter_turn_keeps_the_middle_of_a_wide_image_undistorted() -> None:
    x = torch.rand(N, 1, 4, 8)
    turned = distort(x, replace(nothing(N, 4, 8), turn=torch.full((N,), math.pi / 2)))
    middle = slice(2, 6)
    expected = {k: x[..., middle].rot90(k, (2, 3)) for k in (1, -1)}
    assert min((turned[..., middle] - e).abs().max() for e in expected.values()) < 1e-5


def test_enlarged_twice_the_middle_fills_the_image() -> None:
    flat = torch.zeros(N, 1, SIDE, SIDE)
    flat[:, :, 1:7, 1:7] = 0.5  # interpolation looks one pixel past the middle
    torch.testing.assert_close(distort(flat, replace(nothing(), scaling=torch.full((N,), 2.0))), flat * 0 + 0.5)


def test_light_and_holes(x: torch.Tensor) -> None:
    hole = torch.zeros(N, SIDE, SIDE, dtype=torch.bool)
    hole[:, 2, 3] = True
    changed = replace(
        nothing(),
        hole=hole,
        contrast=torch.full((N,), 2.0),
        brightness=torch.full((N,), -0.3),
        noise=torch.full((N, SIDE, SIDE), 0.1),
    )
    expected = (2 * x - 0.2).clamp(0, 1)
    expected[:, :, 2, 3] = 0
    torch.testing.assert_close(distort(x, changed), expected)


def test_views_do_not_depend_on_how_the_batch_is_split(x: torch.Tensor) -> None:
    distortions = drawn(1)
    split = [distort(x[rows], distortions.rows(rows)) for rows in (slice(0, 2), slice(2, 3), slice(3, 6))]
    torch.testing.assert_close(torch.cat(split), distort(x, distortions), rtol=0, atol=1e-6)


def test_draws_follow_from_the_generator_alone(x: torch.Tensor) -> None:
    state = torch.get_rng_state()
    view = distort(x, drawn(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(distort(x, drawn(1)), view)
    assert not torch.allclose(distort(x, drawn(2)), view)
    assert view.shape == x.shape
    assert 0 <= view.min() < view.max() <= 1


def test_every_hole_is_whole_and_can_be_anywhere() -> None:
    holes = drawn(0, 2000).hole
    assert (holes.sum((1, 2)) == HOLE_PX**2).all()
    assert holes.any(dim=0).all()


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
