"""The live page: up to date, read-only, for this machine alone, and gone when it should be."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from summaries import attempt_row, end_row, lease_row, report_row, study_row

from study.config.schema import StudyConfig
from study.errors import ConfigError
from study.ledger.paths import StudyPaths
from study.ledger.schema import AnyRow
from study.ledger.store import encode
from study.planning.trials import Plan, make_plan
from study.reporting.live.page import LivePage

ATTACK = "<script>alert(1)</script>"


@pytest.fixture
def plan(config: Callable[..., StudyConfig]) -> Plan:
    """Two batch sizes, two rates, one confirm seed: six trials, under a hostile name."""
    return make_plan(config(name=ATTACK, confirm={"seeds": 1}))


def append(folder: Path, *rows: AnyRow) -> None:
    with StudyPaths(folder).ledger.open("ab") as file:
        file.write(b"".join(map(encode, rows)))


def a_trial(trial_id: str, at_s: float, accuracy: float) -> list[AnyRow]:
    done = {"final": accuracy, "best": accuracy}
    return [
        attempt_row(trial_id, at_s),
        report_row(trial_id, 3.0, accuracy, at_s=at_s + 9),
        end_row(trial_id, at_s + 10, "completed").model_copy(update=done),
        lease_row(trial_id, at_s + 10, 10.0),
    ]


CONFIRMED = ("confirm-b16-w1-s1", "confirm-b64-w1-s1")
SEARCHED = ("search-b16-w1-r0", "search-b16-w1-r1", "search-b64-w1-r0", "search-b64-w1-r1")


@pytest.fixture
def live(tmp_path: Path, plan: Plan) -> Iterator[LivePage]:
    """Served while the study has not begun."""
    with LivePage(tmp_path, plan) as page:
        yield page


def connected(page: LivePage) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", urlsplit(page.url).port, timeout=30)


def asked(page: LivePage, method: str = "GET", path: str = "/", **headers: str) -> tuple[int, str]:
    connection = connected(page)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


class Events:
    """Reads a page's stream of events, one by one."""

    def __init__(self, page: LivePage) -> None:
        connection = connected(page)
        connection.request("GET", "/events")
        self._answer = connection.getresponse()
        assert self._answer.getheader("Content-Type", "").startswith("text/event-stream")

    def next(self) -> tuple[str, str]:
        name = ""
        for line in self._answer:
            word, _, value = line.decode().rstrip("\n").partition(": ")
            if word == "event":
                name = value
            elif word in ("data", "data:"):
                return name, value
        raise AssertionError("the stream ended without an event")


def test_the_page_says_that_nothing_has_begun_then_follows_the_ledger(live: LivePage, tmp_path: Path) -> None:
    assert "Nothing has begun yet" in asked(live)[1]
    events = Events(live)
    assert "Nothing has begun yet" in json.loads(events.next()[1])
    append(tmp_path, study_row(), *a_trial(SEARCHED[0], 0, 0.8))
    name, data = events.next()
    assert name == "page"
    assert "1 of 6 planned trials" in json.loads(data)
    append(tmp_path, *a_trial(CONFIRMED[0], 10, 0.9))
    assert "batch 16 on 1 rank is confirmed" in json.loads(events.next()[1])
    assert "batch 16 on 1 rank is confirmed" in asked(live)[1]


def test_a_half_written_row_is_waited_for(live: LivePage, tmp_path: Path) -> None:
    append(tmp_path, study_row(), *a_trial(SEARCHED[0], 0, 0.8))
    with StudyPaths(tmp_path).ledger.open("ab") as file:
        file.write(encode(end_row(SEARCHED[1], 20, "failed"))[:30])
    assert "1 of 6 planned trials" in asked(live)[1]


def test_a_hostile_name_is_text(live: LivePage) -> None:
    text = asked(live)[1]
    assert ATTACK not in text
    assert "alert(1)" in text


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_only_reading_is_allowed(live: LivePage, method: str) -> None:
    assert asked(live, method)[0] == 405
    assert asked(live, "HEAD") == (200, "")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "[", ""])
