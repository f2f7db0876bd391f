"""`study claims` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from study.ledger.schema import AnyRow
from study.ledger.store import Ledger
from tests.conftest import TINY
from tests.reporting.summaries import attempt_row, end_row, lease_row, report_row, study_row
from tests.test_cli import study_in_process as study


def rows() -> Iterator[AnyRow]:
    """A study in which batch 64 takes half the device time of batch 16, on three seeds."""
    yield study_row()
    for batch in (16, 64):
        for seed in (1, 2, 3):
            name = f"confirm-b{batch}-w1-s{seed}"
            device_s = (20.0 if batch == 16 else 10.0) + 0.1 * seed * batch**0.5
            yield attempt_row(name, 0.0).model_copy(update={"seed_index": seed})
            yield report_row(name, 3.0, 0.9, device_seconds=device_s, final=True)
            yield lease_row(name, 0.0, device_s)
            yield end_row(name, 0.0, "completed").model_copy(update={"final": 0.9, "best": 0.9})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a study whose confirm trials are over."""
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "config.yaml").write_text(yaml.safe_dump(TINY))
    with Ledger(tmp_path / "s") as ledger:
        ledger.append(*rows())
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["."], "study: .: no study here"),
        (["s", "nothing"], "study: nothing: no study here"),
        (["s", "--json", "--markdown"], "study: give --json or --markdown, not both"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(folder: Path, arguments: list[str], says: str) -> None:
    done = study(folder, "claims", *arguments)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_several_studies_are_judged_each_by_itself(folder: Path) -> None:
    done = study(folder, "claims", "s", "s", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told["studies"]) == 2
    verdicts = {claim["statement"]["claim"]: claim["verdict"] for claim in told["studies"][0]["claims"]}
    assert verdicts["cost"] == "supported"
    assert verdicts["serving"] == "no_evidence"


def test_people_read_words_and_markdown(folder: Path) -> None:
    done = study(folder, "claims", "s")
    assert done.returncode == 0, done.stderr
    assert "cost: supported" in done.stdout
    assert "Note: Not finished" in done.stdout
    done = study(folder, "claims", "s", "--markdown")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("### tiny")
    assert "\x1b" not in done.stdout
