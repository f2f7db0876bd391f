"""How rows reach the sinks that a study asks for, and what is refused before anything starts."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

import pytest
import yaml

from study.cli.common import planned
from study.cluster.sinks import dispatcher as feed
from study.cluster.sinks.dispatcher import Dispatcher, SinkQueue
from study.cluster.sinks.events import TrialEvent
from study.cluster.target import HEAD, LOCAL
from study.config.loader import config_hash
from study.errors import ConfigError
from study.ledger.schema import AttemptRow, LeaseRow, MistakeRow, StudyRow
from study.ledger.store import Ledger
from study.tuning.driver import resume_study
from tests.cluster.sinks.studies import fake_rows, study_plan, told
from tests.cluster.sinks.tensorboard_events import assert_told
from tests.conftest import TINY, make_config, wait_for


class Slow:
    """Takes nothing until it is let."""

    name = "someone slow"

    def __init__(self) -> None:
        self.let = threading.Event()
        self.taken: list[TrialEvent] = []

    def take(self, event: TrialEvent) -> None:
        assert self.let.wait(20)
        self.taken.append(event)

    def forget(self) -> None: ...


class Picky(Slow):
    """Takes everything but one row."""

    def take(self, event: TrialEvent) -> None:
        if event.updates:
            super().take(event)
        elif self.let.is_set():
            raise ValueError("not this one")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    slow = Slow()
    monkeypatch.setattr(feed, "open_sinks", lambda plan, folder: [slow])
    return slow


def followed(rows: int) -> Dispatcher:
    sinks = Dispatcher(study_plan(), Path())
    for row in fake_rows()[:rows]:
        sinks.follow(row)
    return sinks


def test_what_is_there_at_the_start_is_not_bounded_and_what_comes_is(
    slow: Slow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feed, "MOST_WAITING", 5)
    rows = fake_rows()
    before, given = told(rows[:40]), told(rows)
    with followed(40) as sinks:
        sinks.start()
        for row in rows[40:]:
            sinks.follow(row)  # returns, whoever takes nothing
        slow.let.set()
    # One may have left the queue by the time that the next came.
    assert len(slow.taken) in (before + 5, before + 6)
    lost = given - len(slow.taken)
    assert f"study: {lost} of {given} rows did not reach someone slow" in caplog.text
    in_order = [one.row for one in slow.taken]
    assert in_order == [row for row in rows if row.kind in ("attempt", "report", "end", "lease")][: len(in_order)]


def test_an_event_has_the_state_of_its_trial(slow: Slow) -> None:
    slow.let.set()
    with followed(len(fake_rows())) as sinks:
        sinks.start()
    billed = dict.fromkeys((one.trial_id for one in slow.taken), 0.0)
    for one in slow.taken:
        assert (one.study_id, one.attempt.trial_id) == ("s", one.trial_id)
        if one.row.kind == "lease":
            billed[one.trial_id] += one.row.billed_device_h
        elif one.row.kind == "report":
            assert one.updates == one.row.updates
        assert one.billed_device_h == pytest.approx(billed[one.trial_id])


def test_a_row_that_is_always_refused_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feed, "RETRY_EVERY_S", 0.001)
    picky = Picky()
    picky.let.set()
    monkeypatch.setattr(feed, "open_sinks", lambda plan, folder: [picky])
    with followed(0) as sinks:
        sinks.start()
        for row in fake_rows():
            sinks.follow(row)
        (fed,) = sinks._queues
        last = fake_rows()[-1]
        wait_for(lambda: picky.taken and picky.taken[-1].row == last)
    assert isinstance(fed, SinkQueue)
    refused = told(fake_rows()) - len(picky.taken)
    assert refused > 0
    assert f"study: {refused} of {told(fake_rows())} rows did not reach someone slow" in caplog.text
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 2


def test_a_resume_of_a_finished_study_sends_all_of_it(tmp_path: Path) -> None:
    plan = study_plan(tensorboard="boards")
    with Ledger(tmp_path) as ledger:
        for row in fake_rows():
            mine = {"config": {}, "config_hash": config_hash(study_plan().config)}
            ledger.append(row.model_copy(update=mine) if isinstance(row, StudyRow) else row)
    assert resume_study(plan, tmp_path, LOCAL, None, lambda row: None).finished
    assert_told(tmp_path / "boards", fake_rows())


def test_tracking_is_no_part_of_what_is_studied() -> None:
    assert config_hash(make_config()) == config_hash(make_config(tracking={"mlflow": "http://m:5000"}))


@pytest.mark.parametrize(
    ("tracking", "said"),
    [
        ({"mlflow": "http://me:secret@m:5000"}, "tracking.mlflow: must not hold what authorizes"),
        ({"mlflow": "http://m:5000/?token=secret"}, "tracking.mlflow: must not hold what authorizes"),
        ({"mlflow": "gopher://m"}, "tracking.mlflow: must be http://"),
        ({"tensorboard": "../elsewhere"}, "tracking.tensorboard: must not climb out"),
        ({"wandb": "x"}, "tracking.wandb: unknown key; allowed: mlflow, tensorboard"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(tmp_path: Path, tracking: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        planned(study_file(tmp_path, tracking), None, LOCAL, 4)
    line = str(refused.value)
    assert said in line
    assert line.startswith(f"{tmp_path}/study.yaml:")
    assert "secret" not in line
    assert "\n" not in line


@pytest.mark.parametrize(("key", "package"), [("mlflow", "mlflow"), ("tensorboard", "tensorboardX")])
def test_an_extra_that_is_not_installed_is_refused_first(
    tmp_path: Path, key: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"mlflow": "mlflow_sink", "tensorboard": "tensorboard_sink"}[key]
    monkeypatch.delitem(sys.modules, f"study.cluster.sinks.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    file = study_file(tmp_path, {key: "http://m:5000"})
    with pytest.raises(ConfigError, match=rf"study.yaml:\d+: tracking.{key}: {package} is not installed: pip install"):
        planned(file, None, LOCAL, 4)
    planned(file, None, HEAD, None)  # it runs elsewhere: what is installed here does not matter


def study_file(folder: Path, tracking: dict[str, str]) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(TINY | {"tracking": tracking}))
    return path


def test_a_study_that_begins_again_after_a_mistake_has_runs_of_other_names(slow: Slow) -> None:
    rows = fake_rows()
    mistake = MistakeRow(at_s=rows[-1].at_s, written=rows[-1].written, error="IndexError (net.py:1)", failed=2)
    slow.let.set()
    with Dispatcher(study_plan(), Path()) as sinks:
        sinks.start()
        for row in (*rows, mistake, *rows):
            sinks.follow(row)
    names = {told.trial_id for told in slow.taken if isinstance(told.row, AttemptRow)}
    before = {row.trial_id for row in rows if isinstance(row, AttemptRow)}
    assert names == before | {f"{name}.2" for name in before}
    for name in before:
        bills = [row.billed_device_h for row in rows if isinstance(row, LeaseRow) and row.trial_id == name]
        for run in (name, f"{name}.2"):
            assert [told.billed_device_h for told in slow.taken if told.trial_id == run][-1] == pytest.approx(
                sum(bills)
            )
