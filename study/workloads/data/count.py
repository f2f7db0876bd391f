"""The training samples of a study whose file does not tell them."""

from __future__ import annotations

from study.config.schema import StudyConfig, merged
from study.config.workloads import Custom, ImageFolder, Workload
from study.workloads.user_code.build import count_samples


def counted(config: StudyConfig) -> StudyConfig:
    """The config with the samples of the user's own data filled in, so that whoever reads it next needs no data.

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
    """What is missing, by key."""
    if isinstance(workload, Custom) and workload.train_samples is None:
        return {"train_samples": count_samples(workload, min(config.batch_sizes))}
    if isinstance(workload, ImageFolder) and workload.train_images is None:
        from study.workloads.data.huggingface import count_images

        return {"images": count_images(workload.path)}
    return {}
