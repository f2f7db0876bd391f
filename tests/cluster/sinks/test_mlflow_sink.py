"""What MLflow holds of a study, read back by its own client, against the study's rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.cluster.sinks.mlflow_server import PAGE, MlflowServer, assert_told, curves_at, mlflow_server
from tests.cluster.sinks.studies import facts, fake_rows, follow_all, run_fake, study_plan, unstamped


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path / "mlruns") as server:
        yield server


def test_each_trial_is_a_run_with_its_curve_its_bill_and_its_outcome(server: MlflowServer, tmp_path: Path) -> None:
    rows = run_fake(study_plan(mlflow=server.uri), tmp_path)
    assert unstamped(rows) == unstamped(fake_rows())
    assert len(facts(rows)) > PAGE
    assert_told(server, rows)


def test_a_resume_goes_on_with_the_runs_that_are_there(server: MlflowServer, tmp_path: Path) -> None:
    plan, rows = study_plan(mlflow=server.uri), fake_rows()
    for part in (len(rows) // 3, 2 * len(rows) // 3, len(rows)):
        follow_all(plan, tmp_path, rows[:part])
    assert_told(server, rows)
    told = len(server.calls)
    follow_all(plan, tmp_path, rows)
    assert not {"runs/create", "runs/log-batch", "runs/update", "runs/set-tag"} & set(server.calls[told:])


def test_another_study_of_the_same_name_has_runs_of_its_own(server: MlflowServer, tmp_path: Path) -> None:
    plan, (first, *rest) = study_plan(mlflow=server.uri), fake_rows()
    follow_all(plan, tmp_path, (first, *rest))
    follow_all(plan, tmp_path, (first.model_copy(update={"study_id": "another"}), *rest))
    found = server.store.search_runs([server.store.get_experiment_by_name("tiny").experiment_id], "", 1, 1000)
    assert len(found) == 2 * len(facts(rest))


def test_a_non_finite_loss_is_sent_as_it_is(server: MlflowServer, tmp_path: Path) -> None:
    plan = study_plan(mlflow=server.uri)
    rows = [
        row.model_copy(update={"train_loss": float("nan"), "val_loss": float("inf")}) if row.kind == "report" else row
        for row in fake_rows()
    ]
    follow_all(plan, tmp_path, rows)
    for curve in curves_at(server).values():
        assert {str(value) for _, value in curve["train_loss"]} == {"nan"}
        assert {value for _, value in curve["val_loss"]} == {float("inf")}


def test_the_client_of_the_users_own_finds_it_all(server: MlflowServer, tmp_path: Path) -> None:
    run_fake(study_plan(mlflow=server.uri), tmp_path)
    client = MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in runs} <= facts(fake_rows()).keys()
