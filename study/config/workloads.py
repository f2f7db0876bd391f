"""The workloads: those of the package, and a user's by import path."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from study.config.objective import less_is_better_word
from study.config.sections import Fraction, PositiveFloat, PositiveInt, Section, Seed, Width
from study.errors import ConfigError

OpenFraction = Annotated[float, Field(gt=0, lt=1)]
ImportPath = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
DIGITS_SAMPLES = 1797
MOST_GPT_WEIGHTS = 2**30  # 16 GiB with gradients and AdamW's two moments
MOST_TEACHER_VALUES = 2**28  # 2 GiB of float64 on the way


class Digits(Section):
    """scikit-learn's digits: 1,797 images of 8 x 8 pixels in 10 classes, included in scikit-learn."""

    kind: Literal["digits"] = "digits"
    model: Literal["mlp", "convnet"] = Field("mlp", description="network to train")
    width: Width = Field(64, description="hidden units (mlp) or channels of the first stage (convnet)")
    val_samples: PositiveInt = Field(300, description="samples held apart for validation")
    test_samples: PositiveInt = Field(300, description="samples held apart for the test")
    data_seed: Seed = Field(0, description="fixes the three splits, whatever the trial's seed")


class Contrastive(Section):
    """SimCLR on the digits: features learnt without labels; accuracy is that of a linear probe of them."""

    kind: Literal["contrastive"]
    width: Width = Field(64, description="hidden units of the encoder, and features that the probe reads")
    temperature: PositiveFloat = Field(0.5, description="of NT-Xent, which similarities are divided by")
    probe_labels: int = Field(
        100,
        ge=10,
        le=10**9,
        description="training samples whose labels the probe may see; few show differences between features best",
    )
    val_samples: PositiveInt = Field(300, description="samples held apart for validation")
    test_samples: PositiveInt = Field(300, description="samples held apart for the test")
    data_seed: Seed = Field(0, description="fixes the three splits, whatever the trial's seed")


class Teacher(Section):
    """Gaussian inputs labelled by a random two-layer network, with some labels redrawn at random."""

    kind: Literal["teacher"]
    model: Literal["mlp"] = Field("mlp", description="network to train")
    width: Width = Field(64, description="hidden units of the network to train")
    train_samples: PositiveInt = Field(4096, description="samples to train on")
    val_samples: PositiveInt = Field(1024, description="samples held apart for validation")
    test_samples: PositiveInt = Field(1024, description="samples held apart for the test")
    features: Width = Field(32, description="inputs of a sample")
    classes: int = Field(10, ge=2, le=65_536, description="number of labels")
    label_noise: Fraction = Field(0.1, description="share of training labels redrawn uniformly over the classes")
    teacher_width: Width = Field(32, description="hidden units of the labelling network")
    data_seed: Seed = Field(0, description="fixes teacher, samples and splits")

    @model_validator(mode="after")
    def _in_memory(self) -> Teacher:
        samples = self.train_samples + self.val_samples + self.test_samples
        widest = max(self.features, self.teacher_width, self.classes)
        if samples * widest > MOST_TEACHER_VALUES:
            raise ValueError(
                f"{samples:,} samples times {widest:,}, the largest of features, teacher_width and classes, "
                f"are more than the {MOST_TEACHER_VALUES:,} numbers that a synthetic data set may hold"
            )
        return self


class ImageFolder(Section):
    """Labelled images from a folder, in the format of their authors; nothing is downloaded."""

    kind: Literal["cifar10", "cifar100", "mnist", "fashion_mnist", "datasets"] = Field(
        description="the files: CIFAR binary or parquet, MNIST's IDX, or what Hugging Face's `save_to_disk` writes"
    )
    path: str = Field(min_length=1, description="the folder; the same, with the same files, on every node")
    model: Literal["resnet", "convnet", "mlp"] = Field("resnet", description="network to train")
    depth: int = Field(20, ge=8, le=1202, description="layers of the resnet, 6n + 2; the others' are fixed")
    width: Width = Field(16, description="channels of the first stage, or hidden units of the mlp")
    images: PositiveInt | None = Field(
        None, description="images in the training files; left out, as many as were published, or counted for datasets"
    )
    val_samples: PositiveInt = Field(5_000, description="images of these held apart for validation")
    data_seed: Seed = Field(0, description="fixes the split, whatever the trial's seed")

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if depth % 6 != 2:
            raise ValueError(f"must be 6n + 2, such as 20, 32, 44, 56 or 110; got {depth}")
        return depth

    @property
    def train_images(self) -> int | None:
        """Images in the training files; None if unknown."""
        published = {"cifar10": 50_000, "cifar100": 50_000, "mnist": 60_000, "fashion_mnist": 60_000}
        return self.images or published.get(self.kind)


