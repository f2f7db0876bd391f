"""Random augmentation: crops and mirror images of photographs, and views of digits for contrastive learning."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

LARGEST_TURN = math.radians(15)
LARGEST_SCALING = 1.2
LARGEST_SHIFT_PX = 1.0
HOLE_PX = 2
LARGEST_CONTRAST = 1.5
LARGEST_BRIGHTNESS = 0.1
NOISE_STD = 0.05


def draw_crops(n: int, most_px: int, generator: torch.Generator) -> Tensor:
    """Draw for each of n images how far it moves up and left, at most most_px, and whether it is mirrored: (n, 3)."""
    shifts = torch.randint(-most_px, most_px + 1, (n, 2), generator=generator)
    return torch.cat([shifts, torch.randint(2, (n, 1), generator=generator)], dim=1)


def crop(x: Tensor, by: Tensor, most_px: int) -> Tensor:
    """Return images (n, channels, height, width), moved as drawn; zeros come in from outside (He et al. 2016, section
    4.2).
    """
    height, width = x.shape[2:]
    up, left, mirrored = by.to(x.device).unsqueeze(2).unbind(1)  # (n, 1) each
    rows = torch.arange(height, device=x.device) + most_px + up
    columns = torch.arange(width, device=x.device)
    columns = torch.where(mirrored == 1, width - 1 - columns, columns) + most_px + left
    padded = pad(x, (most_px,) * 4)
    image = torch.arange(len(x), device=x.device).view(-1, 1, 1)
    # Indexing three dimensions with a slice between them puts the channels last.
    return padded[image, :, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class Distortions:
    """The changes to each of n images of height x width pixels."""

    turn: Tensor  # (n,), radians
    scaling: Tensor  # (n,), above 1 enlarges
    shift_px: Tensor  # (n, 2), right and down
    hole: Tensor  # (n, height, width), true where the image is blanked
    contrast: Tensor  # (n,), factor
    brightness: Tensor  # (n,), summand
    noise: Tensor  # (n, height, width), summand

    def rows(self, rows: slice) -> Distortions:
        """Return those of some of the images."""
        return Distortions(*(getattr(self, field.name)[rows] for field in fields(self)))

    def to(self, device: torch.device) -> Distortions:
        """Return them on another device."""
        return Distortions(*(getattr(self, field.name).to(device) for field in fields(self)))


def draw_distortions(n: int, height: int, width: int, generator: torch.Generator) -> Distortions:
    """Draw distortions of n images, on the generator's device.

    Draw them for a whole global batch, of which each rank takes its rows: the views of an image then do not depend on
    how the batch is split.
    """

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, device=generator.device)

    def factor(largest: float) -> Tensor:
        return between(-math.log(largest), math.log(largest), n).exp()

    top, left = (between(0, side - HOLE_PX, n, 1, 1).round() for side in (height, width))
    row = torch.arange(height, device=generator.device).view(1, -1, 1)
    column = torch.arange(width, device=generator.device).view(1, 1, -1)
    return Distortions(
        turn=between(-LARGEST_TURN, LARGEST_TURN, n),
        scaling=factor(LARGEST_SCALING),
        shift_px=between(-LARGEST_SHIFT_PX, LARGEST_SHIFT_PX, n, 2),
        hole=(row >= top) & (row < top + HOLE_PX) & (column >= left) & (column < left + HOLE_PX),
        contrast=factor(LARGEST_CONTRAST),
        brightness=between(-LARGEST_BRIGHTNESS, LARGEST_BRIGHTNESS, n),
        noise=NOISE_STD * torch.randn(n, height, width, generator=generator, device=generator.device),
    )


def distort(x: Tensor, by: Distortions) -> Tensor:
    """Return distorted images (n, 1, height, width) in [0, 1]; what comes in from outside the image is 0."""
    height, width = x.shape[2:]
    # The affine map leads from a place in the result to where it is looked up, so all is inverted. Its coordinates
    # run from -1 to 1 over the image, so that a turn mixes units unless height is width.
    cos, sin = by.turn.cos() / by.scaling, by.turn.sin() / by.scaling
    turn = torch.stack([cos, sin * height / width, -sin * width / height, cos], dim=1).view(-1, 2, 2)
    shift = 2 * by.shift_px / by.shift_px.new_tensor([width, height])
    theta = torch.cat([turn, -(turn @ shift.unsqueeze(2))], dim=2)
    grid = affine_grid(theta, list(x.shape), align_corners=False)
    moved = grid_sample(x, grid, align_corners=False).squeeze(1)
    contrasted = moved * by.contrast.view(-1, 1, 1) + by.brightness.view(-1, 1, 1) + by.noise
    return contrasted.masked_fill(by.hole, 0).clamp(0, 1).unsqueeze(1)
