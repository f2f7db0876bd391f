"""How a replay is shown: every figure where it belongs, whatever the source is called."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs
from rich.console import Console
from test_report_page import ATTACK, Page

from study.analysis.replay.contenders import CONTENDERS
from study.analysis.replay.replay import Estimate, Replay, Result
from study.config.objective import ACCURACY
from study.reporting.exports import write_replay
from study.reporting.figures.comparisons import replay_figure
from study.reporting.html.analysis_pages import render_replay
from study.reporting.text.replay import print_replay, replay_record, replay_table


def estimate(mean: float) -> Estimate:
    return Estimate(mean, 0.02, (mean - 0.001, mean + 0.001))


def result(scheduler: str, profile: str, cost: float = 0.25, log_hv: float = 0.995) -> Result:
    """Every figure differs, so that none can stand in another's place."""
    return Result(
        scheduler=scheduler,
        profile=profile,
        runs_per_batch_size=estimate(1.37),
        regret=estimate(0.36),
        regret_worst=estimate(1.07),
        right_rate=estimate(0.85),
        cost_fraction=estimate(cost),
        log_hv=estimate(log_hv),
        log_hv_ge_99=0.93,
        hv=estimate(0.97),
        batch_sizes_completed=estimate(5.3),
        min_completions=2,
        front_kept=estimate(0.71),
        front_false=estimate(0.12),
        optimism=estimate(0.013),
        test_gap=None,
        idle_share=estimate(0.041),
    )


@pytest.fixture
def replayed() -> Replay:
    results = [result(contender.scheduler, contender.profile) for contender in CONTENDERS.values()]
    return Replay(ATTACK, 200, 2, 126, 3, 6, 7, 1.25, 0.0, ACCURACY, tuple(results))


def test_json_has_the_promised_keys(replayed: Replay) -> None:
    record = json.loads(json.dumps(replay_record(replayed)))
    assert len(record["schedulers"]) == len(CONTENDERS)
    first = record["schedulers"][0]
    promised = {
        "scheduler": "frontier_asha",
        "profile": "balanced",
        "runs_per_batch_size": 1.37,
        "regret_mean": 0.36,
        "regret_worst": 1.07,
        "right_rate": 0.85,
        "cost_fraction": 0.25,
        "log_hv_mean": 0.995,
        "log_hv_ge_99": 0.93,
        "batch_sizes_completed_mean": 5.3,
        "min_completions": 2,
    }
    assert first.items() >= promised.items()
    assert first["log_hv_ci"] == [0.994, 0.996]
    assert first["test_gap"] is None


def test_the_table_reads_in_percent(replayed: Replay) -> None:
    table = replay_table(replayed)
    worth, rest = (
        ("1.37 ±0.00", "0.36 ±0.00", "1.07", "85"),
        ("25.0", "99.5 ±2.0", "93", "5.3", "2", "71", "12", "1.3", "4.1"),
    )
    assert table.rows[1] == ("frontier_asha quick", *worth, *rest)
    assert {row[0] for row, mark in zip(table.rows, table.marked, strict=True) if mark} == {
        "ridge balanced",
        "ridge careful",
    }


def test_the_terminal_shows_it_whole_in_80_columns(replayed: Replay) -> None:
    file = StringIO()
    widest = result("frontier_asha", "balanced", cost=1.0, log_hv=1.0)
    print_replay(replace(replayed, results=(*replayed.results, widest)), Console(file=file, width=80), True)
    lines = file.getvalue().splitlines()
    assert "…" not in file.getvalue()
    assert "\x1b" not in file.getvalue()
    assert max(map(len, lines)) <= 80
    for contender in CONTENDERS.values():
        for first in ("1.37", "25.0"):
            name = f"{contender.scheduler} {contender.profile}".split()
            assert any(line.split()[: len(name) + 1] == [*name, first] for line in lines)


def test_the_page_is_whole_and_takes_names_as_text(replayed: Replay) -> None:
    text = render_replay(replayed)
    page = Page(text)
    assert ATTACK not in text
    assert "alert(1)" in page.text
    assert text.count(get_plotlyjs()) == 1
    assert not any(tag in ("link", "iframe", "img", "base") or "src" in attrs for tag, attrs in page.tags)
    assert "frontier_asha balanced" in page.text
    assert "seeds are held back" in page.text


def test_every_scheduler_has_a_mark_of_its_own(replayed: Replay) -> None:
    marks = replay_figure(replayed.results, "points").data
    assert [(mark.x[0], mark.y[0]) for mark in marks] == [(1.37, 0.36)] * len(CONTENDERS)
    assert len({(mark.marker.symbol, mark.marker.color) for mark in marks}) == len(CONTENDERS)
    assert marks[0].error_y.array == (0.02,)
    assert "[0.359, 0.361] points" in marks[0].hovertext[0]


def test_files_are_written(replayed: Replay, tmp_path: Path) -> None:
    data, page = write_replay(replayed, tmp_path)
    assert json.loads(data.read_text()) == json.loads(json.dumps(replay_record(replayed)))
    assert page.read_text().startswith("<!DOCTYPE html>")
