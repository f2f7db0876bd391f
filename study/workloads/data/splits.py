"""Data held in memory as tensors, split once and for all by the data seed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from study.config.workloads import Contrastive, Digits, Embedded, ImageFolder, Teacher, Text
from study.errors import DataError
from study.workloads.data.discovery import find_images
from study.workloads.data.image_files import Images
from study.workloads.data.text import BYTES, read_text

CROP_PX = 4


@dataclass(frozen=True)
class Part:
    """Inputs (n, ...) float32 and labels (n,) int64; of a text, bytes (n, context) and those that follow each."""

    x: Tensor
    y: Tensor
    crop_px: int = 0  # training batches are moved at random by up to so many pixels, and mirrored; 0: left as they are
    used_on: torch.device | None = None  # where batches are copied to, one by one; None: the part lies where it is used

    def __len__(self) -> int:
        return len(self.y)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the tensors take."""
        return self.x.nbytes + self.y.nbytes

    def to(self, device: torch.device) -> Part:
        """Return the part on another device."""
        return replace(self, x=self.x.to(device), y=self.y.to(device))

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the samples with these numbers, (n,), on the device where they are used."""
        if self.used_on is None:
            return self.x[rows], self.y[rows]
        return _copied(self.x, rows, self.used_on), _copied(self.y, rows, self.used_on)


def _copied(values: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """Copy rows to another device. From pinned memory the copy goes on while the host collects the next ones."""
    chosen = torch.empty((len(rows), *values.shape[1:]), dtype=values.dtype, pin_memory=device.type == "cuda")
    return torch.index_select(values, 0, rows, out=chosen).to(device, non_blocking=True)


@dataclass(frozen=True)
class Splits:
    """Training, validation and test parts, which share no sample."""

    train: Part
    val: Part
    test: Part
    classes: int

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the three parts take."""
        return self.train.nbytes + self.val.nbytes + self.test.nbytes

    def to(self, device: torch.device) -> Splits:
        """Return the three parts on another device."""
        return replace(self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device))

    def streamed_to(self, device: torch.device) -> Splits:
        """Return the parts as they are, with each batch copied to a device when it is used."""
        train, val, test = (replace(part, used_on=device) for part in (self.train, self.val, self.test))
        return replace(self, train=train, val=val, test=test)


def load_splits(config: Embedded | Contrastive) -> Splits:
    """Load the data of a workload that comes with the package. Raises DataError."""
    if isinstance(config, Digits | Contrastive):
        return digits(config)
    if isinstance(config, Text):
        return text(config)
    return teacher(config) if isinstance(config, Teacher) else image_folder(config)


def digits(config: Digits | Contrastive) -> Splits:
    """Return scikit-learn's digits as images (n, 1, 8, 8) in [0, 1]."""
    from sklearn.datasets import load_digits  # ranks of other workloads start faster without scikit-learn

    bunch = load_digits()
    x = torch.from_numpy(bunch.images.astype(np.float32) / 16.0).unsqueeze(1)
    y = torch.from_numpy(bunch.target.astype(np.int64))
    order = torch.from_numpy(np.random.default_rng(config.data_seed).permutation(len(y)))
    n_train = len(y) - config.val_samples - config.test_samples
    train, val, test = order.split([n_train, config.val_samples, config.test_samples])
    return Splits(Part(x[train], y[train]), Part(x[val], y[val]), Part(x[test], y[test]), classes=10)


def teacher(config: Teacher) -> Splits:
    """Return standard normal inputs (n, features), labelled by the argmax of a random two-layer ReLU network.

    `label_noise` of the training labels are redrawn; validation and test labels stay clean, so that accuracy means
    agreement with the teacher.
    """
    rng = np.random.default_rng(config.data_seed)
    first = rng.standard_normal((config.features, config.teacher_width)) / np.sqrt(config.features)
    second = rng.standard_normal((config.teacher_width, config.classes)) / np.sqrt(config.teacher_width)
    sizes = [config.train_samples, config.val_samples, config.test_samples]
    x = rng.standard_normal((sum(sizes), config.features))
    hidden = np.maximum(x @ first, 0)
    # Centred, so that no class swallows the others.
    y = ((hidden - hidden.mean(axis=0)) @ second).argmax(axis=1)
    redrawn = rng.random(config.train_samples) < config.label_noise
    y[: config.train_samples][redrawn] = rng.integers(config.classes, size=int(redrawn.sum()))
    xs = torch.from_numpy(x.astype(np.float32)).split(sizes)
    ys = torch.from_numpy(y.astype(np.int64)).split(sizes)
    train, val, test = (Part(x_, y_) for x_, y_ in zip(xs, ys, strict=True))
    return Splits(train, val, test, classes=config.classes)


def text(config: Text) -> Splits:
    """Return inputs and labels (n, context), uint8, in the order of the text: the label of a byte is the next one.

    Each byte is a label at most once. The parts are contiguous: training from the beginning, the test at the end, and
    validation before it; less than a context is left over. Raises DataError.
    """
    data = torch.frombuffer(bytearray(read_text(config)), dtype=torch.uint8)
    n_train, n_val, n_test = config.part_sizes()
    end = (len(data) - 1) // config.context * config.context
    x, y = (values.view(-1, config.context) for values in (data[:end], data[1 : end + 1]))
    rows = (slice(n_train), slice(-n_val - n_test, -n_test), slice(-n_test, None))
    train, val, test = (Part(x[some], y[some]) for some in rows)
    return Splits(train, val, test, classes=BYTES)


def image_folder(config: ImageFolder) -> Splits:
    """Return images (n, channels, h, w), each channel with mean 0 and standard deviation 1 over the training split.

    Images in colour are taken for photographs: their training batches are moved by up to 4 pixels and mirrored, as in
    He et al. 2016, section 4.2; a mirrored digit would be another. Raises DataError.
    """
    files = find_images(config)
    labelled, test = files.train(), files.test()
    if (found := len(labelled.labels)) != config.train_images:
        raise DataError(f"is {config.train_images}, but the training files hold {found}", "workload.images")
    if labelled.pixels.shape[1:] != test.pixels.shape[1:]:
        raise DataError("the images of the test have another shape than those to train on", "workload.path")
    order = np.random.default_rng(config.data_seed).permutation(found)
    val, train = np.split(order, [config.val_samples])
    mean, std = _channel_statistics(labelled.pixels[train])

    def part(images: Images, chosen: NDArray[np.int64] | slice, crop_px: int = 0) -> Part:
        x = torch.from_numpy(images.pixels[chosen].astype(np.float32)).sub_(mean).div_(std)
        return Part(x, torch.from_numpy(images.labels[chosen].astype(np.int64)), crop_px)

    every = slice(None)
    crop_px = CROP_PX if len(mean) > 1 else 0
    return Splits(part(labelled, train, crop_px), part(labelled, val), part(test, every), classes=files.classes)


def _channel_statistics(pixels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel of (n, channels, h, w), as (channels, 1, 1)."""
    counts = [np.bincount(pixels[:, channel].ravel(), minlength=256) for channel in range(pixels.shape[1])]
    values = np.arange(256)
    means = [np.average(values, weights=count) for count in counts]
    variances = [np.average((values - mean) ** 2, weights=count) for mean, count in zip(means, counts, strict=True)]
    # A channel without any contrast has nothing to be divided by.
    stds = [max(variance**0.5, 1.0) for variance in variances]
    mean, std = (torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1) for numbers in (means, stds))
    return mean, std
