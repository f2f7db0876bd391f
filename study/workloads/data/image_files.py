"""What the readers of image files give, whatever the format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from study.errors import DataError

KEY = "workload.path"


@dataclass(frozen=True)
class Images:
    """Pixels (n, channels, height, width), uint8, and labels (n,), integers."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.integer]


@dataclass(frozen=True)
class ImageFiles:
    """Image files that were found and not yet read. Reading raises DataError for damaged files."""

    train: Callable[[], Images]
    test: Callable[[], Images]
    classes: int


def check_labels(labels: NDArray[np.integer], classes: int, where: str, name: str) -> None:
    """Raise DataError for a file without an image, or with labels that the data set does not have."""
    if not len(labels):
        raise DataError(f"{where}: holds no image", KEY)
    for worst in (labels.min(), labels.max()):
        if not 0 <= worst < classes:
            raise DataError(f"{where}: a label of {worst}; {name} has 0 to {classes - 1}", KEY)
