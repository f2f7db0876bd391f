"""MNIST and Fashion-MNIST, whole and damaged."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from study.config.workloads import ImageFolder
from study.errors import DataError
from study.workloads.data.discovery import find_images
from study.workloads.data.splits import image_folder

TRAIN, TEST = 12, 5
PIXELS = np.random.default_rng(0).integers(256, size=(TRAIN + TEST, 28, 28), dtype=np.uint8)
LABELS = (np.arange(TRAIN + TEST) % 10).astype(np.uint8)


def idx(array: NDArray[np.uint8]) -> bytes:
    """As the page of the authors has it."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder: Path, end: str = "-ubyte") -> None:
    """Plain, gzipped, or with a dot in the names."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", slice(TRAIN)), ("t10k", slice(TRAIN, None))):
        for kind, array in (("images-idx3", PIXELS[rows]), ("labels-idx1", LABELS[rows])):
            data = idx(array)
            name = f"{part}-{kind.replace('-', '.')}-ubyte" if end == "." else f"{part}-{kind}{end}"
            (folder / name).write_bytes(gzip.compress(data) if end.endswith("gz") else data)


def config(folder: Path, kind: str = "mnist") -> ImageFolder:
    return ImageFolder.model_validate({"kind": kind, "path": str(folder), "images": TRAIN, "val_samples": 2})


@pytest.mark.parametrize("kind", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize(("inner", "end"), [("", "-ubyte"), ("", "-ubyte.gz"), ("", "."), ("MNIST/raw", "-ubyte")])
def test_files_are_read_to_the_last_pixel(tmp_path: Path, kind: str, inner: str, end: str) -> None:
    write(tmp_path / inner, end)
    files = find_images(config(tmp_path, kind))
    train, test = files.train(), files.test()
    assert np.array_equal(train.pixels[:, 0], PIXELS[:TRAIN])
    assert np.array_equal(train.labels, LABELS[:TRAIN])
    assert np.array_equal(test.pixels[:, 0], PIXELS[TRAIN:])
    assert np.array_equal(test.labels, LABELS[TRAIN:])
    splits = image_folder(config(tmp_path, kind))
    assert splits.train.x.shape == (TRAIN - 2, 1, 28, 28)
    assert splits.train.crop_px == 0  # a mirrored digit would be another


def test_as_many_images_as_were_published_are_expected(tmp_path: Path) -> None:
    write(tmp_path)
    whole = ImageFolder.model_validate({"kind": "mnist", "path": str(tmp_path)})
    with pytest.raises(DataError, match=r"^workload.images: is 60000, but the training files hold 12$"):
        image_folder(whole)


def change(name: str, edit: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(edit((folder / name).read_bytes()))


IMAGES, TEST_LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / IMAGES).unlink(), r"train-images-idx3-ubyte is missing, with or without .gz$"),
        (change(IMAGES, lambda data: data[:-1]), r"train-images-idx3-ubyte: truncated: 9423 bytes, where .* 9424$"),
        (change(IMAGES, lambda data: data + b"x"), r"train-images-idx3-ubyte: too long: 9425 bytes, where .* 9424$"),
        (change(IMAGES, lambda data: data[:9]), r"train-images-idx3-ubyte: truncated: 9 bytes$"),
        (change(IMAGES, lambda data: b""), r"train-images-idx3-ubyte: begins with , not with 00 00 08 03"),
        (change(TEST_LABELS, lambda data: idx(PIXELS)), r"t10k-labels-idx1-ubyte: begins with 00 00 08 03, not with"),
        (change(TEST_LABELS, lambda data: idx(LABELS[:4])), r"t10k-images.*: 5 images, but t10k-labels.* has 4 labels"),
        (change(TEST_LABELS, lambda data: idx(LABELS[:5] + 9)), r"t10k-labels-idx1-ubyte: a label of 13; .* 0 to 9$"),
        (change(TEST_LABELS, lambda data: idx(LABELS[:0])), r"t10k-labels-idx1-ubyte: holds no image$"),
    ],
)  # fmt: skip
def test_damage_is_one_line_that_names_the_file(tmp_path: Path, damage: Callable[[Path], object], says: str) -> None:
    write(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=r"^workload\.path: .*" + says):
        image_folder(config(tmp_path))


@pytest.mark.parametrize("edit", [lambda data: data[:-9], lambda data: data[1:], lambda data: data[:20] + b"?" * 50])
def test_damaged_archives_are_named(tmp_path: Path, edit: Callable[[bytes], bytes]) -> None:
    write(tmp_path, "-ubyte.gz")
    change(f"{IMAGES}.gz", edit)(tmp_path)
    with pytest.raises(DataError, match=r"^workload\.path: .*train-images-idx3-ubyte.gz: cannot be unpacked"):
        image_folder(config(tmp_path))
