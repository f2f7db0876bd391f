"""What `study check` and `study run` find before anything is billed, on as many ranks as the study has."""

from typing import Any

import pytest

from study.errors import ConfigError
from study.planning.trials import make_plan
from study.training.distributed import local_group
from study.training.distributed.local_group import LocalGroup
from study.training.preflight.dry_run import dry_run
from study.workloads.data.discovery import with_sample_counts
from tests.own_modules.on_ranks import alone, own, together, tried_together
from tests.own_modules.user_modules import SAMPLES


def found(group: LocalGroup, parts: int = 1, **changes: Any) -> list[str] | str:
    """The notes of both ranks, or the error of the first."""
    return tried_together(group, own(world_size=2, **changes), parts)[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"data": "Divides"},
            "workload.data: its train_dataloader yields batches of 6 when a rank takes 12 samples: it divides "
            "batch_size by the 2 ranks; with workload.data_batch: global, it is given the samples of all of them",
        ),
        ({"module": "NotReduced"}, "workload.val_accuracy: val_acc differs between the ranks"),
        ({"data": "ShardedStream"}, "workload.data: its training stream yields the ranks different samples"),
        ({"data": "Shards"}, "workload.data: its validation set is not the same on all ranks"),
        ({"module": "Lazy"}, "workload.module: has layers that get their shape from their first batch (layer.weight)"),
        ({"module": "StopsItself"}, "workload.module: something in it ended the training after 1 of 3 updates"),
        ({"module": "Unfreezes"}, "workload.module: its weights differ between the ranks"),
        ({"module": "DrawsOnItsRank"}, "workload.module: its weights differ between the ranks"),
        (
            {"module": "StepsEverySecond"},
            "workload.module: its optimizer made 1 steps where the study counts 2",
        ),
        ({"module": "Accumulates"}, "workload.module: its optimizer made 2 steps where the study counts 3"),
        ({"module": "LossAtFirst"}, "workload.val_loss: the module logged val_loss in the validation before, and not"),
        (
            {"module": "EverySecond"},
            "workload.val_accuracy: the module logged val_acc in the validation before, and not",
        ),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else None,
)
def test_what_would_fail_in_every_trial_is_found(two: LocalGroup, changes: dict[str, Any], says: str) -> None:
    error = found(two, **changes)
    assert isinstance(error, str)
    assert error.removeprefix("ConfigError: ").startswith(says)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data": "Divides", "data_batch": "global"},
        {"module": "Unused", "find_unused_parameters": True},
        {"module": "Gathered"},
        {"module": "GatheredOnRankZero"},
        {"module": "Logging"},
        {"module": "Reduced", "data_args": {"val_samples": 3, "val_batch": 1}},
        {"module": "FirstSkipped"},
        {"data": "Augmented"},
        {"data": "Drawn", "data_args": {"sampler": "batches"}},
        {"data": "Keyed"},
    ],
    ids=str,
)
def test_what_is_right_passes_without_a_note(two: LocalGroup, changes: dict[str, Any]) -> None:
    assert found(two, **changes) == []
    (first, second) = together(two, own(world_size=2, **changes))
    assert first.error is None
    assert first.reports[-1].val_accuracy == second.reports[-1].val_accuracy


def test_callbacks_that_stop_or_save_are_left_out_with_a_note(two: LocalGroup) -> None:
    notes = [
        "EarlyStopping of the module is left out: a study decides when a trial ends",
        "ModelCheckpoint of the module is left out: a study keeps checkpoints of its own",
    ]
    assert found(two, module="Callbacks") == notes
    outcome = alone(own(module="Callbacks", budget={"epochs": 4}))  # its figure never gets better
    assert outcome.error is None
    assert len(outcome.reports) == 4
    assert outcome.notes == notes


def test_a_loss_that_depends_on_how_a_batch_is_split_is_noted(two: LocalGroup) -> None:
    notes = found(two, parts=2, module="Weighted")
    assert isinstance(notes, list)
    (note,) = notes
    assert note.startswith("its loss is no mean over samples of equal weight: split into 2 parts")
    assert found(two, parts=2, module="Weighted", loss_weight="tokens") == []
    assert found(two, parts=2) == []


@pytest.mark.parametrize("module", ["MeanOfRanksByHand", "MeanOfBatchesByHand"])
def test_a_mean_of_unequal_parts_by_hand_is_noted(two: LocalGroup, module: str) -> None:
    notes = found(two, module=module)
    assert isinstance(notes, list)
    assert notes[0].startswith("it gathers figures of 2 ranks, which share 5 validation samples unequally")
    assert [note.partition(" of the")[0] for note in notes[1:]] == [
        "val_acc depends on how the validation set is split over batches and ranks:"
    ] * (module == "MeanOfBatchesByHand")
    assert found(two, module=module, data_args={"val_samples": 4}) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"data": "Bucketed", "data_args": {"drop_last": False}},
            r"workload\.data: its batch sampler yields 2 samples in batch 4 of an epoch, when a rank takes 6",
        ),
        (
            {"data": "Bucketed", "data_args": {"drop_last": True}},
            r"workload\.train_samples: is 48, but the batch sampler yields 7 batches of 6 .*, and 8 are needed",
        ),
        (
            {"data": "DividesByAccumulation"},
            r"workload\.data: its train_dataloader yields batches of 3 when a rank takes 6 samples",
        ),
    ],
    ids=["unequal", "too few", "accumulation"],
)
def test_data_are_tried_in_the_parts_that_a_trial_needs(changes: dict[str, Any], says: str) -> None:
    config = own(**changes)
    config = config.model_copy(update={"hardware": config.hardware.model_copy(update={"accumulation": 4})})
    with pytest.raises(ConfigError, match=f"^{says}"):
        dry_run(make_plan(config))


@pytest.mark.parametrize(("sampler", "noted"), [("one order", 1), ("global", 0), ("epochs", 0), ("batches", 0)])
def test_an_order_that_no_seed_changes_is_noted(sampler: str, noted: int) -> None:
    (found,) = dry_run(make_plan(own(data="Drawn", data_args={"sampler": sampler})))
    notes = found.notes
    assert len(notes) == noted
    assert all(note.startswith("its training sampler draws the same order for every seed") for note in notes)


def test_a_sampler_that_needs_a_process_group_is_refused_with_a_remedy() -> None:
    with pytest.raises(ConfigError, match=r"^workload\.data: its train_dataloader needs a process group"):
        dry_run(make_plan(own(world_size=2, data="Drawn", data_args={"sampler": "in a group"})))


def test_a_data_module_has_its_trainer_when_it_is_set_up() -> None:
    plan = make_plan(with_sample_counts(own(data="Divides", data_batch="global", train_samples=None)))
    assert plan.train_samples == SAMPLES


def test_as_a_whole_on_ranks_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unused parameters, which end the group that they are met in; processes, errors and keys as a command has them."""
    monkeypatch.setattr(local_group, "START_METHOD", "spawn")
    with pytest.raises(ConfigError, match=r"^workload\.find_unused_parameters: must be true"):
        dry_run(make_plan(own(world_size=2, module="Unused")))


def test_a_rank_that_dies_is_one_line() -> None:
    """Ranks that hold five samples gather three and two by hand."""
    with pytest.raises(ConfigError, match=r"^workload: on 2 ranks: ") as caught:
        dry_run(make_plan(own(world_size=2, module="GathersByHand")))
    assert "\n" not in str(caught.value)
