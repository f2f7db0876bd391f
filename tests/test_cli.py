"""The command as a user meets it: in a process of its own, in an empty folder."""

import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import yaml

from study.config.loader import shipped_configs
from study.ledger.schema import EndRow
from study.ledger.store import read
from tests.conftest import TINY

STUDY = [sys.executable, "-m", "study"]
README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A study file that takes seconds, in an empty folder."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"hardware": {"world_size": 2}}))
    return tmp_path


def study(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(README.parent), "COLUMNS": "100"}
    return subprocess.run([*STUDY, *arguments], cwd=folder, capture_output=True, text=True, env=environment)


def study_in_process(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as `study` does, without a process of its own, whose imports take longer than most commands."""
    from study.cli.app import main

    printed, errors, code = StringIO(), StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(errors):
        patch.chdir(folder)
        patch.setenv("COLUMNS", "100")
        patch.setattr(sys, "argv", ["study", *arguments])
        patch.setattr(sys, "path", list(sys.path))
        try:
            main()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
    return subprocess.CompletedProcess(arguments, code, printed.getvalue(), errors.getvalue())


def start_study(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a command whose output, errors too, can be read while it runs."""
    return subprocess.Popen(
        [*STUDY, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"PYTHONPATH": str(README.parent)},
    )  # fmt: skip


def live_url(process: subprocess.Popen[str]) -> str:
    """Return the address that a command with a live page prints first."""
    assert process.stdout is not None
    found = re.fullmatch(r"Live: (http://127\.0\.0\.1:\d+/)\n", process.stdout.readline())
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "quikstart"], "(did you mean quickstart?)"),
        (["check", "tiny", "--set", "serach.lr=[1]"], "--set: serach: unknown key"),
        (["check", "tiny", "--no-measure", "--cpus", "1"], "tiny.yaml:9: hardware.world_size: 2 ranks of 1 CPU"),
        (["run", "tiny", "--out", "s", "--set", "batch_sizes=[7]"], "--set: batch_sizes: 7 is not divisible"),
        (["resume", "."], "study: .: no study here"),
        (["report", ".", "--format", "html"], "study: .: no study here"),
        (["init", "tiny.yaml"], "tiny.yaml: exists already"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tiny: Path, arguments: list[str], says: str) -> None:
    check_mistake(tiny, study_in_process(tiny, *arguments), says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "nothing"], "study: nothing: no such file, nor a shipped config"),
        (["run", "tiny", "--out", "s", "--address", "127.0.0.1:1"], "--address 127.0.0.1:1"),
        (
            ["run", "tiny", "--out", "s", "--address", "ray://127.0.0.1:1"],
            "Ray Tune's driver cannot run in a Ray client",
        ),
        (["status", "."], "study: .: no study here"),
    ],
)
def test_so_it_is_in_a_process_of_its_own(tiny: Path, arguments: list[str], says: str) -> None:
    check_mistake(tiny, study(tiny, *arguments), says)


def check_mistake(tiny: Path, done: subprocess.CompletedProcess[str], says: str) -> None:
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tiny / "s" / "ledger.jsonl").exists()


@pytest.mark.slow
def test_a_dry_run_prices_the_plan_and_starts_nothing(tiny: Path) -> None:
    limits = ["--set", "price.usd_per_device_hour=1", "--set", "limits.usd=1e-9", "--set", "limits.wall_h=1000"]
    done = study(tiny, "run", "tiny", "--out", "s", "--dry-run", *limits)
    assert done.returncode == 0, done.stderr
    assert "USD at 1 USD per device-hour" in done.stdout
    assert "limits.usd: at most" in done.stdout
    assert "the study is likely to be cut there" in done.stdout
    assert "of 1,000 hours; the plan fits." in done.stdout
    assert not (tiny / "s").exists()


@pytest.mark.slow
def test_a_study_past_its_limit_ends_with_a_code_of_its_own_and_goes_on(tiny: Path) -> None:
    done = study(tiny, "run", "tiny", "--out", "s", "--set", "limits.device_hours=1e-4")
    assert done.returncode == 3, done.stderr
    assert "Go on with: study resume s --set limits.device_hours=0.0002" in done.stdout
    assert json.loads((tiny / "s" / "report" / "summary.json").read_text())["cut"]["limit"] == "device_hours"
    assert "cut     by limits.device_hours: raise it to go on" in study(tiny, "status", "s").stdout
    assert study(tiny, "resume", "s").returncode == 3
    refused = study(tiny, "resume", "s", "--set", "seed=5")
    assert (refused.returncode, "changed: seed" in refused.stderr) == (2, True)
    done = study(tiny, "resume", "s", "--set", "limits.device_hours=100")
    assert done.returncode == 0, done.stderr
    all_ended_once(tiny / "s")
    assert json.loads((tiny / "s" / "report" / "summary.json").read_text())["cut"] is None


def all_ended_once(folder: Path) -> None:
    rows = read(folder).rows
    ends = [row.trial_id for row in rows if isinstance(row, EndRow)]
    assert len(ends) == len(set(ends)) == 4 + 4


def commands_in_readme() -> list[list[str]]:
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", README.read_text(), flags=re.DOTALL)
    lines = [line.split("#")[0].split() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and Path(line[0]).name == "study"]


def test_readme_commands_exist_with_their_options() -> None:
    from typer.main import get_command

    from study.cli.app import app

    group = get_command(app)
    assert len(commands_in_readme()) >= 6
    for _, name, *arguments in commands_in_readme():
        command = group.commands[name]  # type: ignore[attr-defined]
        if nested := getattr(command, "commands", None):
            command = nested[arguments[0]]
        known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
        assert {word for word in arguments if word.startswith("--")} <= known, name
        for word in arguments:
            if word.startswith("tune_configs/"):
                assert Path(word).stem in shipped_configs()
