"""The results of a study: loaded from its folder, read as frames and records."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from study.analysis.records import COST_AXES, Constraints, Recommendation, Summary
from study.api.argument_names import argument_names
from study.api.plans import recorded, repriced
from study.config.sections import CostAxis
from study.errors import ConfigError, DataError, LedgerError, did_you_mean
from study.ledger.paths import StudyPaths
from study.ledger.schema import PHASES, AnyRow, LeaseRow, StudyRow
from study.ledger.store import LedgerScan, refuse_links
from study.planning.trials import Plan

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

BILL_COLUMNS = (
    "lease_id", "group_id", "trial_id", "attempt", "phase", "variant", "batch_size", "world_size", "seed_index",
    "device", "devices", "reason", "why", "billed_s", "billed_device_h", "billed_gpu_h", "usd",
    *(f"{phase}_s" for phase in PHASES),
)  # fmt: skip
_TEXT = frozenset({"lease_id", "group_id", "trial_id", "phase", "variant", "device", "reason", "why"})
_CONFIGURATION = ("variant", "batch_size", "world_size", "lr", "micro_batch", "accumulation", "n_seeds")
CLAIM_COLUMNS = (
    "claim", "verdict", "statement", "paper", "arxiv", "finding", "effect", "effect_unit", "effect_ci_low",
    "effect_ci_high", "p", "test", "n_seeds_a", "n_seeds_b", "to_settle",
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class StudyResults:
    """One study, finished or not, as its ledger was when it was loaded.

    Frames are built when they are first asked for. Durations are seconds, `_h` columns hours, accuracies fractions;
    docs/api.md describes every column.
    """

    folder: Path
    plan: Plan
    summary: Summary
    leases: tuple[LeaseRow, ...]  # in the order in which they closed

    @cached_property
    def points(self) -> DataFrame:
        """A row for each batch size on each number of ranks, as means over the confirm seeds that completed."""
        from study.reporting.frames import points_frame

        return points_frame(self.summary)

    @cached_property
    def trials(self) -> DataFrame:
        """A row for each trial that was started, over all its attempts."""
        from study.reporting.frames import trials_frame

        return trials_frame(self.summary)

    @cached_property
    def curves(self) -> DataFrame:
        """A row for each report of each trial."""
        from study.reporting.frames import curves_frame

        return curves_frame(self.summary)

    @cached_property
    def bill(self) -> DataFrame:
        """A row for each lease that has closed: what an attempt is billed, and the seconds per device by phase."""
        from study.reporting.frames import number_frame

        price = self.plan.config.price.usd_per_device_hour
        trials = {trial.trial_id: trial for trial in self.summary.trials}
        rows = []
        for lease in self.leases:
            trial = trials[lease.trial_id]
            of_trial = {name: getattr(trial, name) for name in BILL_COLUMNS if hasattr(trial, name)}
            of_lease = {name: getattr(lease, name) for name in BILL_COLUMNS if hasattr(lease, name)}
            usd = None if price is None else lease.billed_device_h * price
            phases = {f"{phase}_s": lease.phases_s.get(phase, 0.0) for phase in PHASES}
            rows.append({**of_trial, **of_lease, "usd": usd, **phases})
        return number_frame(rows, BILL_COLUMNS, _TEXT)

    def frontier(self, cost: str | None = None) -> DataFrame:
        """Return the points that no other dominates, cheapest first; `cost` is a cost axis, the study's when left out.

        Costs are means of a trial in the column `compared_COST`, without the setup of cold groups unless the study
        includes it. Raises ConfigError for an axis that is unknown, or that some point has no cost on.
        """
        from study.reporting.frames import number_frame
        from study.reporting.text.quality import with_metric_names

        summary = self.summary
        axis = summary.cost_axis if cost is None else checked_axis(cost, summary)
        place, metric = f"compared_{axis}", summary.objective.metric
        names = (
            *_CONFIGURATION, place, f"{place}_ci_low", f"{place}_ci_high", metric, f"{metric}_ci_low",
            f"{metric}_ci_high", summary.objective.test_metric, "p_on_front",
        )  # fmt: skip
        fronts = summary.frontiers[axis].points if summary.points else ()
        pairs = [pair for pair in zip(summary.points, fronts, strict=True) if pair[1].on_front]
        rows = []
        for point, front in sorted(pairs, key=lambda pair: pair[1].cost):
            named = with_metric_names(summary.objective, asdict(point))
            row = {name: named[name] for name in (*_CONFIGURATION, metric, summary.objective.test_metric)}
            row |= {place: front.cost, "p_on_front": front.p_on_front}
            row[f"{place}_ci_low"], row[f"{place}_ci_high"] = front.cost_ci or (None, None)
            row[f"{metric}_ci_low"], row[f"{metric}_ci_high"] = named[f"{metric}_ci"] or (None, None)
            rows.append(row)
        return number_frame(rows, names, _TEXT)

    def recommend(
        self,
        *,
        max_usd: float | None = None,
        max_device_hours: float | None = None,
        target: float | None = None,
        min_accuracy: float | None = None,
        deadline_h: float | None = None,
        gpus: int | None = None,
        max_latency_ms: float | None = None,
        confidence: float = 0.9,
    ) -> StudyRecommendation:
        """Return the configuration to pay for under limits on one training run, as `study recommend` does.

        `max_usd`, `max_device_hours` and `deadline_h` include the setup of a group that starts for the run;
        `target` is a value of the objective as logged, and asks for the cheapest configuration that reaches it instead
        of one within the margin of the best; `min_accuracy` is the same for a study that is judged by accuracy, as a
        fraction. Either way it is the cheapest that does so with at least a probability of `confidence`.
        Raises ConfigError for a limit that cannot be held against what is known, or a study without points.
        """
        from study.analysis.recommend import asked_quality

        with argument_names():
            quality = asked_quality(self.summary.objective, target, min_accuracy)
            limits = Constraints(max_usd, max_device_hours, quality, deadline_h, gpus, max_latency_ms)
            return recommend(self, limits, confidence)

    def claims(self) -> DataFrame:
        """Return what the study shows of each claim made about batch size, a row for each claim.

        The effect, its 95% interval, the test and the seeds are those of the finding that decides the verdict.
        """
        from pandas import DataFrame

        rows = []
        for claim in self.summary.claims:
            finding = claim.deciding
            row: dict[str, object] = {
                "claim": claim.claim,
                "verdict": claim.verdict,
                "statement": claim.statement.text,
                "paper": claim.statement.paper,
                "arxiv": claim.statement.arxiv,
                "to_settle": claim.to_settle,
            }
            if finding is not None:
                row |= {name: getattr(finding, name) for name in ("effect", "effect_unit", "p", "test")}
                row["finding"] = finding.statement
                row["effect_ci_low"], row["effect_ci_high"] = finding.ci or (None, None)
                row["n_seeds_a"], row["n_seeds_b"] = finding.n_seeds
            rows.append(row)
        return DataFrame(rows, columns=list(CLAIM_COLUMNS))

    def figure(self, name: str = "frontier") -> Figure:
        """Return one figure of the report as a Plotly figure: frontier, cost, batches, rates, curves, and so on.

        Raises ConfigError for an unknown name, and DataError where the study has nothing to show in the figure.
        """
        from study.reporting.figures.registry import FIGURES

        if name not in FIGURES:
            raise ConfigError(f"{name}: must be one of {', '.join(FIGURES)}{did_you_mean(name, FIGURES)}", "name")
        drawn = FIGURES[name](self.summary)
        if drawn is None:
            raise DataError(f"the study has nothing to show in the figure {name!r}", str(self.folder))
        return drawn

    def write_report(self, formats: Iterable[str] = ("html",)) -> list[Path]:
        """Write the report into the study's folder, as `study report` does, and return the paths of its files.

        Formats: html, csv, parquet, json, md, png, svg, pdf. Raises ConfigError for another one and for a picture where
        there is no Chromium, and DiskError.
        """
        from study.reporting.exports import FORMATS, write_report

        wanted = list(formats)
        for name in wanted:
            if name not in FORMATS:
                known = f"must be one of {', '.join(FORMATS)}{did_you_mean(name, FORMATS)}"
                raise ConfigError(f"{name}: {known}", "formats")
        refuse_links(self.folder)
        return write_report(self.summary, StudyPaths(self.folder).report, wanted)

    def __repr__(self) -> str:
        summary = self.summary
        found = f"{len(summary.points)} points, {len(summary.frontier)} on the frontier"
        return f"<StudyResults {summary.study.name!r}: {found}; {self.folder}>"

    def _repr_html_(self) -> str:
        from study.reporting.html.notebook import results_html

        return results_html(self.summary)


@dataclass(frozen=True, repr=False)
class StudyRecommendation:
    """The configuration to pay for under limits, and what the next best one trades. `print` it for the sentences."""

    summary: Summary
    limits: Constraints
    record: Recommendation

    @property
    def configuration(self) -> dict[str, object] | None:
        """The chosen point, with the columns of `StudyResults.points`; None if no configuration meets the limits."""
        from study.reporting.frames import point_row

        choice = self.record.choice
        if choice is None:
            return None
        chosen = next(point for point in self.summary.points if point.label == choice.label)
        return point_row(self.summary.objective, chosen)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What `study recommend` prints."""
        from study.reporting.text.recommendation import recommendation_lines

        return recommendation_lines(self.summary, self.record, self.limits)

    def to_dict(self) -> dict[str, object]:
        """Return what `study recommend --json` prints, as plain values."""
        from study.reporting.text.recommendation import recommendation_record

        return recommendation_record(self.summary, self.record, self.limits)

    def __repr__(self) -> str:
        return "\n".join(self.sentences)

    def _repr_html_(self) -> str:
        from study.reporting.html.notebook import lines_html

        return lines_html(self.sentences)


