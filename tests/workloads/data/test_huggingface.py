"""Folders that Hugging Face's save_to_disk wrote, whole and damaged."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from study.config.workloads import ImageFolder
from study.errors import DataError
from study.workloads.data.discovery import find_images
from study.workloads.data.huggingface import count_images
from study.workloads.data.splits import image_folder
from tests.conftest import make_config

datasets = pytest.importorskip("datasets", reason="pip install 'batch-frontier[datasets]'")
PIXELS = np.random.default_rng(0).integers(256, size=(9, 6, 6, 3), dtype=np.uint8)
LABELS = [0, 1, 2] * 3


def write(folder: Path, mode: str = "RGB", splits: tuple[str, ...] = ("train", "test"), **columns: Any) -> None:
    """Seven images to train on and two for the test."""
    from PIL import Image

    images = [Image.fromarray(pixels).convert(mode) for pixels in PIXELS]
    features = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b", "c"])}
    data: dict[str, Any] = {"picture": images, "kind": LABELS} | columns
    rows = {"train": slice(7), "test": slice(7, None), "validation": slice(7, None)}
    datasets.DatasetDict(
        {
            split: datasets.Dataset.from_dict(
                {name: column[rows[split]] for name, column in data.items()}, features=datasets.Features(features)
            )
            for split in splits
        }
    ).save_to_disk(str(folder))


def config(folder: Path, **changes: Any) -> ImageFolder:
    values = {"kind": "datasets", "path": str(folder), "images": 7, "val_samples": 2} | changes
    return ImageFolder.model_validate(values)


def test_images_in_colour_are_read_to_the_last_pixel(tmp_path: Path) -> None:
    write(tmp_path)
    files = find_images(config(tmp_path))
    train, test = files.train(), files.test()
    assert files.classes == 3
    assert np.array_equal(train.pixels, PIXELS[:7].transpose(0, 3, 1, 2))
    assert np.array_equal(test.pixels, PIXELS[7:].transpose(0, 3, 1, 2))
    assert train.labels.tolist() + test.labels.tolist() == LABELS


def test_grey_images_have_one_channel_and_are_counted(tmp_path: Path) -> None:
    from study.workloads.data.discovery import with_sample_counts

    write(tmp_path, "L")
    assert count_images(str(tmp_path)) == 7
    study = make_config(
        workload={"kind": "datasets", "path": str(tmp_path), "val_samples": 2},
        batch_sizes=[2],
        variants={"same": {}, "other": {"workload": {"data_seed": 1}}},
    )
    filled = with_sample_counts(study)
    assert isinstance(filled.workload, ImageFolder)
    assert filled.workload.images == 7
    assert filled.variant("other").workload == filled.workload.model_copy(update={"data_seed": 1})
    assert image_folder(filled.workload).train.x.shape == (5, 1, 6, 6)


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no dataset_dict.json, which DatasetDict.save_to_disk writes$"):
        find_images(config(tmp_path))
    write(tmp_path / "a", splits=("train", "validation"))
    with pytest.raises(DataError, match=r"a: has no split test; it has train, validation$"):
        find_images(config(tmp_path / "a"))
    write(tmp_path / "b", kind=[0, 1, None] * 3)
    with pytest.raises(DataError, match=r"b/train: a label of -1; its ClassLabel has 0 to 2$"):
        image_folder(config(tmp_path / "b"))
    write(tmp_path / "c", picture=[None] * 9)
    with pytest.raises(DataError, match=r"c/train, row 0: not an image that can be read"):
        image_folder(config(tmp_path / "c"))
    write(tmp_path / "d", picture=[PIXELS[0], PIXELS[0, :3], *PIXELS[2:]])
    with pytest.raises(DataError, match=r"d/train, row 1: is 6 x 3 pixels, the first 6 x 6$"):
        image_folder(config(tmp_path / "d"))


def test_a_damaged_file_is_told_with_its_folder(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train" / "data-00000-of-00001.arrow").write_bytes(b"ARROW1")
    with pytest.raises(DataError, match=f"^workload.path: {tmp_path}: cannot be read: "):
        find_images(config(tmp_path))


def test_without_the_package_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'batch-frontier\[datasets\]'$"):
        find_images(config(tmp_path))
