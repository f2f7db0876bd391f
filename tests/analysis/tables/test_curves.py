"""Tables with a row an epoch: recognised, brought to the last row of each run, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.tables.made import by_batch, read, refused


def curve(prefix: str, epochs: int = 4, pace: float = 10.0, low: float = 0.5, first: int = 1) -> list[str]:
    """Rows of a run: its prefix, epoch, seconds so far, accuracy `low + epoch / 10`."""
    return [f"{prefix},{epoch},{pace * epoch:g},{low + epoch / 10:g}" for epoch in range(first, first + epochs)]


@pytest.mark.parametrize(
    "count", ["epoch", "training_iteration", "step", "_step", "global_step", "trainer/global_step"]
)
@pytest.mark.parametrize("run", ["run_id", "trial_id", "Name", "run"])
def test_runs_that_a_column_names(tmp_path: Path, count: str, run: str) -> None:
    rows = [
        row for pair in zip(curve("a,8"), curve("b,8", low=0.4), curve("c,16", pace=6), strict=True) for row in pair
    ]
    table = read(tmp_path, f"{run},batch_size,{count},time_s,val_acc", *rows)
    assert by_batch(table) == {8: ([40.0, 40.0], [0.9, 0.8]), 16: ([24.0], [0.9])}
    (note,) = table.understood.notes
    assert note.startswith(f"The 12 rows are curves, by {count}: the last row of each of 3 runs is taken")
    assert "`study replay`" in note


def test_runs_that_a_seed_distinguishes(tmp_path: Path) -> None:
    rows = [*curve("8,1"), *curve("8,2", low=0.4), *curve("16,1", pace=6)]
    assert by_batch(read(tmp_path, "batch_size,seed,epoch,time_s,val_acc", *rows[::-1])) == {
        8: ([40.0, 40.0], [0.8, 0.9]),
        16: ([24.0], [0.9]),
    }


def test_runs_whose_count_starts_again(tmp_path: Path) -> None:
    rows = [*curve("8"), *curve("8", low=0.4), *curve("16", pace=6)]
    table = read(tmp_path, "batch_size,epoch,time_s,val_acc", *rows)
    assert by_batch(table) == {8: ([40.0, 40.0], [0.9, 0.8]), 16: ([24.0], [0.9])}


def test_runs_in_one_another_are_refused(tmp_path: Path) -> None:
    rows = [row for pair in zip(curve("x,8"), curve("y,8", low=0.4), strict=True) for row in pair]
    header = "machine id,batch_size,epoch,time_s,val_acc"
    line = refused(tmp_path, header, *rows)
    assert "curves, by epoch" in line
    assert "--run-column" in line
    assert "`study replay`" in line
    assert by_batch(read(tmp_path, header, *rows, named={"run": "machine id"})) == {8: ([40.0, 40.0], [0.9, 0.8])}


def test_several_validations_an_epoch(tmp_path: Path) -> None:
    rows = [f"8,{step // 20},{step},{step / 10},0.{step}" for step in (5, 15, 25, 35)]
    table = read(tmp_path, "batch_size,epoch,step,time_s,val_acc", *rows)
    assert by_batch(table) == {8: ([3.5], [0.35])}


def test_a_run_that_ended_before_the_others_is_censored(tmp_path: Path) -> None:
    rows = [*curve("8,1"), *curve("8,2", epochs=2), *curve("16,1", pace=6)]
    table = read(tmp_path, "batch_size,seed,epoch,time_s,val_acc", *rows)
    assert by_batch(table) == {8: ([40.0], [0.9]), 16: ([24.0], [0.9])}
    assert table.understood.why == {"stopped early": 1}


def test_a_run_that_diverged_on_its_way(tmp_path: Path) -> None:
    rows = [*curve("8,1"), *curve("8,2", epochs=2), "8,2,3,30,nan", "8,2,4,40,nan"]
    table = read(tmp_path, "batch_size,seed,epoch,time_s,val_acc", *rows)
    assert by_batch(table) == {8: ([40.0], [0.9])}
    assert table.understood.why == {"diverged": 1}


def test_a_rate_that_follows_a_schedule_is_not_what_a_run_was_set_to(tmp_path: Path) -> None:
    rows = [
        f"{batch},{seed},{epoch},{0.1 / epoch},{10 * epoch},0.{batch + epoch + seed}"
        for batch in (8, 16)
        for seed in (1, 2)
        for epoch in (1, 2, 3)
    ]
    table = read(tmp_path, "batch_size,seed,epoch,lr,time_s,val_acc", *rows)
    assert by_batch(table) == {8: ([30.0, 30.0], [0.12, 0.13]), 16: ([30.0, 30.0], [0.2, 0.21])}
    assert {one.lr for one in table.groups[0].configurations} == {None}
    assert any("as a schedule does" in note for note in table.understood.notes)


def test_rates_distinguish_runs(tmp_path: Path) -> None:
    rows = [*curve("8,0.1"), *curve("8,0.2", low=0.55), *curve("16,0.1", pace=6)]
    for order in (rows, sorted(rows, key=lambda row: row.split(",")[2])):
        table = read(tmp_path, "batch_size,lr,epoch,time_s,val_acc", *order)
        assert by_batch(table) == {8: ([40.0], [0.95]), 16: ([24.0], [0.9])}
        assert [one.lr for one in table.groups[0].configurations] == [0.2, 0.1]


def test_seconds_of_each_epoch_are_not_what_a_run_cost(tmp_path: Path) -> None:
    for seconds in ((3.0, 3.0, 3.0), (3.1, 2.9, 3.2)):
        rows = (f"8,{epoch},{s},0.{epoch + 5}" for epoch, s in enumerate(seconds))
        line = refused(tmp_path, "batch_size,epoch,time_s,val_acc", *rows)
        assert "time_s: does not add up" in line
        assert "--cost-column" in line


def test_a_number_of_epochs_is_a_setting(tmp_path: Path) -> None:
    rows = ("8,1,10,0.6", "8,10,100,0.9", "16,1,6,0.5", "16,10,60,0.8")
    for name in ("epochs", "max_epochs", "config.epochs"):
        assert f": {name} (1, 10);" in refused(tmp_path, f"batch_size,{name},time_s,val_acc", *rows)
    assert "--config epoch" in refused(tmp_path, "batch_size,epoch,time_s,val_acc", *rows)


def test_final_rows_may_say_at_which_epoch_they_ended(tmp_path: Path) -> None:
    table = read(
        tmp_path, "Name,State,epoch,batch_size,time_s,val_acc", "a,finished,9,8,10,0.9", "b,finished,12,8,11,0.8"
    )
    assert by_batch(table) == {8: ([10.0, 11.0], [0.9, 0.8])}
    header = "Name,State,epoch,batch_size,time_s,val_acc"
    late = (header, "a,finished,9,8,10,0.9", "a,finished,12,8,11,0.8")
    assert by_batch(read(tmp_path, *late)) == {8: ([10.0, 11.0], [0.9, 0.8])}
    early = (
        header,
        "a,finished,1,8,10,0.9",
        "a,finished,2,8,11,0.8",
    )  # one run's epochs, or two short runs of one name
    assert "--run-column none" in refused(tmp_path, *early)
    assert by_batch(read(tmp_path, *early, named={"run": "none"})) == {8: ([10.0, 11.0], [0.9, 0.8])}
    assert by_batch(read(tmp_path, *early, named={"run": "Name"})) == {8: ([11.0], [0.8])}


def test_times_that_rise_evenly_look_like_curves(tmp_path: Path) -> None:
    rows = [f"{batch},{pace * i},0.{i}" for batch, pace in ((8, 10), (16, 6)) for i in range(1, 5)]
    assert "--as-seeds all" in refused(tmp_path, "batch_size,time_s,val_acc", *rows)
    table = read(tmp_path, "batch_size,time_s,val_acc", *rows, as_seeds=["all"])
    assert by_batch(table)[16] == ([6.0, 12.0, 18.0, 24.0], [0.1, 0.2, 0.3, 0.4])
    seeds = [row.replace(",20,", ",41,") for row in rows]
    assert len(by_batch(read(tmp_path, "batch_size,time_s,val_acc", *seeds))[8][0]) == 4


@pytest.mark.parametrize("count", ["epoch", "_step", "global_step"])
def test_how_far_each_run_came_is_no_setting(tmp_path: Path, count: str) -> None:
    rows = ("a,finished,100,8,10,0.9", "b,finished,200,8,11,0.8", "c,finished,150,16,6,0.7")
    table = read(tmp_path, f"Name,State,{count},batch_size,time_s,val_acc", *rows)
    assert by_batch(table) == {8: ([10.0, 11.0], [0.9, 0.8]), 16: ([6.0], [0.7])}
    assert len(table.understood.notes) == (count == "epoch")  # which may be those of runs that were stopped


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_row_for_each_epoch_says_what_the_last_rows_say(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Runs of equal length, rows in any order: as if only the last row of each had been written."""
    folder = tmp_path_factory.mktemp("curves")
    epochs = data.draw(st.integers(2, 6))
    runs = [
        f"r{i},{batch},{i}"
        for i, batch in enumerate(data.draw(st.lists(st.sampled_from([8, 16]), min_size=1, max_size=5)))
    ]
    curves = [curve(run, epochs, low=i / 100) for i, run in enumerate(runs)]
    header = "run_id,batch_size,seed,epoch,time_s,val_acc"
    rows = data.draw(st.permutations([row for rows in curves for row in rows]))
    last = [rows[-1] for rows in curves]
    found, expected = by_batch(read(folder, header, *rows)), by_batch(read(folder, header, *last))
    assert {b: tuple(map(sorted, axes)) for b, axes in found.items()} == {
        b: tuple(map(sorted, axes)) for b, axes in expected.items()
    }


