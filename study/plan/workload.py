"""What is trained: the workloads that come with the package, and your own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from study.plan.errors import PlanError
from study.plan.section import Fraction, PositiveFloat, PositiveInt, Section

ImportPath = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
DIGITS_SAMPLES = 1797


class Digits(Section):
    """scikit-learn's digits: 1,797 images of 8 x 8 pixels in 10 classes, always at hand."""

    kind: Literal["digits"] = "digits"
    model: Literal["mlp", "convnet"] = Field("mlp", description="network to train")
    width: PositiveInt = Field(64, description="hidden units (mlp) or channels of the first stage (convnet)")
    val_samples: PositiveInt = Field(300, description="samples held apart for validation")
    test_samples: PositiveInt = Field(300, description="samples held apart for the test")
    data_seed: int = Field(0, ge=0, description="fixes the three splits, whatever the trial's seed")


class Contrastive(Section):
    """SimCLR on the digits: features learnt without labels; accuracy is that of a linear probe of them."""

    kind: Literal["contrastive"]
    width: PositiveInt = Field(64, description="hidden units of the encoder, and features that the probe reads")
    temperature: PositiveFloat = Field(0.5, description="of NT-Xent, which similarities are divided by")
    probe_labels: int = Field(
        100, ge=10, description="training samples whose labels the probe may see; few tell features apart best"
    )
    val_samples: PositiveInt = Field(300, description="samples held apart for validation")
    test_samples: PositiveInt = Field(300, description="samples held apart for the test")
    data_seed: int = Field(0, ge=0, description="fixes the three splits, whatever the trial's seed")


class Teacher(Section):
    """Gaussian inputs labelled by a random two-layer network, with some labels redrawn at random."""

    kind: Literal["teacher"]
    model: Literal["mlp"] = Field("mlp", description="network to train")
    width: PositiveInt = Field(64, description="hidden units of the network to train")
    train_samples: PositiveInt = Field(4096, description="samples to train on")
    val_samples: PositiveInt = Field(1024, description="samples held apart for validation")
    test_samples: PositiveInt = Field(1024, description="samples held apart for the test")
    features: PositiveInt = Field(32, description="inputs of a sample")
    classes: int = Field(10, ge=2, description="number of labels")
    label_noise: Fraction = Field(0.1, description="share of training labels redrawn uniformly over the classes")
    teacher_width: PositiveInt = Field(32, description="hidden units of the labelling network")
    data_seed: int = Field(0, ge=0, description="fixes teacher, samples and splits")


class Cifar10(Section):
    """CIFAR-10 from a folder of yours: the binary version, or parquet files as the Hub has them."""

    kind: Literal["cifar10"]
    path: str = Field(min_length=1, description="the folder; the same on every node")
    model: Literal["resnet", "convnet"] = Field("resnet", description="network to train")
    depth: int = Field(20, ge=8, description="layers of the resnet, 6n + 2; the convnet's are fixed")
    width: PositiveInt = Field(16, description="channels of the first stage")
    images: PositiveInt = Field(50_000, description="images in the training files; checked when a trial starts")
    val_samples: PositiveInt = Field(5_000, description="images of these held apart for validation")
    data_seed: int = Field(0, ge=0, description="fixes the split, whatever the trial's seed")

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if depth % 6 != 2:
            raise ValueError(f"must be 6n + 2, such as 20, 32, 44, 56 or 110; got {depth}")
        return depth


class Custom(Section):
    """Your own LightningModule and LightningDataModule, by import path."""

    kind: Literal["custom"] = "custom"
    module: ImportPath = Field(description="LightningModule, as package.module:Class")
    data: ImportPath = Field(description="LightningDataModule, as package.module:Class; it is given batch_size")
    module_args: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the module")
    data_args: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the data module")
    train_samples: PositiveInt = Field(description="samples in the training set; checked when a trial starts")
    val_accuracy: str = Field("val_accuracy", description="name under which the module logs its accuracy")
    val_loss: str = Field("val_loss", description="name under which the module logs its validation loss")


def _tag(value: Any) -> str | None:
    if isinstance(value, Section):
        return str(getattr(value, "kind", None))
    if not isinstance(value, dict):
        return None
    return str(value.get("kind", "custom" if "module" in value else "digits"))


Embedded = Digits | Teacher | Cifar10  # classified, from tensors in memory
Workload = Annotated[
    Annotated[Digits, Tag("digits")]
    | Annotated[Contrastive, Tag("contrastive")]
    | Annotated[Teacher, Tag("teacher")]
    | Annotated[Cifar10, Tag("cifar10")]
    | Annotated[Custom, Tag("custom")],
    Discriminator(_tag),
]


def train_samples(workload: Digits | Contrastive | Teacher | Cifar10 | Custom) -> int:
    """Size of the training set. Raises PlanError if too little is left of the data to train on."""
    if isinstance(workload, Teacher | Custom):
        return workload.train_samples
    if isinstance(workload, Cifar10):
        if workload.val_samples >= workload.images:
            raise PlanError(f"{workload.val_samples} is all of the {workload.images} images", "workload.val_samples")
        return workload.images - workload.val_samples
    left = DIGITS_SAMPLES - workload.val_samples - workload.test_samples
    if left < 1:
        raise PlanError(
            f"val_samples and test_samples take all of the {DIGITS_SAMPLES} digits; their sum must be below it",
            "workload",
        )
    if isinstance(workload, Contrastive) and workload.probe_labels > left:
        raise PlanError(f"{workload.probe_labels} is more than the {left} training samples", "workload.probe_labels")
    return left
