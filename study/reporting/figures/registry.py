"""The figures of a report by name, in the order of the page, and as picture files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import plotly.graph_objects as go
import plotly.io

from study.analysis.records import Summary
from study.errors import ConfigError
from study.reporting.figures.batches import batch_figure, cost_figure
from study.reporting.figures.frontier import frontier_figure
from study.reporting.figures.scaling_laws import critical_figure, model_figure
from study.reporting.figures.search_figures import curves_figure, rates_figure, stopping_figure

# Each returns None where the study has nothing to show in it.
FIGURES: Mapping[str, Callable[[Summary], go.Figure | None]] = {
    "frontier": frontier_figure,
    "cost": cost_figure,
    "batches": batch_figure,
    "rates": rates_figure,
    "curves": curves_figure,
    "stopping": stopping_figure,
    "critical": critical_figure,
    "model": model_figure,
}
PictureKind = Literal["png", "svg", "pdf"]
_WIDTH_PX = 1000
_SCALE = 2  # pixels of the file for each of the figure's, so that lines and letters stay sharp in print
_ON_PAPER = {
    "paper_bgcolor": "white",
    "plot_bgcolor": "white",
    "font": {"color": "#333333"},
    "margin": {"l": 24, "r": 24, "t": 90, "b": 24},
    "title": {"y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 18}},  # above the legend
}


def pictures(summary: Summary, kind: PictureKind) -> dict[str, bytes]:
    """Draw every figure that has something to show, with the machine's own Chromium, and return files by name.

    Raises ConfigError where there is no Chromium.
    """
    from kaleido.errors import ChromeNotFoundError  # slow to import

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
