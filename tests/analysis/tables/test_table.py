"""Tables from elsewhere: what is recognised, what it becomes, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.analysis.statistics.critical import StepsToTarget
from study.analysis.tables.table import Objective, ResultTable, read_table
from study.errors import DataError

ROWS = [
    {"batch_size": 32, "seed": 0, "device_hours": 2.0, "accuracy": 0.90},
    {"batch_size": 32, "seed": 1, "device_hours": 2.2, "accuracy": 0.92},
    {"batch_size": 8, "seed": 0, "device_hours": 4.0, "accuracy": 0.95},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pd.DataFrame(rows)
    {".csv": frame.to_csv, ".parquet": frame.to_parquet}.get(path.suffix, lambda p, index: None)(path, index=False)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    return path


def from_text(folder: Path, text: str, **options: Any) -> ResultTable:
    path = folder / "t.csv"
    path.write_text(text)
    return read_table(path, **options)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json"])
def test_every_format_says_the_same(tmp_path: Path, suffix: str) -> None:
    table = read_table(write(tmp_path / f"t{suffix}", ROWS))
    assert (table.cost, table.quality) == (Objective("device_hours", False), Objective("accuracy", True))
    (group,) = table.groups
    assert [c.label for c in group.configurations] == ["batch_size=8", "batch_size=32"]
    sample = group.configurations[1].sample
    assert sample is not None
    assert sample.cost == (2.0, 2.2)
    assert sample.quality == (0.90, 0.92)
    assert group.runs == ()


def test_json_may_hold_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text('{"batch_size": [8, 16], "usd": [2, 1], "error": [0.1, 0.2]}')
    table = read_table(path)
    assert table.quality == Objective("error", False)
    assert [c.sample.quality for c in table.groups[0].configurations if c.sample] == [(-0.1,), (-0.2,)]


@pytest.mark.parametrize(
    "header",
    [
        "run_id,status,params.batch_size,params.seed,metrics.val_accuracy,metrics.gpu_hours",  # MLflow search_runs
        "name,summary.State,config.batch_size,config.seed,summary.val/accuracy,summary.gpu_hours",  # W&B, by API
        "Name,State,batch_size,seed,val_acc,gpu_hours",  # W&B, from the page
        "Name,State,Batch Size.value,SEED,Val-Accuracy,GPU hours",
    ],
)
def test_trackers_exports_are_recognised(tmp_path: Path, header: str) -> None:
    table = from_text(tmp_path, f"{header}\na,FINISHED,8,1,0.9,2\nb,FAILED,8,2,,\nc,crashed,16,1,,\n")
    eight, sixteen = table.groups[0].configurations
    assert eight.sample is not None
    assert (eight.sample.cost, eight.sample.quality, eight.n_censored) == ((2.0,), (0.9,), 1)
    assert (sixteen.sample, sixteen.n_censored) == (None, 1)


def test_a_metric_is_not_mistaken_for_the_parameter_of_that_name(tmp_path: Path) -> None:
    table = from_text(tmp_path, "params.batch_size,params.loss,metrics.loss,params.cost\n8,cross_entropy,0.3,1\n")
    assert table.quality == Objective("metrics.loss", False)


def test_steps_come_from_any_way_to_count_to_the_target(tmp_path: Path) -> None:
    expected = (StepsToTarget(8, 100.0), StepsToTarget(16, 75.0, reached=False))
    for text in (
        "batch_size,steps_to_target,reached\n8,100,true\n16,75,false\n",
        "batch_size,samples_to_target,reached\n8,800,1\n16,1200,0\n",
        "batch_size,epochs_to_target,dataset_size,reached\n8,2,400,yes\n16,3,400,no\n",
    ):
        table = from_text(tmp_path, text)
        assert table.groups[0].runs == expected
        assert table.cost is None


def test_a_run_that_failed_without_a_count_is_no_bound(tmp_path: Path) -> None:
    table = from_text(tmp_path, "batch_size,steps_to_target,status\n8,100,finished\n16,,failed\n16,50,finished\n")
    assert table.groups[0].runs == (StepsToTarget(8, 100.0), StepsToTarget(16, 50.0))


def test_the_exact_name_wins_among_figures_of_one_split(tmp_path: Path) -> None:
    table = from_text(tmp_path, "batch_size,accuracy,metrics.accuracy,cost\n8,0.9,0.8,1\n")
    assert table.quality == Objective("accuracy", True)
    table = from_text(tmp_path, "batch_size,accuracy,metrics.accuracy,val_acc,cost\n8,0.9,0.8,0.7,1\n")
    assert table.quality == Objective("val_acc", True)


def test_groups_and_configurations_of_several_columns(tmp_path: Path) -> None:
    text = "batch_size,gpu,power_limit,energy_j,accuracy\n" + "".join(
        f"{b},{gpu},{power},{b * power},0.9\n" for gpu in ("V100", "A40") for b in (8, 16) for power in (100, 200)
    )
    table = from_text(tmp_path, text, group_by="gpu", config=["batch_size", "power_limit"])
    assert [group.name for group in table.groups] == ["A40", "V100"]
    assert [c.settings for c in table.groups[0].configurations] == [
        {"batch_size": str(b), "power_limit": str(p)} for b in (8, 16) for p in (100, 200)
    ]


def test_world_size_distinguishes_configurations_where_it_varies(tmp_path: Path) -> None:
    table = from_text(tmp_path, "batch_size,world_size,cost,accuracy\n8,1,1,0.9\n8,2,2,0.9\n")
    assert [c.label for c in table.groups[0].configurations] == [
        "batch_size=8, world_size=1",
        "batch_size=8, world_size=2",
    ]


def test_each_batch_size_is_shown_at_its_best_rate(tmp_path: Path) -> None:
    text = "batch_size,lr,seed,cost,accuracy\n8,0.1,0,1,0.9\n8,0.1,1,1,0.8\n8,0.5,0,1,0.95\n8,0.5,1,1,0.85\n"
    (configuration,) = from_text(tmp_path, text).groups[0].configurations
    assert configuration.lr == 0.5
    assert configuration.sample is not None
    assert configuration.sample.quality == (0.95, 0.85)
    assert len(from_text(tmp_path, text, config=["batch_size", "lr"]).groups[0].configurations) == 2


def test_any_two_columns_may_be_the_objectives(tmp_path: Path) -> None:
    text = "batch_size,latency,throughput,accuracy,cost\n8,3,100,0.9,5\n"
    for options, cost, quality in (
        ({"minimize": ["latency"]}, ("latency", 3.0), ("accuracy", 0.9)),
        ({"maximize": ["throughput"]}, ("cost", 5.0), ("throughput", 100.0)),
        ({"minimize": ["latency"], "maximize": ["throughput"]}, ("latency", 3.0), ("throughput", 100.0)),
        ({"minimize": ["cost", "latency"]}, ("cost", 5.0), ("latency", -3.0)),
        ({"maximize": ["throughput", "accuracy"]}, ("throughput", -100.0), ("accuracy", 0.9)),
    ):
        table = from_text(tmp_path, text, **options)
        assert table.cost is not None
        assert table.quality is not None
        sample = table.groups[0].configurations[0].sample
        assert sample is not None
        assert (table.cost.column, sample.cost[0]) == cost
        assert (table.quality.column, sample.quality[0]) == quality


WHOLE = "needs a whole number of at least 1"
HOSTILE = {
    "batch_size,cost,accuracy\n8,,0.9\n": "row 1: cost: is empty; needs a finite number",
    "batch_size,cost,accuracy\n8,1,nan\n": "no row is a final result (1 diverged)",
    "batch_size,cost,accuracy\n8,1,0.9\n8,inf,0.9\n": "row 2: cost: 'inf' is not allowed; needs a finite number",
    "batch_size,cost,accuracy\n-8,1,0.9\n": f"row 1: batch_size: '-8' is not allowed; {WHOLE}",
    "batch_size,cost,accuracy\n8.5,1,0.9\n": f"row 1: batch_size: '8.5' is not allowed; {WHOLE}",
    "batch_size,cost,accuracy\nbig,1,0.9\n": f"row 1: batch_size: 'big' is not allowed; {WHOLE}",
    "batch_size,lr,cost,accuracy\n8,-1,1,0.9\n": "row 1: lr: '-1' is not allowed; needs a number above 0",
    "batchsiz,cost,accuracy\n8,1,0.9\n": "no column 'batch_size' (did you mean batchsiz?); there are batchsiz, cost",
    "batch_size,batch_size,cost\n8,8,1\n": "column 'batch_size' appears twice",
    "batch_size,,cost\n8,8,1\n": "column 2 has no name",
    "batch_size,metrics.acc,summary.acc,cost\n8,0.9,0.8,1\n": "'metrics.acc' and 'summary.acc' both mean accuracy",
    "batch_size,cost,accuracy\n": "no rows",
    "": "empty",
    "batch_size\n8\n": "no column for a cost (cost, device_hours, usd, energy_j, wall_s) nor for a quality",
    "batch_size,epochs_to_target\n8,3\n": "epochs_to_target: needs a column dataset_size to become steps",
    "batch_size,steps_to_target\n8,\n": "row 1: steps_to_target: is empty; needs a number above 0",
    "batch_size,steps_to_target,reached\n8,9,maybe\n": "row 1: reached: 'maybe' is not allowed; needs true or false",
    "batch_size,seed,cost,accuracy\n8,1,1,0.9\n8,1,2,0.8\n": "row 2: seed 1 of batch_size=8 is in row 1 too",
    "batch_size,cost\n8,1\n8,1,2,3\n": "not a table",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_tables_get_one_clear_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError) as caught:
        from_text(tmp_path, text)
    assert HOSTILE[text] in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "t.csv"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"config": ["power_limt"]}, "no column 'power_limt' for --config (did you mean power_limit?)"),
        ({"group_by": "gpu"}, "no column 'gpu' for --group-by"),
        ({"minimize": ["a", "b"]}, "no column 'a' for --minimize"),
        ({"minimize": ["cost", "power_limit"], "maximize": ["accuracy"]}, "more than two objectives"),
    ],
)
def test_options_that_name_what_is_not_there(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        from_text(tmp_path, "batch_size,power_limit,cost,accuracy\n8,100,1,0.9\n", **options)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.xlsx", b"", "a table is .csv, .tsv, .parquet, .json or .jsonl, or one of them with .gz, not .xlsx"),
        ("t.json", b"{", "not a table"),
        ("t.json", b"3", "a JSON table is a list of rows"),
        ("t.json", b'[{"batch_size": 8, "batch_size": 9}]', "column 'batch_size' appears twice"),
        ("t.json", b"[]", "no rows"),
        ("t.json", b'[{"batch_size": [8], "cost": {}, "accuracy": 1}]', "row 1: batch_size"),
        ("t.csv", b"\xff\xfe\x00", "not a table"),
        ("t.parquet", b"PAR1", "not a"),
        ("t.csv", None, "No such file"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: bytes | None, expected: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet='abs_,1."\n-e', max_size=60))
def test_no_text_gets_past_as_anything_but_a_table_or_one_line(tmp_path_factory, text: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "t.csv"
    path.write_text("batch_size,cost,accuracy\n" + text)
    line = ""
    try:
        read_table(path)
    except DataError as error:
        line = str(error)
    assert "\n" not in line
