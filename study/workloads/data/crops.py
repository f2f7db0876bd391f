"""Random shifts and mirror images, the usual augmentation of small photographs (He et al. 2016, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def draw_crops(n: int, most_px: int, generator: torch.Generator) -> Tensor:
    """For each of n images, how far it moves up and left, at most most_px, and whether it is mirrored: (n, 3)."""
    shifts = torch.randint(-most_px, most_px + 1, (n, 2), generator=generator)
    return torch.cat([shifts, torch.randint(2, (n, 1), generator=generator)], dim=1)


def crop(x: Tensor, by: Tensor, most_px: int) -> Tensor:
    """Images (n, channels, height, width), moved as drawn; zeros come in from outside."""
    height, width = x.shape[2:]
    up, left, mirrored = by.to(x.device).unsqueeze(2).unbind(1)  # (n, 1) each
    rows = torch.arange(height, device=x.device) + most_px + up
    columns = torch.arange(width, device=x.device)
    columns = torch.where(mirrored == 1, width - 1 - columns, columns) + most_px + left
    padded = pad(x, (most_px,) * 4)
    image = torch.arange(len(x), device=x.device).view(-1, 1, 1)
    # Indexing three dimensions with a slice between them puts the channels last.
    return padded[image, :, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2).contiguous()
