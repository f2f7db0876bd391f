"""The page is whole, opens offline, and shows what users wrote as text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from handmade import point, summary, trial
from plotly.offline import get_plotlyjs

from study.analysis.records import Summary
from study.report.page import render_page

ATTACK = "<script>alert(1)</script>"
FETCHING = ("src", "href", "srcset", "data", "action", "poster", "background")


class Page(HTMLParser):
    """Tags with their attributes, visible text, and scripts apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = tag
            self.scripts += [""] if tag == "script" else []

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.text += data


def full(**changes: object) -> Summary:
    """A study with everything in it."""
    trials = [
        trial(16, [0.5, 0.9]),
        trial(64, [0.4], "stopped", seed_index=1),
        trial(64, [0.5, 0.8], phase="confirm", seed_index=1),
    ]
    return summary([point(16, 0.5, 0.95), point(64, 0.2, 0.9), point(128, 0.6, 0.7)], trials, **changes)


@pytest.fixture(scope="module")
def attacked() -> str:
    facts = {
        "config": {"name": ATTACK, "workload": {"module": ATTACK}},
        "hardware": {ATTACK: ATTACK},
        "versions": {"ray": ATTACK},
        "devices": (ATTACK,),
        "study_id": ATTACK,
    }
    return render_page(full(name=ATTACK, notes=(ATTACK,), facts=facts))


def test_what_a_user_wrote_is_text_everywhere(attacked: str) -> None:
    assert ATTACK not in attacked
    assert "alert(1)" in Page(attacked).text
    assert not any("alert(1)" in script for script in Page(attacked).scripts)


def test_a_name_inside_a_figure_cannot_close_its_script() -> None:
    from study.report.figures import frontier_figure
    from study.report.html import section

    figure = frontier_figure(full())
    figure.data[0].name = "</script>" + ATTACK
    page = Page(str(section("", "", "x", figure).figure))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "alert(1)" in page.scripts[0]


def test_plotly_is_inside_exactly_once() -> None:
    text = render_page(full())
    assert text.count(get_plotlyjs()) == 1
    assert sum(len(script) > 1_000_000 for script in Page(text).scripts) == 1


def test_nothing_is_fetched(attacked: str) -> None:
    page = Page(attacked)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base")
        assert not set(FETCHING) & set(attributes), (tag, attributes)
    styles = re.findall(r"<style>(.*?)</style>", attacked, flags=re.DOTALL)
    assert all("url(" not in style and "@import" not in style for style in styles)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_the_verdict_comes_first_then_warnings_then_the_frontier() -> None:
    text = Page(render_page(full(notes=("Only two seeds.",)))).text
    places = [
        text.index(part)
        for part in ("is the cheapest", "Only two seeds.", "Cost against accuracy", "All points", "Provenance")
    ]
    assert places == sorted(places)


def test_every_point_is_in_the_table_and_the_frontier_is_marked() -> None:
    text = render_page(full())
    rows = re.findall(r"<tr( class=\"marked\")?><td>(\d+)</td><td>2</td>", text)
    assert [(batch, bool(mark)) for mark, batch in rows] == [("16", True), ("64", True), ("128", False)]


def test_figures_that_have_nothing_to_show_are_left_out() -> None:
    text = Page(render_page(summary())).text
    assert "Nothing is confirmed yet" in text
    assert "Cost against accuracy" not in text
    assert "Search: which learning rate" not in text
    assert "Provenance" in text


def test_the_config_is_there_without_its_empty_keys() -> None:
    text = Page(render_page(full())).text
    assert "batch_sizes:\n- 32\n- 64" in text
    assert "usd_per_device_hour" not in text


def test_a_figure_of_diverged_trials_is_still_strict_json() -> None:
    text = render_page(summary(trials=[trial(16, [float("nan")], "diverged")]))
    drawn = [script for script in Page(text).scripts if "Plotly.newPlot" in script and len(script) < 1_000_000]
    assert drawn
    assert not any(re.search(r"\bNaN\b", script) for script in drawn)
