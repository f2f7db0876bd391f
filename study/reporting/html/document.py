"""HTML pages with everything in them: they open offline and load nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Section:
    """A figure under its heading; `drawings` are its JSON by cost axis, or one under "" for all axes."""

    heading: str
    caption: str
    name: str
    height: int  # pixels
    drawings: Mapping[str, Markup]


def rendered(template: str, **values: object) -> str:
    """Return a page from its template; values are escaped, so that markup in them is shown as text."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"scripts": _scripts(), "policy": _policy}
    return environment.get_template(template).render(**values)


@cache
def _scripts() -> tuple[Markup, ...]:
    """Return the scripts of every page: Plotly, and page.js."""
    return Markup(get_plotlyjs()), Markup((_TEMPLATES / "page.js").read_text())


@cache
def _policy(live: bool) -> Markup:
    """Return the content security policy: no scripts but the page's two, no requests but those of a live page."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in _scripts()]
    allowed = {
        "default-src": "'none'",
        "script-src": " ".join(f"'sha256-{one}'" for one in hashes),
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    if live:
        allowed["connect-src"] = "'self'"
    return Markup("; ".join(f"{name} {value}" for name, value in allowed.items()))


def section(heading: str, caption: str, name: str, figures: Mapping[str, go.Figure]) -> Section:
    """Return a figure as a part of a page; `name` is its id, unique on the page, and `figures` are by cost axis."""
    heights = [figure.layout.height for figure in figures.values()]
    return Section(heading, caption, name, max(heights), {axis: _json(figure) for axis, figure in figures.items()})


def _json(figure: go.Figure) -> Markup:
    """Return the figure as JSON that cannot close the script element around it."""
    # The page has a heading, which wraps on a phone; Plotly's title does not. The page decides on the height too.
    figure.update_layout(title=None, margin_t=16, height=None)
    return Markup(figure.to_json().replace("<", r"\u003c"))
