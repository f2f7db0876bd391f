"""Every study file that comes with the package: planned, explained, and open to a user's own model."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from study.cli.app import app
from study.config.loader import load_study, shipped_configs
from study.config.schema import FrontierAshaConfig, StudyConfig
from study.planning.trials import Plan, make_plan
from study.workloads.data.discovery import with_sample_counts
from study.workloads.models.gpt import GPT

PRESETS = shipped_configs()
NEED_A_GPU = {"cifar10_gpu", "lm_gpu", "scaling"}
CLAIMS = {
    "fixed_lr", "scaled_lr", "generalization_gap", "train_longer", "grow_batch", "cost", "serving", "contrastive",
    "noise_scale", "scaling",
}  # fmt: skip


def plan_of(name: str) -> Plan:
    return make_plan(load_study(PRESETS[name]).config)


def comments(path: Path) -> str:
    """The header, as running text."""
    lines = path.read_text().splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def test_all_are_there() -> None:
    assert {*CLAIMS, *NEED_A_GPU, "quickstart", "grid", "lm"} == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_plan_that_searches_by_cell_and_can_be_decided(name: str) -> None:
    plan = plan_of(name)
    assert plan.config.name == name
    if plan.search and name != "grid":
        assert isinstance(plan.config.scheduler, FrontierAshaConfig)
    assert name == "grid" or plan.config.confirm.seeds >= 3


@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_a_preset_says_what_is_claimed_and_what_it_trains(name: str) -> None:
    said = comments(PRESETS[name])
    assert said.startswith("Claim: ")
    assert " Trains " in said
    assert name in NEED_A_GPU or "on two cores" in said


# Probes do not look into a user's module, and its data module has one batch size for a whole trial.
PACKAGE_ALONE = {"serving", "grow_batch"}


@pytest.mark.parametrize("name", sorted(PACKAGE_ALONE))
def test_a_preset_for_the_packages_workloads_alone_says_so(name: str) -> None:
    said = comments(PRESETS[name])
    assert "come with the package alone: " in said
    assert "workload: {" not in said


@pytest.mark.parametrize("name", ["lm", "lm_gpu"])
def test_the_language_models_are_judged_by_their_loss_on_the_text_of_any_python(name: str) -> None:
    plan = plan_of(name)
    assert (plan.config.objective.metric, plan.config.objective.mode) == ("val_loss", "min")
    shortest = 370_000  # bytes of the help topics of Python 3.10; later ones are longer
    for length in (shortest, None):
        workload = plan.config.workload.model_copy(update={"text_bytes": length})
        counted = make_plan(with_sample_counts(plan.config.model_copy(update={"workload": workload})))
        assert counted.train_samples == plan.train_samples
    assert all(spec.updates_per_epoch * spec.batch.global_batch == plan.train_samples for spec in plan.search)


def test_the_language_model_for_a_gpu_has_the_weights_that_its_comment_says() -> None:
    workload = plan_of("lm_gpu").config.workload
    model = GPT(256, workload.context, workload.width, workload.depth, workload.heads, workload.tied_head)
    weights = sum(weight.numel() for weight in model.parameters())
    assert f"{weights / 1e6:.1f} million weights" in comments(PRESETS["lm_gpu"])


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"quickstart"} - PACKAGE_ALONE))
def test_the_line_for_an_own_model_fits_where_the_comment_says(name: str) -> None:
    text = PRESETS[name].read_text()
    line = next(line for line in text.splitlines() if line.startswith("#   workload: "))
    data: dict[str, Any] = yaml.safe_load(text) | yaml.safe_load(line.removeprefix("#   "))
    if "`probes`" in comments(PRESETS[name]):
        del data["probes"]
    assert make_plan(StudyConfig.model_validate(data, strict=False)).train_samples == 50_000


def test_scaling_can_be_tried_on_a_laptop_as_its_comment_says() -> None:
    words = comments(PRESETS["scaling"]).split()
    changes = [change for option, change in pairwise(words) if option == "--set"]
    plan = make_plan(load_study(PRESETS["scaling"], changes).config)
    assert plan.config.hardware.gpus_per_rank == 0
    assert max(plan.config.hardware.world_sizes) == 2


@pytest.mark.parametrize("name", sorted(set(PRESETS) - NEED_A_GPU))
def test_check_shows_every_preset_that_runs_on_cpus(name: str) -> None:
    done = CliRunner().invoke(app, ["check", name, "--no-measure", "--cpus", "2"])
    assert done.exit_code == 0, done.output
    assert f"Study '{name}'" in done.output


def test_train_longer_has_the_columns_of_the_paper() -> None:
    """Hoffer et al. 2017, table 1; the last has exactly the updates of the first."""
    plan = plan_of("train_longer")
    assert list(plan.variants) == ["SB", "LB", "+LR", "+GBN", "+RA"]
    first = {cell.variant: plan.confirm_trials(cell, plan.rates(cell)[0])[0] for cell in plan.cells}
    assert first["+RA"].total_updates == first["SB"].total_updates > first["LB"].total_updates
    assert first["LB"].lr == first["SB"].lr
    assert first["+LR"].lr == first["+RA"].lr == pytest.approx(8**0.5 * first["SB"].lr)
    assert [plan.variants[name].ghost_batch for name in plan.variants] == [None, None, None, 16, 16]


def test_grow_batch_gives_all_the_same_samples_and_fewer_updates_the_more_it_grows() -> None:
    plan = plan_of("grow_batch")
    specs = [plan.confirm_trials(cell, plan.rates(cell)[0])[0] for cell in plan.cells]
    assert len({spec.samples_at(spec.total_updates) for spec in specs}) == 1
    updates = {spec.cell.variant: spec.total_updates for spec in specs}
    assert updates["decay"] > updates["hybrid"] > updates["grow"] > updates["grow-larger-rate"]
    # The paper's noise scale, eta / B, is the same for all in every third of the run.
    noise = [[spec.lr * stage.lr_factor / stage.batch.global_batch for stage in spec.stages] for spec in specs]
    assert all(levels == pytest.approx(noise[0]) for levels in noise)


def test_the_large_batch_of_generalization_gap_is_a_tenth_of_the_data() -> None:
    plan = plan_of("generalization_gap")
    assert max(plan.config.batch_sizes) / plan.train_samples == pytest.approx(0.1, abs=0.001)
