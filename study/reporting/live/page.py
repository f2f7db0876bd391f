"""The page of a study while it runs: kept up to date from its ledger."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from study.analysis.records import Summary
from study.analysis.summary.summarize import summarize
from study.ledger.paths import StudyPaths
from study.ledger.store import LedgerScan
from study.planning.trials import Plan
from study.reporting.html.report_page import render_body, render_live
from study.reporting.live.server import CLIENT_S, LOOPBACK, LiveServer

_POLL_S = 0.5  # between two looks at the length of the ledger
_SHARE = 0.1  # of one core, at most, for drawing: the trials that are timed need the others


class LivePage:
    """Serves a study's page until it is closed; port 0 takes a free one.

    Raises ConfigError if host or port cannot be had.
    """

    def __init__(self, folder: Path, plan: Plan, port: int = 0, host: str = LOOPBACK) -> None:
        self._folder, self._plan = folder, plan
        self._lock = threading.Lock()
        self._body = ""
        self._version = -1  # bytes of the ledger that the body shows
        self._not_before = 0.0
        self._finished = False
        self._closing = threading.Event()
        self._streams: set[threading.Thread] = set()
        self._server = LiveServer(self, host, port)
        self.url = self._server.url
        self.asks_for_token = self._server.token is not None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_S,), name="live-page")

    def __enter__(self) -> LivePage:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send the last state to every browser, then stop serving."""
        self._closing.set()
        for stream in tuple(self._streams):
            stream.join(2 * CLIENT_S)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait_until_finished(self, stopped: threading.Event) -> bool:
        """Return True when every planned trial has ended, or all that a limit or a mistake has left of the study; False
        once `stopped` is set before that.
        """
        while True:
            self.latest()
            if self._finished or stopped.wait(_POLL_S):
                return self._finished

    def latest(self, at_once: bool = False) -> tuple[int, str]:
        """The page's content as HTML, and the length of the ledger in bytes that it shows.

        It is drawn again if the ledger has grown, at most as often as _SHARE of a core allows, unless `at_once`.
        """
        with self._lock:
            path = StudyPaths(self._folder).ledger
            length = path.stat().st_size if path.exists() else 0
            if length != self._version and (at_once or time.monotonic() >= self._not_before):
                began = time.monotonic()
                self._draw()
                self._version = length
                ended = time.monotonic()
                self._not_before = ended + (ended - began) * (1 / _SHARE - 1)
            return self._version, self._body

    def _draw(self) -> None:
        scan = LedgerScan(StudyPaths(self._folder).ledger)
        rows = tuple(scan) if scan.path.exists() else ()
        summary = summarize(rows, self._plan) if rows else None
        if summary is not None and scan.note is not None:
            summary = replace(summary, notes=(scan.note, *summary.notes))
        self._body = render_body(summary)
        self._finished = summary is not None and _finished(summary)

    def shell(self) -> str:
        """Return the whole page as it is now; a script in it follows the events of `stream`."""
        return render_live(self._plan.config.name, self.latest()[1])

    def stream(self, send: Callable[[bytes], Any]) -> None:
        """Send the content each time it changes, until the page is closed: then its last state."""
        self._streams.add(threading.current_thread())
        try:
            sent = None
            while True:
                closing = self._closing.wait(0 if sent is None else _POLL_S)
                version, body = self.latest(at_once=closing)
                send(_event("page", json.dumps(body)) if version != sent else b":\n\n")  # a comment: is anyone there?
                sent = version
                if closing:
                    send(_event("over", ""))
                    return
        finally:
            self._streams.discard(threading.current_thread())


def _finished(summary: Summary) -> bool:
    if summary.mistaken is not None:
        return True
    if summary.cut is not None:
        return not summary.cut.running
    return sum(trial.outcome is not None for trial in summary.trials) >= summary.planned_trials


def _event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()
