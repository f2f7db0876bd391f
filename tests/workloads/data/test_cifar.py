"""CIFAR-10 and CIFAR-100 in both formats, whole and damaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from study.config.workloads import ImageFolder
from study.errors import DataError
from study.workloads.data.discovery import find_images
from study.workloads.data.image_files import ImageFiles
from study.workloads.data.splits import Splits, image_folder

PER_FILE = 4
LABELS = (np.arange(6 * PER_FILE) % 10).astype(np.uint8)
NOISE = np.random.default_rng(0).integers(128, size=(6 * PER_FILE, 3, 32, 32), dtype=np.uint8)
PIXELS = NOISE + 14 * LABELS[:, None, None, None]  # a class is its brightness
TRAIN, TEST = slice(0, 5 * PER_FILE), slice(5 * PER_FILE, None)
BATCHES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]


def write_binary(folder: Path, labels: NDArray[np.uint8] = LABELS) -> None:
    """Five training files and one for the test."""
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(BATCHES):
        rows = slice(i * PER_FILE, (i + 1) * PER_FILE)
        (folder / name).write_bytes(np.hstack([labels[rows, None], PIXELS[rows].reshape(PER_FILE, -1)]).tobytes())


def png(pixels: NDArray[np.uint8]) -> bytes:
    """An image (3, h, w), encoded."""
    import io

    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install 'batch-frontier[images]'")
    file = io.BytesIO()
    image.fromarray(pixels.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def write_parquet(folder: Path, column: str = "img", **changes: Any) -> None:
    """The Hub's layout, the training set in two files."""
    folder.mkdir(exist_ok=True)
    middle = 2 * PER_FILE
    parts = {
        "train-00000-of-00002": slice(0, middle),
        "train-00001-of-00002": slice(middle, 5 * PER_FILE),
        "test-00000-of-00001": TEST,
    }
    for name, rows in parts.items():
        images = [{"bytes": png(pixels), "path": None} for pixels in PIXELS[rows]]
        data = {column: images, "label": LABELS[rows].astype(np.int64)} | changes
        pd.DataFrame(data).to_parquet(folder / f"{name}.parquet")


def load(folder: Path, **changes: Any) -> Splits:
    values = {"kind": "cifar10", "path": str(folder), "images": 5 * PER_FILE, "val_samples": 6} | changes
    return image_folder(ImageFolder.model_validate(values))


def found(folder: Path, kind: str = "cifar10") -> ImageFiles:
    return find_images(ImageFolder.model_validate({"kind": kind, "path": str(folder)}))


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_binary_files_are_read_to_the_last_pixel(tmp_path: Path, inner: str) -> None:
    write_binary(tmp_path / inner)
    files = found(tmp_path)
    train, test = files.train(), files.test()
    assert np.array_equal(train.pixels, PIXELS[TRAIN])
    assert np.array_equal(train.labels, LABELS[TRAIN])
    assert np.array_equal(test.pixels, PIXELS[TEST])
    assert np.array_equal(test.labels, LABELS[TEST])


@pytest.mark.parametrize(("inner", "column"), [("", "img"), ("plain_text", "img"), ("data", "image")])
def test_parquet_files_hold_the_same(tmp_path: Path, inner: str, column: str) -> None:
    write_parquet(tmp_path / inner, column)
    files = found(tmp_path)
    train, test = files.train(), files.test()
    assert np.array_equal(train.pixels, PIXELS[TRAIN])
    assert np.array_equal(train.labels, LABELS[TRAIN])
    assert np.array_equal(test.pixels, PIXELS[TEST])


def test_cifar100_has_its_fine_labels_behind_its_coarse_ones(tmp_path: Path) -> None:
    fine = (np.arange(6 * PER_FILE) * 4).astype(np.uint8)
    coarse = fine // 5
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for name, rows in (("train.bin", TRAIN), ("test.bin", TEST)):
        pixels = PIXELS[rows]
        records = np.hstack([coarse[rows, None], fine[rows, None], pixels.reshape(len(pixels), -1)])
        (folder / name).write_bytes(records.tobytes())
    files = found(tmp_path, "cifar100")
    train, test = files.train(), files.test()
    assert files.classes == 100
    assert np.array_equal(train.pixels, PIXELS[TRAIN])
    assert np.array_equal(train.labels, fine[TRAIN])
    assert np.array_equal(test.labels, fine[TEST])
    (folder / "train.bin").write_bytes((folder / "train.bin").read_bytes()[:-1])
    with pytest.raises(DataError, match=r"train.bin: truncated: \d+ bytes are not a multiple of 3074$"):
        files.train()
    (folder / "test.bin").unlink()
    with pytest.raises(DataError, match=r"cifar-100-binary: test.bin is missing$"):
        found(tmp_path, "cifar100")


