"""Passes rows on to experiment trackers, none of which can slow the study or stop it."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Protocol

from study.cluster.sinks.events import TrialEvent
from study.environment import set_defaults
from study.errors import ConfigError
from study.ledger.schema import AnyRow
from study.ledger.state import StudyState
from study.ledger.store import refuse_links
from study.planning.trials import Plan
from study.safe_text import masked

MOST_WAITING = 10_000  # rows, beyond those of drivers before
RETRY_EVERY_S = 15.0
TRIES = 5  # of a row, before the next: it may be this one that is refused
END_WITHIN_S = 10.0
# SinkQueue tries again itself, and MLflow must not send usage data to its makers.
MLFLOW_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

log = logging.getLogger(__name__)


class Sink(Protocol):
    """An experiment tracker that gets the events of all trials."""

    name: str

    def take(self, event: TrialEvent) -> None:
        """Pass an event on; may raise anything. The same event may come again."""

    def forget(self) -> None:
        """Drop what is known of the other side, because `take` has raised."""


class SinkQueue:
    """Feeds one sink in a separate thread. While it fails, up to MOST_WAITING events wait; lost ones are counted."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._waiting: SimpleQueue[TrialEvent | None] = SimpleQueue()
        self._most: int | None = None  # events may wait; no bound before the start
        self._given = self._reached = 0  # counted by the study's thread and by the sink's
        self._failed = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"study-{type(sink).__name__}", daemon=True)

    @property
    def lost(self) -> int:
        """Events that have not reached the sink so far."""
        return self._given - self._reached

    def put(self, event: TrialEvent) -> None:
        """Queue one more event; never waits."""
        self._given += 1
        if self._most is None or self._waiting.qsize() < self._most:
            self._waiting.put(event)

    def start(self) -> None:
        """Begin to send; from here on the queue is bounded."""
        self._most = self._waiting.qsize() + MOST_WAITING
        self._thread.start()

    def end(self) -> None:
        """Send what waits, but give up at the first failure: no event follows."""
        self._ending.set()
        self._waiting.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for that, and log how many events were lost. A sink that hangs is left behind."""
        self._thread.join(timeout_s)
        self._failed = True  # what fails from here on is logged above
        if self.lost:
            log.warning(
                "study: %d of %d rows did not reach %s; the ledger has them, and `study resume` sends what is missing",
                self.lost, self._given, self._sink.name,
            )  # fmt: skip

    def _run(self) -> None:
        for event in iter(self._waiting.get, None):
            for _ in range(TRIES):
                at_the_end = self._ending.is_set()
                if self._sent(event):
                    break
                if at_the_end:
                    return
                self._ending.wait(RETRY_EVERY_S)

    def _sent(self, event: TrialEvent) -> bool:
        try:
            self._sink.take(event)
        except Exception as error:
            self._sink.forget()
            if not self._failed:
                log.warning("study: %s: %s; the study goes on without it", self._sink.name, _why(error))
            self._failed = True
            return False
        self._reached += 1
        return True


class Dispatcher:
    """Every sink that a study asks for. `follow` the rows that the ledger has, `start`, then `follow` each new one.

    Raises ConfigError where one is asked for that is not installed, LedgerError where a link leads out of the study's
    folder. Nothing is sent before the start.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        boards = Path(plan.config.tracking.tensorboard or "").expanduser()
        if not boards.is_absolute():
            refuse_links(folder, *("/".join(boards.parts[: n + 1]) for n in range(len(boards.parts))))
        self._queues = [SinkQueue(sink) for sink in open_sinks(plan, folder)]
        self._started = False
        self._state = StudyState(whole_curves=False)

    def follow(self, row: AnyRow) -> None:
        """Take in the next row, and queue it for every sink if it is about a trial that has begun."""
        if not self._queues:
            return
        self._state.apply(row)
        event = TrialEvent.of(row, self._state)
        if event is not None:
            for queue in self._queues:
                queue.put(event)

    def start(self) -> None:
        """Begin to send to every sink."""
        self._started = True
        for queue in self._queues:
            queue.start()

    def __enter__(self) -> Dispatcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._started:
            return
        deadline_s = time.monotonic() + END_WITHIN_S
        for queue in self._queues:
            queue.end()
        for queue in self._queues:
            queue.join(max(deadline_s - time.monotonic(), 0.0))


def open_sinks(plan: Plan, folder: Path) -> list[Sink]:
    """Return the sinks that a study asks for. Raises ConfigError if one is not installed or its address is invalid."""
    asked, sinks = plan.config.tracking, list[Sink]()
    if asked.mlflow is not None:
        set_defaults(MLFLOW_ENVIRONMENT)
        try:
            from study.cluster.sinks.mlflow_sink import MlflowSink

            sinks.append(MlflowSink(asked.mlflow, plan.config.name))
        except ImportError as error:
            raise _not_installed(error, "tracking.mlflow") from None
        except Exception:
            raise ConfigError(
                "must be http://… or https://…, or sqlite:///… where the whole of MLflow is installed",
                "tracking.mlflow",
            ) from None
    if asked.tensorboard is not None:
        try:
            from study.cluster.sinks.tensorboard_sink import TensorBoardSink
        except ImportError as error:
            raise _not_installed(error, "tracking.tensorboard") from None
        sinks.append(TensorBoardSink(folder / Path(asked.tensorboard).expanduser()))
    return sinks


def _not_installed(error: ImportError, key: str) -> ConfigError:
    return ConfigError(f"{error.name or 'a package'} is not installed: pip install 'batch-frontier[tracking]'", key)


def _why(error: Exception) -> str:
    """Return the innermost cause, in one line without credentials."""
    cause: BaseException = error
    while (below := cause.__cause__ or cause.__context__) is not None:
        cause = below
    first = next(iter(str(cause).splitlines()), "")
    return masked(first)[:200] or type(cause).__name__
