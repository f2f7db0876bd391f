"""Whole studies on a real Ray."""

from collections import defaultdict
from pathlib import Path

import pytest
import ray
from ray.util import placement_group_table

from study.analysis.summary.summarize import summarize
from study.cluster.target import LOCAL
from study.errors import ConfigError, LedgerError
from study.ledger.schema import AnyRow, AttemptRow, DecisionRow, EndRow, LeaseRow, ReportRow
from study.ledger.store import read
from study.planning.trials import make_plan
from study.tuning.driver import resume_study, run_study
from tests.conftest import Run, make_config, run_for_real


def test_every_planned_trial_ends_and_is_billed(asha_run: Run) -> None:
    plan = asha_run.plan
    ended = [row.trial_id for row in asha_run.of(EndRow)]
    assert len(ended) == len(set(ended)) == len(plan.search) + plan.n_confirm
    assert {row.trial_id for row in asha_run.of(LeaseRow)} == set(ended)
    assert len(asha_run.of(LeaseRow)) == len(asha_run.of(AttemptRow))


def test_after_stops_every_group_is_gone_and_the_next_trial_started(asha_run: Run) -> None:
    outcomes = [row.outcome for row in asha_run.of(EndRow)]
    assert outcomes.count("stopped") >= 3
    last_stop = max(i for i, row in enumerate(asha_run.rows) if isinstance(row, EndRow) and row.outcome == "stopped")
    assert any(isinstance(row, AttemptRow) for row in asha_run.rows[last_stop:])
    groups = {row.group_id for row in asha_run.of(LeaseRow)}
    states = {key: group["state"] for key, group in placement_group_table().items()}
    assert {states[group] for group in groups} == {"REMOVED"}


def test_stopped_trials_did_not_train_past_their_rung(asha_run: Run) -> None:
    for end in asha_run.of(EndRow):
        reports = [row for row in asha_run.of(ReportRow) if row.trial_id == end.trial_id]
        decisions = [row.decision for row in asha_run.of(DecisionRow) if row.trial_id == end.trial_id]
        assert decisions == ["continue"] * (len(reports) - 1) + ["stop"]
        if end.outcome == "stopped":
            assert reports[-1].epochs in (1, 2)


def test_confirm_trials_are_never_stopped(asha_run: Run) -> None:
    confirm = {row.trial_id for row in asha_run.of(AttemptRow) if row.phase == "confirm"}
    assert len(confirm) == asha_run.plan.n_confirm
    assert {row.outcome for row in asha_run.of(EndRow) if row.trial_id in confirm} == {"completed"}
    assert all(row.test is not None for row in asha_run.of(EndRow) if row.trial_id in confirm)


def test_phases_add_up_to_the_lease_and_leases_to_the_groups_life(asha_run: Run) -> None:
    by_group = defaultdict(list)
    for lease in asha_run.of(LeaseRow):
        assert sum(lease.phases_s.values()) == pytest.approx(lease.billed_s, rel=0.01)
        assert all(seconds >= -1e-3 for seconds in lease.phases_s.values()), lease
        by_group[lease.group_id].append(lease)
    # Independently of the books: a group is busy from its first attempt to its last bill, on the rows' own clock.
    for leases in by_group.values():
        attempts = [row for row in asha_run.of(AttemptRow) if row.lease_id in {lease.lease_id for lease in leases}]
        span = max(lease.at_s for lease in leases) - min(row.at_s for row in attempts)
        first = next(lease for lease in leases if lease.lease_id == attempts[0].lease_id)
        total = sum(lease.billed_s for lease in leases) - first.phases_s["setup"]
        assert total == pytest.approx(span, rel=0.01)


def test_measured_time_is_most_of_a_warm_lease(asha_run: Run) -> None:
    completed = {row.trial_id for row in asha_run.of(EndRow) if row.outcome == "completed"}
    for lease in asha_run.of(LeaseRow):
        if lease.trial_id in completed and lease.reason == "hand_over" and lease.phases_s["setup"] < 1:
            assert lease.phases_s["train"] > 0.3 * lease.billed_s


def test_a_report_is_on_disk_before_its_decision(asha_run: Run) -> None:
    seen = set()
    for row in asha_run.rows:
        key = (getattr(row, "trial_id", None), getattr(row, "attempt", None), getattr(row, "updates", None))
        if isinstance(row, ReportRow):
            seen.add(key)
        if isinstance(row, DecisionRow):
            assert key in seen


def test_the_summary_charges_every_device_second_once(asha_run: Run) -> None:
    summary = summarize(asha_run.rows, asha_run.plan)
    leases = asha_run.of(LeaseRow)
    total = sum(lease.devices * lease.billed_s for lease in leases) / 3600
    assert summary.spend.total_device_h == pytest.approx(total)
    assert summary.spend.search_device_h + summary.spend.confirm_device_h == pytest.approx(total)
    assert sum(summary.spend.phases_device_h.values()) == pytest.approx(total)
    assert {point.batch_size for point in summary.points} == {16, 64}
    assert all(point.n_seeds == 2 for point in summary.points)
    assert {lease.billed_gpu_h for lease in leases} == {0.0}
    notes = [note for note in summary.notes if not note.startswith("The chosen learning rate is the ")]
    assert notes == ["Only 2 seed(s) behind some points: differences may be noise."]