def load(
    folder: str | PathLike[str],
    *,
    usd_per_device_hour: float | None = None,
    prices: str | PathLike[str] | None = None,
) -> StudyResults:
    """Load a study from its folder; also one that still runs, was cut by a limit, or has no points yet.

    `usd_per_device_hour`, or a price list of your own in `prices`, replaces the study's own price. Nothing is written.
    Raises LedgerError where there is no study, or one of another major protocol; ConfigError for a price that cannot be
    used; DiskError.
    """
    with argument_names():
        return read_results(Path(folder), usd_per_device_hour, None if prices is None else Path(prices))


def read_results(
    folder: Path, usd_per_device_hour: float | None = None, prices: Path | None = None, plan: Plan | None = None
) -> StudyResults:
    """Return what `load` returns; errors name options of the command line. `plan` is the folder's, if known."""
    from study.analysis.summary.summarize import summarize

    plan = repriced(plan or recorded(folder), usd_per_device_hour, prices)
    leases: list[LeaseRow] = []

    def kept(rows: Iterable[AnyRow]) -> Iterator[AnyRow]:
        for row in rows:
            if isinstance(row, LeaseRow):
                leases.append(row)
            yield row

    scan = LedgerScan(StudyPaths(folder).ledger)
    summary = summarize(kept(_begun(scan)), plan)
    if scan.note is not None:
        summary = replace(summary, notes=(scan.note, *summary.notes))
        logging.getLogger(__name__).warning("%s: %s", folder, scan.note)  # on stderr, whichever command or script asks
    return StudyResults(folder, plan, summary, tuple(leases))


