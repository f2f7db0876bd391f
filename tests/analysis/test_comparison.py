"""Studies side by side: ratios against a count of area, changes against the configs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from study.analysis.comparison import changes_of, compare
from study.errors import ConfigError
from tests.analysis.summary.test_summary import summary


def test_a_study_against_itself_is_even() -> None:
    one = summary()
    found = compare(["a", "b"], [one, one])
    first, second = found.studies
    assert (first.ratio, second.ratio) == (None, 1)
    assert second.ratio_ci is not None
    assert second.ratio_ci[0] < 1 < second.ratio_ci[1]
    assert found.changes == ()
    assert first.on_joint_front == second.on_joint_front


def test_a_cheaper_study_dominates_more_and_pushes_the_other_off() -> None:
    costly = summary()
    trials = tuple(
        replace(
            trial,
            cost=replace(trial.cost, billed_device_h=trial.cost.billed_device_h / 2),
            final_quality=(trial.final_quality or 0) + 0.001,
        )
        for trial in costly.trials
    )
    found = compare(["costly", "cheap"], [costly, replace(costly, trials=trials)])
    first, second = found.studies
    assert not any(first.on_joint_front)
    assert second.ratio is not None
    assert second.ratio_ci is not None
    assert 1 < second.ratio_ci[0] < second.ratio < second.ratio_ci[1]
    # The staircase's area by hand, both against the most expensive point.
    edge = max(point.cost for point in first.points)
    steps = sorted((p.cost, p.quality) for p in second.points if p.on_front)
    ends = [*(cost for cost, _ in steps[1:]), edge]
    area = sum((end - cost) * quality for (cost, quality), end in zip(steps, ends, strict=True))
    assert second.hypervolume == pytest.approx(area, rel=0.02)


def test_with_two_seeds_the_ratio_has_no_interval() -> None:
    few = summary(confirm={"seeds": 2})
    assert compare(["a", "b"], [few, few]).studies[1].ratio_ci is None


def test_changes_are_named_by_their_keys() -> None:
    one = {"name": "a", "batch_sizes": [1], "optimizer": {"kind": "sgd", "momentum": 0.9}}
    two = {"name": "b", "batch_sizes": [1], "optimizer": {"kind": "lars", "momentum": 0.9}, "seed": 3}
    assert [(change.key, change.values) for change in changes_of([one, two])] == [
        ("optimizer.kind", ("sgd", "lars")),
        ("seed", (None, 3)),
    ]


def test_what_cannot_be_compared_is_refused() -> None:
    one = summary()
    with pytest.raises(ConfigError, match=r"b: protocol 9\.0 cannot be compared with"):
        compare(["a", "b"], [one, replace(one, protocol_version="9.0")])
    with pytest.raises(ConfigError, match="b: no confirm trial has completed"):
        compare(["a", "b"], [one, replace(one, points=())])
    with pytest.raises(ConfigError, match="b: has no usd"):
        compare(["a", "b"], [replace(one, cost_axis="usd"), summary(price={})])