@pytest.mark.parametrize("run", ["asha_run", pytest.param("frontier_run", marks=pytest.mark.slow)])
def test_groups_are_handed_over_and_not_rebuilt(run: str, request: pytest.FixtureRequest) -> None:
    # Four CPUs hold two groups of two ranks: one set-up a slot.
    assert len({row.group_id for row in request.getfixturevalue(run).of(LeaseRow)}) == 2


@pytest.mark.slow
def test_an_error_of_the_trials_own_code_fails_it_without_a_retry(local_ray: None, tmp_path: Path) -> None:
    config = make_config(
        batch_sizes=[8],
        search={"lr": [0.1]},
        confirm={"seeds": 2},
        workload={
            "kind": "custom", "module": "tests.linear:LinearModule", "data": "tests.linear:LinearData",
            "train_samples": 64, "val_accuracy": "acc", "val_loss": "loss", "module_args": {"fail_at": 10},
        },
    )  # fmt: skip
    run = run_for_real(config, tmp_path)
    ends = run.of(EndRow)
    assert [(end.outcome, end.attempts, end.error) for end in ends] == [
        ("failed", 1, "ArithmeticError: the module broke down (linear.py:29)")
    ] * 2
    summary = summarize(run.rows, run.plan)
    assert summary.points == ()
    assert summary.spend.censored_device_h == summary.spend.total_device_h > 0


@pytest.mark.slow
def test_several_world_sizes_run_side_by_side(local_ray: None, tmp_path: Path) -> None:
    config = make_config(hardware={"world_size": [1, 2]}, batch_sizes=[32], search={"lr": [0.1]}, budget={"epochs": 1})
    run = run_for_real(config, tmp_path)
    assert {end.outcome for end in run.of(EndRow)} == {"completed"}
    assert {(row.world_size, row.batch_size, row.micro_batch) for row in run.of(AttemptRow)} == {
        (1, 32, 32),
        (2, 32, 16),
    }
    assert {(lease.devices) for lease in run.of(LeaseRow)} == {1, 2}
    # The same seeds on one rank and on two: the same training.
    final = {(row.trial_id.split("-s")[1], row.trial_id): row.val_loss for row in run.of(ReportRow)}
    for seed in ("1", "2"):
        one, two = (loss for (of, _), loss in sorted(final.items()) if of == seed)
        assert one == pytest.approx(two, abs=1e-5)


def test_ranks_that_can_never_be_placed_are_refused_before_the_start(local_ray: None, tmp_path: Path) -> None:
    plan = make_plan(make_config(hardware={"world_size": 8}))
    with pytest.raises(ConfigError, match="8 ranks of 1 CPU and 0 GPU can never be placed"):
        run_study(plan, tmp_path / "s", LOCAL, None, lambda row: None)
    assert not (tmp_path / "s" / "ledger.jsonl").exists()


class Interrupted(Exception):
    """Simulates the death of a driver."""


@pytest.mark.slow
def test_a_resumed_study_runs_what_is_missing_and_nothing_twice(local_ray: None, tmp_path: Path) -> None:
    config = make_config(
        batch_sizes=[16, 64],
        search={"lr": [0.1, 0.3]},
        confirm={"seeds": 1},
        budget={"epochs": 2},
        hardware={"cpus_per_rank": 2},  # two groups of one rank, which start faster than two of two
    )
    plan = make_plan(config)
    ended: list[str] = []

    def die_after_three(row: AnyRow) -> None:
        if isinstance(row, EndRow):
            ended.append(row.trial_id)
            if len(ended) == 3:
                raise Interrupted

    with pytest.raises(Interrupted):
        run_study(plan, tmp_path, LOCAL, None, die_after_three)
    before = read(tmp_path).rows
    assert sum(isinstance(row, EndRow) for row in before) == 3

    with pytest.raises(LedgerError, match="holds a study already"):
        run_study(plan, tmp_path, LOCAL, None, lambda row: None)
    changed = make_plan(
        make_config(
            batch_sizes=[16, 64],
            search={"lr": [0.1, 0.4]},
            confirm={"seeds": 1},
            budget={"epochs": 2},
            hardware={"cpus_per_rank": 2},
        )
    )
    with pytest.raises(LedgerError, match=r"another config; changed: search.lr"):
        resume_study(changed, tmp_path, LOCAL, None, lambda row: None)

    assert resume_study(plan, tmp_path, LOCAL, None, lambda row: None).finished
    after = read(tmp_path).rows
    assert after[: len(before)] == before
    ends = [row.trial_id for row in after if isinstance(row, EndRow)]
    assert len(ends) == len(set(ends)) == len(plan.search) + plan.n_confirm
    assert [row.at_s for row in after] == sorted(row.at_s for row in after)
    # The attempts that the death cut off are billed, once, by the resume.
    attempts = sorted(row.lease_id for row in after if isinstance(row, AttemptRow))
    assert attempts == sorted(row.lease_id for row in after if isinstance(row, LeaseRow))
    assert ray.is_initialized()