def recommend(results: StudyResults, limits: Constraints, confidence: float) -> StudyRecommendation:
    """Return what `StudyResults.recommend` returns; errors name options of the command line."""
    from study.analysis.recommend import check_limits, choose

    summary, report, margin = results.summary, results.plan.config.report, results.plan.config.margin
    check_limits(limits, summary.points, summary.trials, confidence)
    found = choose(summary.points, summary.trials, summary.cost_axis, limits, margin, report.include_setup, confidence)
    if found is None:
        raise DataError("no confirm trial has completed, so there is nothing to choose from", str(results.folder))
    return StudyRecommendation(summary, limits, found)


def _begun(scan: LedgerScan) -> Iterator[AnyRow]:
    """Yield the rows of a ledger. Raises LedgerError if its first row is missing or damaged."""
    rows = iter(scan)
    first = next(rows, None)
    if not isinstance(first, StudyRow):
        raise LedgerError("does not begin with the row of a study: it is empty or damaged", str(scan.path))
    yield first
    yield from rows


def checked_axis(cost: str, summary: Summary) -> CostAxis:
    for axis in COST_AXES:
        if axis == cost and (axis in summary.frontiers or axis == summary.cost_axis):
            return axis
    known = list(summary.frontiers) or [summary.cost_axis]
    raise ConfigError(f"{cost}: must be one of {', '.join(known)}{did_you_mean(cost, known)}", "cost")
