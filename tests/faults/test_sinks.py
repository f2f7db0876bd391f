"""Who follows a study is down: its rows are the same, what was missed is counted, and told once that is possible."""

from __future__ import annotations

import errno
import logging
import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from study.cluster.metrics import export
from study.cluster.metrics.export import Export
from study.cluster.sinks import dispatcher as feed
from study.cluster.sinks.dispatcher import Dispatcher
from study.ledger.schema import AnyRow
from study.planning.trials import Plan
from tests.cluster.sinks import tensorboard_events as boards
from tests.cluster.sinks.mlflow_server import MlflowServer, assert_told, mlflow_server
from tests.cluster.sinks.studies import fake_rows, follow_all, run_fake, run_followed, study_plan, told, unstamped
from tests.conftest import make_config, run_for_real, wait_for
from tests.faults.conftest import Injections
from tests.faults.ledger_audit import audit

Faults = Callable[[str], Injections]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """What waits does so for moments; warnings are kept."""
    monkeypatch.setattr(feed, "RETRY_EVERY_S", 0.01)
    monkeypatch.setattr(export, "SET_EVERY_S", 0.01)
    caplog.set_level(logging.WARNING, "study")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path / "mlruns") as server:
        yield server


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What a person was told of trouble."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("study")]


def assert_said_twice(caplog: pytest.LogCaptureFixture, name: str, why: str, lost: int) -> None:
    """When it begins, and how much in the end; nothing more."""
    began, ended = warnings(caplog)
    assert re.fullmatch(rf"study: {name}: [^\n]*{why}[^\n]*; the study goes on without it", began)
    assert ended.startswith(f"study: {lost} of {told(fake_rows())} rows did not reach ")


def survives(faults: Faults, plan: Plan, folder: Path) -> None:
    """The study comes to the same end, to the last row, as without anybody who follows it."""
    fault = faults("sink down")
    fault.inject()
    rows = run_fake(plan, folder)
    assert unstamped(rows) == unstamped(fake_rows())
    fault.survived(audit(rows))


