"""What people see on the terminal: the summary, a study's progress, its status."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from itertools import islice
from threading import Lock
from types import TracebackType
from typing import get_args

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from study.analysis.records import Summary, cost_of
from study.ledger.schema import AnyRow, EndRow, LeaseRow, LimitRow, StudyRow, WaitRow
from study.ledger.state import StudyState
from study.planning.trials import Phase, Plan
from study.reporting.live.progress import PhaseCount, StudyProgress
from study.reporting.text.formatting import NOTHING, column, cost_unit, duration, half_width, number, of_limit, percent
from study.reporting.text.tables import total_usd
from study.reporting.text.verdict import verdict
from study.safe_text import printable

PHASE_NAMES: tuple[Phase, ...] = get_args(Phase)
_SHOWN_RUNNING = 8


def print_summary(summary: Summary, console: Console) -> None:
    """Points by world size and batch, the verdict, and what the study cost; fits 80 columns."""
    if summary.points:
        console.print(_points(summary))
    for sentence in (*verdict(summary), *(f"Note: {note}" for note in summary.notes), _spend(summary)):
        console.print(sentence, markup=False, highlight=False)


def _points(summary: Summary) -> Table:
    points = summary.points
    costs = [cost_of(point, summary.cost_axis) for point in points]
    unit = cost_unit(costs, summary.cost_axis)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    variants = any(point.variant for point in points)
    if variants:
        table.add_column("variant", no_wrap=True)
    per_trial = unit.label.replace("-", "-\n")
    for name in (
        "batch",
        "ranks",
        "rate",
        "seeds",
        "validation\naccuracy %",
        "test\n%",
        f"{per_trial}\na trial",
        "samples\na second",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("on the\nfront", no_wrap=True)
    for point, cost in zip(points, column(cost * unit.scale for cost in costs), strict=True):
        half = half_width(point)
        table.add_row(
            *([point.variant] if variants else []),
            str(point.batch_size),
            str(point.world_size),
            number(point.lr),
            str(point.n_seeds),
            f"{100 * point.val_accuracy:.2f} ±{NOTHING if half is None else f'{100 * half:.2f}':>6}",
            percent(point.test_accuracy, 2).rstrip("%"),
            cost,
            number(point.samples_per_s),
            "yes" if point.on_frontier else "",
            style="bold" if point.on_frontier else "dim",
        )
    return table


def _spend(summary: Summary) -> str:
    spend = summary.spend
    unit = cost_unit([spend.total_device_h])
    total, search, confirm, censored = column(
        hours * unit.scale
        for hours in (
            spend.total_device_h,
            spend.search_device_h,
            spend.confirm_device_h,
            spend.censored_device_h,
        )
    )
    usd = total_usd(summary)
    price = "" if usd is None else f" ({number(usd)} USD)"
    return (
        f"Spent {total} {unit.label}{price}: search {search}, confirm {confirm}; {censored} of it on censored trials."
    )


def status_lines(plan: Plan, rows: Iterable[AnyRow]) -> list[str]:
    """How far a study is, a line for each phase and one for its cost."""
    return _status(StudyProgress(plan, StudyState(rows)), with_guess=False)


def _status(progress: StudyProgress, with_guess: bool) -> list[str]:
    state = progress.state
    lines = [
        f"{name:<8}{_count_line(count)}"
        for name in PHASE_NAMES
        if (count := progress.count(name)).planned or count.finished
    ]
    billed = f"billed  {cost_unit([state.closed_device_h]).show(state.closed_device_h)}"
    left_s = progress.left_s() if with_guess and state.mistake is None else None
    lines.append(billed + (f", about {duration(left_s)} left" if left_s is not None else ""))
    if limits := progress.limits:
        lines.append("spent   " + ", ".join(of_limit(name, *figures) for name, figures in limits.items()))
    if state.waiting is not None:
        lines.append(f"waiting {state.waiting.why}")
    if state.limit is not None and len(state.ended) < progress.planned:
        then = "running trials end at their next report" if any(state.running) else "raise it to go on"
        lines.append(f"cut     by limits.{state.limit.limit}: {then}")
    if state.mistake is not None:
        lines.append(f"ended   by the same mistake in every batch size: {printable(state.mistake.error)}")
    return lines


def _count_line(count: PhaseCount) -> str:
    parts = [f"{n} {outcome}" for outcome, n in count.outcomes.items()]
    if count.running:
        parts.append(f"{count.running} running")
    return f"{count.finished} of {count.planned} over" + (f": {', '.join(parts)}" if parts else "")


class ProgressView:
    """Shows a study while it runs: in place on a terminal, a line for each ended trial elsewhere."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._console = console
        self._state = StudyState(whole_curves=False)
        self._progress = StudyProgress(plan, self._state)
        self._lock = Lock()
        # Rows written before are the past of a resumed study: counted, not told again.
        self._since = datetime.now(timezone.utc)
        self._past = 0
        self._live: Live | None = None

    def __enter__(self) -> ProgressView:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, row: AnyRow) -> None:
        """Take in a row that is now in the ledger."""
        with self._lock:
            begins_again = isinstance(row, StudyRow) and self._state.mistake is not None
            self._state.apply(row)
        new = datetime.fromisoformat(row.written) >= self._since
        if isinstance(row, LeaseRow) and row.why and new:
            self._say(self._lost_line(row))  # above what is shown in place
        if self._live is not None:
            return
        if isinstance(row, EndRow):
            if new:
                self._say(self._end_line(row))
            else:
                self._past += 1
        elif isinstance(row, LimitRow) and new:
            self._say(
                f"limits.{row.limit} is passed: {of_limit(row.limit, row.spent, row.allowed)}. Nothing new starts; "
                f"running trials end at their next report"
            )
        elif isinstance(row, WaitRow) and new:
            self._say(f"Waiting: {row.why}")
        elif isinstance(row, StudyRow) and new and self._past:
            line = f"Resumed: {len(self._state.ended)} of {self._progress.planned} trials are over"
            self._say(line + ("; all begin again, those that failed come last" if begins_again else ""))

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _lost_line(self, lease: LeaseRow) -> str:
        cost = cost_unit([lease.billed_device_h]).show(lease.billed_device_h)
        line = f"{lease.trial_id}: attempt {lease.attempt} is lost after {cost}: {printable(lease.why)}; "
        if lease.trial_id in self._state.ended:
            return f"{line}it has no retry left"
        return f"{line}it is tried again, from its last checkpoint if there is one"

    def _end_line(self, end: EndRow) -> str:
        trial = self._state.trial(end.trial_id)
        line = f"[{len(self._state.ended)}/{self._progress.planned}] {end.trial_id} {end.outcome}"
        epochs = self._progress.epochs(trial)
        if epochs is not None:
            line += f" at {epochs[0]:.1f} of {epochs[1]:g} epochs"
        if trial.last is not None:
            line += f", val accuracy {trial.last.val_accuracy:.3f}"
        return line + (f": {printable(end.error)}" if end.error else "")

    def _render(self) -> RenderableType:
        with self._lock:
            parts: list[RenderableType] = [Text(line) for line in _status(self._progress, with_guess=True)]
            if any(self._state.running):
                parts.append(self._running())
        return Group(*parts)

    def _running(self) -> Table:
        table = Table(box=SIMPLE_HEAD)
        for name in ("running", "batch", "ranks", "learning rate", "epochs", "val accuracy"):
            table.add_column(name, justify="left" if name == "running" else "right")
        for trial, attempt in islice(self._state.running, _SHOWN_RUNNING):
            done, whole = self._progress.epochs(trial) or (0.0, 0.0)
            table.add_row(
                attempt.phase,
                str(attempt.batch_size),
                str(attempt.world_size),
                number(attempt.lr),
                f"{done:.1f} of {whole:g}",
                percent(trial.last.val_accuracy) if trial.last else NOTHING,
            )
        return table
