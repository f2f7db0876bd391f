"""The figures of a report by name, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import plotly.graph_objects as go

from study.analysis.records import Summary
from study.reporting.figures.batches import batch_figure, cost_figure
from study.reporting.figures.frontier import frontier_figure
from study.reporting.figures.scaling_laws import critical_figure, model_figure
from study.reporting.figures.search_figures import curves_figure, rates_figure, stopping_figure

# Each gives None where the study has nothing to show of it.
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