def test_another_sites_name_is_refused(live: LivePage, host: str) -> None:
    for path in ("/", "/events"):
        assert asked(live, path=path, Host=host)[0] == 403
    assert asked(live, Host="localhost:9000")[0] == 200  # through a tunnel


@pytest.mark.parametrize(
    "path", ["/ledger.jsonl", "/../ledger.jsonl", "/%2e%2e/config.yaml", "//etc/passwd", "/events/..", "/?a=/", "*"]
)
def test_no_file_is_served(live: LivePage, tmp_path: Path, path: str) -> None:
    append(tmp_path, study_row())
    assert asked(live, path=path)[0] == 404


def test_it_listens_on_this_machine_alone(live: LivePage) -> None:
    port = urlsplit(live.url).port
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", port or 0))  # would be in use, did it listen on every address


def test_a_port_in_use_is_a_plan_error(live: LivePage, tmp_path: Path, plan: Plan) -> None:
    port = urlsplit(live.url).port
    with pytest.raises(ConfigError, match=f"--port {port}: "):
        LivePage(tmp_path, plan, port or 0)


def test_the_end_sends_the_last_state_and_leaves_no_thread(tmp_path: Path, plan: Plan) -> None:
    before = set(threading.enumerate())
    with LivePage(tmp_path, plan) as page:
        events = Events(page)
        events.next()
        append(tmp_path, study_row(), *a_trial(CONFIRMED[0], 0, 0.9))
    told = [events.next()]
    while told[-1][0] == "page":
        told.append(events.next())
    assert "batch 16 on 1 rank is confirmed" in json.loads(told[-2][1])
    assert told[-1][0] == "over"
    assert set(threading.enumerate()) == before
    with pytest.raises(ConnectionRefusedError):
        asked(page)


def test_a_browser_that_goes_away_is_no_trouble(live: LivePage, tmp_path: Path) -> None:
    events = Events(live)
    events.next()
    events._answer.close()
    append(tmp_path, study_row(), *a_trial(CONFIRMED[0], 0, 0.9))
    assert asked(live)[0] == 200


def test_waiting_ends_with_the_last_planned_trial(live: LivePage, tmp_path: Path) -> None:
    append(tmp_path, study_row())
    waiting = threading.Thread(target=live.wait_until_finished, args=(threading.Event(),))
    waiting.start()
    for i, trial_id in enumerate((*SEARCHED, *CONFIRMED)):
        assert waiting.is_alive()
        append(tmp_path, *a_trial(trial_id, 10.0 * i, 0.9))
    waiting.join(timeout=60)
    assert not waiting.is_alive()


@pytest.mark.slow
@pytest.mark.browser
def test_a_browser_shows_the_news_and_keeps_what_the_reader_chose(browser: Any, tmp_path: Path, plan: Plan) -> None:
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    with LivePage(tmp_path, plan) as live:
        page.goto(live.url)
        page.get_by_text("Nothing has begun yet").wait_for()
        append(tmp_path, study_row(), *a_trial(CONFIRMED[0], 0, 0.9))
        page.get_by_text("Only batch 16 on 1 rank is confirmed").wait_for()
        page.locator("label").get_by_text("updates", exact=True).click()
        page.locator("summary").get_by_text("Config").click()
        page.locator("#axis-updates").focus()
        append(tmp_path, *a_trial(CONFIRMED[1], 10, 0.95))
        page.get_by_text("is both the cheapest and the most accurate").wait_for()
        assert page.locator("#axis-updates").is_checked()
        assert page.evaluate("document.activeElement.id") == "axis-updates"
        assert page.locator("details").last.get_attribute("open") is not None
        assert page.locator("[data-of-axis=updates]").is_visible()
        page.locator("#frontier .main-svg").first.wait_for()
    page.get_by_text("no longer served").wait_for()
    assert page.get_by_text("is both the cheapest and the most accurate").is_visible()
    page.close()
    assert complaints == []
