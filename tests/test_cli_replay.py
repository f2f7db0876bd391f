"""`study replay` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.analysis.grids import table
from tests.test_cli import study_in_process as study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    table().to_csv(tmp_path / "curves.csv", index=False)
    table().rename(columns={"val_accuracy": "acc"}).to_csv(tmp_path / "wrong.csv", index=False)
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing.csv"], "study: nothing.csv: no such file"),
        (["curves.csv", "--scheduler", "frontier_ahsa"], "(did you mean frontier_asha?)"),
        (["curves.csv", "--scheduler", ""], "--scheduler: names none"),
        (["curves.csv", "--seeds", "4"], "--seeds: curves.csv has 3 seeds"),
        (["wrong.csv"], "wrong.csv: val_accuracy: column is missing"),
        (["empty"], "study: empty: no study here"),
        (["."], "wrong.csv: val_accuracy: column is missing"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(folder: Path, arguments: list[str], says: str) -> None:
    done = study(folder, "replay", *arguments)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_table_is_replayed_to_a_table_and_an_object(folder: Path) -> None:
    done = study(folder, "replay", "curves.csv", "--scheduler", "grid,frontier_asha:quick", "--shuffles", "7", "--json")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["shuffles"], told["seeds"], told["held_back"], told["batch_sizes"]) == (7, 1, 2, 3)
    grid, quick = told["schedulers"]
    assert (grid["scheduler"], grid["cost_fraction"], grid["log_hv_mean"]) == ("grid", 1.0, 1.0)
    assert (quick["scheduler"], quick["profile"]) == ("frontier_asha", "quick")
    assert quick["cost_fraction"] < 1
    assert sorted(path.name for path in folder.iterdir()) == ["curves.csv", "empty", "wrong.csv"]


def test_a_list_of_schedulers_may_be_repeated(folder: Path) -> None:
    lists = (["--scheduler", "grid,frontier_asha:quick"], ["--scheduler", "grid", "--scheduler", "frontier_asha:quick"])
    answers = [study(folder, "replay", "curves.csv", *words, "--shuffles", "3", "--json").stdout for words in lists]
    assert answers[0] == answers[1] != ""


def test_a_table_of_losses_is_replayed_as_one_of_accuracies(folder: Path) -> None:
    losses = table().assign(val_loss=lambda rows: 1 - rows.val_accuracy).drop(columns="val_accuracy")
    losses.to_csv(folder / "losses.csv", index=False)
    options = ["--scheduler", "grid,frontier_asha:quick", "--shuffles", "5", "--json"]
    answers = []
    for source, objective in (("curves.csv", "accuracy"), ("losses.csv", "loss")):
        done = study(folder, "replay", source, "--objective", objective, *options)
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout.splitlines()[-1])["schedulers"])
    for accuracy, loss in zip(*answers, strict=True):
        # Hypervolumes have another reference; decisions, and so costs, are the same.
        for name in ("cost_fraction", "front_kept_mean", "min_completions", "optimism_mean"):
            assert loss[name] == pytest.approx(accuracy[name]), name
    for objective, says in (("los", "did you mean loss?"), ("reward", "does not say which is better")):
        wrong = study(folder, "replay", "losses.csv", "--objective", objective)
        assert (wrong.returncode, says in wrong.stderr) == (2, True), wrong.stderr
