"""Find a workload's data before anything is trained: its files, and the number of its training samples."""

from __future__ import annotations

from pathlib import Path

from study.config.schema import StudyConfig, merged
from study.config.workloads import Custom, ImageFolder, Text, Workload
from study.errors import DataError
from study.workloads.data.cifar import find_cifar
from study.workloads.data.huggingface import count_images, find_datasets
from study.workloads.data.idx import find_idx
from study.workloads.data.image_files import KEY, ImageFiles
from study.workloads.data.text import read_text
from study.workloads.user_code.build import count_samples


def find_files(workload: Workload) -> None:
    """Raise DataError if the files of a workload of the package are not here, or are others than the config says."""
    if isinstance(workload, ImageFolder):
        find_images(workload)
    if isinstance(workload, Text):
        read_text(workload)


def find_images(config: ImageFolder) -> ImageFiles:
    """Find the files of a folder, or of the one that an archive or the Hub puts into it. Raises DataError."""
    root = Path(config.path).expanduser()
    if not root.is_dir():
        raise DataError(f"{config.path}: there is no such folder", KEY)
    if config.kind in ("cifar10", "cifar100"):
        return find_cifar(root, config.kind)
    return find_datasets(root) if config.kind == "datasets" else find_idx(root)


def with_sample_counts(config: StudyConfig) -> StudyConfig:
    """Return the config with the samples, or bytes, of data of any size filled in: its next reader needs no data.

    Raises DataError for data that cannot be counted.
    """
    found = _count(config.workload, config)
    if found:
        config = config.model_copy(update={"workload": config.workload.model_copy(update=found)})
    variants = dict(config.variants)
    for name, changes in variants.items():
        variant = config.variant(name)
        found = _count(variant.workload, variant)
        if found:
            variants[name] = merged(changes, {"workload": found})
    return config.model_copy(update={"variants": variants}) if variants != config.variants else config


def _count(workload: Workload, config: StudyConfig) -> dict[str, int]:
    """Return the counts that the config leaves out, by key."""
    if isinstance(workload, Custom) and workload.train_samples is None:
        return {"train_samples": count_samples(workload, min(config.batch_sizes))}
    if isinstance(workload, ImageFolder) and workload.train_images is None:
        return {"images": count_images(workload.path)}
    if isinstance(workload, Text) and workload.text_bytes is None:
        return {"text_bytes": len(read_text(workload))}
    return {}
