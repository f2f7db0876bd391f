"""`study watch` and `study run --live` as a user meets them."""

from __future__ import annotations

import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.ledger.paths import StudyPaths
from study.ledger.schema import StudyRow
from study.ledger.store import encode
from tests.conftest import TINY
from tests.test_cli import live_url, start_study, study

Started = subprocess.Popen[str]


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A folder with a study in it, `s`, that has only just begun."""
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(TINY))
    row = StudyRow(
        at_s=0.0,
        written="2026-01-02T03:04:05.000+00:00",
        study_id="a",
        config=TINY,
        config_hash="b",
        hardware={},
        versions={},
    )
    StudyPaths(folder).ledger.write_bytes(encode(row))
    return tmp_path


@pytest.fixture
def start() -> Iterator[Callable[..., Started]]:
    """Starts the command; ends what is left of it."""
    started: list[Started] = []

    def start(folder: Path, *arguments: str) -> Started:
        process = start_study(folder, *arguments)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_watch_serves_until_ctrl_c_and_ends_cleanly(begun: Path, start: Callable[..., Started]) -> None:
    process = start(begun, "watch", "s")
    with urllib.request.urlopen(live_url(process)) as answer:
        assert "Nothing is confirmed yet" in answer.read().decode()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, "")
    paths = StudyPaths(begun / "s")
    assert sorted(paths.folder.iterdir()) == [paths.config, paths.ledger]  # it wrote nothing


def test_watch_needs_a_study_and_a_port_that_is_free(begun: Path, start: Callable[..., Started]) -> None:
    assert "study: .: no study here" in study(begun, "watch", ".").stderr
    port = live_url(start(begun, "watch", "s")).split(":")[2].strip("/")
    second = study(begun, "watch", "s", "--port", port)
    assert (second.returncode, f"study: --port {port}: " in second.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.browser
def test_a_browser_watches_a_whole_quickstart(browser: Any, tmp_path: Path, start: Callable[..., Started]) -> None:
    process = start(tmp_path, "run", "quickstart", "--out", "s", "--live")
    url = live_url(process)
    page = browser.new_page()
    complaints: list[str] = []
    asked: set[str] = set()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.add(request.url))
    page.goto(url)
    page.get_by_text("Nothing has begun yet").wait_for()
    page.get_by_text("Nothing is confirmed yet").wait_for(timeout=120_000)
    page.get_by_text("is the cheapest on the frontier").wait_for(timeout=240_000)
    page.get_by_text("no longer served").wait_for(timeout=120_000)
    assert not page.get_by_text("Not finished").is_visible()
    assert page.locator(".plot .main-svg").count()
    assert complaints == []
    assert {place for place in asked if not place.startswith(("data:", "blob:"))} == {url, f"{url}events"}
    page.close()
    assert process.wait(timeout=60) == 0
