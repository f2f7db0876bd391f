"""HTML pages with everything in them: they open offline and ask nobody for anything."""

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
    """A figure under its heading; `drawings` are its JSON by cost axis, one under "" serves every axis."""

    heading: str
    caption: str
    name: str
    height: int  # pixels
    drawings: Mapping[str, Markup]


def rendered(template: str, **values: object) -> str:
    """A page out of its template; whatever the values say is shown as text."""
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
    """What a page runs."""
    return Markup(get_plotlyjs()), Markup((_TEMPLATES / "page.js").read_text())


@cache
def _policy(live: bool) -> Markup:
    """What a browser may do for a page: run its two scripts and no other, draw, and ask nobody but its own server."""
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
    """A figure as a part of a page, on which `name` is its own; `figures` are by cost axis."""
    heights = [figure.layout.height for figure in figures.values()]
    return Section(heading, caption, name, max(heights), {axis: _json(figure) for axis, figure in figures.items()})


def _json(figure: go.Figure) -> Markup:
    """The figure as JSON that cannot close the script element it stands in."""
    # The page's heading breaks lines on a phone; Plotly's title does not.
    figure.update_layout(title=None, margin_t=16)
    return Markup(figure.to_json().replace("<", r"\u003c"))
