"""What is said of a user's module and data before anything runs."""

from collections.abc import Callable
from typing import Any

import pytest

from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.planning.trials import make_plan
from study.training.preflight.dry_run import try_out
from tests.own import SAMPLES

Make = Callable[..., StudyConfig]


def tried(config: Make, changes: dict[str, Any], batch_sizes: list[int], **others: Any) -> None:
    workload = {
        "module": "tests.own:Net", "data": "tests.own:Data", "train_samples": SAMPLES, "val_accuracy": "val_acc",
    } | changes  # fmt: skip
    try_out(make_plan(config(workload=workload, batch_sizes=batch_sizes, **others)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data": "tests.own:Streamed"},
        {"optimizer": "module"},
        {"module": "tests.own:NoOptimizer"},
        {"module": "tests.own:Normed"},
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
        ({"module": "tests.own:Data"}, r"^workload\.module: tests.own:Data is no LightningModule$"),
        ({"module": "tests.own:Foreign"}, r"is no LightningModule; .* import LightningModule from pytorch_lightning$"),
        ({"data": "tests.own:Net"}, r"^workload\.data: tests.own:Net is no LightningDataModule$"),
        ({"data": "tests.own:NoBatchSize"}, r"^workload\.data: .*NoBatchSize does not take batch_size .* mean batch\?"),
        ({"module_args": {"widht": 3}}, r"^workload\.module: .*Net does not take widht \(did you mean width\?\)$"),
        ({"module_args": {"width": "x"}}, r"^workload\.module: TypeError: .* \(own\.py:\d+\)$"),
        ({"data": "tests.own:FixedSize"}, r"^workload\.data: its train_dataloader deals batches of 8 when"),
        ({"data": "tests.own:FixedStream"}, r"^workload\.data: its train_dataloader deals a batch of 3 when"),
        ({"data": "tests.own:TwoLoaders"}, r"^workload\.data: train_dataloader must give one loader"),
        ({"data": "tests.own:NoVal"}, r"^workload\.data: NoVal has no train_dataloader$"),
        ({"data_args": {"val_samples": 0}}, r"^workload\.data: its validation set is empty$"),
        ({"train_samples": 80}, r"^workload\.train_samples: is 80, but the data module has 64$"),
        ({"module": "tests.own:NoTraining"}, r"^workload\.module: NoTraining has no training_step$"),
        ({"module": "tests.own:NoLoss"}, r"^workload\.module: its training_step returns no loss$"),
        ({"module": "tests.own:NoOptimizer", "optimizer": "module"}, r"NoOptimizer has no configure_optimizers$"),
        ({"module": "tests.own:ByHand"}, r"^workload\.module: optimizes by hand"),
        ({"module": "tests.own:Silent"}, r"^workload\.val_accuracy: the module does not log val_acc; it logs nothing$"),
        ({"val_accuracy": "val_ac"}, r"it logs val_acc \(did you mean val_acc\?\)$"),
        ({"val_loss": "loss"}, r"^workload\.val_loss: the module does not log loss; it logs val_acc$"),
        ({"module": "tests.own:Wide"}, r"^workload: RuntimeError: mat1 and mat2 .* \(8x8 and 9x2\) \(own.py:\d+\)$"),
        ({"module": "tests.own:Hoarder"}, r"^workload\.module: keeps in its checkpoint what cannot be read back"),
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
        tried(config, {"module": "tests.own:Normed"}, [4, 16], hardware=hardware)
    tried(config, {}, [4], hardware=hardware)


def test_a_variant_is_named(config: Make) -> None:
    variants = {"good": {}, "bad": {"workload": {"module": "tests.own:NoLoss"}}}
    with pytest.raises(ConfigError, match=r"^variants\.bad\.workload\.module: its training_step returns no loss"):
        tried(config, {}, [8], variants=variants)
