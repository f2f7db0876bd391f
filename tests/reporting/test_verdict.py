"""The sentences say what the points say, and no more than their seeds allow."""

from __future__ import annotations

from collections.abc import Sequence

from summaries import point, summary, trial

from study.analysis.records import Point
from study.reporting.text.formatting import NOTHING
from study.reporting.text.verdict import steps_table, verdict
from tests.analysis.summary.test_summary import summary as made_up


def test_nothing_confirmed_is_said_plainly() -> None:
    sentences = verdict(summary(trials=[trial(32, [0.5]), trial(64, [0.5], None)]))
    assert "Nothing is confirmed yet" in sentences[0]
    assert "1 of 12 planned trials" in sentences[1]


def test_a_single_point_is_compared_with_nothing() -> None:
    (only,) = verdict(summary([point(64, 0.5, 0.9)]))
    assert "Only batch 64 on 2 ranks" in only
    assert "90.0%" in only
    assert "0.5 device-hours" in only
    assert "cheapest" not in only


def steps(points: Sequence[Point]) -> list[tuple[str, ...]]:
    table = steps_table(summary(points))
    assert table is not None
    return list(table.rows)


def test_ends_and_price_of_a_step_that_is_more_than_noise() -> None:
    points = [point(64, 0.2, 0.90, 0.005), point(16, 0.5, 0.95, 0.005)]
    (first,) = verdict(summary(points))
    assert first.startswith("Batch 64 on 2 ranks is the cheapest")
    assert "batch 16 on 2 ranks is the most accurate: 95.0% at 0.5 device-hours" in first
    (step,) = steps(points)
    assert step[1:] == ("+5.00 points", "+4.29 to +5.71 points", "2.5", "more than noise")


def test_a_step_whose_interval_contains_0_is_called_noise() -> None:
    (step,) = steps([point(64, 0.2, 0.900, 0.02), point(16, 0.5, 0.908, 0.02)])
    assert step[1:] == ("+0.80 points", "-2.03 to +3.63 points", "2.5", "not distinguishable from noise")


def test_one_seed_claims_neither() -> None:
    (step,) = steps([point(64, 0.2, 0.90, None), point(16, 0.5, 0.95, 0.001)])
    assert step[-1] == "with too few seeds to know the noise"


def test_with_three_on_the_frontier_the_whole_way_comes_before_the_steps() -> None:
    found = steps([point(64, 0.2, 0.90, 0.001), point(32, 0.3, 0.92, 0.001), point(16, 0.8, 0.95, 0.001)])
    assert [row[0] for row in found] == [
        "batch 64 on 2 ranks to batch 16 on 2 ranks",
        "batch 64 on 2 ranks to batch 32 on 2 ranks",
        "batch 32 on 2 ranks to batch 16 on 2 ranks",
    ]
    assert found[0][3] == "4.0"


def test_one_point_that_beats_all_is_both_ends_and_the_others_are_named() -> None:
    first, last = verdict(summary([point(64, 0.2, 0.95), point(16, 0.5, 0.93), point(8, 0.9, 0.94)]))
    assert "Batch 64 on 2 ranks is both the cheapest and the most accurate" in first
    assert "batch 16 on 2 ranks" in last
    assert "batch 8 on 2 ranks" in last
    assert last.startswith("Dominated")


def test_many_dominated_points_are_counted() -> None:
    points = [point(1024, 0.1, 0.99)] + [point(2**i, 0.2 + i, 0.9) for i in range(6)]
    assert "6 of 7 points" in verdict(summary(points))[-1]


def test_equal_points_do_not_divide() -> None:
    assert steps([point(64, 0.2, 0.9), point(16, 0.2, 0.9)])[0][3] == "1.00"
    assert steps([point(64, 0.0, 0.9), point(16, 0.0, 0.9)])[0][3] == NOTHING


def test_a_second_cost_has_its_frontier() -> None:
    sentences = verdict(made_up(report={"cost": ["billed_device_h", "updates"]}))
    assert any(line.startswith("Over updates the frontier is batch 256 on 1 rank at 80 updates") for line in sentences)
    assert not any("Over updates" in sentence for sentence in verdict(made_up()))
