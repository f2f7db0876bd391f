"""Writes each trial as a run of MLflow."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from study.cluster.sinks.events import TrialEvent
from study.ledger.schema import EndRow, LeaseRow, ReportRow

_GOOD = ("completed", "stopped")


@dataclass
class _Run:
    run_id: str
    tags: dict[str, str]
    has_params: bool = False
    updates: set[int] | None = None  # of the reports that the server holds; None until it is asked


class MlflowSink:
    """A server's experiment of the study's name. Only what the server does not hold yet is sent."""

    def __init__(self, uri: str, experiment: str) -> None:
        """Connect later. Raises MlflowException for an address of a kind that MLflow does not know."""
        self.name, self._experiment = f"MLflow at {uri}", experiment
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        self._client = MlflowClient(tracking_uri=uri)
        self._experiment_id = ""
        self._runs: dict[str, _Run] = {}  # by trial; of the study's experiment, once that is known

    def forget(self) -> None:
        """Ask the server again what it holds, because something failed."""
        self._experiment_id, self._runs = "", {}

    def take(self, event: TrialEvent) -> None:
        """Send an event. Raises what MLflow raises."""
        run, row = self._run(event), event.row
        if isinstance(row, ReportRow):
            self._report(run, row.updates, event)
        elif isinstance(row, EndRow) and "outcome" not in run.tags:
            status = "FINISHED" if row.outcome in _GOOD else "FAILED"
            self._client.set_terminated(run.run_id, status, _ms(event))
            self._tag(run, "outcome", row.outcome)
        elif isinstance(row, LeaseRow):
            billed = f"{event.billed_device_h:.6g}"
            if float(billed) > float(run.tags.get("billed_device_h", 0)):  # less: the event came before
                self._tag(run, "billed_device_h", billed)

    def _report(self, run: _Run, updates: int, event: TrialEvent) -> None:
        if run.updates is None:
            run.updates = {metric.step for metric in self._client.get_metric_history(run.run_id, "train_loss")}
        if updates not in run.updates:
            metrics = [Metric(_allowed(name), value, _ms(event), updates) for name, value in event.metrics.items()]
            self._client.log_batch(run.run_id, metrics)
            run.updates.add(updates)

    def _run(self, event: TrialEvent) -> _Run:
        if not self._experiment_id:
            self._look_up(event.study_id)
        if event.trial_id not in self._runs:
            tags = {"study_id": event.study_id, "trial_id": event.trial_id}
            made = self._client.create_run(self._experiment_id, _ms(event), tags, event.trial_id)
            self._runs[event.trial_id] = _Run(made.info.run_id, tags, updates=set())
        run = self._runs[event.trial_id]
        if not run.has_params:
            params = [Param(name, str(value)) for name, value in event.params.items()]
            self._client.log_batch(run.run_id, params=params)
            run.has_params = True
        return run

    def _look_up(self, study_id: str) -> None:
        """Look up the experiment, or create it, and the runs of this study in it."""
        known = self._client.get_experiment_by_name(self._experiment)
        experiment_id = known.experiment_id if known else self._client.create_experiment(self._experiment)
        of_study, token = f"tags.study_id = '{study_id}'", None
        while True:
            page = self._client.search_runs([experiment_id], of_study, max_results=1000, page_token=token)
            for run in page:
                held = _Run(run.info.run_id, dict(run.data.tags), bool(run.data.params))
                self._runs[held.tags["trial_id"]] = held
            if not (token := page.token):
                break
        self._experiment_id = experiment_id

    def _tag(self, run: _Run, key: str, value: str) -> None:
        self._client.set_tag(run.run_id, key, value)
        run.tags[key] = value


def _ms(event: TrialEvent) -> int:
    return round(event.at_s * 1000)


def _allowed(name: str) -> str:
    """Return a metric's name without the characters that MLflow refuses."""
    return re.sub(r"[^\w./: -]", "_", name).lstrip("/")
