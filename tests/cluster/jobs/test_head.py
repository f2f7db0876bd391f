"""What a head may answer, and the one line that comes of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from study.cluster.jobs.head import Head, head_address
from study.errors import ClusterError, ConfigError

Answer = Callable[[str], tuple[int, str]]


@pytest.fixture
def serving() -> Iterator[Callable[[Answer], str]]:
    """Serves what a function makes of each path; the address."""
    servers = []

    def serve(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, text = answer(self.path)
                self.send_response(code)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *arguments: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.setenv(name, "")  # so that what is set meanwhile is taken back


VERSION = json.dumps({"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "s"})


@pytest.mark.parametrize(
    ("code", "text", "says"),
    [
        (401, "Unauthorized: Missing authentication token", "wants a token, and got none: set RAY_AUTH_MODE=token"),
        (403, "Forbidden: Invalid authentication token", "refuses this token"),
        (200, "<html>a router's page</html>", "what answers there is no Ray head"),
        (200, "{}", "what answers there is no Ray head"),
        (404, "no", "404"),
        (500, "broken", "what answers there is no Ray head"),
    ],
)
def test_a_refusal_is_one_line(serving: Callable[[Answer], str], code: int, text: str, says: str) -> None:
    address = serving(lambda path: (code, text))
    with pytest.raises(ClusterError, match=says) as raised:
        Head(address)
    assert str(raised.value).startswith(f"--address: {address}: ")
    assert "\n" not in str(raised.value)


def test_a_token_that_no_header_can_carry_is_not_shown(
    serving: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ray.dashboard.modules.dashboard_sdk.get_auth_headers_if_auth_enabled",
        lambda headers: {"Authorization": "Bearer s3cret\nmore"},
    )
    with pytest.raises(ClusterError, match="characters that no token has") as raised:
        Head(serving(lambda path: (200, VERSION)))
    assert "s3cret" not in str(raised.value)


def test_the_address_given_wins_over_the_environment(
    serving: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = serving(lambda path: (200, VERSION if path == "/api/version" else "[]"))
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    assert Head(head_address(address)).jobs() == []


def test_a_file_that_is_not_there_is_one_line(serving: Callable[[Answer], str]) -> None:
    head = Head(serving(lambda path: (200, VERSION) if "version" in path else (500, "A file is not found at: x\nmore")))
    with pytest.raises(ClusterError, match=r"A file is not found at: x$"):
        list(head.chunks("node", "studies/x/ledger.jsonl"))


@pytest.mark.parametrize(
    ("given", "environment", "means"),
    [
        ("http://head:8265/", {}, "http://head:8265"),
        (None, {"RAY_API_SERVER_ADDRESS": "https://head"}, "https://head"),
        (None, {"RAY_ADDRESS": "http://head:8265"}, "http://head:8265"),
        (None, {"RAY_ADDRESS": "head:6379"}, None),
        ("head:8265", {}, None),
        ("http://", {}, None),
        (None, {}, None),
    ],
)
def test_the_head_is_named_over_http(
    given: str | None, environment: dict[str, str], means: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if means is None:
        with pytest.raises(ConfigError, match="http://head:8265"):
            head_address(given)
    else:
        assert head_address(given) == means
