"""Curves out of studies and tables, and one line for every mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from study.analysis.records import Summary, TrialRecord
from study.analysis.replay.curve_table import read_curves
from study.analysis.replay.curves import curves_of
from study.errors import DataError
from study.planning.trials import Cell
from tests.analysis.grids import EPOCHS, table
from tests.reporting.summaries import summary, trial


def written(folder: Path, data: pd.DataFrame, name: str = "curves.csv") -> Path:
    path = folder / name
    data.to_csv(path, index=False) if path.suffix == ".csv" else data.to_parquet(path)
    return path


def test_a_table_is_read_trial_by_trial(tmp_path: Path) -> None:
    curves = read_curves(written(tmp_path, table()))
    assert len(curves) == 3 * 4 * 3
    first = curves[0]
    assert (first.cell, first.lr, first.seed) == (Cell(16, 1), 0.05, 0)
    assert first.epochs == tuple(range(1, EPOCHS + 1))
    assert first.shares[-1] == 1
    assert first.cost_s == tuple(4.0 * epoch for epoch in range(1, EPOCHS + 1))
    assert all(curve.completed for curve in curves)
    assert len({curve.trial_id for curve in curves}) == len(curves)


def test_shuffled_rows_parquet_and_seconds_an_epoch_mean_the_same(tmp_path: Path) -> None:
    data = table()
    expected = {curve.trial_id: curve for curve in read_curves(written(tmp_path, data))}
    shuffled = data.sample(frac=1, random_state=1).assign(note="<script>")
    seconds = data.drop(columns="cost_s").assign(epoch_s=16.0 / data["batch_size"] ** 0.5)
    for path in (
        written(tmp_path, shuffled, "shuffled.csv"),
        written(tmp_path, data, "curves.parquet"),
        written(tmp_path, seconds, "seconds.csv"),
    ):
        assert {curve.trial_id: curve for curve in read_curves(path)} == expected


def test_seconds_on_several_ranks_are_device_seconds(tmp_path: Path) -> None:
    data = table().drop(columns="cost_s").assign(epoch_s=2.0, world_size=4)
    curve = read_curves(written(tmp_path, data))[0]
    assert curve.cell == Cell(16, 4)
    assert curve.cost_s[:2] == (8.0, 16.0)


def test_an_empty_accuracy_is_where_a_trial_diverged(tmp_path: Path) -> None:
    data = table()
    data.loc[3, "val_accuracy"] = None
    data = data.drop(index=range(4, EPOCHS)).assign(test_accuracy=0.5)
    for name in ("curves.csv", "curves.parquet"):
        first, second, *_ = read_curves(written(tmp_path, data, name))
        assert (first.completed, len(first.epochs), first.shares[-1]) == (False, 4, pytest.approx(4 / EPOCHS))
        assert (second.completed, second.test_quality) == (True, 0.5)


def changed(row: int, column: str, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(data: pd.DataFrame) -> pd.DataFrame:
        data[column] = data[column].astype(object)
        data.loc[row, column] = value
        return data

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.rename(columns={"val_accuracy": "val_acuracy"}), "val_accuracy: column is missing; found"),
        (lambda d: d.rename(columns={"val_accuracy": "val_acuracy"}), "(did you mean val_acuracy?)"),
        (lambda d: d.rename(columns={"lr": "l\x1b[31m\nr"}), "lr: column is missing"),
        (lambda d: d.drop(columns="cost_s"), "cost_s, epoch_s: give exactly one"),
        (lambda d: d.assign(epoch_s=1), "cost_s, epoch_s: give exactly one"),
        (lambda d: d[:0], "has no rows"),
        (changed(5, "lr", "0.1\x1b[31mx"), "curves.csv:7: lr: must be a number from 1e-30 to 1e+30; got 0.1 [31mx"),
        (changed(5, "lr", 0), "curves.csv:7: lr: must be"),
        (changed(5, "lr", "inf"), "curves.csv:7: lr: must be"),
        (changed(5, "lr", ""), "curves.csv:7: lr: must be a number from 1e-30 to 1e+30; got nothing"),
        (changed(0, "batch_size", 16.5), "curves.csv:2: batch_size: must be a whole number"),
        (changed(0, "batch_size", "9" * 400), "curves.csv:2: batch_size: must be a whole number"),
        (changed(0, "seed", -1), "curves.csv:2: seed: must be a whole number from 0"),
        (changed(0, "val_accuracy", 97.2), "curves.csv:2: val_accuracy: must be a number from 0 to 1; got 97.2"),
        (changed(2, "val_accuracy", ""), "curves.csv:4: val_accuracy: is empty, but batch size 16"),
        (changed(2, "cost_s", 8), "curves.csv:4: cost_s: is cumulative and must grow"),
        (changed(2, "epoch", 2), "curves.csv:4: epoch: 2 of batch size 16, rate 0.05, seed 0 appears twice"),
        (lambda d: d.drop(index=2), "lacks 3, which others of its batch size have"),
        (lambda d: d.drop(index=EPOCHS - 1), f"lacks {EPOCHS}, which others"),
        (lambda d: d.drop(index=range(EPOCHS)), "not a full grid, batch size 16 on 1 rank(s) at rate 0.05"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], says: str) -> None:
    with pytest.raises(DataError) as caught:
        read_curves(written(tmp_path, change(table())))
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.csv", None, "no such file"),
        ("curves.tsv", b"", "must end in .csv or .parquet"),
        ("curves.parqet", b"", "(did you mean .parquet?)"),
        ("empty.csv", b"", "cannot be read as csv"),
        ("binary.csv", b"\xff\xfe\x00\x01\n\x80", "cannot be read as csv"),
        ("fake.parquet", b"PAR1 not really", "cannot be read as parquet"),
    ],
)
def test_a_file_that_is_no_table_is_one_line(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(says)) as caught:
        read_curves(tmp_path / name)
    assert str(caught.value).isprintable()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.booleans())
def test_any_table_gives_curves_or_one_line(tmp_path: Path, junk: bytes, headed: bool) -> None:
    heads = b"batch_size,lr,seed,epoch,cost_s,val_accuracy\n16,0.1,0,1,1,0.5\n" if headed else b""
    (tmp_path / "junk.csv").write_bytes(heads + junk)
    message = ""
    try:
        assert read_curves(tmp_path / "junk.csv")
    except DataError as error:
        message = str(error)
    assert not message or message.isprintable()


def test_a_parquet_of_nested_values_is_one_line(tmp_path: Path) -> None:
    data = table().assign(lr=[[0.1]] * len(table()))
    with pytest.raises(DataError, match=r"curves.parquet: row 0: lr: must be a number"):
        read_curves(written(tmp_path, data, "curves.parquet"))


def made(batch_size: int, **changes: Any) -> TrialRecord:
    """A trial of three reports, ten updates apart."""
    return trial(batch_size, [0.5, 0.6, 0.7], **({"total_updates": 30, "audited_from": None} | changes))


def study_of(*trials: TrialRecord) -> Summary:
    return summary(trials=trials, cost_tolerance=0.05, stopping=None)


def grid_of_trials() -> list[Any]:
    """Two batch sizes, two rates, two seeds; one of them diverges."""
    trials = [
        made(batch_size, lr=lr, seed_index=seed, trial_id=f"{batch_size}-{lr}-{seed}")
        for batch_size in (16, 64)
        for lr in (0.1, 0.2)
        for seed in (0, 1)
    ]
    trials[-1] = replace(trials[-1], outcome="diverged", final_quality=None, curve=trials[-1].curve[:1])
    return trials


def test_the_search_of_a_study_that_was_a_grid() -> None:
    trials = grid_of_trials()
    curves = curves_of(study_of(*trials, made(16, phase="confirm", seed_index=3)))
    assert [curve.trial_id for curve in curves] == [trial.trial_id for trial in trials]
    assert curves[0].cost_s == tuple(point.device_seconds for point in trials[0].curve)
    assert curves[0].shares == pytest.approx((1 / 3, 2 / 3, 1))
    assert (curves[-1].completed, curves[-1].shares) == (False, pytest.approx((1 / 3,)))


@pytest.mark.parametrize("outcome", ["stopped", "failed", None])
def test_a_study_that_was_no_grid_is_refused(outcome: str | None) -> None:
    trials = grid_of_trials()
    trials[2] = replace(trials[2], outcome=outcome)
    with pytest.raises(DataError, match=rf"not a full grid, 16-0.2-0 is {outcome or 'not finished'}"):
        curves_of(study_of(*trials))
    with pytest.raises(DataError, match="it has no search"):
        curves_of(study_of(made(16, phase="confirm")))
