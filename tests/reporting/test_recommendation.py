"""A recommendation in words: the choice, what it costs and reaches, what the next one trades, the nearest miss."""

from __future__ import annotations

import json

import pytest

from study.analysis.recommend import choose
from study.analysis.records import Constraints, Recommendation, Summary
from study.reporting.text.recommendation import recommendation_lines, recommendation_record
from tests.analysis.summary.test_summary import summary


@pytest.fixture(scope="module")
def found() -> Summary:
    return summary()


def chosen(found: Summary, limits: Constraints) -> Recommendation:
    recommendation = choose(found.points, found.trials, found.cost_axis, limits, 0.01)
    assert recommendation is not None
    return recommendation


def test_the_choice_comes_first_with_its_intervals(found: Summary) -> None:
    first, second, third = recommendation_lines(found, chosen(found, Constraints()), Constraints())
    assert first.startswith("Choose batch 16 on 1 rank: 9")
    assert "the most accurate that qualifies" in first
    assert first.count("[") == 2
    assert second.startswith("Runner-up: batch 32 on 1 rank: -")
    assert "lose less than 1 point of accuracy to the most accurate, batch 16 on 1 rank" in third


def test_limits_are_repeated_and_an_accuracy_asks_for_the_cheapest(found: Summary) -> None:
    limits = Constraints(min_quality=0.5, max_usd=100, deadline_h=1)
    asked, choice, *_ = recommendation_lines(found, chosen(found, limits), limits)
    assert asked == "Asked for, of one training run: at most 100 USD, at least 50.00%, at most 1 hours."
    assert "the cheapest that qualifies" in choice


def test_none_qualifies_names_the_nearest_miss(found: Summary) -> None:
    limits = Constraints(min_quality=0.999)
    _, none, miss, *_ = recommendation_lines(found, chosen(found, limits), limits)
    assert none == "No configuration qualifies."
    assert miss.startswith("Nearest miss: batch 16 on 1 rank")
    assert "where at least 99.90% is asked for" in miss


def test_json_holds_the_configuration_to_run(found: Summary) -> None:
    record = json.loads(
        json.dumps(recommendation_record(found, chosen(found, Constraints()), Constraints()), allow_nan=False)
    )
    assert record["qualifies"]
    assert record["configuration"]["batch_size"] == 16
    assert set(record["limits"]) == set(Constraints.__dataclass_fields__) - {"min_quality"} | {"target"}
    none = recommendation_record(found, chosen(found, Constraints(gpus=1, min_quality=0.999)), Constraints())
    assert (none["qualifies"], none["configuration"]) == (False, None)


def test_one_seed_shows_nothing_to_be_as_good() -> None:
    single = summary(confirm={"seeds": 1})
    lines = recommendation_lines(single, chosen(single, Constraints()), Constraints())
    assert lines[-1].startswith("With one seed for some configuration")
