"""Studies side by side on the terminal and as a page."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from test_report_page import ATTACK

from study.analysis.comparison import Comparison, compare
from study.reporting.exports import write_comparison
from study.reporting.text.comparison import changes_table, compared_points_table, hypervolume_lines, print_comparison
from tests.analysis.summary.test_summary import summary


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare([ATTACK, "other"], [summary(), summary(1, optimizer={"kind": "lars"})])


def test_every_point_and_change_has_its_row(comparison: Comparison) -> None:
    table = compared_points_table(comparison)
    assert len(table.rows) == 10
    assert [row[-1] == "yes" for row in table.rows] == list(table.marked)
    changes = {row[0]: row[1:] for row in changes_table(comparison).rows}
    assert changes["optimizer.kind"] == ('"sgd"', '"lars"')


def test_the_ratio_has_its_interval(comparison: Comparison) -> None:
    first, second = hypervolume_lines(comparison)
    assert first.startswith(f"Hypervolume of {ATTACK}")
    assert second.startswith("Hypervolume of other: ")
    assert second.count("[") == 1


def test_terminal_and_page_hold_it_all_and_take_names_as_text(comparison: Comparison, tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=120)
    print_comparison(comparison, console)
    assert isinstance(console.file, StringIO)
    assert "optimizer.kind" in console.file.getvalue()
    data, page = write_comparison(comparison, tmp_path / "new")
    assert json.loads(data.read_text())["studies"][1]["ratio"] > 0
    html = page.read_text()
    assert "What changed" in html
    assert ATTACK not in html


def test_other_workloads_are_pointed_out() -> None:
    other = summary(1, workload={"kind": "digits", "width": 128})
    assert any("workloads differ" in line for line in hypervolume_lines(compare(["a", "b"], [summary(), other])))
