"""Labelled images in a folder: which files they are, whatever the format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from study.config.workloads import ImageFolder
from study.errors import DataError

KEY = "workload.path"


@dataclass(frozen=True)
class Images:
    """Pixels (n, channels, height, width), uint8, and labels (n,), integers."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.integer]


@dataclass(frozen=True)
class ImageFiles:
    """Found, not yet read. Reading raises DataError for files that are damaged."""

    train: Callable[[], Images]
    test: Callable[[], Images]
    classes: int


def find_images(config: ImageFolder) -> ImageFiles:
    """The files of a folder, or of the one that an archive or the Hub puts into it. Raises DataError."""
    root = Path(config.path).expanduser()
    if not root.is_dir():
        raise DataError(f"{config.path}: there is no such folder", KEY)
    if config.kind in ("cifar10", "cifar100"):
        from study.workloads.data.cifar import find_cifar

        return find_cifar(root, config.kind)
    if config.kind == "datasets":
        from study.workloads.data.huggingface import find_datasets

        return find_datasets(root)
    from study.workloads.data.idx import find_idx

    return find_idx(root)


def check_labels(labels: NDArray[np.integer], classes: int, where: str, name: str) -> None:
    """Raises DataError for a file without an image, or with labels that the data set does not have."""
    if not len(labels):
        raise DataError(f"{where}: holds no image", KEY)
    for worst in (labels.min(), labels.max()):
        if not 0 <= worst < classes:
            raise DataError(f"{where}: a label of {worst}; {name} has 0 to {classes - 1}", KEY)
