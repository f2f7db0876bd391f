"""A study made by formula, summarised: every figure against the formula."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from study.analysis.records import COST_AXES, Cost, Summary
from study.analysis.summary.points import point_samples
from study.analysis.summary.summarize import summarize
from study.config.schema import StudyConfig
from study.ledger.schema import AttemptRow, EndRow, LeaseRow, ReportRow
from study.planning.trials import make_plan
from tests.analysis.ledgers import B_CRIT, CONFIG, S_MIN, TARGET, made_rows


def summary(seed: int = 0, measured: dict[str, Any] | None = None, **changes: Any) -> Summary:
    """Of CONFIG with some sections replaced; `measured` is set in every report."""
    plan = make_plan(StudyConfig.model_validate(CONFIG | changes, strict=False))
    return summarize(made_rows(plan, seed, **(measured or {})), plan)


def test_a_point_has_costs_on_every_axis() -> None:
    found = summary(measured={"energy_j": 500.0})
    for point in found.points:
        cost = point.cost
        trials = [trial for trial in found.trials if trial.batch_size == point.batch_size]
        assert cost.billed_device_h == pytest.approx(np.mean([trial.cost.billed_device_h for trial in trials]))
        assert cost.usd == pytest.approx(2 * cost.billed_device_h)
        assert cost.wall_h == pytest.approx(cost.billed_device_h)  # on one rank
        assert (cost.billed_gpu_h, cost.energy_j) == (0, 500)
        assert (cost.updates, cost.samples) == (point.updates, point.updates * point.batch_size)
    assert set(found.frontiers) == set(COST_AXES) - {"billed_gpu_h"}  # no GPU was leased


def test_points_know_the_tokens_of_a_sample() -> None:
    workload = {"kind": "text", "context": 64, "train_samples": 4096, "text_bytes": 400_000}
    assert {point.tokens_per_sample for point in summary(workload=workload).points} == {64}
    assert {point.tokens_per_sample for point in summary().points} == {None}


def test_the_frontier_has_probabilities_and_intervals() -> None:
    found = summary()
    uncertain = found.frontiers[found.cost_axis]
    assert [place.label for place in uncertain.points] == [point.label for point in found.points]
    for point, place in zip(found.points, uncertain.points, strict=True):
        assert (point.cost_ci, point.p_on_front, point.on_frontier) == (
            pytest.approx(place.cost_ci),
            place.p_on_front,
            place.on_front,
        )
        assert point.cost_ci is not None
        assert point.cost_ci[0] < point.cost.billed_device_h < point.cost_ci[1]
    assert found.hypervolume == uncertain.hypervolume
    assert found.hypervolume_ci is not None
    assert found.hypervolume_ci[0] < uncertain.hypervolume < found.hypervolume_ci[1]


def test_under_three_seeds_there_are_no_probabilities() -> None:
    found = summary(confirm={"seeds": 2})
    assert {point.p_on_front for point in found.points} == {None}
    assert {point.cost_ci for point in found.points} == {None}
    assert found.hypervolume_ci is None
    assert found.frontier  # the points are shown all the same


def test_updates_to_the_target_give_the_critical_batch_back() -> None:
    covered = 0
    for seed in range(10):
        found = summary(seed, report={"target_val_accuracy": TARGET}).critical
        assert found is not None
        assert found.target_why == "the config's target"
        assert found.fit.b_crit_ci is not None
        low, high = found.fit.b_crit_ci
        covered += low <= B_CRIT <= high
        assert found.fit.s_min == pytest.approx(S_MIN, rel=0.15)
    assert covered >= 8


def test_without_a_target_it_is_what_every_batch_size_reaches() -> None:
    found = summary()
    assert found.critical is not None
    best = {p.batch_size: p.best_quality for p in found.points}
    hardest = min(best, key=lambda batch: best[batch])
    assert found.critical.target_quality == pytest.approx(best[hardest])
    assert f"batch {hardest} just so" in found.critical.target_why
    assert sum(not run.reached for run in found.critical.runs) in (1, 2)  # of the hardest one's three seeds


def test_one_batch_size_has_no_critical_batch_and_says_why() -> None:
    found = summary(batch_sizes=[64])
    assert (found.critical, found.other_criticals) == (None, ())
    assert "two batch sizes" in (found.critical_missing or "")


def test_the_throughput_model_gives_the_formula_back() -> None:
    model = summary(hardware={"world_size": [1, 2, 4]}).throughput_model
    assert model is not None
    assert model.compute_s == pytest.approx(1e-3, rel=0.1)
    assert model.compute_s_per_sample == pytest.approx(20e-6, rel=0.1)
    assert model.sync_s == pytest.approx(0, abs=3e-4)
    assert model.typical_error < 0.04
    far = model.predict(8, 64)
    assert far is not None
    assert far.extrapolated


def test_two_costs_may_be_asked_for_and_energy_only_where_it_was_metered() -> None:
    assert summary().second_cost_axis is None
    plan = make_plan(
        StudyConfig.model_validate(CONFIG | {"hardware": {"gpus_per_rank": 1}, "report": {"cost": ["energy_j", "usd"]}},
                                   strict=False)
    )  # fmt: skip
    metered = summarize(made_rows(plan, energy_j=10.0), plan)
    assert (metered.cost_axis, metered.second_cost_axis) == ("energy_j", "usd")
    blind = summarize(made_rows(plan), plan)
    assert (blind.cost_axis, blind.second_cost_axis) == ("billed_device_h", "usd")
    assert any("energy" in note for note in blind.notes)


def test_energy_of_all_attempts_counts_and_one_unknown_makes_it_unknown() -> None:
    plan = make_plan(StudyConfig.model_validate(CONFIG, strict=False))
    rows = list(made_rows(plan, energy_j=10.0))
    first = next(row for row in rows if isinstance(row, AttemptRow))
    lost = [
        first,
        *(row for row in rows[2:4] if isinstance(row, ReportRow)),
        next(row for row in rows if isinstance(row, LeaseRow)).model_copy(update={"reason": "lost"}),
    ]
    retried = [
        row.model_copy(update={"attempt": 2}) if getattr(row, "trial_id", "") == first.trial_id else row
        for row in rows[1:]
    ]
    (trial, *_) = summarize([rows[0], *lost, *retried], plan).trials
    assert trial.attempts == 2
    assert trial.cost.energy_j == 20
    unread = [row.model_copy(update={"energy_j": None}) if isinstance(row, ReportRow) else row for row in lost]
    (trial, *_) = summarize([rows[0], *unread, *retried], plan).trials
    assert trial.cost.energy_j is None


def test_the_noise_scale_is_the_median_of_the_ends() -> None:
    assert summary().noise_scale is None
    assert summary(measured={"probes": {"noise_b_simple": 123.0}}).noise_scale == 123
    assert summary(measured={"probes": {"noise_b_simple": float("nan")}}).noise_scale is None


def test_samples_are_seed_by_seed_or_not_at_all() -> None:
    found = summary()
    samples = point_samples(found.points, found.trials, "usd")
    assert samples is not None
    assert [sample.n_seeds for sample in samples] == [3] * 5
    assert [sample.mean_quality for sample in samples] == pytest.approx([p.quality for p in found.points])
    unpriced = replace(found.trials[0], cost=Cost(1.0, 0.0, None))
    assert point_samples(found.points, (unpriced, *found.trials[1:]), "usd") is None


def test_the_recommendation_is_there_without_being_asked() -> None:
    found = summary().recommendation
    assert found is not None
    assert found.choice is not None
    assert found.choice.label == "batch 16 on 1 rank"
    assert [one.label for one in found.standings][-1] == "batch 16 on 1 rank"
    assert found.confidence == 0.9


def test_ranks_that_share_gpus_are_billed_their_share_and_flagged() -> None:
    plan = make_plan(StudyConfig.model_validate(CONFIG | {"hardware": {"gpus_per_rank": 0.5}}, strict=False))
    shared = {AttemptRow: {"devices_per_rank": 0.5}, LeaseRow: {"device": "H100", "devices": 0.5}}
    rows = [row.model_copy(update=shared.get(type(row), {})) for row in made_rows(plan)]
    found, whole = summarize(rows, plan), summary()
    assert found.spend.total_device_h == pytest.approx(whole.spend.total_device_h / 2)
    assert sum(found.spend.phases_device_h.values()) == pytest.approx(found.spend.total_device_h)
    for point, alone in zip(found.points, whole.points, strict=True):
        assert point.cost.usd == pytest.approx(alone.cost.usd / 2)
        assert point.cost.billed_gpu_h == pytest.approx(alone.cost.billed_device_h / 2)
        assert point.cost.wall_h == pytest.approx(alone.cost.wall_h)
    (note,) = (note for note in found.notes if "GPU" in note)
    assert note.startswith("Ranks had 0.5 of a GPU each")
    assert not any("GPU" in note for note in whole.notes)
    (cost,) = (claim for claim in found.claims if claim.statement.claim == "cost")
    assert cost.verdict == "no_evidence"
    assert cost.to_settle is not None
    assert cost.to_settle.startswith("hardware.gpus_per_rank: 1")


def test_trials_that_did_not_fit_are_censored_and_counted() -> None:
    plan = make_plan(StudyConfig.model_validate(CONFIG, strict=False))
    no_end = {"outcome": "infeasible", "final": None, "error": "OutOfMemory: CUDA out of memory"}
    rows = [
        row.model_copy(update=no_end) if isinstance(row, EndRow) and "-b256-" in row.trial_id else row
        for row in made_rows(plan)
    ]
    found = summarize(rows, plan)
    assert [point.batch_size for point in found.points] == [16, 32, 64, 128]
    assert "3 trial(s) infeasible (out of memory); their cost is counted, they are on no frontier." in found.notes
    large = [trial for trial in found.trials if trial.batch_size == 256]
    assert all(trial.censored for trial in large)
    assert found.spend.censored_device_h == pytest.approx(sum(trial.cost.billed_device_h for trial in large))


def test_peak_memory_is_the_most_of_any_seed() -> None:
    assert {point.peak_memory_bytes for point in summary().points} == {None}
    plan = make_plan(StudyConfig.model_validate(CONFIG, strict=False))
    seeds = {f"-s{n}": n * 10**9 for n in (1, 2, 3)}
    rows = [
        row.model_copy(update={"peak_memory_bytes": seeds[row.trial_id[-3:]] + row.updates})
        if isinstance(row, ReportRow)
        else row
        for row in made_rows(plan)
    ]
    found = summarize(rows, plan)
    assert [point.peak_memory_bytes for point in found.points] == [3 * 10**9 + point.updates for point in found.points]


def judged_by(objective: dict[str, Any], change: Any) -> Summary:
    """The made-up study under another objective, with `change` applied to the row of each report."""
    plan = make_plan(StudyConfig.model_validate(CONFIG | {"objective": objective}, strict=False))
    rows = [row.model_copy(update=change(row)) if isinstance(row, ReportRow) else row for row in made_rows(plan)]
    return summarize(rows, plan)


def test_a_metric_that_gets_worse_in_nearly_every_trial_is_noted() -> None:
    upside_down = {"metric": "val_accuracy", "mode": "min", "insist": True}
    notes = [note for note in judged_by(upside_down, lambda row: {}).notes if "ended with a worse" in note]
    assert len(notes) == 1
    assert notes[0].endswith("objective.mode says that less is better.")
    right = judged_by({"metric": "val_accuracy"}, lambda row: {})
    assert not any("ended with a worse" in note for note in right.notes)


def test_an_accuracy_stands_beside_a_loss() -> None:
    found = judged_by({"metric": "val_loss"}, lambda row: {"val_loss": 2.0 - (row.val_accuracy or 0.0)})
    finals = [trial.curve[-1] for trial in found.trials if trial.phase == "confirm" and trial.batch_size == 64]
    (point,) = (point for point in found.points if point.batch_size == 64)
    assert point.further == {"val_accuracy": pytest.approx(fmean(at.val_accuracy or 0.0 for at in finals))}
