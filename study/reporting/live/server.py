"""The live page over HTTP, read-only: open to this machine, with a token to others."""

from __future__ import annotations

import errno
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from study.errors import ConfigError

LOOPBACK = "127.0.0.1"
CLIENT_S = 5.0  # after which a browser that takes nothing is given up
_TOKEN_BYTES = 32
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",  # the rest of the policy stands in the page itself
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Page(Protocol):
    """The page that a LiveServer serves."""

    def shell(self) -> str:
        """The whole document."""

    def stream(self, send: Callable[[bytes], Any]) -> None:
        """Send events until there are no more."""


class LiveServer(ThreadingHTTPServer):
    """Listens at one address. Where that is not a loopback address, a browser needs the token in `url`."""

    daemon_threads = True  # a connection that a browser opened ahead must not hold up the end

    def __init__(self, page: Page, host: str, port: int) -> None:
        """Port 0 takes a free one. Raises ConfigError if host or port cannot be had."""
        try:
            self.address_family, *_, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            super().__init__((str(address[0]), int(address[1])), partial(_Handler, page))
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            if (
                not isinstance(error, OSError)
                or isinstance(error, socket.gaierror)
                or error.errno == errno.EADDRNOTAVAIL
            ):
                raise ConfigError(f"{host}: {why}", "--host") from None
            raise ConfigError(f"--port {port}: {why}") from None
        bound = ipaddress.ip_address(str(self.server_address[0]).partition("%")[0])
        self.token = None if bound.is_loopback else secrets.token_urlsafe(_TOKEN_BYTES)
        name = socket.gethostname() if bound.is_unspecified else host
        self.url = f"http://{f'[{name}]' if ':' in name else name}:{self.server_port}/"
        if self.token is not None:
            self.url += f"?token={self.token}"

    @property
    def cookie(self) -> str:
        """The cookie's name. It holds the port, because browsers share cookies between the ports of a host."""
        return f"study-{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    """Answers `/` and `/events`; no path leads to a file."""

    server: LiveServer
    server_version, sys_version = "study", ""
    timeout = CLIENT_S

    def __init__(self, page: Page, *args: Any) -> None:
        self._page = page
        super().__init__(*args)

    def do_GET(self) -> None:
        if self.server.token is None:
            if not self._own_name():
                self.send_error(HTTPStatus.FORBIDDEN, "Only for this machine")
                return
        elif self._brings_token():
            self._take_in()
            return
        elif not self._is_known():
            self.send_error(HTTPStatus.UNAUTHORIZED, "Open the address that the terminal shows, with its token")
            return
        if self.path == "/":
            self._begin("text/html; charset=utf-8")
            if self.command == "GET":
                self.wfile.write(self._page.shell().encode())
        elif self.path == "/events":
            self._begin("text/event-stream; charset=utf-8")
            if self.command == "GET":
                with suppress(OSError):  # the browser went away
                    self._page.stream(self.wfile.write)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self.send_response(HTTPStatus.METHOD_NOT_ALLOWED)
        self.send_header("Allow", "GET, HEAD")
        self.end_headers()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse

    def _own_name(self) -> bool:
        """Return whether the request names this machine by a loopback name, which no other site can have."""
        try:
            name = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
            return name == "localhost" or ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    def _brings_token(self) -> bool:
        with suppress(ValueError):
            url = urlsplit(self.path)
            return url.path == "/" and self._is_token(parse_qs(url.query).get("token", [""])[0])
        return False

    def _is_known(self) -> bool:
        cookies = SimpleCookie()
        with suppress(CookieError):
            cookies.load(self.headers.get("Cookie", ""))
        held = cookies.get(self.server.cookie)
        return held is not None and self._is_token(held.value)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(errors="replace"), str(self.server.token).encode())

    def _take_in(self) -> None:
        """Set the token as a cookie and redirect, so that the address bar and the history do not show it."""
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Set-Cookie", f"{self.server.cookie}={self.server.token}; Path=/; HttpOnly; SameSite=Strict")
        self.send_header("Location", "/")
        self.end_headers()

    def _begin(self, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def end_headers(self) -> None:
        """Add the security headers to every answer, refusals too."""
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the terminal shows the study's progress, and a request may hold the token."""
