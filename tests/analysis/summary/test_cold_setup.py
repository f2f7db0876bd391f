"""The setup of a cold group is billed to the trial that came first, and left out of comparisons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.analysis.comparison import compare
from study.analysis.recommend import choose
from study.analysis.records import TIME_AXES, Constraints, Cost, Summary
from study.analysis.summary.summarize import summarize
from study.config.schema import StudyConfig
from study.ledger.schema import PHASES, AnyRow, AttemptRow, EndRow, LeaseRow, ReportRow, StudyRow
from study.planning.trials import Plan, make_plan
from study.reporting.exports import write_report
from study.reporting.text.comparison import hypervolume_lines
from study.reporting.text.recommendation import recommendation_lines
from study.reporting.text.tables import points_table
from study.reporting.text.verdict import verdict
from tests.analysis.ledgers import CONFIG, WRITTEN

WORK_S, COLD_S, WARM_S = 18.0, 36.0, 1.8
ACCURACIES = {16: (0.91, 0.93, 0.92), 64: (0.90, 0.91, 0.89)}
# Lease by lease: batch size, seed, group, seconds of setup. Batch 64 starts every group there is.
LEASES = [
    (64, 1, "a", COLD_S),
    (16, 1, "a", WARM_S),
    (16, 2, "a", WARM_S),
    (16, 3, "a", WARM_S),
    (64, 2, "b", COLD_S),
    (64, 3, "c", COLD_S),
]
Lease = tuple[int, int, str, float]


def plan_of(ranks: int = 1, **changes: Any) -> Plan:
    """Two batch sizes at one rate; a device-hour costs 100 USD."""
    base = CONFIG | {"batch_sizes": [16, 64], "hardware": {"world_size": ranks}, "price": {"usd_per_device_hour": 100}}
    return make_plan(StudyConfig.model_validate(base | changes, strict=False))


def rows_of(plan: Plan, leases: list[Lease], ends: dict[tuple[int, int], str] | None = None) -> Iterator[AnyRow]:
    """A ledger of trials that each train for WORK_S; `ends` are other outcomes than completed, by batch and seed."""
    yield StudyRow(
        at_s=0.0, written=WRITTEN, study_id="cold", config=plan.config.model_dump(mode="json"), config_hash="0",
        hardware={}, versions={},
    )  # fmt: skip
    specs = {(cell.batch_size, i): spec for cell in plan.cells
             for i, spec in enumerate(plan.confirm_trials(cell, 0.1), start=1)}  # fmt: skip
    for batch_size, seed, group, setup_s in leases:
        spec = specs[batch_size, seed]
        ranks = spec.batch.world_size
        common = {"at_s": 1.0, "written": WRITTEN, "trial_id": spec.trial_id}
        lease = {"attempt": 1, "lease_id": f"{spec.trial_id}#1", "group_id": group, "device": "cpu", "nodes": ("n",)}
        accuracy, outcome = ACCURACIES[batch_size][seed - 1], (ends or {}).get((batch_size, seed), "completed")
        done = outcome == "completed"
        yield AttemptRow(
            **common, **lease, setup_s=setup_s, phase="confirm", batch_size=batch_size, world_size=ranks,
            micro_batch=spec.batch.micro_batch, accumulation=1, norm_batch=None, base_lr=0.1, lr=0.1,
            seed_index=spec.seed_index, updates_per_epoch=10, total_updates=100,
        )  # fmt: skip
        if done:
            yield ReportRow(
                **common, attempt=1, updates=100, samples=100 * batch_size, epochs=1.0, lr=0.1, train_loss=1.0,
                train_accuracy=None, val_loss=1.0, val_accuracy=accuracy, test_accuracy=None, samples_per_s=100.0,
                device_seconds=ranks * WORK_S, phases_s={"train": WORK_S}, final=True,
            )  # fmt: skip
        yield EndRow(
            **common, attempts=1, outcome=outcome, final_val_accuracy=accuracy if done else None,
            best_val_accuracy=None, test_accuracy=None, error=None,
        )  # fmt: skip
        yield LeaseRow(
            **common, **lease, devices=ranks, reason="hand_over", billed_s=setup_s + WORK_S,
            phases_s=dict.fromkeys(PHASES, 0.0) | {"setup": setup_s, "train": WORK_S},
        )  # fmt: skip


def study(leases: list[Lease] = LEASES, ranks: int = 1, ends: Any = None, **changes: Any) -> Summary:
    plan = plan_of(ranks, **changes)
    return summarize(rows_of(plan, leases, ends), plan)


def costs(found: Summary, of: str = "compared") -> dict[int, Cost]:
    return {point.batch_size: getattr(point, of) for point in found.points}


@pytest.mark.parametrize("ranks", [1, 2])
def test_equal_work_costs_the_same_regardless_of_which_trial_started_the_groups(ranks: int) -> None:
    found = study([(b, s, g, 0.0 if w == WARM_S else w) for b, s, g, w in LEASES], ranks)
    hours = ranks * WORK_S / 3600
    for cost in costs(found).values():
        assert cost.billed_device_h == pytest.approx(hours)
        assert cost.usd == pytest.approx(100 * hours)
        assert cost.wall_h == pytest.approx(WORK_S / 3600)
        assert cost.billed_gpu_h == 0
    billed = costs(found, "cost")
    assert billed[64].billed_device_h / billed[16].billed_device_h == pytest.approx((WORK_S + COLD_S) / WORK_S)
    for axis in TIME_AXES[:1] + TIME_AXES[2:]:
        assert [place.cost for place in found.frontiers[axis].points] == pytest.approx(
            [getattr(cost, axis) for cost in costs(found).values()]
        )


def test_a_hand_over_stays_in_and_the_bill_is_whole() -> None:
    found = study()
    assert costs(found)[16].billed_device_h == pytest.approx((WORK_S + WARM_S) / 3600)
    assert costs(found)[64].billed_device_h == pytest.approx(WORK_S / 3600)
    assert costs(found, "cold_setup")[16].billed_device_h == 0
    assert costs(found, "cold_setup")[64].billed_device_h == pytest.approx(COLD_S / 3600)
    assert found.group_setups[1].billed_device_h == pytest.approx(COLD_S / 3600)
    total = (6 * WORK_S + 3 * COLD_S + 3 * WARM_S) / 3600
    assert found.spend.total_device_h == pytest.approx(total)
    assert sum(found.spend.phases_device_h.values()) == pytest.approx(total)
    assert sum(3 * cost.billed_device_h for cost in costs(found, "cost").values()) == pytest.approx(total)


def test_setup_is_included_where_the_config_asks_for_it() -> None:
    found = study(report={"include_setup": True})
    assert costs(found) == costs(found, "cost") == costs(study(), "cost")
    assert found.frontiers["usd"].points[1].cost == pytest.approx(100 * (WORK_S + COLD_S) / 3600)
    assert any(line.startswith("Costs of trials include the setup") for line in verdict(found))


def test_a_group_of_several_ranks_starts_again_after_a_trial_that_failed() -> None:
    """A single rank goes on; of several, the others would wait for the one that failed, so that all are ended."""
    leases = [(64, 1, "a", COLD_S), (64, 2, "a", COLD_S), (16, 1, "a", WARM_S)]
    for outcome in ("failed", "infeasible"):
        two = {t.trial_id: t for t in study(leases, 2, {(64, 1): outcome}).trials}
        assert [t.cold_starts for t in two.values()] == [1, 1, 0]
        assert [t.cold_setup.wall_h for t in two.values()] == pytest.approx([COLD_S / 3600] * 2 + [0.0])
        assert [t.cold_starts for t in study(leases, 1, {(64, 1): outcome}).trials] == [1, 0, 0]


def test_limits_apply_to_a_run_with_one_setup_regardless_of_which_trial_paid_it() -> None:
    found = study()
    one_run = {16: WORK_S + WARM_S + COLD_S, 64: WORK_S + COLD_S}

    def qualify(**limits: float) -> bool:
        answer = choose(found.points, found.trials, found.cost_axis, Constraints(**limits), 0.01)
        assert answer is not None
        return answer.choice is not None

    cheapest_h = one_run[64] / 3600
    assert qualify(max_usd=100 * cheapest_h * 1.001, max_device_hours=cheapest_h * 1.001, deadline_h=cheapest_h * 1.001)
    for limit, allowed in (("max_usd", 100 * cheapest_h), ("max_device_hours", cheapest_h), ("deadline_h", cheapest_h)):
        assert not qualify(**{limit: 0.999 * allowed})
    limits = Constraints(max_usd=1.6)
    answer = choose(found.points, found.trials, found.cost_axis, limits, 0.01)
    assert answer is not None
    assert answer.choice is not None
    assert answer.choice.label == "batch 16 on 1 rank"  # 1.55 USD
    assert answer.choice.setup == pytest.approx(COLD_S / 3600)
    lines = recommendation_lines(found, answer, limits)
    assert lines[1] == "Costs that are compared with these limits include the setup of a group that starts for the run."
    assert "and 36 device-seconds for the setup of a cold group" in lines[2]


def test_every_view_says_which_costs_it_compares(tmp_path: Path) -> None:
    found = study()
    assert any("leave out the setup of cold groups (36 device-seconds on 1 rank)" in line for line in verdict(found))
    table = points_table(found)
    column = table.heads.index("plus cold setup")
    assert [float(row[column]) for row in table.rows] == [0.0, COLD_S]
    write_report(found, tmp_path, ["csv", "json", "html"])
    points = pd.read_csv(tmp_path / "points.csv").set_index("batch_size")
    for axis in ("billed_device_h", "usd", "wall_h"):
        whole = points[f"compared_{axis}"] + points[f"cold_setup_{axis}"]
        assert whole.tolist() == pytest.approx(points[axis].tolist())
    trials = pd.read_csv(tmp_path / "trials.csv")
    assert trials["cold_starts"].sum() == 3
    assert (trials["compared_wall_h"] + trials["cold_setup_wall_h"]).tolist() == pytest.approx(
        trials["wall_h"].tolist()
    )
    record = json.loads((tmp_path / "summary.json").read_text())
    assert record["include_setup"] is False
    assert record["group_setups"]["1"]["billed_device_h"] == pytest.approx(COLD_S / 3600)
    page = (tmp_path / "report.html").read_text()
    assert "device-seconds per trial (billed, without setup of cold groups)" in page
    assert "hours leave out the setup of cold groups" in page


def test_studies_are_compared_on_the_first_ones_terms() -> None:
    without, included = study(), study(report={"include_setup": True})
    both = compare(["a", "b"], [without, included])
    assert [p.cost for p in both.studies[0].points] == pytest.approx([p.cost for p in both.studies[1].points])
    assert "Costs leave out the setup of cold groups." in hypervolume_lines(both)
    back = compare(["b", "a"], [included, without])
    assert [p.cost for p in back.studies[1].points] == pytest.approx([p.cost.billed_device_h for p in without.points])
    assert not any("leave out" in line for line in hypervolume_lines(back))


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 1000)), min_size=6, max_size=6), st.sampled_from([1, 2])
)
def test_cold_setup_and_what_is_compared_add_up_to_the_bill(groups: list[tuple[str, float]], ranks: int) -> None:
    leases = [(b, s, *group) for (b, s, *_), group in zip(LEASES, groups, strict=True)]
    found = study(leases, ranks)
    for item in (*found.points, *found.trials):
        compared = item.compared if not callable(item.compared) else item.compared(False)
        for axis in TIME_AXES:
            whole, cold = getattr(item.cost, axis), getattr(item.cold_setup, axis)
            assert getattr(compared, axis) + cold == pytest.approx(whole)
            assert 0 <= cold <= whole * (1 + 1e-12)
    assert sum(trial.cold_starts for trial in found.trials) <= len({group for group, _ in groups})


def test_a_note_points_out_compilation_on_warm_groups() -> None:
    assert any("compiles in its setup" in note for note in study(hardware={"compile": True}).notes)
    assert not any("compiles in its setup" in note for note in study().notes)


def test_a_search_that_started_groups_is_shown_apart_from_them() -> None:
    plan = make_plan(StudyConfig.model_validate(CONFIG | {"batch_sizes": [16, 64], "search": {"lr": [0.1, 0.2]}},
                                                strict=False))  # fmt: skip
    rows = list(rows_of(plan, LEASES))
    searched = [row.model_copy(update={"trial_id": row.trial_id.replace("confirm", "search"), "phase": "search"})
                if isinstance(row, AttemptRow) else
                row.model_copy(update={"trial_id": row.trial_id.replace("confirm", "search")})
                if not isinstance(row, StudyRow) else row for row in rows]  # fmt: skip
    # The confirm trials find the groups that the search has started.
    found = summarize([*searched, *rows[1:]], plan)
    by_size = {point.batch_size: point for point in found.points}
    assert by_size[64].search_cold_setup.billed_device_h == pytest.approx(3 * COLD_S / 3600)
    assert by_size[64].cold_setup.billed_device_h == by_size[16].search_cold_setup.billed_device_h == 0
    table = points_table(found)
    column = table.heads.index("search, all trials + cold setup")
    assert [row[column] for row in table.rows] == ["59.4 + 0", "54.0 + 108"]  # device-seconds
