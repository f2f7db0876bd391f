"""Images in a folder that Hugging Face's `DatasetDict.save_to_disk` wrote (extra `datasets`)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from study.errors import DataError
from study.workloads.data.image_files import KEY, ImageFiles, Images, check_labels

GREY = ("1", "L")  # Pillow's names


def count_images(folder: str) -> int:
    """Return the number of images of the split `train`. Raises DataError."""
    return len(_splits(Path(folder).expanduser())["train"])


def find_datasets(root: Path) -> ImageFiles:
    """Find the splits `train` and `test`, each with a column of images and one of class labels. Raises DataError."""
    splits = _splits(root)
    image, label = (_column(root, splits["train"].features, kind) for kind in ("Image", "ClassLabel"))
    classes = splits["train"].features[label].num_classes
    train, test = (partial(_read, splits[name], f"{root}/{name}", image, label, classes) for name in ("train", "test"))
    return ImageFiles(train, test, classes)


def _splits(root: Path) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError("such folders need a package: pip install 'batch-frontier[datasets]'", KEY) from None
    if not (root / "dataset_dict.json").is_file():
        raise DataError(f"{root}: holds no dataset_dict.json, which DatasetDict.save_to_disk writes", KEY)
    try:
        splits = datasets.load_from_disk(str(root))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{root}: cannot be read: {error}", KEY) from error
    missing = [name for name in ("train", "test") if name not in splits]
    if missing:
        raise DataError(f"{root}: has no split {' nor '.join(missing)}; it has {', '.join(splits)}", KEY)
    return splits


def _column(root: Path, features: Any, kind: str) -> str:
    """Return the only column of a kind."""
    found = [name for name, feature in features.items() if type(feature).__name__ == kind]
    if len(found) != 1:
        raise DataError(f"{root}: needs one column of type {kind}; it has {', '.join(found) or 'none'}", KEY)
    return found[0]


def _read(split: Any, where: str, image: str, label: str, classes: int) -> Images:
    labels = np.array([-1 if number is None else number for number in split[label]], np.int64)
    check_labels(labels, classes, where, "its ClassLabel")
    pixels: list[Any] = []
    for row in range(len(split)):
        try:
            picture = split[row][image]
            if row == 0:
                mode = "L" if picture.mode in GREY else "RGB"
            pixels.append(np.asarray(picture.convert(mode)))
        # Pillow has its own SyntaxError for a broken PNG; a row without an image is None.
        except (OSError, SyntaxError, ValueError, AttributeError) as error:
            raise DataError(f"{where}, row {row}: not an image that can be read: {error}", KEY) from error
        if pixels[row].shape != pixels[0].shape:
            size, first = ("{1} x {0}".format(*pixels[i].shape) for i in (row, 0))
            raise DataError(f"{where}, row {row}: is {size} pixels, the first {first}", KEY)
    stacked = np.array(pixels, np.uint8)
    return Images(stacked[:, None] if stacked.ndim == 3 else stacked.transpose(0, 3, 1, 2), labels)
