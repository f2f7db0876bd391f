"""CIFAR-10 and CIFAR-100: the binary version of their authors, or the Hub's parquet files."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from study.errors import DataError
from study.workloads.data.image_files import KEY, ImageFiles, Images, check_labels

SHAPE = (3, 32, 32)


@dataclass(frozen=True)
class _Cifar:
    name: str
    classes: int
    folder: str  # in its archive
    train: tuple[str, ...]
    test: str
    label_bytes: int  # the last of them is the label
    hub_folder: str
    label_column: str


_KINDS = {
    "cifar10": _Cifar(
        name="CIFAR-10",
        classes=10,
        folder="cifar-10-batches-bin",
        train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test="test_batch.bin",
        label_bytes=1,
        hub_folder="plain_text",
        label_column="label",
    ),
    "cifar100": _Cifar(
        name="CIFAR-100",
        classes=100,
        folder="cifar-100-binary",
        train=("train.bin",),
        test="test.bin",
        label_bytes=2,  # coarse, fine
        hub_folder="cifar100",
        label_column="fine_label",
    ),
}


def find_cifar(root: Path, kind: Literal["cifar10", "cifar100"]) -> ImageFiles:
    """Find the files in a folder, or in the one that its archive or the Hub puts into it. Raises DataError."""
    of = _KINDS[kind]
    names = (*of.train, of.test)
    for inner in (root, root / of.folder):
        missing = [name for name in names if not (inner / name).is_file()]
        if not missing:
            return _files([inner / name for name in of.train], [inner / of.test], read_binary, of)
        if len(missing) < len(names):
            raise DataError(f"{inner}: {', '.join(missing)} is missing", KEY)
    for inner in (root, root / of.hub_folder, root / "data"):
        train, test = (sorted(inner.glob(f"{part}-*.parquet")) for part in ("train", "test"))
        if train and test:
            return _files(train, test, read_parquet, of)
    wanted = f"{of.train[0]} to {of.train[-1]}" if len(of.train) > 1 else of.train[0]
    raise DataError(f"{root}: holds no {of.name}: {wanted} with {of.test}, or train-*.parquet with test-*.parquet", KEY)


def _files(
    train: Sequence[Path], test: Sequence[Path], read: Callable[[Path, _Cifar], Images], of: _Cifar
) -> ImageFiles:
    return ImageFiles(partial(_all, train, read, of), partial(_all, test, read, of), of.classes)


def _all(paths: Sequence[Path], read: Callable[[Path, _Cifar], Images], of: _Cifar) -> Images:
    parts = [read(path, of) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        check_labels(part.labels, of.classes, str(path), of.name)
    return Images(np.concatenate([part.pixels for part in parts]), np.concatenate([part.labels for part in parts]))


def read_binary(path: Path, of: _Cifar) -> Images:
    """Read records of labels, a byte each, and 3,072 bytes of red, green and blue planes. Raises DataError."""
    data = np.fromfile(path, np.uint8)
    record = of.label_bytes + np.prod(SHAPE)
    if len(data) % record:
        raise DataError(f"{path}: truncated: {len(data)} bytes are not a multiple of {record}", KEY)
    records = data.reshape(-1, record)
    return Images(records[:, of.label_bytes :].reshape(-1, *SHAPE), records[:, of.label_bytes - 1])


def read_parquet(path: Path, of: _Cifar) -> Images:
    """Read a file with an image column of encoded PNG, `img` or `image`, and one of labels. Raises DataError."""
    import pandas as pd  # only here is it of use

    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # what pyarrow raises for a damaged file is one of these
        raise DataError(f"{path}: not a parquet file that can be read: {error}", KEY) from error
    column = next((name for name in ("img", "image") if name in table), None)
    if column is None or of.label_column not in table:
        has = ", ".join(map(str, table.columns))
        raise DataError(f"{path}: needs columns img and {of.label_column}; it has {has}", KEY)
    labels = table[of.label_column].to_numpy()
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: a label that is none of 0 to {of.classes - 1}", KEY)
    pixels = [_decoded(image, f"{path}, row {row}") for row, image in enumerate(table[column])]
    return Images(np.array(pixels, np.uint8).reshape(-1, *SHAPE), labels)


def _decoded(image: Any, where: str) -> NDArray[np.uint8]:
    """Return the pixels (3, 32, 32) of a row's image."""
    try:
        from PIL import Image
    except ImportError:
        raise DataError("parquet files hold PNG: install Pillow, pip install 'batch-frontier[images]'", KEY) from None
    try:
        pixels = np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB"))
    except (OSError, SyntaxError, TypeError, KeyError) as error:  # Pillow has its own SyntaxError for a broken PNG
        raise DataError(f"{where}: not an image that can be read: {error}", KEY) from error
    if pixels.shape != (32, 32, 3):
        raise DataError(f"{where}: is {pixels.shape[1]} x {pixels.shape[0]} pixels, not 32 x 32", KEY)
    return pixels.transpose(2, 0, 1)
