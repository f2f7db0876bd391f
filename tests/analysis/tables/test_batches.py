"""Whose batch size a column has: the global one, one device's, one part's, or that of an evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.analysis.statistics.critical import StepsToTarget
from tests.analysis.tables.made import by_batch, read, refused

LOCAL = (
    "per_device_train_batch_size",
    "batch_size_per_gpu",
    "train_micro_batch_size_per_gpu",
    "local_batch_size",
    "mbs",
)
WHOLE = ("global_batch_size", "effective_batch_size", "total_train_batch_size", "config.global_batch", "gbs")


@pytest.mark.parametrize("local", LOCAL)
@pytest.mark.parametrize("whole", WHOLE)
def test_the_global_batch_is_taken_beside_that_of_a_device(tmp_path: Path, local: str, whole: str) -> None:
    table = read(tmp_path, f"{local},{whole},eval_batch_size,gpu_hours,val_acc", "4,64,7,2,0.9", "8,128,7,1,0.8")
    assert list(by_batch(table)) == [64, 128]
    assert table.understood.columns["batch size"] == whole


def test_steps_of_samples_are_counted_in_global_batches(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size_per_gpu,global_batch_size,samples_to_target", "4,32,3200", "8,64,4480")
    assert table.groups[0].runs == (StepsToTarget(32, 100.0), StepsToTarget(64, 70.0))


def test_a_devices_batch_is_multiplied_by_the_devices_with_a_note(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        "per_device_train_batch_size,gradient_accumulation_steps,world_size,eval_accuracy,gpu_hours",
        "4,2,8,0.9,2",
        "8,3,8,0.8,1",
    )
    assert list(by_batch(table)) == [4 * 2 * 8, 8 * 3 * 8]
    assert any("per_device_train_batch_size x world_size x gradient_acc" in note for note in table.understood.notes)


@pytest.mark.parametrize("local", LOCAL)
def test_a_devices_batch_alone_is_refused(tmp_path: Path, local: str) -> None:
    line = refused(tmp_path, f"{local},gpu_hours,val_acc", "4,2,0.9")
    assert "--batch-column" in line
    insisted = read(tmp_path, f"{local},gpu_hours,val_acc", "4,2,0.9", named={"batch": local})
    assert list(by_batch(insisted)) == [4]


@pytest.mark.parametrize("name", ["eval_batch_size", "val_batch_size", "data.test.batch_size", "test_bs"])
def test_an_evaluations_batch_is_none(tmp_path: Path, name: str) -> None:
    assert "no column 'batch_size'" in refused(tmp_path, f"{name},gpu_hours,val_acc", "4,2,0.9")


def test_a_batch_size_that_does_not_say_whose_it_is(tmp_path: Path) -> None:
    """Beside that of a device the figures decide."""
    header = "batch_size,micro_batch_size,num_gpus,gpu_hours,val_acc"
    assert list(by_batch(read(tmp_path, header, "32,4,8,2,0.9"))) == [32]  # the product
    assert list(by_batch(read(tmp_path, header, "64,4,8,2,0.9"))) == [64]  # with two parts, which no column says
    assert list(by_batch(read(tmp_path, header, "4,4,8,2,0.9"))) == [32]  # a device's, twice
    assert "--batch-column" in refused(tmp_path, header, "33,4,8,2,0.9")
    assert "--batch-column" in refused(tmp_path, "batch_size,micro_batch_size,usd,val_acc", "4,4,2,0.9")
    whole = read(tmp_path, "batch_size,global_batch_size,usd,val_acc", "4,32,2,0.9", "8,64,1,0.9")
    assert list(by_batch(whole)) == [32, 64]
    assert any("batch_size is not global_batch_size" in note for note in whole.understood.notes)


def test_a_batch_size_of_accumulated_parts_is_refused_until_it_is_named(tmp_path: Path) -> None:
    rows = ("batch_size,accumulate_grad_batches,usd,val_acc", "8,4,2,0.9")
    assert "--batch-column batch_size" in refused(tmp_path, *rows)
    assert list(by_batch(read(tmp_path, *rows, named={"batch": "batch_size"}))) == [8]
    assert list(by_batch(read(tmp_path, rows[0], "8,1,2,0.9"))) == [8]


def test_columns_that_agree_are_one_and_columns_that_differ_are_refused(tmp_path: Path) -> None:
    header = "params.batch_size,params.data/batch_size,gpu_hours,val_acc"
    assert list(by_batch(read(tmp_path, header, "8,8.0,2,0.9", ",16,1,0.8"))) == [8, 16]  # gaps are filled
    line = refused(tmp_path, header, "8,8,2,0.9", "16,32,1,0.8")
    assert "differ (row 2: 16, 32); name one with --batch-column" in line


def test_any_column_may_be_named(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        "samples per update,rng,step size,price paid,mark,what became,GPUs",
        "8,1,0.1,3,70,finished,1",
        "8,2,0.1,4,80,failed,1",
        named={
            "batch": "samples per update",
            "seed": "rng",
            "lr": "step size",
            "cost": "price paid",
            "quality": "mark",
            "state": "what became",
        },
        maximize=["mark"],
    )
    assert by_batch(table) == {8: ([3.0], [70.0])}
    assert table.groups[0].configurations[0].lr == 0.1
    assert table.understood.columns["seed"] == "rng"
    assert "no column 'batch sise' for --batch-column" in refused(
        tmp_path, "batch_size,usd,val_acc", "8,1,0.9", named={"batch": "batch sise"}
    )


def test_wall_time_on_several_devices_is_device_hours(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,num_gpus,val_acc,runtime", "8,1,0.9,7200", "16,4,0.8,2700")
    assert by_batch(table) == {8: ([2.0], [0.9]), 16: ([3.0], [0.8])}
    assert any("device-hours: runtime x num_gpus" in note for note in table.understood.notes)
    minutes = read(tmp_path, "batch_size,devices,num_nodes,val_acc,wall_min", "8,4,2,0.9,30")
    assert by_batch(minutes) == {8: ([0.5 * 4 * 2], [0.9])}
    one = read(tmp_path, "batch_size,num_gpus,val_acc,runtime", "8,1,0.9,7200")
    assert by_batch(one) == {8: ([7200.0], [0.9])}
    plainly = read(tmp_path, "batch_size,num_gpus,val_acc,runtime", "8,4,0.9,7200", named={"cost": "runtime"})
    assert by_batch(plainly) == {8: ([7200.0], [0.9])}
    assert "--devices-column" in refused(tmp_path, "batch_size,n_gpus,nodes,val_acc,runtime", "8,4,2,0.9,7200")


@pytest.mark.parametrize("name", ["GPU Count", "# GPUs", "config/scaling_config/num_workers", "Number of GPUs"])
def test_devices_by_any_name(tmp_path: Path, name: str) -> None:
    table = read(tmp_path, f"batch_size,{name},val_acc,Time (h)", "8,1,0.9,2", "16,4,0.8,3")
    assert by_batch(table) == {8: ([2.0], [0.9]), 16: ([12.0], [0.8])}


def test_a_time_without_its_unit_is_said_to_be_seconds(tmp_path: Path) -> None:
    for name, said in (("time", "time x gpus, time taken for seconds."), ("time_h", "time_h x gpus.")):
        notes = read(tmp_path, f"batch_size,gpus,val_acc,{name}", "8,4,0.9,2").understood.notes
        assert any(note.endswith(said) for note in notes)


def test_hardware_that_begins_with_a_number_is_noted(tmp_path: Path) -> None:
    for cells in (("8", "16"), ("8x A100", "16x A100")):
        rows = ("batch_size,gpu,val_acc,hours", f"8,{cells[0]},0.9,2", f"16,{cells[1]},0.8,1")
        (note,) = read(tmp_path, *rows).understood.notes
        assert note.startswith("gpu may say how many devices")
        assert read(tmp_path, *rows, named={"devices": "none"}).understood.notes == ()
    assert read(tmp_path, "batch_size,gpu,val_acc,hours", "8,0,0.9,2", "16,3,0.8,1").understood.notes == ()


def test_devices_that_share_one_part_of_a_batch_are_no_factor(tmp_path: Path) -> None:
    for name in ("tensor_parallel_size", "pipeline_model_parallel_size", "config.tp"):
        header = f"micro_batch_size,world_size,{name},val_loss,gpu_hours"
        assert f"{name} devices share one" in refused(tmp_path, header, "4,32,4,3.2,10")
        assert list(by_batch(read(tmp_path, header, "4,32,1,3.2,10"))) == [128]
    both = "micro_batch_size,world_size,data_parallel_size,val_loss,gpu_hours"
    assert list(by_batch(read(tmp_path, both, "4,32,32,3.2,10"))) == [128]


def test_an_effective_batch_size_by_its_short_name(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,eff. batch size,val_acc,usd", "8,64,0.9,2", "16,128,0.8,1")
    assert list(by_batch(table)) == [64, 128]


def test_devices_that_are_no_numbers_are_noted(tmp_path: Path) -> None:
    for cells in (("0", "4"), ('"0,1"', '"0,1,2,3"'), ("auto", "4")):
        rows = ("batch_size,gpus,val_acc,runtime", f"8,{cells[0]},0.9,10", f"16,{cells[1]},0.8,5")
        (note,) = read(tmp_path, *rows).understood.notes
        assert note.startswith("gpus is not a number of devices in every row")