@pytest.mark.parametrize("count", ["iters", "samples_seen", "tokens_seen", "num_updates"])
def test_counts_of_updates_samples_and_tokens(tmp_path: Path, count: str) -> None:
    """Runs of equally many updates have seen more samples with larger batches, and are not stopped early for that."""
    ends = (160, 320) if "seen" in count else (160, 160)
    rows = ("a,8,80,10,0.5", f"a,8,{ends[0]},20,0.6", "b,16,80,8,0.5", f"b,16,{ends[1]},16,0.7")
    table = read(tmp_path, f"run_id,batch_size,{count},time_s,val_acc", *rows)
    assert by_batch(table) == {8: ([20.0], [0.6]), 16: ([16.0], [0.7])}


def test_several_rows_of_a_run_without_a_count_are_refused(tmp_path: Path) -> None:
    for name in ("run_id", "trial_id"):
        rows = (f"{name},batch_size,time_s,val_acc", "a,8,10,0.5", "a,8,25,0.6", "b,8,11,0.7")
        assert f"{name}: some runs have several rows and no column counts" in refused(tmp_path, *rows)
        assert by_batch(read(tmp_path, *rows, named={"run": "none"}))[8] == ([10.0, 25.0, 11.0], [0.5, 0.6, 0.7])
    replicas = read(tmp_path, "trial,batch_size,lr,time_s,val_acc", "1,8,0.1,10,0.5", "2,8,0.1,11,0.6", "1,8,1,9,0.4")
    assert by_batch(replicas) == {8: ([10.0, 11.0], [0.5, 0.6])}


def test_a_cost_that_ends_before_the_figures_is_noted(tmp_path: Path) -> None:
    rows = ("run_id,batch_size,epoch,val_acc,time_s", "a,8,1,0.5,5", "a,8,2,0.6,", "b,16,1,0.5,4", "b,16,2,0.6,8")
    notes = read(tmp_path, *rows).understood.notes
    assert any(note.startswith("In 1 of 2 runs time_s ends before the last figure") for note in notes)
    whole = read(tmp_path, *rows[:2], "a,8,2,0.6,9", *rows[3:]).understood.notes
    assert not any("ends before" in note for note in whole)
