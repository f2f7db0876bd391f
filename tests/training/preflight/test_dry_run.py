"""What is said of a user's module and data before anything runs."""

from collections.abc import Callable
from typing import Any

import pytest

from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.planning.trials import make_plan
from study.training.preflight.dry_run import dry_run
from tests.user_code import SAMPLES

Make = Callable[..., StudyConfig]


def tried(config: Make, changes: dict[str, Any], batch_sizes: list[int], **others: Any) -> None:
    workload = {
        "module": "tests.user_code:Net", "data": "tests.user_code:Data", "train_samples": SAMPLES,
        "val_accuracy": "val_acc",
    } | changes  # fmt: skip
    dry_run(make_plan(config(workload=workload, batch_sizes=batch_sizes, **others)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data": "tests.user_code:Streamed"},
        {"optimizer": "module"},
        {"module": "tests.user_code:NoOptimizer"},
        {"module": "tests.user_code:Normed"},
    ],
    ids=["map-style", "stream", "their optimizer", "no optimizer", "batch norm"],
)
def test_what_is_right_passes_without_a_word(
    config: Make, changes: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    tried(config, changes, [8, 64])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"module": "tests.user_code:Data"}, r"^workload\.module: tests.user_code:Data is no LightningModule$"),
        ({"module": "tests.user_code:Foreign"}, r"is no LightningModule; import Ligh.* or pytorch_lightning$"),
        ({"data": "tests.user_code:Wide"}, r"^workload\.data: tests.user_code:Wide is no LightningDataModule$"),
        ({"data": None}, r"^workload\.module: Net has no train_dataloader, and workload\.data names no"),
        ({"data": "tests.user_code:NoBatchSize"}, r"^workload\.data: .* take batch_size, .* \(did you mean batch\?\)$"),
        ({"module_args": {"widht": 3}}, r"^workload\.module: .*Net does not take widht \(did you mean width\?\)$"),
        ({"module_args": {"width": "x"}}, r"^workload\.module: TypeError: .* \(user_code\.py:\d+\)$"),
        ({"data": "tests.user_code:FixedSize"}, r"^workload\.data: its train_dataloader yields batches of 8 when"),
        ({"data": "tests.user_code:FixedStream"}, r"^workload\.data: its train_dataloader yields a batch of 3 when"),
        ({"data": "tests.user_code:TwoLoaders"}, r"^workload\.data: train_dataloader must give one loader"),
        ({"data": "tests.user_code:NoVal"}, r"^workload\.data: NoVal has no train_dataloader$"),
        ({"data_args": {"val_samples": 0}}, r"^workload\.data: its validation set is empty$"),
        ({"train_samples": 80}, r"^workload\.train_samples: is 80, but the training set has 64$"),
        ({"module": "tests.user_code:NoTraining"}, r"^workload\.module: NoTraining has no training_step$"),
        ({"module": "tests.user_code:NoLoss"}, r"^workload\.module: its training_step returns no loss$"),
        ({"module": "tests.user_code:NoOptimizer", "optimizer": "module"}, r"NoOptimizer has no configure_optimizers$"),
        ({"module": "tests.user_code:ByHand"}, r"^workload\.optimizer: must be module: the module optimizes by hand"),
        ({"module": "tests.user_code:Silent"}, r"^workload\.val_accuracy: .* does not log val_acc; it logs nothing$"),
        ({"val_accuracy": "val_ac"}, r"it logs val_acc \(did you mean val_acc\?\)$"),
        ({"val_loss": "loss"}, r"^workload\.val_loss: the module does not log loss; it logs val_acc$"),
        ({"module": "tests.user_code:Wide"}, r"^workload: RuntimeError: .* \(8x8 and 9x2\) \(user_code\.py:\d+\)$"),
        ({"module": "tests.user_code:Hoarder"}, r"^workload\.module: keeps in its checkpoint what cannot be read back"),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else None,
)  # fmt: skip
def test_what_is_missing_is_one_line(config: Make, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        tried(config, changes, [8])
    assert "\n" not in str(caught.value)


def test_batch_norm_on_a_micro_batch_of_one(config: Make) -> None:
    hardware = {"world_size": 4}
    with pytest.raises(ConfigError, match=r"^batch_sizes: a rank has a micro batch of 1, on which batch norm"):
        tried(config, {"module": "tests.user_code:Normed"}, [4, 16], hardware=hardware)
    tried(config, {}, [4], hardware=hardware)


def test_a_variant_is_named(config: Make) -> None:
    variants = {"good": {}, "bad": {"workload": {"module": "tests.user_code:NoLoss"}}}
    with pytest.raises(ConfigError, match=r"^variants\.bad\.workload\.module: its training_step returns no loss"):
        tried(config, {}, [8], variants=variants)