class Text(Section):
    """A small GPT over bytes; a sample is `context` bytes in a row, each predicted from those before it."""

    kind: Literal["text"]
    path: str | None = Field(
        None,
        min_length=1,
        description="a text file, or a folder of them, of any encoding; the same on every node; left out, the help "
        "topics of Python's standard library",
    )
    context: int = Field(64, ge=1, le=65_536, description="bytes of a sample, and the most that a prediction sees")
    width: int = Field(64, ge=1, le=16_384, description="numbers that stand for a byte between layers")
    depth: int = Field(2, ge=1, le=256, description="layers, each of attention and an mlp")
    heads: PositiveInt = Field(4, description="attention heads of a layer; they divide the width")
    tied_head: bool = Field(True, description="the output layer has the weights of the embedding of bytes")
    train_samples: PositiveInt | None = Field(
        None, description="samples to train on, from the beginning of the training part; left out, all of it"
    )
    val_fraction: OpenFraction = Field(0.1, description="share of the text, after the training part, for validation")
    test_fraction: OpenFraction = Field(0.1, description="share of the text, at its end, for the test")
    text_bytes: PositiveInt | None = Field(None, description="length of the text; left out, it is counted")

    @model_validator(mode="after")
    def _possible(self) -> Text:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, and {self.heads} does not divide {self.width}")
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction and test_fraction, {self.val_fraction:g} and {self.test_fraction:g}, leave nothing to "
                "train on; their sum must be below 1"
            )
        weights = 12 * self.depth * self.width**2
        if weights > MOST_GPT_WEIGHTS:
            raise ValueError(
                f"depth {self.depth} of width {self.width:,} are {weights:,} weights (12 x depth x width squared), "
                f"more than the {MOST_GPT_WEIGHTS:,} that this workload may have"
            )
        return self

    def part_sizes(self) -> tuple[int, int, int]:
        """Return the samples of training, validation and test, which lie in the text in this order.

        Raises ConfigError if the text's length is not known, or if it is too short.
        """
        if self.text_bytes is None:
            raise ConfigError("is required where the text cannot be read", "workload.text_bytes")
        samples = (self.text_bytes - 1) // self.context  # nothing predicts the first byte of the text
        val, test = (max(int(share * samples), 1) for share in (self.val_fraction, self.test_fraction))
        train = samples - val - test
        if train < 1:
            raise ConfigError(
                f"{self.context} leaves {samples} samples of a text of {self.text_bytes:,} bytes; training, validation "
                "and test need one each",
                "workload.context",
            )
        if self.train_samples is not None and self.train_samples > train:
            raise ConfigError(
                f"is {self.train_samples}, but the training part of the text has {train}", "workload.train_samples"
            )
        return self.train_samples or train, val, test


