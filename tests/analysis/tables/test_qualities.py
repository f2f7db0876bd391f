"""Which figure is the quality: validation before test, never training; its scale and its direction."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.analysis.tables.objectives import Objective
from tests.analysis.tables.made import by_batch, read, refused


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ("accuracy,val_accuracy", "val_accuracy"),
        ("loss,eval_loss", "eval_loss"),
        ("loss,eval_loss,accuracy,eval_accuracy", "eval_accuracy"),
        ("train_acc,acc", "acc"),
        ("acc,train/acc,valid/acc", "valid/acc"),
        ("accuracy,val_loss", "val_loss"),
        ("test_acc,val_acc", "val_acc"),
        ("test_acc,val_loss", "val_loss"),
        ("acc,test_acc", "test_acc"),
        ("best_val_acc,val_acc", "val_acc"),
        ("val/acc_best,acc,train_acc", "val/acc_best"),
        ("val_acc,val_acc_epoch,val_acc_step", "val_acc"),
        ("metrics.train_accuracy,metrics.validation_accuracy", "metrics.validation_accuracy"),
        ("val_loss,val_perplexity,perplexity", "val_perplexity"),
        ("config.accuracy,summary.acc", "summary.acc"),
    ],
)
def test_validation_is_preferred(tmp_path: Path, columns: str, chosen: str) -> None:
    names = columns.split(",")
    values = [f"0.{i + 1}" for i in range(len(names))]
    table = read(tmp_path, f"batch_size,gpu_hours,{columns}", f"8,2,{','.join(values)}")
    assert table.quality is not None
    assert table.quality.column == chosen
    assert by_batch(table)[8][1] == [float(values[names.index(chosen)])]


def test_what_kind_of_figure_it_is_is_said(tmp_path: Path) -> None:
    for column, said in (
        ("test_acc", "no validation figure"),
        ("max_val_acc", "best figure of each run"),
    ):
        notes = read(tmp_path, f"batch_size,usd,{column}", "8,1,0.9").understood.notes
        assert any(said in note for note in notes)
    assert read(tmp_path, "batch_size,usd,val_acc", "8,1,0.9").understood.notes == ()


def test_a_training_figure_is_taken_only_if_named(tmp_path: Path) -> None:
    rows = ("batch_size,usd,train_accuracy", "8,1,0.9")
    assert "train_accuracy is a training figure; --quality-column train_accuracy" in refused(tmp_path, *rows)
    table = read(tmp_path, *rows, named={"quality": "train_accuracy"})
    assert table.quality == Objective("train_accuracy", True)
    assert table.understood.notes == ("train_accuracy is a training figure.",)


def test_two_figures_of_one_meaning(tmp_path: Path) -> None:
    header = "batch_size,usd,metrics.val_acc,metrics.val/acc"
    assert by_batch(read(tmp_path, header, "8,1,0.9,0.90")) == {8: ([1.0], [0.9])}
    line = refused(tmp_path, header, "8,1,0.9,0.9", "8,1,0.8,0.7")
    assert "both mean accuracy and differ (row 2: 0.8, 0.7); name one with --quality-column" in line
    table = read(tmp_path, header, "8,1,0.9,0.7", named={"quality": "metrics.val/acc"})
    assert by_batch(table) == {8: ([1.0], [0.7])}


def test_directions_against_a_name_are_noted(tmp_path: Path) -> None:
    for options in ({"maximize": ["val_loss"]}, {"minimize": ["val_acc"]}):
        (note,) = read(tmp_path, "batch_size,usd,val_loss,val_acc", "8,1,0.3,0.9", **options).understood.notes
        assert "the options say the opposite" in note


def test_percentages_and_fractions_become_one_scale(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,usd,accuracy", "8,2,95.0", "8,2,0.946", "16,1,94.8")
    assert by_batch(table)[8][1] == pytest.approx([0.950, 0.946])
    assert by_batch(table)[16][1] == pytest.approx([0.948])
    assert any("percent in 2 of 3 rows" in note for note in table.understood.notes)
    signs = read(tmp_path, "batch_size,usd,accuracy", "8,2,95.08%", "8,2,94.9 %", "16,1,0.948")
    assert by_batch(signs)[8][1] == pytest.approx([0.9508, 0.949])
    assert by_batch(signs)[16][1] == [0.948]
    assert by_batch(read(tmp_path, "batch_size,usd,accuracy", "8,2,95.0", "8,2,94.6"))[8][1] == [95.0, 94.6]


def test_an_ambiguous_scale_is_refused(tmp_path: Path) -> None:
    for low in ("0.1", "1"):  # the chance of ten classes as a fraction, or of a hundred or a thousand in percent
        line = refused(tmp_path, "batch_size,usd,val_acc", "8,2,95.0", f"16,2,{low}")
        assert "row 2: val_acc" in line
        assert "fraction or a percentage" in line


def test_a_loss_called_accuracy_is_refused_unless_insisted_on(tmp_path: Path) -> None:
    for values in (("2.3", "1.9"), ("-0.4", "0.9"), ("230", "90"), ("2.3", "0.4")):
        rows = ("batch_size,usd,val_acc", *(f"8,1,{value}" for value in values))
        assert "--maximize val_acc takes it as it is" in refused(tmp_path, *rows)
        table = read(tmp_path, *rows, maximize=["val_acc"])
        assert by_batch(table)[8][1] == [float(value) for value in values]
        assert any("not a possible accuracy" in note for note in table.understood.notes)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1000, 9900), min_size=6, max_size=6),
    st.lists(st.sampled_from(["fraction", "percent", "sign"]), min_size=6, max_size=6),
)
def test_how_accuracies_are_written_changes_nothing_but_the_scale(
    tmp_path_factory: pytest.TempPathFactory, figures: list[int], ways: list[str]
) -> None:
    """Hundredths of a percent, all above half of any other, written in every way."""
    folder = tmp_path_factory.mktemp("percent")
    figures = [5000 + figure // 2 for figure in figures]
    write = {
        "fraction": lambda f: f"{f / 1e4!r}",
        "percent": lambda f: f"{f / 100!r}",
        "sign": lambda f: f"{f / 100!r}%",
    }
    rows = [f"{8 if i < 3 else 16},{i},1,{write[way](f)}" for i, (f, way) in enumerate(zip(figures, ways, strict=True))]
    found = by_batch(read(folder, "batch_size,seed,usd,val_acc", *rows))
    scale = 1e2 if set(ways) == {"percent"} else 1e4
    assert found[8][1] == pytest.approx([f / scale for f in figures[:3]])
    assert found[16][1] == pytest.approx([f / scale for f in figures[3:]])


def test_errors_of_two_scales_are_refused_unless_the_header_says_percent(tmp_path: Path) -> None:
    for low, high in (("0.9", "1.1"), ("0.05", "5.5")):  # both in percent, or one of each
        rows = (f"8,1,{low}", f"16,1,{high}")
        line = refused(tmp_path, "batch_size,usd,error", *rows)
        assert f"{low} beside {high} may be a fraction or a percentage" in line
        for header in ("error (%)", "top-1 err [%]", "test_error_pct"):
            table = read(tmp_path, f"batch_size,usd,{header}", *rows)
            assert by_batch(table) == {8: ([1.0], [float(low)]), 16: ([1.0], [float(high)])}
            assert not any("taken as fractions" in note for note in table.understood.notes)


def test_accuracies_under_a_header_with_a_percent_sign_stay_in_percent(tmp_path: Path) -> None:
    assert by_batch(read(tmp_path, "batch_size,usd,val acc (%)", "8,1,95.5 %", "8,1,94.5")) == {
        8: ([1.0, 1.0], [95.5, 94.5])
    }
    assert "0.95 beside 94.5" in refused(tmp_path, "batch_size,usd,val acc (%)", "8,1,0.95", "8,1,94.5")