def test_cifar100_in_parquet_files(tmp_path: Path) -> None:
    write_parquet(tmp_path / "cifar100", fine_label=42, coarse_label=3)
    train = found(tmp_path, "cifar100").train()
    assert np.array_equal(train.pixels, PIXELS[TRAIN])
    assert (train.labels == 42).all()
    write_parquet(tmp_path / "cifar100")
    with pytest.raises(DataError, match="needs columns img and fine_label; it has img, label"):
        found(tmp_path, "cifar100").train()


def test_splits_are_normalized_apart_and_the_same_every_time(tmp_path: Path) -> None:
    write_binary(tmp_path)
    splits, again, other = load(tmp_path), load(tmp_path), load(tmp_path, data_seed=1)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (14, 6, PER_FILE)
    assert splits.train.x.shape[1:] == (3, 32, 32)
    assert torch.allclose(splits.train.x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(splits.train.x.std((0, 2, 3)), torch.ones(3), atol=1e-3)
    assert torch.equal(splits.val.x, again.val.x)
    assert not torch.equal(splits.val.x, other.val.x)
    assert len({tuple(row) for part in (splits.train, splits.val) for row in part.x.flatten(1).tolist()}) == 20
    # Training batches alone are augmented.
    assert (splits.train.crop_px, splits.val.crop_px, splits.test.crop_px) == (4, 0, 0)


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut(folder: Path) -> None:
    file = folder / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-1])


def empty(folder: Path) -> None:
    (folder / "test_batch.bin").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (drop("data_batch_2.bin"), r"data_batch_2.bin is missing$"),
        (cut, r"data_batch_3.bin: truncated: 12291 bytes are not a multiple of 3073$"),
        (empty, r"test_batch.bin: holds no image$"),
        (lambda folder: write_binary(folder, LABELS + 7), r"data_batch_1.bin: a label of 10; CIFAR-10 has 0 to 9$"),
        (lambda folder: [drop(name)(folder) for name in BATCHES], "holds no CIFAR-10: data_batch_1.bin to"),
    ],
)
def test_damage_is_one_line_that_names_the_file(tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    write_binary(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=r"^workload\.path: .*" + says):
        load(tmp_path)


def test_a_folder_that_is_not_there_and_another_number_of_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^workload.path: .*nowhere: there is no such folder$"):
        load(tmp_path / "nowhere")
    write_binary(tmp_path)
    with pytest.raises(DataError, match=r"^workload.images: is 50000, but the training files hold 20$"):
        load(tmp_path, images=50_000)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"label": -1}, "a label of -1; CIFAR-10 has 0 to 9"),
        ({"label": 0.5}, "a label that is none of 0 to 9"),
        ({"img": None}, "row 0: not an image"),
        ({"img": "x"}, "row 0: not an image"),
    ],
)
def test_parquet_files_of_other_contents(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    write_parquet(tmp_path, **changes)
    with pytest.raises(DataError, match=f"train-00000-of-00002.parquet.*{says}"):
        load(tmp_path)


def test_parquet_files_that_cannot_be_read(tmp_path: Path) -> None:
    write_parquet(tmp_path, "picture")
    with pytest.raises(DataError, match="needs columns img and label; it has picture, label"):
        load(tmp_path)
    (tmp_path / "train-00000-of-00002.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not a parquet file that can be read"):
        load(tmp_path)
    small = [{"bytes": png(PIXELS[0][:, :16]), "path": None}]
    pd.DataFrame({"img": small, "label": [1]}).to_parquet(tmp_path / "train-00000-of-00002.parquet")
    with pytest.raises(DataError, match="row 0: is 32 x 16 pixels, not 32 x 32"):
        load(tmp_path)
    broken = [{"bytes": png(PIXELS[0])[:500], "path": None}]
    pd.DataFrame({"img": broken, "label": [1]}).to_parquet(tmp_path / "train-00000-of-00002.parquet")
    with pytest.raises(DataError, match="row 0: not an image that can be read"):
        load(tmp_path)


def test_without_pillow_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(DataError, match=r"install Pillow, pip install 'batch-frontier\[images\]'$"):
        load(tmp_path)
