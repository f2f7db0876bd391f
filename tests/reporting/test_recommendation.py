"""A recommendation in words: the choice, what it costs and reaches, what the next one trades, the nearest miss."""

from __future__ import annotations

import json

import pytest

from study.analysis.recommend import choose
from study.analysis.records import Constraints, Recommendation, Summary
from study.reporting.text.recommendation import (
    decision_sentences,
    recommendation_lines,
    recommendation_record,
    standings_table,
)
from study.reporting.text.verdict import key_figures
from tests.analysis.summary.test_summary import summary


@pytest.fixture(scope="module")
def found() -> Summary:
    return summary()


def chosen(found: Summary, limits: Constraints) -> Recommendation:
    recommendation = choose(found.points, found.trials, found.cost_axis, limits, 0.01)
    assert recommendation is not None
    return recommendation


def test_the_choice_comes_first_with_its_intervals_and_why(found: Summary) -> None:
    first, why, *_, last = recommendation_lines(found, chosen(found, Constraints()), Constraints())
    assert first.startswith("Choose batch 16 on 1 rank: 9")
    assert first.count("[") == 2
    assert why.startswith("It is the most accurate on average, and within 1 point of accuracy of the best with prob")
    assert last.startswith("Runner-up: batch 32 on 1 rank: -")
    assert "times the cost" in last


def test_limits_are_repeated_and_an_accuracy_asks_for_the_cheapest(found: Summary) -> None:
    limits = Constraints(min_quality=0.5, max_usd=100, deadline_h=1)
    asked, _, why, *_ = recommendation_lines(found, chosen(found, limits), limits)
    assert asked == (
        "Asked for, of one training run: at most 100 USD, at least 50.00% with a probability of 0.9, at most 1 hours."
    )
    assert why == "It is the cheapest that is as good as asked for with a probability of 0.9: above 0.99."


def test_none_qualifies_names_the_nearest_miss(found: Summary) -> None:
    limits = Constraints(min_quality=0.999)
    _, none, miss, *_ = recommendation_lines(found, chosen(found, limits), limits)
    assert none == "No configuration qualifies."
    assert miss.startswith("Nearest miss: batch 16 on 1 rank")
    assert miss.endswith("it reaches at least 99.90% with probability below 0.01.")


def test_the_decision_is_at_most_two_sentences_and_says_what_is_open(found: Summary) -> None:
    decision, undecided = decision_sentences(found)
    assert decision.startswith("Choose batch 16 on 1 rank: it is the most accurate on average")
    assert undecided.startswith("Undecided: batch 32 on 1 rank, cheaper, is within 1 point of accuracy of the best")
    assert "more seeds of it and of batch 16 on 1 rank (" in undecided
    assert dict(key_figures(found))["to settle it"].startswith("about ")
    wider = summary(report={"margin": 0.05})
    assert len(decision_sentences(wider)) == 1
    assert dict(key_figures(wider))["to settle it"] == "nothing: it is decided"


def test_a_table_says_how_good_each_is_likely_to_be(found: Summary) -> None:
    table = standings_table(found)
    assert table is not None
    assert table.heads[2] == "probability of being within 1 point of accuracy of the best"
    assert [row[0] for row in table.rows] == [f"batch {batch} on 1 rank" for batch in (256, 128, 64, 32, 16)]
    assert table.marked == (False,) * 4 + (True,)


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
    assert lines[1].startswith("It is the most accurate by its mean; with one seed for some configuration, ")
    assert standings_table(single) is None
