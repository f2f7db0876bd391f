"""The files carry the summary's numbers to other programs."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pytest
from summaries import point, summary, trial

from study.analysis.records import Cost, Spend
from study.errors import ConfigError
from study.ledger.schema import PHASES
from study.reporting.exports import FORMATS, write_report

PICTURES = ("png", "svg", "pdf")

POINT_KEYS = {
    "further",
    "cold_setup",
    "compared",
    "search_cold_setup",
    "cost_ci",
    "p_on_front",
    "variant",
    "batch_size",
    "lr",
    "world_size",
    "micro_batch",
    "accumulation",
    "norm_batch",
    "n_seeds",
    "n_censored",
    "updates",
    "cost",
    "search_cost",
    "val_accuracy",
    "val_accuracy_ci",
    "best_val_accuracy",
    "test_accuracy",
    "samples_per_s",
    "on_frontier",
    "peak_memory_bytes",
    "tokens_per_sample",
}
SUMMARY_KEYS = {
    "objective",
    "group_setups",
    "include_setup",
    "span",
    "steps",
    "claims",
    "ridges",
    "critical",
    "cut",
    "mistaken",
    "critical_batch",
    "critical_missing",
    "other_criticals",
    "frontiers",
    "hypervolume_ci",
    "noise_scale",
    "recommendation",
    "second_cost_axis",
    "throughput_model",
    "stopping",
    "protocol_version",
    "study",
    "cost_axis",
    "points",
    "frontier",
    "spend",
    "hypervolume",
    "planned_trials",
    "notes",
}


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")


def written_json(folder: Path, *args: Any, **changes: Any) -> Any:
    write_report(summary(*args, **changes), folder, ["json"])
    return json.loads((folder / "summary.json").read_text(), parse_constant=refuse)


def test_each_format_has_its_files(tmp_path: Path) -> None:
    files = [name for name in FORMATS if name not in PICTURES]
    written = write_report(summary([point(16, 1, 0.9)], [trial(16, [0.9])]), tmp_path / "new", files)
    names = [
        "report.html",
        "points.csv",
        "trials.csv",
        "points.parquet",
        "trials.parquet",
        "summary.json",
        "report.md",
    ]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(names)
    assert all(path.stat().st_size for path in written)


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="xlsx"):
        write_report(summary(), tmp_path, ["json", "xlsx"])
    assert not list(tmp_path.iterdir())


def test_json_has_the_agreed_keys(tmp_path: Path) -> None:
    record = written_json(tmp_path, [point(16, 1, 0.95), point(64, 0.5, 0.9), point(128, 2, 0.9)])
    assert set(record) == SUMMARY_KEYS
    assert set(record["spend"]) == {field.name for field in fields(Spend)}
    assert all(set(entry) == POINT_KEYS for entry in record["points"])
    assert set(record["points"][0]["cost"]) == {field.name for field in fields(Cost)}


def test_json_frontier_is_a_part_of_its_points(tmp_path: Path) -> None:
    record = written_json(tmp_path, [point(16, 1, 0.95), point(64, 0.5, 0.9), point(128, 2, 0.9)])
    assert [entry["batch_size"] for entry in record["frontier"]] == [64, 16]
    assert all(entry in record["points"] and entry["on_frontier"] for entry in record["frontier"])
    assert sum(entry["on_frontier"] for entry in record["points"]) == 2


def test_json_is_strict_whatever_the_numbers(tmp_path: Path) -> None:
    ci = (np.float64(0.25), np.float64(math.inf))
    odd = point(16, 1, np.float64(0.5), quality_ci=ci, test_quality=math.nan, samples_per_s=-math.inf)
    entry = written_json(tmp_path, [odd], hypervolume=math.nan)["points"][0]
    assert entry["val_accuracy"] == 0.5
    assert entry["val_accuracy_ci"] == [0.25, None]
    assert entry["test_accuracy"] is None
    assert entry["samples_per_s"] is None


def test_json_of_an_empty_study(tmp_path: Path) -> None:
    record = written_json(tmp_path)
    assert record["points"] == record["frontier"] == []
    assert record["hypervolume"] is None


def test_points_survive_csv(tmp_path: Path) -> None:
    points = [point(16, 1 / 3, 0.95, cost=Cost(1 / 3, 0.1, 2.5)), point(64, 0.5, 0.97, None)]
    write_report(summary(points), tmp_path, ["csv"])
    frame = pd.read_csv(tmp_path / "points.csv").set_index("batch_size")
    assert frame.loc[16, "billed_device_h"] == 1 / 3
    assert frame.loc[16, "usd"] == 2.5
    assert frame.loc[16, "search_billed_device_h"] == 1.0
    assert frame.loc[16, "val_accuracy_ci_high"] == pytest.approx(0.96)
    assert math.isnan(frame.loc[64, "val_accuracy_ci_low"])
    assert frame["on_frontier"].tolist() == [True, True]


def test_trials_survive_csv_with_awkward_errors(tmp_path: Path) -> None:
    error = 'a "quoted", long\nstory'
    trials = [trial(16, [0.5, 0.9]), trial(64, [], "failed", error=error), trial(128, [0.4], None)]
    write_report(summary(trials=trials), tmp_path, ["csv"])
    frame = pd.read_csv(tmp_path / "trials.csv").set_index("batch_size")
    assert frame.loc[64, "error"] == error
    assert frame.loc[16, "last_val_accuracy"] == frame.loc[16, "final_val_accuracy"] == 0.9
    assert math.isnan(frame.loc[128, "final_val_accuracy"])
    assert frame.loc[16, "train_s"] == 600.0
    assert {f"{phase}_s" for phase in PHASES} <= set(frame.columns)


def test_parquet_keeps_what_csv_does(tmp_path: Path) -> None:
    trials = [trial(16, [0.5, 0.9]), trial(64, [], "failed", error="boom")]
    write_report(summary([point(16, 1 / 3, 0.95), point(64, 0.5, 0.97, None)], trials), tmp_path, ["csv", "parquet"])
    for name in ("points", "trials"):
        whole, text = pd.read_parquet(tmp_path / f"{name}.parquet"), pd.read_csv(tmp_path / f"{name}.csv")
        assert list(whole.columns) == list(text.columns)
        assert whole["batch_size"].tolist() == text["batch_size"].tolist()


@pytest.mark.browser
@pytest.mark.parametrize(
    ("kind", "begins"),
    [
        ("png", b"\x89PNG"),
        pytest.param("svg", b"<svg", marks=pytest.mark.slow),
        pytest.param("pdf", b"%PDF", marks=pytest.mark.slow),
    ],
)
def test_pictures_are_what_they_are_called(chromium: str, tmp_path: Path, kind: str, begins: bytes) -> None:
    written = write_report(summary([point(16, 1, 0.9), point(64, 2, 0.95)]), tmp_path, [kind])
    assert [path.name for path in written] == [f"frontier.{kind}", f"batches.{kind}"]
    assert all(path.read_bytes().startswith(begins) for path in written)


def test_a_picture_without_chromium_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="png needs Chromium or Chrome, and none was found"):
        write_report(summary([point(16, 1, 0.9)]), tmp_path, ["png"])


def test_csv_of_an_empty_study_still_has_its_heads(tmp_path: Path) -> None:
    write_report(summary(), tmp_path, ["csv"])
    assert "val_accuracy" in pd.read_csv(tmp_path / "points.csv").columns
    assert "outcome" in pd.read_csv(tmp_path / "trials.csv").columns


def test_markdown_tables_keep_their_columns_whatever_the_name(tmp_path: Path) -> None:
    facts = {"devices": ("a | b",), "config": {"name": "```\n| x |"}}
    write_report(summary([point(16, 1, 0.9)], name="a | <b>\n# c", notes=("n | m",), facts=facts), tmp_path, ["md"])
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# a \\| &lt;b&gt; \\# c\n")
    assert "> n \\| m" in text
    assert "- devices: a \\| b" in text
    fence = "````"
    assert text.count(fence) == 2
    table = [line for line in text.split(fence)[0].splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table[:3]} == {14}


def test_markdown_lists_all_points_only_where_some_are_dominated(tmp_path: Path) -> None:
    write_report(summary([point(16, 1, 0.95), point(64, 0.5, 0.9)]), tmp_path, ["md"])
    assert "## All points" not in (tmp_path / "report.md").read_text()
    write_report(summary([point(16, 1, 0.95), point(64, 2, 0.9)]), tmp_path, ["md"])
    frontier, everything = (tmp_path / "report.md").read_text().split("## All points")
    assert "| 64 |" not in frontier
    assert "| 64 |" in everything


def test_memory_and_energy_have_columns_where_they_were_measured(tmp_path: Path) -> None:
    cost = Cost(1.0, 1.0, None, 0.5, 7.2e6)
    gpu = [point(32, 1.0, 0.9, cost=cost, peak_memory_bytes=12_345_678_901), point(64, 2.0, 0.95, cost=cost)]
    write_report(summary(gpu), tmp_path, ["md", "json", "csv"])
    table = (tmp_path / "report.md").read_text()
    assert "peak memory GB" in table
    assert " 12.3 " in table
    assert "kWh a trial" in table
    assert " 2 " in table
    points = json.loads((tmp_path / "summary.json").read_text())["points"]
    assert [found["peak_memory_bytes"] for found in points] == [12_345_678_901, None]
    assert "peak_memory_bytes" in pd.read_csv(tmp_path / "points.csv")
    write_report(summary([point(32, 1.0, 0.9)]), tmp_path, ["md"])
    assert "peak memory" not in (tmp_path / "report.md").read_text()
