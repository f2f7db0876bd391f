"""The page in a real browser: it loads nothing, and its controls work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from summaries import point, report_row, summary, trial

from study.analysis.records import Cost
from study.config.objective import Objective
from study.reporting.html.report_page import render_page

ATTACK = "<script>alert(1)</script>"
LOSS = Objective.model_validate("loss")
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study under a hostile name, whose frontiers over device time and over wall-clock differ."""
    points = [
        point(16, 2.0, 0.97, cost=Cost(2.0, 0.0, None, 1.0, None, 1600.0, 100.0)),
        point(64, 1.0, 0.95, cost=Cost(1.0, 0.0, None, 3.0, None, 6400.0, 100.0)),
        point(256, 0.5, 0.90, cost=Cost(0.5, 0.0, None, 0.5, None, 25600.0, 100.0)),
    ]
    trials = [
        trial(16, [0.5, 0.9]),
        trial(64, [0.4, 0.93], "failed", seed_index=1, error=ATTACK),
        trial(256, [0.5, 0.8], phase="confirm", seed_index=1),
    ]
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(summary(points, trials, name=ATTACK, facts={"config": {"name": ATTACK}})))
    return path


@pytest.fixture(scope="module")
def unchanged(browser: Any, report: Path) -> Iterator[Any]:
    """The page for tests that press nothing on it."""
    with opened(browser, report) as page:
        yield page


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The page, drawn, of a desktop's size; whatever it asked for or complained of fails the test."""
    with opened(browser, report) as page:
        yield page


class opened:
    """A page of a file, drawn, that may ask for nothing else and complain of nothing."""

    def __init__(self, browser: Any, path: Path, width: int = 1280, **options: Any) -> None:
        self.page = browser.new_context(viewport={"width": width, "height": 900}, **options).new_page()
        self.url = path.as_uri()
        self.asked: list[str] = []
        self.complaints: list[str] = []

    def __enter__(self) -> Any:
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.goto(self.url)
        self.page.wait_for_selector("html[data-drawn]")
        return self.page

    def __exit__(self, *_: object) -> None:
        # What Plotly draws into its own pictures is data, which no server is asked for.
        asked = [url for url in self.asked if not url.startswith(("data:", "blob:"))]
        self.page.context.close()
        assert self.complaints == []
        assert set(asked) == {self.url}


def axis_title(page: Any) -> str:
    return page.evaluate("document.querySelector('#frontier .plot').layout.xaxis.title.text")


def axis_type(page: Any) -> str:
    return page.evaluate("document.querySelector('#frontier .plot').layout.xaxis.type")


def redrawn(page: Any, act: Callable[[], object]) -> None:
    """Do something that redraws the frontier, and wait for that."""
    times = int(page.locator("html").get_attribute("data-drawn"))
    act()
    page.wait_for_selector(f"html[data-drawn='{times + 1}']")


def choose(page: Any, label: str) -> None:
    redrawn(page, lambda: page.locator("label").get_by_text(label, exact=True).click())


def test_all_figures_are_drawn_and_nothing_is_asked_for(unchanged: Any) -> None:
    page = unchanged
    assert page.evaluate("[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('.main-svg'))")
    assert page.locator(".plot").count() == 6


def test_a_hostile_name_is_text(unchanged: Any) -> None:
    page = unchanged
    assert page.locator("h1").inner_text() == ATTACK
    assert page.title().startswith(ATTACK)


def test_the_cost_axis_switches_figure_and_table(page: Any) -> None:
    assert "device-hours" in axis_title(page)
    assert page.locator("[data-of-axis=billed_device_h]").is_visible()
    choose(page, "wall-clock time")
    assert "wall-clock" in axis_title(page)
    assert page.locator("[data-of-axis=wall_h]").is_visible()
    assert not page.locator("[data-of-axis=billed_device_h]").is_visible()
    names = page.evaluate("document.querySelector('#frontier .plot').data.map((trace) => trace.name)")
    assert "2 ranks, dominated" in names  # batch 64 takes longer


