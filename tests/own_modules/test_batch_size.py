"""How data and module are given the batch size: by the name that their author chose, on two ranks."""

from itertools import chain
from typing import Any

import pytest

from study.config.loader import to_yaml
from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.planning.trials import make_plan
from study.training.distributed.local_group import LocalGroup
from study.training.preflight.dry_run import dry_run
from study.workloads.data.discovery import with_sample_counts
from tests.own_modules.on_ranks import alone, own, spec_of, together, tried_together
from tests.own_modules.user_modules import SAMPLES

SHAPES: dict[str, dict[str, Any]] = {
    "another name": {"data": "OtherName", "batch_size_key": "train_batch_size"},
    "a name among others": {"data": "AnyName", "batch_size_key": "per_device_batch_size"},
    "a dict": {
        "data": "OfADict", "batch_size_key": "hparams.batch_size", "data_args": {"hparams": {"batch_size": 5}},
    },
    "a namespace": {
        "data": "OfANamespace", "batch_size_key": "config.loader.batch_size",
        "data_args": {"config": {"loader": {"shuffle": True}}, "val_samples": 5},
    },
    "module too": {"module": "WantsBatch"},
    "module too, by the same name": {
        "module": "WantsTrainBatch", "data": "OtherName", "batch_size_key": "train_batch_size",
    },
    "module too, in a section": {
        "module": "WantsSection", "data": "OfADict", "batch_size_key": "hparams.batch_size",
        "data_args": {"hparams": {"batch_size": 5}}, "module_args": {"hparams": {"width": 3}},
    },
    "loaders of the module": {"module": "WithLoaders", "data": None},
    "loaders of the module, named twice": {"module": "WithLoaders", "data": "WithLoaders"},
    "loaders of the module, of a section": {
        "module": "WithLoadersOfASection", "data": None, "batch_size_key": "config.loader.batch_size",
    },
}  # fmt: skip


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_each_shape_is_tried_counted_and_trained(two: LocalGroup, changes: dict[str, Any]) -> None:
    config = own(world_size=2, **changes)
    assert tried_together(two, config) == [[], []]
    assert make_plan(with_sample_counts(own(**changes, train_samples=None))).train_samples == SAMPLES
    for accumulation in (1, 2):
        outcomes = together(two, config, spec_of(config, accumulation))
        assert [outcome.error for outcome in outcomes] == [None, None]
        batches = [batch for outcome in outcomes for batch in outcome.seen[: 2 * accumulation]]  # of an epoch
        assert {len(batch) for batch in batches} == {12 // accumulation}
        assert sorted(chain(*batches)) == list(range(SAMPLES))


@pytest.mark.parametrize("shape", ["a namespace", "module too", "loaders of the module"])
def test_each_goes_on_after_pauses(shape: str) -> None:
    config = own(**SHAPES[shape], budget={"epochs": 3, "report_every_updates": 1})
    straight, paused = alone(config), alone(config, pausing=True)
    assert straight.error is paused.error is None
    assert straight.seen == paused.seen
    assert all((a == b).all() for a, b in zip(straight.weights, paused.weights, strict=True))


def test_a_global_batch_is_that_of_all_ranks(two: LocalGroup) -> None:
    outcome = together(two, own(world_size=2, data="Divides", data_batch="global", module="WantsBatch"))[0]
    assert outcome.error is not None  # the module is given what the data module is given: 24, where a rank takes 12
    assert "AssertionError" in outcome.error


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"data": "OtherName"},
            r"^workload\.data: .*:OtherName does not take batch_size, with which a study sets the batch; "
            r"workload\.batch_size_key names another argument \(did you mean train_batch_size\?\)$",
        ),
        (
            {"data": "OfADict", "data_args": {"hparams": {"batch_size": 8}}},
            r"names another argument \(did you mean hparams\.batch_size\?\)$",
        ),
        (
            {"data": "AnyName"},
            r"^workload\.data: its train_dataloader yields batches of 8 when a rank takes \d+ samples; "
            r"workload\.batch_size_key names the argument that sets it$",
        ),
        (
            {"batch_size_key": "val_samples"},
            r"^workload\.data_args: .*:Data requires batch_size: give it here$",
        ),
        (
            {"data": "OfADict", "batch_size_key": "hparams.batch_size", "data_args": {"hparams": 3}},
            r"^workload\.batch_size_key: hparams in workload\.data_args is not a section$",
        ),
        (
            {"module": "WantsWidth"},
            r"^workload\.module_args: .*:WantsWidth requires width, depth: give them here$",
        ),
        (
            {"module": "WithLoaders", "data": None, "batch_size_key": "batch"},
            r"^workload\.module: .* does not take batch,",
        ),
        (
            {"module": "WithLoaders", "data": None, "data_args": {"val_batch": 1}},
            r"^workload\.data_args: are for a data module, and the module has the loaders: give module_args$",
        ),
        ({"data": None}, r"^workload\.module: Net has no train_dataloader, and workload\.data names no"),
    ],
    ids=["name", "section", "others", "wrong", "no section", "module", "own loaders", "their arguments", "no loaders"],
)
def test_what_does_not_fit_is_one_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        dry_run(make_plan(own(**changes)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "a..b", "train batch", "1st", ".batch_size"])
def test_a_key_is_names_with_dots(key: str) -> None:
    with pytest.raises(ValueError, match="must be an argument's name, or section"):
        own(batch_size_key=key)


def test_the_copy_of_a_study_file_says_the_same() -> None:
    config = own(module="WithLoaders", data=None, callbacks=["a.b:C", {"path": "a:B", "args": {"x": [1, {"y": 2}]}}])
    import yaml

    assert StudyConfig.model_validate(yaml.safe_load(to_yaml(config)), strict=False) == config
