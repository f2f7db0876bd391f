"""The figures of a report as pictures, drawn by the machine's own Chromium."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import plotly.io
from kaleido.errors import ChromeNotFoundError

from study.analysis.records import Summary
from study.errors import ConfigError
from study.reporting.figures.registry import FIGURES

_WIDTH_PX = 1000
_ON_PAPER = {
    "paper_bgcolor": "white",
    "plot_bgcolor": "white",
    "font": {"color": "#333333"},
    "margin": {"l": 24, "r": 24, "t": 90, "b": 24},
    "title": {"y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 18}},  # above the legend
}
_SCALE = 2  # pixels of the file for each of the figure's; lines and letters stay sharp in print


def pictures(summary: Summary, kind: str) -> dict[str, bytes]:
    """Every figure that has something to show, by file name; `kind` is png, svg or pdf.

    Raises ConfigError where there is no Chromium.
    """
    figures = {f"{name}.{kind}": figure for name, draw in FIGURES.items() if (figure := draw(summary)) is not None}
    if not figures:
        return {}
    for figure in figures.values():
        figure.update_layout(_ON_PAPER)
    with TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in figures]
        heights = [figure.layout.height for figure in figures.values()]
        try:
            plotly.io.write_images(list(figures.values()), files, width=_WIDTH_PX, height=heights, scale=_SCALE)
        except RuntimeError as error:
            if isinstance(error.__context__, ChromeNotFoundError):
                raise ConfigError(f"{kind} needs Chromium or Chrome, and none was found", "--format") from None
            raise
        return {file.name: file.read_bytes() for file in files}
