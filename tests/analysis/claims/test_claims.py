"""Each claim on a study in which it holds, does not, or cannot be decided; and what counts as evidence for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from study.analysis.claims.records import ClaimVerdict
from study.analysis.claims.registry import CLAIMS, claims_of
from tests.analysis.claims.studies import CONFIGS, LARGE, LINEAR, SMALL, SQRT, World, judged, make, trial, trials_of
from tests.analysis.claims.worlds import WORLDS, Chance

SEEDS = range(1, 21)  # enough for a margin of one point
ALL = pytest.mark.parametrize("claim", list(WORLDS))


def world_of(claim: str, true: bool = True) -> World:
    return WORLDS[claim](Chance(np.random.default_rng(7)), true)


def by_setting(accuracies: Mapping[tuple[str, int], float], **same: Any) -> World:
    """Accuracies by variant and batch size, each with noise of a hundredth of a point that no two trials share."""

    def world(variant: str, batch: int, seed: int) -> Mapping[str, Any]:
        noise = 1e-4 * math.sin(97 * seed + 13 * batch + 7 * len(variant))
        return {"val_accuracy": accuracies[variant, batch] + noise, **same}

    return world


@ALL
def test_a_true_claim_is_supported_by_enough_seeds(claim: str) -> None:
    found = judged(claim, make(CONFIGS[claim]), world_of(claim), SEEDS)
    assert found.verdict == "supported"
    assert found.to_settle is None
    deciding = found.deciding
    assert deciding is not None
    assert deciding.effect is not None
    assert deciding.ci is not None
    assert deciding.ci[0] <= deciding.effect <= deciding.ci[1]
    assert deciding.n_seeds in ((20, 20), (13, 13))  # or those that are left
    assert found.details is not None
    assert all(len(figure.cells) == len(found.details.heads) for figure in found.details.figures)
    assert found.rows
    assert len(set(found.rows)) == len(found.rows)


@ALL
def test_two_noisy_seeds_are_inconclusive_and_name_what_would_settle_it(claim: str) -> None:
    chance = Chance(np.random.default_rng(1))
    noisy = {"val_accuracy": 0.9, "device_seconds": 10.0, "updates": 1000.0, "val_loss": 0.5}

    def world(variant: str, batch: int, seed: int) -> Mapping[str, Any]:
        probes = {"noise_b_simple": 60 * chance.factor(2)}
        for size in (1, 1024):
            probes[f"serving_{size}_predictions_per_s"] = 100 * chance.factor(2)
            probes |= {f"serving_{size}_{part}_ms": 1.0 for part in ("p50", "p99")}
        probes |= {"sharpness_full_1e-3": chance.factor(2)}
        return {name: value * chance.factor(0.05) for name, value in noisy.items()} | {"probes": probes}

    found = judged(claim, make(CONFIGS[claim]), world, (1, 2))
    assert found.verdict == "inconclusive"
    assert found.to_settle is not None


@ALL
def test_one_seed_never_gives_a_verdict(claim: str) -> None:
    found = judged(claim, make(CONFIGS[claim]), world_of(claim), (1,))
    assert found.verdict == "inconclusive"
    assert "two or more completed seeds" in (found.to_settle or "")


@ALL
def test_a_study_that_has_not_begun_gives_no_verdict(claim: str) -> None:
    config = make(CONFIGS[claim])
    for found in claims_of((), config):
        assert found.verdict in ("no_evidence", "inconclusive")
        assert found.to_settle


@ALL
def test_diverged_seeds_withhold_a_verdict(claim: str) -> None:
    """A non-finite loss in one seed of every setting: the remaining seeds are the lucky ones."""
    config = make(CONFIGS[claim])
    world = world_of(claim)
    trials = list(trials_of(config, world, SEEDS))
    for variant in config.variant_names:
        for batch in config.variant(variant).batch_sizes:
            trials.append(trial(variant, batch, 99, val_accuracy=math.nan, val_loss=math.nan, outcome="diverged"))
    found = one(claim, trials, config)
    if claim == "serving":  # how fast a network answers does not depend on its losses
        assert found.verdict == "supported"
    else:
        assert found.verdict == "inconclusive"
        assert "diverge" in (found.to_settle or "")
    assert "99" not in "".join(found.rows)


@ALL
def test_non_finite_figures_are_not_counted(claim: str) -> None:
    nothing = {"val_accuracy": math.nan, "val_loss": math.inf, "device_seconds": math.nan, "updates": 0}
    found = judged(claim, make(CONFIGS[claim]), lambda *_: nothing, SEEDS)
    assert found.verdict in ("inconclusive", "no_evidence")


def test_trials_that_failed_or_still_run_are_left_out() -> None:
    config = make(CONFIGS["cost"])
    trials = list(trials_of(config, world_of("cost"), SEEDS))
    trials += [trial("", SMALL, 50, outcome=outcome, device_seconds=1e-9) for outcome in (None, "failed", "stopped")]
    found = one("cost", trials, config)
    assert found.verdict == "supported"
    assert found.deciding is not None
    assert found.deciding.n_seeds == (20, 20)


def one(claim: str, trials: list[Any], config: Any) -> ClaimVerdict:
    return next(found for found in claims_of(trials, config) if found.claim == claim)


def test_a_claim_without_evidence_names_the_study_it_needs() -> None:
    lone = claims_of((), make({"batch_sizes": [32], "budget": {"updates": 10}}))
    assert [found.claim for found in lone] == list(CLAIMS)
    assert {found.verdict for found in lone} == {"no_evidence"}
    assert all(found.to_settle == found.statement.needs for found in lone)


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("fixed_lr", SQRT),
        ("fixed_lr", {"search": {"lr": [0.1, 0.2]}}),
        ("fixed_lr", {"budget": {"updates": 100}}),
        ("fixed_lr", {"budget": {"epochs": 9, "target_val_accuracy": 0.9}}),
        ("scaled_lr", {}),
        ("scaled_lr", CONFIGS["scaled_lr"] | {"report": {"margin": 0.0}}),
        ("train_longer", CONFIGS["train_longer"] | {"report": {"margin": 0.0}}),
        ("grow_batch", CONFIGS["grow_batch"] | {"report": {"margin": 0.0}}),
        ("generalization_gap", {"budget": {"epochs": 9, "target_train_loss": 0.1}}),
        ("train_longer", {"budget": {"epochs": 9, "regime_batch": SMALL}}),
        ("grow_batch", {"schedule": {"kind": "step"}}),
        ("cost", {"budget": {"epochs": 9, "regime_batch": SMALL}}),
        ("noise_scale", {"probes": {"noise_scale": True}}),
        ("noise_scale", {"probes": {"noise_scale": True}, "budget": {"epochs": 9, "target_val_accuracy": 0.9}}),
        ("serving", {}),
        ("contrastive", {}),
        ("contrastive", {"workload": {"kind": "contrastive"}}),
        ("fixed_lr", {"workload": {"kind": "contrastive"}}),
    ],
)
def test_what_is_no_evidence(claim: str, changes: dict[str, Any]) -> None:
    assert judged(claim, make(changes), lambda *_: {}).verdict == "no_evidence"


def test_settings_that_differ_only_in_the_batch_are_compared_whatever_their_variants() -> None:
    config = make({"variants": {"a": {"batch_sizes": [SMALL]}, "b": {"batch_sizes": [LARGE]}}})
    found = judged("cost", config, lambda v, b, s: {"device_seconds": (1.0 if b == LARGE else 2.0) + 0.01 * s}, SEEDS)
    assert found.verdict == "supported"
    assert found.details is not None
    assert found.details.heads == ("a", "b")
    assert (
        judged("cost", make({"variants": {"a": LINEAR, "b": SQRT}, "batch_sizes": [LARGE]}), lambda *_: {}).findings
        == ()
    )


def test_a_worse_accuracy_of_the_small_batch_contradicts() -> None:
    found = judged("fixed_lr", make({}), by_setting({("", SMALL): 0.8, ("", LARGE): 0.9}), SEEDS)
    assert found.verdict == "contradicted"
    assert found.deciding is not None
    assert found.deciding.effect == pytest.approx(-10, abs=0.1)  # points
    assert found.deciding.effect_unit == "points"
    assert found.deciding.p is not None
    assert found.deciding.p < 0.001
    assert found.deciding.test == "paired t"


def scaled(none: float, linear: float, tuned: float) -> ClaimVerdict:
    lost = {"none": none, "linear": linear, "tuned": tuned}
    world = by_setting({(v, b): 0.9 - lost[v] * (b == LARGE) for v in lost for b in (SMALL, LARGE)})
    return judged("scaled_lr", make(CONFIGS["scaled_lr"]), world, SEEDS)


def test_scaling_needs_a_gap_to_close_and_one_way_that_closes_it() -> None:
    assert scaled(0.05, 0.05, 0.0).verdict == "supported"
    assert scaled(0.05, 0.05, 0.03).verdict == "contradicted"
    assert scaled(0.0, 0.0, 0.0).verdict == "contradicted"  # adjusted or not
    assert [f.verdict for f in scaled(0.05, 0.05, 0.0).findings] == ["supported", "contradicted", "supported"]


def test_without_a_variant_at_one_rate_scaling_needs_only_equivalence() -> None:
    config = make({"search": {"lr": [0.1, 0.2]}})
    assert judged("scaled_lr", config, by_setting({("", SMALL): 0.9, ("", LARGE): 0.899}), SEEDS).verdict == "supported"


def test_the_columns_of_train_longer_are_in_order_and_better_is_good_enough() -> None:
    accuracies = {("SB", SMALL): 0.90, ("LB", LARGE): 0.85, ("LB+LR", LARGE): 0.87, ("LB+RA", LARGE): 0.93}
    found = judged("train_longer", make(CONFIGS["train_longer"]), by_setting(accuracies), SEEDS)
    assert found.verdict == "supported"
    assert found.details is not None
    assert found.details.heads == ("SB", "LB", "LB+LR", "LB+RA")
    means = [cell.mean for cell in found.details.figures[0].cells]
    assert means == pytest.approx([90, 85, 87, 93], abs=0.01)
    accuracies["LB+RA", LARGE] = 0.87
    assert (
        judged("train_longer", make(CONFIGS["train_longer"]), by_setting(accuracies), SEEDS).verdict == "contradicted"
    )


def test_seeds_that_never_met_the_training_loss_are_left_out_and_counted() -> None:
    world = world_of("generalization_gap")

    def some_missed(variant: str, batch: int, seed: int) -> Mapping[str, Any]:
        return {**world(variant, batch, seed), "train_loss": 0.5 if batch == LARGE and seed < 8 else 0.05}

    found = judged("generalization_gap", make(CONFIGS["generalization_gap"]), some_missed, SEEDS)
    assert found.findings[0].n_seeds == (13, 13)
    assert found.details is not None
    assert found.details.note == f"Seeds that never met the training loss of 0.1 are left out: batch {LARGE}: 7."


def test_the_batch_must_grow_from_what_decays() -> None:
    found = judged("grow_batch", make(CONFIGS["grow_batch"]), world_of("grow_batch"), SEEDS)
    assert [f.statement for f in found.findings] == ["grow and decay end close", "faster and decay end close"]
    assert all(f.margin == 1 for f in found.findings)  # point


def test_cost_is_a_factor_and_names_where_throughput_saturates() -> None:
    config = make({"batch_sizes": [16, 64, 256]})
    pace = {16: 1000.0, 64: 1950.0, 256: 2000.0}
    found = judged(
        "cost", config, lambda v, b, s: {"samples_per_s": pace[b], "device_seconds": (9000 + s * b) / pace[b]}
    )
    assert found.deciding is not None
    assert found.deciding.effect == pytest.approx(2, rel=0.1)
    assert found.deciding.effect_unit == "times"
    assert found.details is not None
    assert found.details.note == "batch 64 is the first within 10% of the highest throughput."


def test_bytes_of_gradients_follow_from_ranks_parameters_and_updates() -> None:
    config = make({"hardware": {"world_size": 4}})
    trials = [
        trial("", batch, seed, world_size=4, probes={"parameters": 1e6}, updates=100 * SMALL / batch)
        for batch in (SMALL, LARGE)
        for seed in (1, 2)
    ]
    details = one("cost", trials, config).details
    assert details is not None
    (figure,) = [figure for figure in details.figures if figure.unit == "GB"]
    assert [cell.mean for cell in figure.cells] == pytest.approx([2 * 3 / 4 * 1e6 * 4 * n / 1e9 for n in (100, 6.25)])


def test_serving_finds_the_knee_under_the_limit() -> None:
    found = judged("serving", make(CONFIGS["serving"]), world_of("serving"), SEEDS)
    assert found.details is not None
    assert found.details.heads == ("1", "32", "1024")
    assert (found.details.note or "").startswith("32 is the best request batch within 10 ms at p99.")
    assert len(found.rows) == len(SEEDS)


@pytest.mark.parametrize(("times", "verdict"), [(1, "supported"), (0.1, "contradicted"), (20, "contradicted")])
def test_the_noise_scale_must_be_near_the_critical_batch(times: float, verdict: str) -> None:
    def world(variant: str, batch: int, seed: int) -> Mapping[str, Any]:
        wobble = 1 + 0.01 * math.sin(seed + batch)
        return {"updates": 100 * (1 + 64 / batch) * wobble, "probes": {"noise_b_simple": 64 * times * wobble}}

    found = judged("noise_scale", make(CONFIGS["noise_scale"]), world, SEEDS)
    assert found.verdict == verdict
    assert found.deciding is not None
    assert found.deciding.effect == pytest.approx(times, rel=0.05)


def test_the_margin_is_the_configs() -> None:
    wide = CONFIGS["grow_batch"] | {"report": {"margin": 0.05}}
    world = by_setting({("decay", SMALL): 0.9, ("grow", SMALL): 0.88, ("faster", 2 * SMALL): 0.88})
    assert judged("grow_batch", make(wide), world, SEEDS).verdict == "supported"
    assert judged("grow_batch", make(CONFIGS["grow_batch"]), world, SEEDS).verdict == "contradicted"


def test_a_target_that_no_batch_size_met_leaves_the_noise_scale_open() -> None:
    world = world_of("noise_scale")
    found = judged("noise_scale", make(CONFIGS["noise_scale"]), lambda v, b, s: {**world(v, b, s), "val_accuracy": 0.1})
    assert found.verdict == "inconclusive"
    assert "a target that all of them reach" in (found.to_settle or "")


def test_the_ranks_that_most_trials_ran_on_are_judged() -> None:
    config = make({"hardware": {"world_size": [1, 2]}})
    trials = [
        trial("", batch, seed, world_size=world, trial_id=f"w{world}-b{batch}-s{seed}", device_seconds=seed + batch)
        for world, seeds in ((1, 3), (2, 5))
        for batch in (SMALL, LARGE)
        for seed in range(seeds)
    ]
    found = one("cost", trials, config)
    assert found.findings[0].n_seeds == (5, 5)
    assert all(row.startswith("w2") for row in found.rows)