def test_a_study_of_a_loss_says_that_lower_is_better(browser: Any, tmp_path: Path) -> None:
    points = [point(batch, hours, -loss) for batch, hours, loss in ((16, 2.0, 1.9), (64, 1.0, 2.1), (256, 1.5, 2.4))]
    trials = [replace(trial(64, [-3.0, -2.2], "stopped"), curve=losses("search-b64", 3.0, 2.2))]
    study = summary(points, trials, objective=LOSS)
    path = tmp_path / "loss.html"
    path.write_text(render_page(study))
    with opened(browser, path) as page:
        read = "document.querySelector('#frontier .plot').layout.yaxis.title.text"
        assert page.evaluate(read) == "final validation loss (nats, lower is better)"
        caption = page.locator("#frontier .caption").inner_text()
        assert caption.startswith("Left and down is better.")
        headline = page.locator(".headline").inner_text()
        assert "Batch 64 on 2 ranks is the cheapest on the frontier: validation loss 2.1 nats" in headline
        assert "batch 16 on 2 ranks is the best: 1.9 nats" in headline
        assert "accura" not in page.locator("body").inner_text()


def losses(trial_id: str, *values: float) -> Any:
    return tuple(report_row(trial_id, i + 1.0, 0.5, val_loss=value) for i, value in enumerate(values))


def test_log_and_linear(page: Any) -> None:
    assert axis_type(page) == "log"
    choose(page, "linear")
    assert axis_type(page) == "linear"
    assert page.evaluate("document.querySelector('#frontier .plot').layout.xaxis.range[0]") == 0
    choose(page, "samples")
    assert (axis_title(page), axis_type(page)) == ("samples per trial", "linear")
    choose(page, "log")
    assert axis_type(page) == "log"


def test_hovering_a_point_shows_everything(unchanged: Any) -> None:
    page = unchanged
    place = page.evaluate(
        """() => {
          const plot = document.querySelector("#frontier .plot");
          plot.scrollIntoView({block: "center"});
          const trace = plot._fullData.find((one) => /on the frontier/.test(one.name));
          const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
          return [box.x + xaxis._offset + xaxis.d2p(trace.x[0]), box.y + yaxis._offset + yaxis.d2p(trace.y[0])];
        }"""
    )
    page.mouse.move(*place)
    hover = page.locator("#frontier .hoverlayer .hovertext")
    hover.wait_for()
    text = hover.text_content()
    for part in (
        "Batch 16 on 2 ranks",
        "probability 90%",
        "97.00 ± 1.00%",
        "2 device-hours [1.8, 2.2]",
        "1,600 samples",
    ):
        assert part in text, part


def background(page: Any) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_dark_follows_the_system_and_the_button_wins(browser: Any, report: Path, page: Any) -> None:
    white, dark = "rgb(255, 255, 255)", "rgb(20, 23, 28)"
    button = page.get_by_role("button", name="Dark")
    assert (background(page), button.get_attribute("aria-pressed")) == (white, "false")
    button.click()
    assert (background(page), button.get_attribute("aria-pressed")) == (dark, "true")
    page.reload()
    assert background(page) == dark  # it is remembered
    with opened(browser, report, color_scheme="dark") as other:
        assert background(other) == dark
        other.get_by_role("button", name="Dark").click()
        assert background(other) == white


def test_the_keyboard_reaches_every_control(page: Any) -> None:
    def focused() -> str:
        return page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")

    reached = []
    for _ in range(40):  # the figure has buttons of its own
        page.keyboard.press("Tab")
        reached.append(focused())
    assert [one for one in reached if one][:4] == ["Skip to the content", "theme", "axis-billed_device_h", "scale-log"]
    page.locator("#axis-billed_device_h").focus()
    redrawn(page, lambda: page.keyboard.press("ArrowRight"))
    assert focused() == "axis-wall_h"
    assert "wall-clock" in axis_title(page)
    outline = "getComputedStyle(document.activeElement.closest('label')).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.locator("#theme").focus()
    page.keyboard.press("Space")
    assert background(page) == "rgb(20, 23, 28)"


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_at_any_width(browser: Any, report: Path, width: int) -> None:
    with opened(browser, report, width) as page:
        edges = page.evaluate(
            "[...document.querySelectorAll('.plot .main-svg')].map((svg) => svg.getBoundingClientRect().right)"
        )
        assert max(edges) <= width
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_on_paper_figures_fit_and_controls_are_gone(page: Any) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    assert background(page) == "rgb(255, 255, 255)"
    assert not page.get_by_role("button", name="Dark").is_visible()
    assert not page.locator(".controls").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_a_page_without_javascript_still_reads(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert "is the cheapest on the frontier" in page.locator(".headline").inner_text()
    assert page.locator("noscript").inner_text()
    context.close()
