"""Names that may travel, and those that may not."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.cluster.jobs.results import in_order, is_result, results_in

HOSTILE = [
    "../ledger.jsonl",
    "/etc/passwd",
    "report/../../x",
    "report/..",
    "report/.hidden",
    "report/a/b",
    "report//x",
    "checkpoints/../config.yaml",
    ".ledger.jsonl.lock",
    "ledger.jsonl\n",
    "report/a\nb",
    "report\\..\\x",
    "config.yaml/",
    "",
    "other.py",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_climb_hide_or_are_no_results_are_refused(name: str) -> None:
    assert not is_result(name)


@given(st.text(alphabet="ab./\\~@\n-+rept", max_size=12).map("report/".__add__) | st.text(max_size=20))
def test_what_is_let_through_stays_below_the_folder(name: str) -> None:
    if is_result(name):
        parts = PurePosixPath(name).parts
        assert 1 <= len(parts) <= 2
        assert "/".join(parts) == name
        assert not any(part.startswith(".") for part in parts)


def test_a_snapshot_comes_before_the_ledger_that_speaks_of_it() -> None:
    names = ["report/report.html", "ledger.jsonl", "checkpoints/search-b16-w2-r0@8.pt", "config.yaml", "x"]
    assert in_order(names) == ["config.yaml", "checkpoints/search-b16-w2-r0@8.pt", "ledger.jsonl", "report/report.html"]


def test_links_are_no_results(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: x")
    (tmp_path / "ledger.jsonl").symlink_to(tmp_path / "config.yaml")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "secret").symlink_to("/etc/passwd")
    assert results_in(tmp_path) == ["config.yaml"]
