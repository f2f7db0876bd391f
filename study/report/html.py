"""HTML pages with everything in them: they open offline and ask nobody for anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
import plotly.io
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

_TEMPLATES = Path(__file__).parent / "templates"
_CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d"],
}


@dataclass(frozen=True)
class Section:
    """A figure under its heading."""

    heading: str
    caption: str
    figure: Markup


def rendered(template: str, **values: object) -> str:
    """A page out of its template; whatever the values say is shown as text."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(plotly_js=Markup(get_plotlyjs()), **values)


def section(heading: str, caption: str, name: str, figure: go.Figure) -> Section:
    """A figure as a part of a page, on which `name` is its own."""
    # The page's heading breaks lines on a phone; Plotly's title does not.
    figure.update_layout(title=None, margin_t=16)
    # Plotly writes <, > and / inside its JSON as \u003c, \u003e and \u002f: nothing can close the script early.
    body = plotly.io.to_html(figure, config=_CONFIG, full_html=False, include_plotlyjs=False, div_id=f"figure-{name}")
    return Section(heading, caption, Markup(body))