class OwnCallback(Section):
    """A user's callback, by import path."""

    path: ImportPath = Field(description="class, as package.module:Class")
    args: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the class")

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class Custom(Section):
    """A user's LightningModule, and its data and callbacks, by import path (docs/own-model.md)."""

    kind: Literal["custom"] = "custom"
    module: ImportPath = Field(description="LightningModule, as package.module:Class")
    data: ImportPath | None = Field(
        None,
        description="LightningDataModule, as package.module:Class; left out, the loaders are methods of the module",
    )
    module_args: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the module")
    data_args: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the data module")
    batch_size_key: str = Field(
        "batch_size",
        description="argument of the data module that is the batch size, or section.key of one within data_args; the "
        "module is given it too if it takes it",
    )
    train_samples: PositiveInt | None = Field(
        None, description="samples in the training set; left out, they are counted, unless the set is a stream"
    )
    data_batch: Literal["micro", "global"] = Field(
        "micro",
        description="batch size of the data module: samples that a rank takes at once; "
        "global: those of all ranks, for a data module that divides by trainer.world_size",
    )
    tokens_per_sample: PositiveInt | None = Field(
        None, description="tokens of a sample, where samples are of tokens: figures in tokens stand beside samples"
    )
    val_accuracy: str = Field(
        "val_accuracy", description="name under which the module logs its validation accuracy, a share from 0 to 1"
    )
    val_loss: str | None = Field(
        None, description="name under which it logs its validation loss; left out, val_loss where that is logged"
    )
    optimizer: Literal["study", "module"] = Field(
        "study",
        description="module: the module's configure_optimizers and schedule; search.lr lists factors of its rates",
    )
    loss_weight: str | None = Field(
        None,
        description="name under which training_step returns (in a dict, beside loss) or logs the number, of tokens "
        "say, that its loss is a mean over; an update is then the mean over the global batch however it is split; left "
        "out, all micro batches count the same",
    )
    train_loss: str | None = Field(
        None,
        description="of a module that optimizes by hand and whose training_step returns no loss: name under which that "
        "logs one; left out, train_loss",
    )
    find_unused_parameters: bool = Field(
        False, description="DDP looks for parameters that have no part in the loss; slower, and needed if there are any"
    )
    callbacks: Annotated[tuple[OwnCallback, ...], Field(max_length=100)] = Field(
        (), description="further callbacks, each as package.module:Class or as {path: package.module:Class, args: {}}"
    )

    @property
    def import_paths(self) -> tuple[tuple[str, str], ...]:
        """The user's classes: key of each, and its import path."""
        data = () if self.data is None else (("data", self.data),)
        return ("module", self.module), *data, *(("callbacks", one.path) for one in self.callbacks)

    @field_validator("batch_size_key")
    @classmethod
    def _dotted(cls, key: str) -> str:
        if not all(part.isidentifier() for part in key.split(".")):
            raise ValueError(f"must be an argument's name, or section.key of one within data_args; got {key}")
        return key

    @field_validator("val_accuracy")
    @classmethod
    def _more_is_better(cls, name: str) -> str:
        if word := less_is_better_word(name):
            raise ValueError(
                f"{name} sounds like a figure of which less is better ({word.lower()}), and of an accuracy more is "
                f"better; to judge by it, give objective: {{metric: {name}, mode: min}}"
            )
        return name


def _tag(value: Any) -> str | None:
    if isinstance(value, Section):
        return str(getattr(value, "kind", None))
    if not isinstance(value, dict):
        return None
    return str(value.get("kind", "custom" if {"module", "data"} & value.keys() else "digits"))


Embedded = Digits | Teacher | ImageFolder | Text  # classified, from tensors in memory
Workload = Annotated[
    Annotated[Digits, Tag("digits")]
    | Annotated[Contrastive, Tag("contrastive")]
    | Annotated[Teacher, Tag("teacher")]
    | Annotated[ImageFolder, Tag("cifar10")]
    | Annotated[ImageFolder, Tag("cifar100")]
    | Annotated[ImageFolder, Tag("mnist")]
    | Annotated[ImageFolder, Tag("fashion_mnist")]
    | Annotated[ImageFolder, Tag("datasets")]
    | Annotated[Text, Tag("text")]
    | Annotated[Custom, Tag("custom")],
    Discriminator(_tag),
]


def train_samples(workload: Embedded | Contrastive | Custom) -> int:
    """Return the size of the training set. Raises ConfigError if it is not known, or too little is left to train on."""
    if isinstance(workload, Custom):
        if workload.train_samples is None:
            raise ConfigError("is required where the data cannot be counted", "workload.train_samples")
        return workload.train_samples
    if isinstance(workload, Teacher):
        return workload.train_samples
    if isinstance(workload, Text):
        if workload.text_bytes is None and workload.train_samples is not None:
            return workload.train_samples  # whether the text is long enough is seen once it is read
        return workload.part_sizes()[0]
    if isinstance(workload, ImageFolder):
        images = workload.train_images
        if images is None:
            raise ConfigError("is required where the folder cannot be read", "workload.images")
        if workload.val_samples >= images:
            raise ConfigError(f"{workload.val_samples} is all of the {images} images", "workload.val_samples")
        return images - workload.val_samples
    left = DIGITS_SAMPLES - workload.val_samples - workload.test_samples
    if left < 1:
        raise ConfigError(
            f"val_samples and test_samples take all of the {DIGITS_SAMPLES} digits; their sum must be below it",
            "workload",
        )
    if isinstance(workload, Contrastive) and workload.probe_labels > left:
        raise ConfigError(f"{workload.probe_labels} is more than the {left} training samples", "workload.probe_labels")
    return left
