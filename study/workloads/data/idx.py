"""MNIST and whatever has its form, such as Fashion-MNIST: IDX files, plain or gzipped.

The form is on the MNIST page of its authors, "the IDX file format": two zero bytes, the type of an element (8: unsigned
byte), the number of dimensions, each dimension as a big-endian 32-bit integer, then the elements, row by row.
"""

from __future__ import annotations

import gzip
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from study.errors import DataError
from study.workloads.data.image_files import KEY, ImageFiles, Images, check_labels

CLASSES = 10
_UNSIGNED_BYTE = 8


def find_idx(root: Path) -> ImageFiles:
    """Find the four files in a folder, or in the `raw` folder that some downloaders make. Raises DataError."""
    inner = next((folder for folder in (root, *sorted(root.glob("*/raw")), root / "raw") if _any(folder)), root)
    train, test = ([_file(inner, part, kind) for kind in ("images-idx3", "labels-idx1")] for part in ("train", "t10k"))
    return ImageFiles(partial(_read, *train), partial(_read, *test), CLASSES)


def _any(folder: Path) -> bool:
    return any(folder.glob("train-images*"))


def _file(folder: Path, part: str, kind: str) -> Path:
    """Return the file, which some archives name with a dot."""
    names = [f"{part}-{kind}{end}" for end in ("-ubyte", "-ubyte.gz", ".ubyte")]
    names.insert(2, f"{part}-{kind.replace('-', '.')}-ubyte")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder}: {names[0]} is missing, with or without .gz", KEY)


def _read(images: Path, labels: Path) -> Images:
    pixels, numbers = read_idx(images, 3), read_idx(labels, 1)
    check_labels(numbers, CLASSES, str(labels), "such a data set")
    if len(pixels) != len(numbers):
        raise DataError(f"{images}: {len(pixels)} images, but {labels.name} has {len(numbers)} labels", KEY)
    return Images(pixels[:, None], numbers)


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return an array of so many dimensions. Raises DataError for anything else, or if the file is damaged."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be unpacked: {error}", KEY) from error
    magic = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if data[:4] != magic:
        raise DataError(f"{path}: begins with {data[:4].hex(' ')}, not with {magic.hex(' ')}: no such IDX file", KEY)
    begin = 4 + 4 * dimensions
    if len(data) < begin:
        raise DataError(f"{path}: truncated: {len(data)} bytes", KEY)
    shape = np.frombuffer(data, ">u4", dimensions, 4).astype(np.int64)
    wanted = begin + int(shape.prod())
    if len(data) != wanted:
        fault = "truncated" if len(data) < wanted else "too long"
        raise DataError(f"{path}: {fault}: {len(data)} bytes, where its head says {wanted}", KEY)
    return np.frombuffer(data, np.uint8, offset=begin).reshape(shape)
