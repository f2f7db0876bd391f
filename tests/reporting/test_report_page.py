"""The page is whole, opens offline, and shows what users wrote as text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from plotly.offline import get_plotlyjs
from summaries import point, summary, trial

from study.analysis.claims.records import ClaimVerdict, Finding, Statement
from study.analysis.records import Summary
from study.reporting.html.report_page import render_body, render_page

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
    from study.reporting.figures.registry import frontier_figure
    from study.reporting.html.document import section

    figure = frontier_figure(full())
    figure.data[0].name = "</script>" + ATTACK
    drawing = str(section("", "", "x", {"": figure}).drawings[""])
    assert "<" not in drawing
    assert json.loads(drawing)["data"][0]["name"] == "</script>" + ATTACK


def test_plotly_is_inside_exactly_once() -> None:
    text = render_page(full())
    assert text.count(get_plotlyjs()) == 1
    assert sum(len(script) > 1_000_000 for script in Page(text).scripts) == 1


def test_nothing_is_fetched(attacked: str) -> None:
    page = Page(attacked)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base")
        places = [value for name, value in attributes.items() if name in FETCHING]
        assert all(place is not None and place.startswith("#") for place in places), (tag, attributes)
    styles = re.findall(r"<style>(.*?)</style>", attacked, flags=re.DOTALL)
    assert all("url(" not in style and "@import" not in style for style in styles)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_the_decision_comes_first_then_the_frontier_then_warnings() -> None:
    text = Page(render_page(full(notes=("Only two seeds.",)))).text
    places = [
        text.index(part)
        for part in ("is the cheapest", "Cost against accuracy", "Only two seeds.", "All points", "Provenance")
    ]
    assert places == sorted(places)


def test_every_point_is_in_the_table_and_the_frontier_is_marked() -> None:
    text = render_page(full())
    _, first, second, *_ = text.split('<div data-of-axis="')
    assert first.startswith('billed_device_h">')
    assert second.startswith('wall_h" hidden>')
    rows = re.findall(r"<tr( class=\"marked\")?><td>(\d+)</td><td>2</td>", first)
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
    drawings = [script for script in Page(text).scripts if script.startswith("{")]
    assert len(drawings) == 4  # cost, rates, curves, stopping
    for drawing in drawings:
        json.loads(drawing, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


def test_claims_are_shown_with_their_rows() -> None:
    finding = Finding(
        statement="<b>wide</b> beats narrow",
        verdict="supported",
        effect=1.25,
        effect_unit="points",
        ci=(0.5, 2.0),
        margin=None,
        test="Welch t",
        p=0.01,
        n_seeds=(3, 4),
        rows=("confirm-b16-w2-s1", "confirm-b64-w2-s1"),
        reason=None,
        to_settle=None,
    )
    statement = Statement("linear-scaling", "It scales.", "A paper", "1706.02677", "two rates")
    open_one = Statement("square-root-scaling", "It does not.", "Another", "1404.5997", "two rates")
    claims = (
        ClaimVerdict(statement, "supported", (finding,), None, None),
        ClaimVerdict(open_one, "no_evidence", (), None, "two rates"),
    )
    text = render_page(full(claims=claims))
    shown = Page(text).text
    assert "<b>wide</b>" not in text
    for part in (
        "linear-scaling: supported",
        "<b>wide</b> beats narrow: supported; +1.25 points [+0.5, +2]; Welch t, p = 0.010, 3 and 4 seeds",
        "Based on 2 trials",
        "confirm-b64-w2-s1",
        "No evidence in this study for: square-root-scaling.",
    ):
        assert part in shown, part


def test_recommendation_critical_batch_and_price_are_shown() -> None:
    facts = {"config": {"price": {"usd_per_device_hour": 2.5, "source": "a shop, 2026-01-02"}}}
    shown = Page(render_page(full(facts=facts, critical_missing="one batch size confirmed"))).text
    assert "No critical batch size: one batch size confirmed." in shown
    assert "usd_per_device_hour: 2.5, source: a shop, 2026-01-02" in shown


def test_before_the_first_row_the_page_says_so() -> None:
    assert "Nothing has begun yet" in render_body(None)
