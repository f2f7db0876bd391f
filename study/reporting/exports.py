"""The files that `study` writes for readers and other programs: reports, comparisons, replays, analysed tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.analysis.records import Summary
from study.errors import DiskError, error_context
from study.ledger.atomic_files import write_atomic
from study.reporting.frames import points_frame, trials_frame
from study.reporting.text.comparison import comparison_record
from study.reporting.text.json_records import json_text, strict_json
from study.reporting.text.markdown import render_markdown
from study.reporting.text.quality import with_metric_names
from study.reporting.text.replay import replay_record
from study.reporting.text.table_analysis import analysis_record

if TYPE_CHECKING:
    from pandas import DataFrame

    from study.analysis.comparison import Comparison
    from study.analysis.replay.replay import Replay
    from study.analysis.tables.fronts import TableAnalysis
    from study.reporting.figures.registry import PictureKind

Files = Mapping[str, bytes | str]  # contents by name
FORMATS = ("html", "csv", "parquet", "json", "md", "png", "svg", "pdf")
_FORMULA = ("=", "+", "-", "@")


def write_report(summary: Summary, folder: Path, formats: Iterable[str]) -> list[Path]:
    """Write the formats into `folder`, each file whole or not at all, and return their paths.

    Raises ValueError for a format that is not in FORMATS, ConfigError for a picture where there is no Chromium, and
    DiskError.
    """
    wanted = list(formats)
    unknown = [name for name in wanted if name not in FORMATS]
    if unknown:
        raise ValueError(f"unknown format {unknown[0]}; known: {', '.join(FORMATS)}")
    return [path for name in FORMATS if name in wanted for path in _write(folder, _WRITERS[name](summary))]


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write compare.json and compare.html into `folder` and return their paths. Raises DiskError."""
    from study.reporting.html.analysis_pages import render_comparison

    record = json_text(comparison_record(comparison), indent=2)
    return _write(folder, {"compare.json": record + "\n", "compare.html": render_comparison(comparison)})


def write_replay(replay: Replay, folder: Path) -> list[Path]:
    """Write replay.json and replay.html into `folder` and return their paths. Raises DiskError."""
    from study.reporting.html.analysis_pages import render_replay

    record = json_text(replay_record(replay), indent=2)
    return _write(folder, {"replay.json": record + "\n", "replay.html": render_replay(replay)})


def write_analysis(analysis: TableAnalysis, folder: Path) -> list[Path]:
    """Write summary.json and report.html of a table into `folder` and return their paths. Raises DiskError."""
    from study.reporting.html.analysis_pages import render_analysis

    record = json_text(analysis_record(analysis), indent=2)
    return _write(folder, {"summary.json": record + "\n", "report.html": render_analysis(analysis)})


def _write(folder: Path, files: Files) -> list[Path]:
    with error_context(DiskError, folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomic(folder / name, content)
    return [folder / name for name in files]


def summary_record(summary: Summary) -> dict[str, Any]:
    """Return the summary as plain values for strict JSON, with costs in hours and USD; non-finite numbers are None.

    Points have the objective under its metric's name. What is named quality, and effects on it, is negated where less
    of the metric is better.
    """
    named = partial(with_metric_names, summary.objective)
    record: dict[str, Any] = {
        "protocol_version": summary.protocol_version,
        "study": asdict(summary.study),
        "cost_axis": summary.cost_axis,
        "second_cost_axis": summary.second_cost_axis,
        "include_setup": summary.include_setup,
        "group_setups": {size: asdict(cost) for size, cost in summary.group_setups.items()},
        "objective": summary.objective.model_dump(mode="json"),
        "points": [named(asdict(point)) for point in summary.points],
        "frontier": [named(asdict(point)) for point in summary.frontier],
        "steps": [asdict(step) for step in summary.steps],
        "span": asdict(summary.span) if summary.span else None,
        "spend": asdict(summary.spend),
        "stopping": asdict(summary.stopping) | {"grid_fraction": summary.stopping.grid_fraction}
        if summary.stopping
        else None,
        "hypervolume": summary.hypervolume,
        "hypervolume_ci": summary.hypervolume_ci,
        "frontiers": {axis: asdict(frontier) for axis, frontier in summary.frontiers.items()},
        "critical_batch": asdict(summary.critical.fit) if summary.critical else None,
        "critical": named(asdict(summary.critical)) if summary.critical else None,
        "other_criticals": [named(asdict(critical)) for critical in summary.other_criticals],
        "critical_missing": summary.critical_missing,
        "noise_scale": summary.noise_scale,
        "throughput_model": asdict(summary.throughput_model) if summary.throughput_model else None,
        "recommendation": asdict(summary.recommendation) if summary.recommendation else None,
        "planned_trials": summary.planned_trials,
        "cut": asdict(summary.cut) if summary.cut else None,
        "mistaken": asdict(summary.mistaken) if summary.mistaken else None,
        "notes": list(summary.notes),
        "claims": [asdict(claim) for claim in summary.claims],
        "ridges": [asdict(ridge) for ridge in summary.ridges],
    }
    return {key: strict_json(value) for key, value in record.items()}


def _json(summary: Summary) -> Files:
    return {"summary.json": json_text(summary_record(summary), indent=2) + "\n"}


def _frames(summary: Summary) -> dict[str, DataFrame]:
    return {"points": points_frame(summary), "trials": trials_frame(summary)}


def _csv(summary: Summary) -> Files:
    return {f"{name}.csv": frame.map(_inert).to_csv(index=False) for name, frame in _frames(summary).items()}


def _inert(value: Any) -> Any:
    """Return a cell; text that a spreadsheet would run as a formula gets a quote before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _parquet(summary: Summary) -> Files:
    return {f"{name}.parquet": frame.to_parquet(index=False) for name, frame in _frames(summary).items()}


def _pictures(kind: PictureKind, summary: Summary) -> Files:
    from study.reporting.figures.registry import pictures

    return pictures(summary, kind)


def _html(summary: Summary) -> Files:
    from study.reporting.html.report_page import render_page  # brings Plotly along, which is slow to import

    return {"report.html": render_page(summary)}


def _markdown(summary: Summary) -> Files:
    return {"report.md": render_markdown(summary)}


_WRITERS: dict[str, Callable[[Summary], Files]] = {
    "html": _html,
    "csv": _csv,
    "parquet": _parquet,
    "json": _json,
    "md": _markdown,
    "png": partial(_pictures, "png"),
    "svg": partial(_pictures, "svg"),
    "pdf": partial(_pictures, "pdf"),
}