def test_nobody_listens(faults: Faults, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    survives(faults, study_plan(mlflow=f"http://127.0.0.1:{port}"), tmp_path)
    assert_said_twice(caplog, f"MLflow at http://127.0.0.1:{port}", "Connection refused", told(fake_rows()))


def test_a_server_takes_calls_and_never_answers(
    faults: Faults, server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    monkeypatch.setattr(feed, "END_WITHIN_S", 0.2)
    server.fault = lambda: "hang"
    began_s = time.monotonic()
    survives(faults, study_plan(mlflow=server.uri), tmp_path)
    assert time.monotonic() - began_s < 30
    (ended,) = warnings(caplog)
    assert ended.startswith(f"study: {told(fake_rows())} of {told(fake_rows())} rows did not reach MLflow at ")


def test_a_server_that_is_given_up_on(
    faults: Faults, server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    server.fault = lambda: "hang"
    survives(faults, study_plan(mlflow=server.uri), tmp_path)
    assert_said_twice(caplog, f"MLflow at {server.uri}", "timed out", told(fake_rows()))


def test_a_server_out_of_order(
    faults: Faults, server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.fault = lambda: "refuse"
    survives(faults, study_plan(mlflow=server.uri), tmp_path)
    assert_said_twice(caplog, f"MLflow at {server.uri}", "500", told(fake_rows()))
    server.fault = lambda: ""
    follow_all(study_plan(mlflow=server.uri), tmp_path, fake_rows())  # as a resume does
    assert_told(server, fake_rows())


def test_a_server_that_comes_back_is_told_what_it_has_missed(
    faults: Faults, server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fault = faults("sink down")
    fault.inject()
    rows = fake_rows()
    with Dispatcher(study_plan(mlflow=server.uri), tmp_path) as sinks:
        sinks.start()
        for row in rows[:20]:
            sinks.follow(row)
        wait_for(lambda: len(server.calls) > 2)
        server.fault = lambda: "refuse"
        for row in rows[20:40]:
            sinks.follow(row)
        wait_for(lambda: warnings(caplog))
        server.fault = lambda: ""
        for row in rows[40:]:
            sinks.follow(row)
    assert len(warnings(caplog)) == 1
    assert_told(server, rows)
    fault.survived()


def test_calls_that_fail_before_or_after_they_are_done_put_nothing_there_twice(
    faults: Faults, server: MlflowServer, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(feed, "TRIES", 1000)
    fault, draw, done = faults("sink down"), random.Random(7), list[str]()

    def some() -> str:
        what = draw.choices(["", "refuse", "fail"], [8, 1, 1])[0]
        done.append(what)
        return what

    server.fault = some
    with Dispatcher(study_plan(mlflow=server.uri), tmp_path) as sinks:
        sinks.start()
        for row in fake_rows():
            sinks.follow(row)
        wait_for(lambda: not any(one.lost for one in sinks._queues))
    fault.inject(sum(map(bool, done)))
    server.fault = lambda: ""
    assert_told(server, fake_rows())
    fault.survived(times=sum(map(bool, done)))


def test_a_folder_that_cannot_be_written(faults: Faults, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    survives(faults, study_plan(tensorboard="file/boards"), tmp_path)
    assert_said_twice(caplog, f"TensorBoard in {tmp_path}/file/boards", "Not a directory", told(fake_rows()))


def test_a_folder_whose_disk_is_full_for_a_while(
    faults: Faults, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault, draw, failed = faults("sink down"), random.Random(3), list[Path]()
    whole = Path.open

    def half(path: Path, mode: str = "r", *args: Any) -> Any:
        file: Any = whole(path, mode, *args)
        if "tfevents" in path.name and mode == "ab" and draw.random() < 0.2:
            failed.append(path)
            write = file.write

            def torn(data: bytes) -> None:
                write(data[: draw.randrange(len(data))])
                raise OSError(errno.ENOSPC, "No space left on device", str(path))

            return _With(file, torn)
        return file

    monkeypatch.setattr(Path, "open", half)
    monkeypatch.setattr(feed, "TRIES", 1000)
    with Dispatcher(study_plan(tensorboard="boards"), tmp_path) as sinks:
        sinks.start()
        for row in fake_rows():
            sinks.follow(row)
        wait_for(lambda: not any(one.lost for one in sinks._queues))
    monkeypatch.undo()
    assert len(failed) > 5
    fault.inject(len(failed))
    (began,) = warnings(caplog)
    assert "No space left on device" in began
    boards.assert_told(tmp_path / "boards", fake_rows())
    fault.survived(times=len(failed))


class _With:
    """A file of which one method is another."""

    def __init__(self, file: Any, write: Callable[[bytes], None]) -> None:
        self.file, self.write = file, write

    def __enter__(self) -> _With:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


@pytest.mark.parametrize("where", ["follow", "read"])
def test_the_meter_fails(faults: Faults, where: str, caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    fault, plan = faults("sink down"), study_plan()
    fault.inject()

    def broken(self: Any, *row: AnyRow) -> None:
        raise RuntimeError("no metrics today")

    monkeypatch.setattr("ray.util.metrics.Gauge", lambda *args: Mock())
    monkeypatch.setattr(f"study.cluster.metrics.readings.MetricReadings.{where}", broken)
    with Export(plan) as metrics:
        rows = run_followed(plan, metrics.follow)
        wait_for(lambda: metrics.failures > 1)
    assert unstamped(rows) == unstamped(fake_rows())
    began, ended = warnings(caplog)
    assert "no metrics today" in began
    assert ended == f"study: metrics failed {metrics.failures} times; the study was not disturbed"
    fault.survived(audit(rows))


@pytest.mark.thorough
def test_a_real_study_with_all_sinks_down(
    faults: Faults, local_ray: None, server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fault = faults("sink down")
    fault.inject(2)
    server.fault = lambda: "refuse"
    (tmp_path / "file").touch()
    config = make_config(tracking={"mlflow": server.uri, "tensorboard": str(tmp_path / "file" / "boards")})
    run = run_for_real(config, tmp_path / "study")
    assert sum(row.outcome == "completed" for row in run.rows if row.kind == "end") == len(run.plan.search) + 4
    told_of = told(run.rows)
    assert sum(f"study: {told_of} of {told_of} rows" in line for line in warnings(caplog)) == 2
    fault.survived(audit(run.rows), times=2)
