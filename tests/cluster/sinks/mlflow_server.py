"""A server that speaks MLflow's REST interface over MLflow's own store, and that can be made to fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from mlflow.entities import Metric, Param, Run, RunStatus, RunTag, ViewType
from mlflow.store.tracking.file_store import FileStore
from mlflow.utils.proto_json_utils import message_to_json

from study.ledger.schema import AnyRow
from tests.cluster.sinks.studies import curves_told, facts


class MlflowServer(ThreadingHTTPServer):
    """`fault` says what is wrong with a call: "", or "hang" until it is closed, "refuse", or "fail" once it is done."""

    daemon_threads = True

    def __init__(self, store: FileStore) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store, self.lock = store, threading.Lock()
        self.fault: Callable[[], str] = lambda: ""
        self.calls: list[str] = []
        self.closed = threading.Event()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: MlflowServer

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self._answer({key: values[0] for key, values in query.items()})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, asked: dict[str, Any]) -> None:
        what = urlsplit(self.path).path.partition("/mlflow/")[2]
        self.server.calls.append(what)
        fault = self.server.fault()
        if fault == "hang":
            self.server.closed.wait()
            return
        found = ""
        if fault != "refuse":
            with self.server.lock:
                found = ANSWERS[what](self.server.store, asked)
        if fault:
            self._send(500, '{"error_code": "INTERNAL_ERROR", "message": "out of order"}')
            return
        self._send(200 if found else 404, found or '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": ""}')

    def _send(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None: ...


def _wrapped(**found: Any) -> str:
    inner = (f'"{key}": {message_to_json(value.to_proto())}' for key, value in found.items())
    return "{" + ", ".join(inner) + "}"


def _experiment(store: FileStore, asked: dict[str, Any]) -> str:
    found = store.get_experiment_by_name(asked["experiment_name"])
    return found and _wrapped(experiment=found)


def _create_run(store: FileStore, asked: dict[str, Any]) -> str:
    tags = [RunTag(**tag) for tag in asked["tags"]]
    return _wrapped(run=store.create_run(asked["experiment_id"], "", int(asked["start_time"]), tags, asked["run_name"]))


def _search(store: FileStore, asked: dict[str, Any]) -> str:
    page = int(asked.get("page_token") or 0)
    runs = store.search_runs(asked["experiment_ids"], asked["filter"], ViewType.ACTIVE_ONLY, 1000)
    here = ", ".join(message_to_json(run.to_proto()) for run in runs[page : page + PAGE])
    more = f', "next_page_token": "{page + PAGE}"' if len(runs) > page + PAGE else ""
    return f'{{"runs": [{here}]{more}}}'


def _log_batch(store: FileStore, asked: dict[str, Any]) -> str:
    metrics = [
        Metric(m["key"], float(m["value"]), int(m["timestamp"]), int(m["step"])) for m in asked.get("metrics", [])
    ]
    params = [Param(**param) for param in asked.get("params", [])]
    store.log_batch(asked["run_id"], metrics, params, [])
    return "{}"


def _update(store: FileStore, asked: dict[str, Any]) -> str:
    status = RunStatus.from_string(asked["status"])
    return _wrapped(run_info=store.update_run_info(asked["run_id"], status, int(asked["end_time"]), None))


def _set_tag(store: FileStore, asked: dict[str, Any]) -> str:
    store.set_tag(asked["run_id"], RunTag(asked["key"], asked["value"]))
    return "{}"


def _history(store: FileStore, asked: dict[str, Any]) -> str:
    found = store.get_metric_history(asked["run_id"], asked["metric_key"])
    return '{"metrics": [' + ", ".join(message_to_json(metric.to_proto()) for metric in found) + "]}"


PAGE = 5  # runs, so that a small study has several
ANSWERS: dict[str, Callable[[FileStore, dict[str, Any]], str]] = {
    "experiments/get-by-name": _experiment,
    "experiments/create": lambda store, asked: json.dumps({"experiment_id": store.create_experiment(asked["name"])}),
    "runs/create": _create_run,
    "runs/search": _search,
    "runs/log-batch": _log_batch,
    "runs/update": _update,
    "runs/set-tag": _set_tag,
    "runs/get": lambda store, asked: _wrapped(run=store.get_run(asked["run_id"])),
    "metrics/get-history": _history,
}


@contextmanager
def mlflow_server(folder: Path) -> Iterator[MlflowServer]:
    """Serves at a free port of this machine until it is left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        server = MlflowServer(FileStore(str(folder)))
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.closed.set()
            server.shutdown()
            thread.join()
            server.server_close()


def runs_at(server: MlflowServer) -> dict[str, Run]:
    """The runs of the experiment, each there once, by trial."""
    found = server.store.search_runs([server.store.get_experiment_by_name("tiny").experiment_id], "", 1, 1000)
    runs = {run.data.tags["trial_id"]: run for run in found}
    assert len(runs) == len(found)
    return runs


def curves_at(server: MlflowServer) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """(updates, value) by trial and metric, as they were received."""
    return {
        trial: {
            name: [(metric.step, metric.value) for metric in server.store.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }
        for trial, run in runs_at(server).items()
    }


def assert_told(server: MlflowServer, rows: Sequence[AnyRow]) -> None:
    """All that is to be there, once."""
    runs, truth = runs_at(server), facts(rows)
    assert runs.keys() == truth.keys()
    for trial, run in runs.items():
        attempt = truth[trial]["attempt"]
        for name in ("phase", "variant", "batch_size", "world_size", "lr", "base_lr", "seed_index"):
            assert run.data.params[name] == str(getattr(attempt, name))
        assert run.data.tags["outcome"] == truth[trial]["outcome"]
        assert float(run.data.tags["billed_device_h"]) == pytest.approx(truth[trial]["billed_device_h"], rel=1e-4)
        assert run.info.status == "FINISHED"
        assert run.info.run_name == trial
    assert curves_at(server) == curves_told(rows)
