"""Settings that vary within a configuration are not seeds; measurements, names and times may vary."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.tables.made import by_batch, read, refused, results

SETTINGS = {
    "model": ("resnet", "vit"),
    "weight_decay": ("0.0", "0.5"),
    "config.weight_decay": ("0.00123", "0.00456"),
    "epochs": ("1", "10"),
    "optimizer": ("adam", "sgd"),
    "augmentation": ("", "mixup"),
    "use_ema": ("True", "False"),
    "gpu": ("A100", "V100"),
    "config.model.name": ("resnet", "vit"),
    "params.dropout": ("0.1", "0.2"),
    "clip_grad_norm": ("1.0", "5.0"),
    "loss_fn": ("ce", "focal"),
    "loss": ("ce", "focal"),
    "target_accuracy": ("0.8", "0.9"),
    "power_limit": ("100", "200"),
    "config/warmup_epochs": ("0", "5"),
    "tags.variant": ("a", "b"),
    "dataset_path": ("/a", "/b"),
    "momentum": ("0.9", "0.99"),
    "some_number": ("1", "2"),
}
MEASURED = {
    "Name": ("calm-1", "bold-2"),
    "run_id": ("a1", "b2"),
    "Created": ("2026-01-01", "2026-01-02"),
    "timestamp": ("1700000000", "1700000001"),
    "hostname": ("n1", "n2"),
    "pid": ("1", "2"),
    "logdir": ("/a", "/b"),
    "artifact_uri": ("s3://a", "s3://b"),
    "config.output_dir": ("/a", "/b"),
    "User": ("me", "you"),
    "Notes": ("", "good"),
    "train_loss": ("0.1", "0.2"),
    "val_loss": ("0.3", "0.4"),
    "metrics.anything": ("1", "2"),
    "summary.anything": ("x", "y"),
    "user_attrs_anything": ("1", "2"),
    "tags.mlflow.runName": ("x", "y"),
    "train_samples_per_second": ("1000", "2000"),
    "gpu_utilization": ("90", "91"),
    "gpu_memory_gb": ("10", "11"),
    "grad_norm": ("1", "2"),
    "lr-AdamW": ("1e-5", "1e-6"),
    "val_dice": ("0.5", "0.6"),
    "test_f1": ("0.5", "0.6"),
    "best_epoch": ("3", "7"),
    "config.data.seed": ("1", "2"),
    "time_this_iter_s": ("1.5", "1.6"),
    "values_1": ("1", "2"),
    "img/s": ("100", "101"),
    "gpu_id": ("0", "1"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_varies_is_refused_until_the_user_says_what_it_is(tmp_path: Path, name: str) -> None:
    one, other = SETTINGS[name]
    rows = (f"batch_size,{name},usd,val_acc", f"8,{one},1,0.9", f"8,{other},2,0.8", f"8,{one},3,0.7", f"16,{one},1,0.6")
    line = refused(tmp_path, *rows)
    assert name in line
    assert all(option in line for option in (f"--config {name}", "--group-by", f"--as-seeds {name}"))
    assert by_batch(read(tmp_path, *rows, as_seeds=[name]))[8] == ([1.0, 2.0, 3.0], [0.9, 0.8, 0.7])
    assert by_batch(read(tmp_path, *rows, as_seeds=["all"]))[8] == ([1.0, 2.0, 3.0], [0.9, 0.8, 0.7])
    if one:
        for options in ({"config": [name]}, {"config": ["batch_size", name]}, {"group_by": name}, {"group_by": [name]}):
            apart = results(read(tmp_path, *rows, **options))
            assert sorted(costs for costs, _ in apart.values()) == [[1.0], [1.0, 3.0], [2.0]]


@pytest.mark.parametrize("name", MEASURED)
def test_what_is_measured_or_names_a_run_may_vary(tmp_path: Path, name: str) -> None:
    one, other = MEASURED[name]
    table = read(
        tmp_path, f"batch_size,{name},usd,val_acc", f"8,{one},1,0.9", f"8,{other},2,0.8", named={"quality": "val_acc"}
    )
    assert by_batch(table) == {8: ([1.0, 2.0], [0.9, 0.8])}
    assert table.understood.notes == ()


def test_what_only_cells_show_is_noted(tmp_path: Path) -> None:
    """Fractions that all differ: a measurement, or a setting drawn at random."""
    rows = ("batch_size,zeta,usd,val_acc", "8,0.123,1,0.9", "8,0.456,2,0.8", "16,0.789,1,0.7")
    (note,) = read(tmp_path, *rows).understood.notes
    assert "measurements or names, by their cells: zeta" in note
    assert len(results(read(tmp_path, *rows, config=["zeta"]))) == 3


def test_all_that_varies_is_named_at_once(tmp_path: Path) -> None:
    line = refused(
        tmp_path,
        "batch_size,seed,model,wd,usd,val_acc",
        "8,1,a,0,1,0.9",
        "8,1,b,0,1,0.9",
        "8,1,a,1,1,0.8",
        "8,1,b,1,1,0.7",
    )
    assert "vary within a configuration: model (a, b), wd (0, 1)" in line
    assert "--as-seeds model,wd" in line


def test_a_setting_may_vary_with_the_batch_size(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,warmup,usd,val_acc", "8,1,1,0.9", "16,2,2,0.8")
    assert by_batch(table) == {8: ([1.0], [0.9]), 16: ([2.0], [0.8])}


def test_a_seed_that_repeats_names_the_columns_that_differ(tmp_path: Path) -> None:
    rows = ("batch_size,seed,hostname,usd,val_acc", "8,1,n1,1,0.9", "8,1,n2,1,0.8")
    line = refused(tmp_path, *rows)
    assert "row 2: seed 1 of batch_size=8 is in row 1 too" in line
    assert "(they differ in hostname)" in line
    assert by_batch(read(tmp_path, *rows, as_seeds=["hostname"])) == {8: ([1.0, 1.0], [0.9, 0.8])}


def test_a_configuration_always_has_its_batch_size(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,model,usd,val_acc", "8,a,1,0.9", "16,a,2,0.8", config=["model"])
    assert results(table) == {"batch_size=8, model=a": ([1.0], [0.9]), "batch_size=16, model=a": ([2.0], [0.8])}


def test_groups_of_several_columns(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,gpu,model,usd,val_acc", "8,A,x,1,0.9", "8,B,x,2,0.8", group_by=["gpu", "model"])
    assert results(table) == {"A, x batch_size=8": ([1.0], [0.9]), "B, x batch_size=8": ([2.0], [0.8])}


def test_sizes_of_data_and_parts_of_a_batch_are_settings_too(tmp_path: Path) -> None:
    for name, cells in (("train_samples", ("1000", "2000")), ("gradient_accumulation_steps", ("1", "4"))):
        rows = (f"global_batch_size,{name},usd,val_acc", f"8,{cells[0]},1,0.9", f"8,{cells[1]},2,0.8")
        assert f"settings vary within a configuration: {name}" in refused(tmp_path, *rows)
