"""The worked example and the snippets of docs/own-model.md, as a user meets them."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from study.api.plans import recorded
from study.cli.app import app
from study.config.loader import to_yaml
from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.ledger.schema import AttemptRow, EndRow, ReportRow
from study.ledger.store import read
from study.planning.trials import make_plan
from study.training.preflight.dry_run import dry_run
from study.workloads.data.discovery import with_sample_counts
from tests.conftest import TINY, make_config

ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs" / "own-model.md").read_text()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example, copied; modules are imported from it, and forgotten afterwards."""
    shutil.copytree(ROOT / "examples" / "own_model", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("net", "digits", "mine"):
        sys.modules.pop(name, None)


def check(*options: str) -> Any:
    return CliRunner().invoke(app, ["check", "study.yaml", "--no-measure", "--cpus", "2", *options])


def test_the_example_is_tried_counted_and_planned(folder: Path) -> None:
    done = check()
    assert done.exit_code == 0, done.output
    assert "9 search and 6 confirm trials" in done.output
    theirs = check("--set", "workload.optimizer=module", "--set", "search.lr=[0.5,1,2]")
    assert theirs.exit_code == 0, theirs.output


def test_who_does_not_want_it_is_not_tried(folder: Path) -> None:
    options = ["--set", "workload.val_accuracy=nothing"]
    assert check("--no-try", *options).exit_code == 0
    assert "the module does not log nothing" in str(check(*options).exception)


@pytest.mark.parametrize(
    ("file", "right", "wrong", "says"),
    [
        ("net.py", "16 * width, 10", "8 * width, 10", r"study.yaml:4: workload: RuntimeError: mat1 .* \(net.py:28\)$"),
        ("net.py", '"val_acc"', '"val_ac"', r"val_acc; it logs val_ac, val_loss \(did you mean val_ac\?\)$"),
        ("net.py", "import torch\n", "import torhc\n", r"study.yaml:5: workload.module: cannot import net: .*torhc"),
        ("digits.py", "self.train, self.batch_size", "self.train, 32", "yields batches of 32 when a rank takes"),
        ("study.yaml", "digits:Digits", "digits:Digit", r"digits has no class Digit \(did you mean Digits\?\)$"),
    ],
)
def test_a_planted_mistake_is_one_line(folder: Path, file: str, right: str, wrong: str, says: str) -> None:
    text = (folder / file).read_text()
    assert text.count(right) == 1
    (folder / file).write_text(text.replace(right, wrong))
    for arguments in (["check", "study.yaml", "--no-measure"], ["run", "study.yaml", "--out", "runs/own"]):
        done = CliRunner().invoke(app, arguments)
        assert isinstance(done.exception, ConfigError)
        assert re.search(says, str(done.exception)), done.exception
        assert "\n" not in str(done.exception)
        for name in ("net", "digits"):
            sys.modules.pop(name, None)
    assert not (folder / "runs").exists()


def test_a_study_that_was_run_needs_no_code_of_the_users(tmp_path: Path) -> None:
    workload = {
        "module": "tests.user_code:Net",
        "data": "tests.user_code:Data",
        "val_accuracy": "val_acc",
    }
    variants = {"same": {}, "more": {"workload": {"data_args": {"val_samples": 32}}}}
    config = with_sample_counts(make_config(workload=workload, batch_sizes=[8], variants=variants))
    gone = to_yaml(config).replace("tests.user_code:", "gone:")
    (tmp_path / "config.yaml").write_text(gone)
    plan = recorded(tmp_path)
    assert plan.train_samples == 64
    assert plan.config.workload.module == "gone:Net"  # type: ignore[union-attr]


def test_samples_are_counted_but_not_of_a_stream() -> None:
    workload = {
        "module": "tests.user_code:Net",
        "data": "tests.user_code:Data",
        "data_args": {"samples": 40},
    }
    filled = with_sample_counts(make_config(workload=workload, batch_sizes=[8]))
    assert make_plan(filled).train_samples == 40
    assert with_sample_counts(filled) == filled
    other = {"kind": "custom", **workload, "data_args": {"samples": 1476}}
    varied = with_sample_counts(make_config(batch_sizes=[8], variants={"own": {"workload": other}}, workload={}))
    assert varied.variants["own"]["workload"]["train_samples"] == 1476
    with pytest.raises(ConfigError, match=r"^workload\.train_samples: is required: the training set is a stream"):
        with_sample_counts(make_config(workload=workload | {"data": "tests.user_code:Streamed"}, batch_sizes=[8]))
    ready_made = {"module": "tests.user_code:Net", "data": "tests.user_code:ReadyMade"}
    with pytest.raises(ConfigError, match=r"^workload\.train_samples: is required"):
        with_sample_counts(make_config(workload=ready_made, batch_sizes=[8]))
    dry_run(
        make_plan(make_config(workload=ready_made | {"train_samples": 64, "val_accuracy": "val_acc"}, batch_sizes=[8]))
    )


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOC, flags=re.DOTALL)


def test_the_snippets_of_the_page_work(folder: Path) -> None:
    (folder / "mine.py").write_text("\n".join(blocks("python")))
    tried = 0
    for text in blocks("yaml"):
        data = {key: value for key, value in TINY.items() if key != "workload"} | yaml.safe_load(text)
        config = StudyConfig.model_validate(data, strict=False)
        if "module" in data["workload"]:
            dry_run(make_plan(with_sample_counts(config)))
            tried += 1
        else:
            assert make_plan(config).train_samples == 55_000
    assert tried == 4


def study(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    command = [sys.executable, "-m", "study", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2])
def test_the_example_runs_for_real_with_either_optimizer(tmp_path: Path, world_size: int) -> None:
    shutil.copytree(ROOT / "examples" / "own_model", tmp_path, dirs_exist_ok=True)
    theirs = ["--set", "workload.optimizer=module", "--set", "search.lr=[0.5,1]"] if world_size == 2 else []
    options = ["--set", f"hardware.world_size={world_size}", "--set", "batch_sizes=[20,200]", *theirs]
    assert study(tmp_path, "check", "study.yaml", *options).returncode == 0
    done = study(tmp_path, "run", "study.yaml", "--out", "runs/own", *options)
    assert done.returncode == 0, done.stderr
    rows = read(tmp_path / "runs" / "own").rows
    ends = [row for row in rows if isinstance(row, EndRow) and row.trial_id.startswith("confirm")]
    assert len(ends) == 4
    assert all(row.outcome == "completed" and (row.final or 0) > 0.7 for row in ends)
    summary = json.loads((tmp_path / "runs" / "own" / "report" / "summary.json").read_text())
    assert any("module's own optimizer" in note for note in summary["notes"]) == bool(theirs)
    if theirs:  # a constant rate of 0.1, times the factor
        factors = {row.trial_id: row.lr for row in rows if isinstance(row, AttemptRow)}
        for row in rows:
            if isinstance(row, ReportRow):
                assert row.lr == pytest.approx(0.1 * factors[row.trial_id])
    # What was recorded is enough, wherever the code has gone.
    shutil.copytree(tmp_path / "runs", tmp_path / "elsewhere" / "runs")
    assert study(tmp_path / "elsewhere", "report", "runs/own", "--format", "json").returncode == 0
