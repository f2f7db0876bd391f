"""A first study as a user runs it: from `init` to the report, watched on the live page, replayed afterwards."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from study.ledger.store import read
from tests.test_cli import live_url, start_study, study

CHANGES = (
    "batch_sizes=[32, 128]",
    "budget.epochs=2",
    "search.samples=2",
    "search.seeds=2",
    "scheduler={kind: grid}",  # which `study replay` needs
    "confirm.seeds=2",
    "price.usd_per_device_hour=0.5",
)
OPTIONS = [word for change in CHANGES for word in ("--set", change)]


@dataclass(frozen=True)
class FirstStudy:
    """What a user saw of a whole study."""

    home: Path  # where the commands run
    checked: str  # stdout of `study check`
    printed: str  # by `study run`, after the address of the live page
    events: str  # of the live page, to its end

    @property
    def folder(self) -> Path:
        return self.home / "runs" / "mine"

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "report" / "summary.json").read_text())
        return found


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> FirstStudy:
    home = tmp_path_factory.mktemp("home")
    assert study(home, "init", "mine.yaml").returncode == 0
    checked = study(home, "check", "mine", *OPTIONS)
    assert checked.returncode == 0, checked.stderr
    running = start_study(home, "run", "mine", "--out", "runs/mine", "--live", *OPTIONS)
    try:
        with urllib.request.urlopen(f"{live_url(running)}events") as events:
            text = events.read().decode()  # to the end, which is the study's
        printed, _ = running.communicate(timeout=120)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 0, printed
    return FirstStudy(home, checked.stdout, printed, text)


def test_check_lists_the_trials_and_their_price(first: FirstStudy) -> None:
    for word in ("search-b32-w1-r0", "confirm-b128-w1-s2", "At most", "USD"):
        assert word in first.checked


def test_run_writes_the_study_and_its_report(first: FirstStudy) -> None:
    assert "\x1b" not in first.printed  # plain lines where nobody watches
    assert "confirm-b128-w1-s2 completed" in first.printed
    for name in ("config.yaml", "ledger.jsonl", "report/summary.json", "report/report.html", "report/report.md"):
        assert (first.folder / name).stat().st_size > 0, name
    points = first.summary["points"]
    assert {point["batch_size"] for point in points} == {32, 128}
    for point in points:
        assert point["cost"]["usd"] == pytest.approx(0.5 * point["cost"]["billed_device_h"])
    assert [point for point in points if point["on_frontier"]]


def test_the_live_page_ends_with_the_study(first: FirstStudy) -> None:
    assert first.events.endswith("event: over\ndata: \n\n")
    assert "Nothing has begun yet" in first.events.split("event: page")[1]
    assert "on the frontier" in first.events.split("event: page")[-1]
    watched = study(first.home, "watch", "runs/mine")
    assert watched.returncode == 0
    assert "The study has finished" in watched.stdout


def test_status_counts_the_trials(first: FirstStudy) -> None:
    printed = study(first.home, "status", "runs/mine").stdout
    assert "search  8/8 finished" in printed
    assert "confirm 4/4 finished: 4 completed" in printed


def test_report_writes_the_same_summary_again(first: FirstStudy) -> None:
    before = first.summary
    (first.folder / "report" / "summary.json").unlink()
    assert study(first.home, "report", "runs/mine", "--format", "json").returncode == 0
    assert first.summary == before
    wrong = study(first.home, "report", "runs/mine", "--format", "jsn")
    assert (wrong.returncode, "did you mean json?" in wrong.stderr) == (2, True)


@pytest.mark.slow
def test_a_finished_study_is_neither_overwritten_nor_run_again(first: FirstStudy) -> None:
    rows = len(read(first.folder).rows)
    again = study(first.home, "run", "mine", "--out", "runs/mine", *OPTIONS)
    assert (again.returncode, "holds a study already" in again.stderr) == (2, True)
    assert study(first.home, "resume", "runs/mine").returncode == 0
    assert len(read(first.folder).rows) == rows


def test_a_grid_is_replayed_into_its_report(first: FirstStudy) -> None:
    done = study(first.home, "replay", "runs/mine", "--shuffles", "3", "--json")
    assert done.returncode == 0, done.stderr
    replayed = json.loads(done.stdout.splitlines()[-1])
    assert (replayed["trials"], replayed["seeds"], replayed["held_back"]) == (2 * 2, 1, 1)
    assert json.loads((first.folder / "report" / "replay.json").read_text()) == replayed
    assert (first.folder / "report" / "replay.html").stat().st_size > 1_000_000
