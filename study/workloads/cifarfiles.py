"""CIFAR-10 read from a folder: the binary version of its authors, or the Hub's parquet files."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.plan.errors import PlanError

SHAPE = (3, 32, 32)
CLASSES = 10
KEY = "workload.path"
_RECORD = 1 + 3 * 32 * 32  # a label, then the red, green and blue planes
_TRAIN, _TEST = [f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin"


@dataclass(frozen=True)
class Images:
    """Pixels (n, 3, 32, 32) and labels (n,), both uint8."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class CifarFiles:
    """Where the images lie, and how they are read."""

    train: Sequence[Path]
    test: Sequence[Path]
    read: Callable[[Path], Images]

    def train_images(self) -> Images:
        """Those of the training files, in their order. Raises PlanError."""
        return self._all(self.train)

    def test_images(self) -> Images:
        """Those of the test files. Raises PlanError."""
        return self._all(self.test)

    def _all(self, paths: Sequence[Path]) -> Images:
        parts = [self.read(path) for path in paths]
        for path, part in zip(paths, parts, strict=True):
            if not len(part.labels):
                raise PlanError(f"{path}: holds no image", KEY)
            if (worst := part.labels.max()) >= CLASSES:
                raise PlanError(f"{path}: a label of {worst}; CIFAR-10 has 0 to {CLASSES - 1}", KEY)
        return Images(np.concatenate([part.pixels for part in parts]), np.concatenate([part.labels for part in parts]))


def find_files(folder: str) -> CifarFiles:
    """The files in a folder, or in the one that its archive or the Hub puts into it. Raises PlanError."""
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise PlanError(f"{folder}: there is no such folder", KEY)
    for inner in (root, root / "cifar-10-batches-bin"):
        there = [name for name in (*_TRAIN, _TEST) if (inner / name).is_file()]
        if there:
            missing = [name for name in (*_TRAIN, _TEST) if name not in there]
            if missing:
                raise PlanError(f"{inner}: {', '.join(missing)} is missing", KEY)
            return CifarFiles([inner / name for name in _TRAIN], [inner / _TEST], read_binary)
    for inner in (root, root / "plain_text", root / "data"):
        train, test = (sorted(inner.glob(f"{part}-*.parquet")) for part in ("train", "test"))
        if train and test:
            return CifarFiles(train, test, read_parquet)
    wanted = f"{_TRAIN[0]} to {_TRAIN[-1]} with {_TEST}, or train-*.parquet with test-*.parquet"
    raise PlanError(f"{folder}: holds no CIFAR-10: {wanted}", KEY)


def read_binary(path: Path) -> Images:
    """A file of records of one byte of label and 3,072 of pixels. Raises PlanError."""
    data = np.fromfile(path, np.uint8)
    if len(data) % _RECORD:
        raise PlanError(f"{path}: truncated: {len(data)} bytes are not a multiple of {_RECORD}", KEY)
    records = data.reshape(-1, _RECORD)
    return Images(records[:, 1:].reshape(-1, *SHAPE), records[:, 0])


def read_parquet(path: Path) -> Images:
    """A file with an image column of encoded PNG, `img` or `image`, and a column `label`. Raises PlanError."""
    import pandas as pd  # only here is it of use

    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # what pyarrow raises for a damaged file is one of these
        raise PlanError(f"{path}: not a parquet file that can be read: {error}", KEY) from error
    column = next((name for name in ("img", "image") if name in table), None)
    if column is None or "label" not in table:
        raise PlanError(f"{path}: needs columns img and label; it has {', '.join(map(str, table.columns))}", KEY)
    labels = table["label"].to_numpy()
    if not np.issubdtype(labels.dtype, np.integer) or ((labels < 0) | (labels >= CLASSES)).any():
        raise PlanError(f"{path}: a label that is none of 0 to {CLASSES - 1}", KEY)
    pixels = [_decoded(image, f"{path}, row {row}") for row, image in enumerate(table[column])]
    return Images(np.array(pixels, np.uint8).reshape(-1, *SHAPE), labels.astype(np.uint8))


def _decoded(image: Any, where: str) -> NDArray[np.uint8]:
    """Pixels (3, 32, 32) of a row's image."""
    try:
        from PIL import Image
    except ImportError:
        raise PlanError("parquet files hold PNG: install Pillow, pip install 'batch-frontier[images]'", KEY) from None
    try:
        pixels = np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB"))
    except (OSError, SyntaxError, TypeError, KeyError) as error:  # Pillow has its own SyntaxError for a broken PNG
        raise PlanError(f"{where}: not an image that can be read: {error}", KEY) from error
    if pixels.shape != (32, 32, 3):
        raise PlanError(f"{where}: is {pixels.shape[1]} x {pixels.shape[0]} pixels, not 32 x 32", KEY)
    return pixels.transpose(2, 0, 1)
