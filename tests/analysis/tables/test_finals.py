"""Which rows are final results, and what becomes of the others."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.analysis.statistics.critical import StepsToTarget
from study.analysis.tables.fronts import analyze_table
from tests.analysis.tables.made import by_batch, read, refused

FINAL = ("finished", "FINISHED", "COMPLETE", "Completed", "TERMINATED", "success", "succeeded", "TrialState.COMPLETE")
OTHERS = (
    *("failed", "FAIL", "crashed", "Killed", "PRUNED", "RUNNING", "scheduled", "stopped", "preempted", "ERROR"),
    *("TrialState.PRUNED", "out-of-memory", "Timed Out", "cancelled", "no such state", ""),
)


@pytest.mark.parametrize("word", FINAL)
def test_finished_rows_are_final(tmp_path: Path, word: str) -> None:
    table = read(tmp_path, "batch_size,state,usd,val_acc", f"8,{word},1,0.9", "8,failed,9,0.1")
    assert by_batch(table) == {8: ([1.0], [0.9])}


@pytest.mark.parametrize("word", OTHERS)
def test_all_others_are_censored_and_counted(tmp_path: Path, word: str) -> None:
    table = read(tmp_path, "batch_size,state,usd,val_acc", "8,finished,1,0.9", f"8,{word},0.1,0.1", "16,finished,1,0.8")
    assert by_batch(table) == {8: ([1.0], [0.9]), 16: ([1.0], [0.8])}
    assert (table.understood.n_final, table.understood.n_censored) == (2, 1)
    assert table.groups[0].configurations[0].n_censored == 1
    assert any(note.startswith("Censored: 1 of 3 rows") for note in table.understood.notes)


def test_a_row_is_final_by_all_columns_of_states(tmp_path: Path) -> None:
    table = read(
        tmp_path, "batch_size,status,state,usd,val_acc", "8,FINISHED,failed,1,0.1", "8,FINISHED,finished,2,0.9"
    )
    assert by_batch(table) == {8: ([2.0], [0.9])}
    table = read(tmp_path, "batch_size,status,state,usd,val_acc", "8,FINISHED,failed,1,0.1", named={"state": "status"})
    assert by_batch(table) == {8: ([1.0], [0.1])}


def test_a_column_of_other_states_is_ignored_with_a_note(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,state,usd,val_acc", "8,Ohio,1,0.9")
    assert by_batch(table) == {8: ([1.0], [0.9])}
    assert any("no known state" in note for note in table.understood.notes)


def test_nothing_final_is_refused(tmp_path: Path) -> None:
    line = refused(tmp_path, "batch_size,state,usd,val_acc", "8,failed,1,0.9", "8,running,1,0.9")
    assert line == "no row is a final result (1 failed, 1 running)"


@pytest.mark.parametrize("word", ["NaN", "nan", "inf", "Infinity", "-Infinity", "-inf"])
@pytest.mark.parametrize("column", ["val_loss", "train_loss", "loss"])
def test_what_diverged_is_censored_though_its_accuracy_is_a_number(tmp_path: Path, word: str, column: str) -> None:
    table = read(
        tmp_path,
        f"batch_size,lr,usd,{column},val_acc",
        "8,0.1,1,0.3,0.9",
        f"8,1.0,1,{word},0.1",
        f"16,1.0,1,{word},0.99",
        "16,0.1,1,0.3,0.8",
    )
    assert by_batch(table) == {8: ([1.0], [0.9]), 16: ([1.0], [0.8])}
    assert table.understood.why == {"diverged": 2}


def test_a_quality_that_diverged_is_no_quality(tmp_path: Path) -> None:
    for word in ("NaN", "Infinity", "-inf"):
        table = read(tmp_path, "batch_size,usd,val_loss", "8,1,0.3", f"8,1,{word}", "16,1,0.5")
        assert by_batch(table) == {8: ([1.0], [0.3]), 16: ([1.0], [0.5])}
        assert table.understood.why == {"diverged": 1}
    rows = '[{"batch_size": 8, "usd": 1, "val_loss": NaN}, {"batch_size": 8, "usd": 2, "val_loss": 0.5}]'
    assert by_batch(read(tmp_path, rows, name="t.json")) == {8: ([2.0], [0.5])}


def test_a_loss_that_is_nowhere_a_number_says_nothing(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,usd,val_loss,val_acc", "8,1,NaN,0.9", "16,1,NaN,0.8")
    assert by_batch(table) == {8: ([1.0], [0.9]), 16: ([1.0], [0.8])}
    assert any("val_loss is NaN in all rows" in note for note in table.understood.notes)


def test_rows_of_evaluations_are_left_out(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,usd,val_acc", "8,1,0.9", "8,2,", "16,1,0.8")
    assert by_batch(table) == {8: ([1.0], [0.9]), 16: ([1.0], [0.8])}
    assert (table.understood.n_rows, table.understood.n_left_out) == (3, 1)
    table = read(tmp_path, "batch_size,state,usd,val_acc", "8,finished,1,0.9", ",finished,2,0.7", ",failed,,")
    assert by_batch(table) == {8: ([1.0], [0.9])}
    assert table.understood.n_left_out == 2


def test_a_failure_of_the_machine_does_not_count_against_a_rate(tmp_path: Path) -> None:
    """A rate whose seed crashed was better than one whose seeds did not; one that was pruned or diverged is not."""
    rows = ("batch_size,lr,state,usd,val_acc", "8,0.1,finished,1,0.9", "8,0.2,finished,1,0.8", "8,0.3,failed,1,")
    assert by_batch(read(tmp_path, *rows, "8,0.1,crashed,1,")) == {8: ([1.0], [0.9])}
    assert by_batch(read(tmp_path, *rows, "8,0.1,pruned,1,0.3")) == {8: ([1.0], [0.8])}


def test_a_rate_of_nothing_is_unknown(tmp_path: Path) -> None:
    zeros = read(tmp_path, "batch_size,lr,usd,val_acc", "8,0,1,0.9", "8,,2,0.8", "16,0,1,0.7")
    assert by_batch(zeros) == {8: ([1.0, 2.0], [0.9, 0.8]), 16: ([1.0], [0.7])}
    assert {one.lr for one in zeros.groups[0].configurations} == {None}
    assert any("rows 1, 2, 3: the learning rate is unknown" in note for note in zeros.understood.notes)
    one = read(tmp_path, "batch_size,lr,usd,val_acc", "8,0.1,1,0.9", "8,,2,0.8", "16,0.1,1,0.7")
    assert by_batch(one)[8] == ([1.0, 2.0], [0.9, 0.8])
    several = read(tmp_path, "batch_size,lr,usd,val_acc", "8,0.1,1,0.9", "8,,2,0.99", "8,0.2,1,0.7")
    assert by_batch(several)[8] == ([1.0], [0.9])
    assert several.understood.n_left_out == 1


@pytest.mark.parametrize("last", ["lr", "train/lr", "metrics.lr", "summary.lr"])
@pytest.mark.parametrize("configured", ["learning_rate", "config.lr", "params.lr", "optimizer.lr", "base_lr"])
def test_the_configured_rate_is_taken(tmp_path: Path, last: str, configured: str) -> None:
    table = read(tmp_path, f"batch_size,{last},{configured},usd,val_acc", "8,1e-5,0.1,1,0.9", "8,1e-6,0.1,2,0.8")
    assert by_batch(table) == {8: ([1.0, 2.0], [0.9, 0.8])}
    assert table.groups[0].configurations[0].lr == 0.1


def test_a_rate_that_varies_is_a_setting_where_there_is_to_be_none(tmp_path: Path) -> None:
    rows = ("batch_size,lr,usd,val_acc", "8,0.1,1,0.9", "8,0.2,1,0.8")
    assert "--as-seeds lr" in refused(tmp_path, *rows, named={"lr": "none"})
    assert by_batch(read(tmp_path, *rows, as_seeds=["lr"]))[8] == ([1.0, 1.0], [0.9, 0.8])


def test_rates_that_differ_are_asked_for(tmp_path: Path) -> None:
    rows = ("batch_size,params.lr,params.learning_rate,usd,val_acc", "8,0.1,0.2,1,0.9")
    assert "--lr-column" in refused(tmp_path, *rows)
    table = read(tmp_path, *rows, named={"lr": "params.learning_rate"})
    assert table.groups[0].configurations[0].lr == 0.2


def test_a_seed_is_one_however_it_is_written(tmp_path: Path) -> None:
    assert "is in row 1 too" in refused(tmp_path, "batch_size,seed,usd,val_acc", "8,1,1,0.9", "8,1.0,2,0.8")


def test_rows_without_a_seed_are_seeds_of_their_own(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,seed,usd,val_acc", "8,,1,0.9", "8,,2,0.8", "8,3,3,0.7")
    assert by_batch(table) == {8: ([1.0, 2.0, 3.0], [0.9, 0.8, 0.7])}
    assert any("seed is empty in rows 1, 2" in note for note in table.understood.notes)


def test_durations_are_seconds(tmp_path: Path) -> None:
    words = {
        "0:17:02": 1022,
        "0 days 00:17:02.25": 1022.25,
        "1 day, 0:00:01": 86401,
        "17.1min": 1026,
        "9.5s": 9.5,
        "2.1h": 7560,
        "1.5d": 129600,
        "1h 2m": 3720,
        "1h2m3s": 3723,
        "3 hrs": 10800,
        "2 hours 5 mins": 7500,
        "PT17M2S": 1022,
        "350ms": 0.35,
        "1-00:00:01": 86401,
    }
    table = read(tmp_path, "batch_size,duration,val_acc", *(f'8,"{word}",0.9' for word in words))
    assert by_batch(table)[8][0] == pytest.approx(list(words.values()))
    for word in ("17:02", "soon", "3 moons", "-5s"):  # 17:02 may be hours or minutes
        line = refused(tmp_path, "batch_size,duration,val_acc", "8,9.5s,0.9", f"8,{word},0.9")
        assert line.startswith(f"row 2: duration: {word!r} is not allowed")


def test_two_clocks_of_one_run(tmp_path: Path) -> None:
    header = "batch_size,Runtime,_runtime,val_acc"
    near = read(tmp_path, header, "8,1000,995.2,0.9", "8,11,9.7,0.9")
    assert by_batch(near)[8][0] == [1000.0, 11.0]
    assert any("two clocks" in note for note in near.understood.notes)
    line = refused(tmp_path, header, "8,1000,500,0.9")
    assert "differ (row 1: 1000 s, 500 s); name one with --cost-column" in line
    assert by_batch(read(tmp_path, header, "8,1000,500,0.9", named={"cost": "_runtime"}))[8][0] == [500.0]
    units = read(tmp_path, "batch_size,wall_min,duration,val_acc", "8,2,0:02:01,0.9")
    assert by_batch(units)[8][0] == [2.0]


def test_censored_rows_without_steps_are_left_out_of_the_law_and_it_is_said(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        "batch_size,seed,steps_to_target,state,usd,val_acc",
        *(f"{b},{s},{100 + 6400 / b},finished,1,0.9" for b in (8, 16, 32, 64) for s in (1, 2, 3)),
        "8,4,,failed,,",
        "8,5,500,stopped,,",
        "64,4,,failed,,",
    )
    found = analyze_table(table, grouped=False).whole
    assert found.critical_batch is not None
    assert (found.critical_batch.n_runs, found.critical_batch.n_censored) == (13, 1)
    assert StepsToTarget(8, 500.0, reached=False) in found.runs
    (note,) = (note for note in found.notes if note.startswith("Censored"))
    assert note == (
        "Censored rows: 3; they are on no front; bounds on steps to the target: 1; without steps and left out of the "
        "critical batch size: 2."
    )


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_mean_is_that_of_the_finished_rows_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("states")
    n = data.draw(st.integers(1, 12))
    words = data.draw(st.lists(st.sampled_from([*FINAL, *OTHERS]), min_size=n, max_size=n))
    figures = data.draw(st.lists(st.integers(1, 999), min_size=n, max_size=n))
    rows = [f"8,{i},{word},{f},0.{f:03d}" for i, (word, f) in enumerate(zip(words, figures, strict=True))]
    rows = data.draw(st.permutations([*rows, "16,99,finished,1,0.5"]))
    costs, qualities = by_batch(read(folder, "batch_size,seed,state,usd,val_acc", *rows))[8]
    final = [f for word, f in zip(words, figures, strict=True) if word in FINAL]
    assert sorted(costs) == sorted(map(float, final))
    if final:
        assert fmean(qualities) == pytest.approx(fmean(final) / 1000)


@pytest.mark.parametrize(
    ("name", "final", "other", "why"),
    [
        ("finished", "True", "False", "not finished"),
        ("Success", "1", "0", "not success"),
        ("is_completed", "yes", "no", "not completed"),
        ("done", "x", "", "not done"),
        ("crashed", "0", "1", "crashed"),
        ("diverged", "", "x", "diverged"),
        ("summary.early_stopped", "false", "true", "early_stopped"),
    ],
)
def test_a_column_called_like_a_state_says_which_rows_are_final(
    tmp_path: Path, name: str, final: str, other: str, why: str
) -> None:
    table = read(tmp_path, f"batch_size,{name},usd,val_acc", f"8,{final},1,0.9", f"8,{other},2,0.1")
    assert by_batch(table) == {8: ([1.0], [0.9])}
    assert table.understood.why == {why: 1}
    assert table.understood.columns["state"] == name


def test_states_that_mean_nothing_and_vary_are_refused(tmp_path: Path) -> None:
    for cells in (("0", "1"), ("True", "False"), ("Ohio", "Iowa")):
        rows = ("batch_size,status,usd,val_acc", f"8,{cells[0]},1,0.9", f"8,{cells[1]},2,0.1")
        assert "vary within a configuration: status" in refused(tmp_path, *rows)
        assert by_batch(read(tmp_path, *rows, named={"state": "none"})) == {8: ([1.0, 2.0], [0.9, 0.1])}


def test_a_time_among_durations_needs_its_unit(tmp_path: Path) -> None:
    line = refused(tmp_path, "batch_size,runtime,val_acc", "8,17 min,0.9", "16,950,0.8")
    assert line.startswith("row 2: runtime: '950' is not allowed; needs its unit")
    assert by_batch(read(tmp_path, "batch_size,time (h),val_acc", "8,1h05,0.9", "16,1.5,0.8")) == {
        8: ([65 / 60], [0.9]),
        16: ([1.5], [0.8]),
    }
    assert by_batch(read(tmp_path, "batch_size,runtime,val_acc", "8,1e3,0.9", "8,9E+2,0.8", "8,950,0.7")) == {
        8: ([1e3, 9e2, 950.0], [0.9, 0.8, 0.7])
    }


def test_costs_below_0_are_refused(tmp_path: Path) -> None:
    for name in ("runtime", "usd"):
        assert "row 1" in refused(tmp_path, f"batch_size,{name},val_acc", "8,-5,0.9", "16,2,0.8")
    table = read(tmp_path, "batch_size,score,val_acc", "8,-5,0.9", named={"cost": "score"})
    assert by_batch(table) == {8: ([-5.0], [0.9])}


def test_a_figure_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path, "batch_size,usd,val_acc", '8,1,"0,91"').startswith("row 1: val_acc: '0,91'")


def test_a_huge_loss_is_noted(tmp_path: Path) -> None:
    rows = ("batch_size,usd,train_loss,val_acc", "8,1,0.3,0.9", "8,2,3e15,0.1")
    (note,) = read(tmp_path, *rows).understood.notes
    assert note.startswith("train_loss is 3e+15 in row 2, where 0.3 is usual")
    assert read(tmp_path, *rows[:2], "8,2,9.0,0.1").understood.notes == ()


def test_a_row_that_stands_there_twice_is_noted(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,usd,val_acc", "8,1,0.9", "16,1,0.9", "8,1,0.9")
    (note,) = table.understood.notes
    assert note.startswith("All columns of row 3 are those of an earlier row")


@pytest.mark.parametrize(
    ("name", "hours"),
    [
        ("Time (min)", 1 / 60),
        ("Hours", 1.0),
        ("training_hours", 1.0),
        ("total minutes", 1 / 60),
        ("time in h", 1.0),
        ("runtime_ms", 1 / 3.6e6),
        ("Train time [d]", 24.0),
        ("wall-clock (s)", 1 / 3600),
        ("elapsed.h", 1.0),
    ],
)
def test_units_of_headers(tmp_path: Path, name: str, hours: float) -> None:
    """On two devices, so that the cost is in hours; on one it stays in the table's unit."""
    table = read(tmp_path, f"batch_size,gpus,{name},val_acc", "8,2,60,0.9")
    assert by_batch(table)[8][0] == pytest.approx([2 * 60 * hours])
    assert by_batch(read(tmp_path, f"batch_size,{name},val_acc", "8,60,0.9")) == {8: ([60.0], [0.9])}
