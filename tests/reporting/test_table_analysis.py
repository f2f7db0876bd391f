"""An analysed table as text, JSON and page: everything in it, and nothing a table says is taken for markup."""

from __future__ import annotations

import json
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from test_report_page import ATTACK

from study.analysis.tables.fronts import TableAnalysis, analyze_table
from study.analysis.tables.table import read_table
from study.reporting.exports import write_analysis
from study.reporting.html.analysis_pages import render_analysis
from study.reporting.text.json_records import json_text
from study.reporting.text.scaling_laws import fit_sentences
from study.reporting.text.table_analysis import analysis_record, print_analysis, understood_lines
from tests.analysis.tables.made import read
from tests.analysis.tables.test_fronts import EXAMPLE, analysed, rows

CRITICAL_KEYS = {"b_crit", "b_crit_ci", "s_min", "e_min", "r2", "misfit", "misfit_reason"}


@pytest.fixture
def example() -> TableAnalysis:
    return analyze_table(read_table(EXAMPLE, group_by="gpu"), grouped=True)


def shown(analysis: TableAnalysis) -> str:
    console = Console(file=StringIO(), width=100)
    print_analysis(analysis, console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_json_has_the_promised_keys(tmp_path: Path) -> None:
    record = json.loads(
        json_text(analysis_record(analysed(tmp_path, rows()))), parse_constant=lambda word: pytest.fail(word)
    )
    assert {"points", "frontier", "critical_batch"} <= set(record)
    assert set(record["critical_batch"]) >= CRITICAL_KEYS
    assert {"label", "settings", "batch_size", "cost", "cost_ci", "quality_ci", "p_on_front"} <= set(
        record["points"][0]
    )
    assert "groups" not in record
    assert record["cost"] == {"column": "usd", "maximize": False}


PRUNED = (
    "batch_size,seed,state,num_gpus,runtime,val_acc",
    "8,1,COMPLETE,2,3600,0.9",
    "8,2,COMPLETE,2,3600,0.8",
    "8,3,PRUNED,2,30,0.1",
    "16,1,COMPLETE,2,1800,0.7",
    "16,2,COMPLETE,2,1800,",
)


def test_what_was_understood_is_said_first_everywhere(tmp_path: Path) -> None:
    analysis = analyze_table(read(tmp_path, *PRUNED), grouped=False)
    record = json.loads(write_analysis(analysis, tmp_path)[0].read_text())["understood"]
    assert record["columns"] == {
        "batch size": "batch_size",
        "cost": "device_hours (runtime x num_gpus), lower is better",
        "quality": "val_acc, higher is better",
        "seed": "seed",
        "devices": "num_gpus",
        "state": "state",
    }
    assert (record["n_rows"], record["n_final"], record["n_censored"], record["n_left_out"]) == (5, 3, 1, 1)
    assert record["why"] == {"pruned": 1}
    assert len(record["notes"]) == 4  # whose batch, device-hours, the row left out, the one censored
    said = "Rows: 5, of them 3 final, 1 censored (1 pruned), 1 left out."
    lines = understood_lines(analysis.understood)
    assert lines[1] == said
    assert lines[2:] == tuple(f"Note: {note}" for note in record["notes"])
    text = " ".join(shown(analysis).split())
    assert text.index("Columns: batch size: batch_size; cost:") < text.index(said) < text.index("P(front)")
    page = render_analysis(analysis)
    assert said in page
    assert all(escape(note) in page for note in record["notes"])


def test_settings_that_count_as_seeds_are_said(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,wd,usd,val_acc", "8,0,1,0.9", "8,1,2,0.8", as_seeds=["wd"])
    assert "Counted as seeds: wd." in understood_lines(table.understood)


def test_each_group_says_the_same_as_a_whole_table(example: TableAnalysis) -> None:
    record = analysis_record(example)
    for group in record["groups"].values():
        assert set(group) >= {"points", "frontier", "critical_batch"}
        assert set(group["critical_batch"]) >= CRITICAL_KEYS


def test_an_open_interval_is_null(tmp_path: Path) -> None:
    flat = [row | {"steps_to_target": 100.0 + row["seed"]} for row in rows()]  # as if the batch did not matter
    fit = analysis_record(analysed(tmp_path, flat))["critical_batch"]
    assert fit["b_crit"] is None or fit["b_crit_ci"][0] in (None, 0.0) or fit["b_crit_ci"][0] < 1e-3
    json.dumps(fit, allow_nan=False)


def test_the_terminal_shows_each_group_its_points_and_its_law(example: TableAnalysis) -> None:
    text = shown(example)
    for word in ("batch_size", "gpu_hours", "P(front)", "Critical batch size", "R²", "4096", "3 (+1 censored)"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_misfit_is_said(tmp_path: Path) -> None:
    few = [row for row in rows() if row["batch_size"] < 32]
    fit = analysed(tmp_path, few).whole.critical_batch
    assert fit is not None
    assert any("Do not trust the law here: too few batches" in line for line in fit_sentences(fit))


def test_the_page_holds_figures_and_tables_and_opens_offline(example: TableAnalysis, tmp_path: Path) -> None:
    data, page = write_analysis(example, tmp_path / "new")
    assert json.loads(data.read_text())["groups"]
    html = page.read_text()
    for word in ("configurations are on the front", "Critical batch size", "Cost against quality", "P(front)"):
        assert word in html
    assert "http" not in html.split("</script>", 1)[1].split("<script", 1)[0]


def test_what_a_table_says_stays_text(tmp_path: Path) -> None:
    hostile: list[dict[str, Any]] = [row | {"gpu": ATTACK} for row in rows()]
    path = tmp_path / "t.csv"
    pd.DataFrame(hostile).rename(columns={"error": ATTACK}).to_csv(path, index=False)
    table = read_table(path, config=["batch_size", "gpu"], group_by="gpu", minimize=["usd", ATTACK])
    analysis = analyze_table(table, grouped=True)
    assert ATTACK not in render_analysis(analysis)
    assert "[bold]" not in shown(analysis) or ATTACK.count("[bold]")
