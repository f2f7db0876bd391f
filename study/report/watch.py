"""The page of a study while it runs, served to this machine alone, to be read and nothing else."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from study.analysis.records import Summary
from study.analysis.summary import summarize
from study.ledger.store import LEDGER, read
from study.plan.errors import PlanError
from study.plan.trials import Plan
from study.report.page import render_body, render_live

_LOOK_S = 0.5  # between looks at the ledger
_SHARE = 0.1  # of one core, at most, for drawing: the trials that are timed need the others
_CLIENT_S = 5.0  # after which a browser that takes nothing is given up
_NAMES = ("127.0.0.1", "localhost")  # a page of another origin would come under its own name


class LivePage:
    """Serves a study's page on 127.0.0.1 until it is closed; port 0 takes a free one.

    Raises PlanError if the port cannot be had.
    """

    def __init__(self, folder: Path, plan: Plan, port: int = 0) -> None:
        self._folder, self._plan = folder, plan
        self._lock = threading.Lock()
        self._body = ""
        self._version = -1  # bytes of the ledger that the body shows
        self._not_before = 0.0
        self._over = False
        self._closing = threading.Event()
        self._streams: set[threading.Thread] = set()
        try:
            self._server = _Server(("127.0.0.1", port), partial(_Handler, self))
        except OSError as error:
            raise PlanError(f"--port {port}: {error.strerror}") from None
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_LOOK_S,), name="live-page")

    def __enter__(self) -> LivePage:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send the last state to whoever looks, then stop serving."""
        self._closing.set()
        for stream in tuple(self._streams):
            stream.join(2 * _CLIENT_S)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait_until_over(self) -> None:
        """Return when every planned trial is over, or what a limit has left of the study is; at once if it is."""
        while True:
            self.latest()
            if self._over:
                return
            self._closing.wait(_LOOK_S)

    def latest(self, at_once: bool = False) -> tuple[int, str]:
        """The page's content as HTML, and the length of the ledger in bytes that it shows.

        Drawn anew if the ledger has grown, though not more often than its share of a core allows, unless `at_once`.
        """
        with self._lock:
            path = self._folder / LEDGER
            length = path.stat().st_size if path.exists() else 0
            if length != self._version and (at_once or time.monotonic() >= self._not_before):
                began = time.monotonic()
                self._draw()
                self._version = length
                ended = time.monotonic()
                self._not_before = ended + (ended - began) * (1 / _SHARE - 1)
            return self._version, self._body

    def _draw(self) -> None:
        rows = read(self._folder).rows if (self._folder / LEDGER).exists() else ()
        summary = summarize(rows, self._plan) if rows else None
        self._body = render_body(summary)
        self._over = summary is not None and _finished(summary)

    def shell(self) -> str:
        """The whole page as it is now; it keeps itself up to date from `events`."""
        return render_live(self._plan.config.name, self.latest()[1])

    def stream(self, send: Any) -> None:
        """Send the content each time it changes, until the page is closed: then its last state."""
        self._streams.add(threading.current_thread())
        try:
            sent = None
            while True:
                closing = self._closing.wait(0 if sent is None else _LOOK_S)
                version, body = self.latest(at_once=closing)
                send(_event("page", json.dumps(body)) if version != sent else b":\n\n")  # a comment: is anyone there?
                sent = version
                if closing:
                    send(_event("over", ""))
                    return
        finally:
            self._streams.discard(threading.current_thread())


def _finished(summary: Summary) -> bool:
    if summary.cut is not None:
        return not summary.cut.running
    return sum(trial.outcome is not None for trial in summary.trials) >= summary.planned_trials


def _event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a connection that a browser opened ahead must not hold up the end


class _Handler(BaseHTTPRequestHandler):
    """Answers two paths, neither of which is a file's."""

    server_version, sys_version = "study", ""
    timeout = _CLIENT_S

    def __init__(self, page: LivePage, *args: Any) -> None:
        self._page = page
        super().__init__(*args)

    def do_GET(self) -> None:
        if not self._own_name():
            self.send_error(HTTPStatus.FORBIDDEN, "Only for this machine")
        elif self.path == "/":
            self._begin("text/html; charset=utf-8")
            if self.command == "GET":
                self.wfile.write(self._page.shell().encode())
        elif self.path == "/events":
            self._begin("text/event-stream; charset=utf-8")
            if self.command == "GET":
                self._stream()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self.send_response(HTTPStatus.METHOD_NOT_ALLOWED)
        self.send_header("Allow", "GET, HEAD")
        self.end_headers()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse

    def _stream(self) -> None:
        with suppress(OSError):  # the browser went away
            self._page.stream(self.wfile.write)

    def _own_name(self) -> bool:
        """Whether the page was asked for by this machine's own name, which no foreign site can take on."""
        try:
            return urlsplit(f"//{self.headers.get('Host', '')}").hostname in _NAMES
        except ValueError:
            return False

    def _begin(self, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """The terminal belongs to the study's progress."""
