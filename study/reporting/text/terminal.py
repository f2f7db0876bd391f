"""The terminal's output: a study's summary, its progress while it runs, and its status."""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import islice
from threading import Lock
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as _Bars
from rich.table import Column, Table
from rich.text import Text

from study.analysis.records import Summary, cost_of
from study.ledger.schema import AnyRow, EndRow, LeaseRow, LimitRow, StudyRow, WaitRow
from study.ledger.state import StudyState
from study.measurement import CurvePoint
from study.planning.trials import Phase, Plan
from study.reporting.live.progress import StudyProgress
from study.reporting.text.formatting import NOTHING, column, cost_unit, duration, number, of_limit
from study.reporting.text.quality import bare_text, column_head, point_text, unit, value_text
from study.reporting.text.recommendation import standings_table
from study.reporting.text.status import held_up, outcomes_of, phases, spent
from study.reporting.text.tables import rich_table, total_usd
from study.reporting.text.verdict import verdict
from study.safe_text import printable

_SHOWN_RUNNING = 8


def print_summary(summary: Summary, console: Console) -> None:
    """Points by world size and batch, the verdict, and what the study cost; fits 80 columns."""
    if summary.points:
        console.print(_points(summary))
    standings = standings_table(summary)
    if standings is not None and len(standings.rows) > 1:
        console.print(rich_table(standings))
    for sentence in (*verdict(summary), *(f"Note: {note}" for note in summary.notes), _spend(summary)):
        console.print(sentence, markup=False, highlight=False)


def _points(summary: Summary) -> Table:
    points, objective = summary.points, summary.objective
    costs = [cost_of(point, summary.cost_axis) for point in points]
    cost_in = cost_unit(costs, summary.cost_axis)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    variants = any(point.variant for point in points)
    if variants:
        table.add_column("variant", no_wrap=True)
    per_trial = cost_in.label.replace("-", "-\n")
    for name in (
        "batch",
        "ranks",
        "rate",
        "seeds",
        column_head(objective).replace("val. ", "validation\n").replace("validation ", "validation\n"),
        f"test\n{unit(objective)}".strip(),
        f"{per_trial}\na trial",
        "tokens\na second" if summary.tokens_per_sample else "samples\na second",
    ):
        table.add_column(Text("\n".join(map(printable, name.split("\n")))), justify="right", no_wrap=True)
    table.add_column("on the\nfront", no_wrap=True)
    for point, cost in zip(points, column(cost * cost_in.scale for cost in costs), strict=True):
        table.add_row(
            *([point.variant] if variants else []),
            str(point.batch_size),
            str(point.world_size),
            number(point.lr),
            str(point.n_seeds),
            Text(point_text(objective, point)),  # an interval in brackets is no markup
            bare_text(objective, point.test_quality),
            cost,
            number(point.tokens_per_s or point.samples_per_s),
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


class ProgressView:
    """Shows a study while it runs: bars that are redrawn on a terminal, a line for each ended trial elsewhere."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._console = console
        self._state = StudyState(whole_curves=False)
        self._progress = StudyProgress(plan, self._state)
        self._lock = Lock()
        # Rows of earlier drivers are counted, and get no line.
        self._since = datetime.now(timezone.utc)
        self._past = 0
        self._bars = _Bars(
            TextColumn("{task.description:<7}", markup=False),
            BarColumn(bar_width=min(max(console.width - 60, 6), 30)),  # narrow terminals need the room for words
            TextColumn("{task.completed:.0f}/{task.total:.0f} finished", markup=False),
            TextColumn("{task.fields[found]}", markup=False, table_column=Column()),
            console=console,
            auto_refresh=False,
        )
        self._tasks: dict[Phase, TaskID] = {}
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
        """Take in the next row of the ledger."""
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
            line = f"Resumed: {len(self._state.ended)} of {self._progress.planned} trials finished"
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
        if end.outcome == "stopped" and not trial.begun:
            return f"{line} before it began: the search has ended"
        epochs = self._progress.epochs(trial)
        if epochs is not None:
            line += f" at {epochs[0]:.1f} of {epochs[1]:g} epochs"
        if trial.last is not None:
            line += f", {self._state.objective.label} {self._value(trial.last)}"
        return line + (f": {printable(end.error)}" if end.error else "")

    def _render(self) -> RenderableType:
        with self._lock:
            for phase in phases(self._progress):
                count = self._progress.count(phase)
                if phase not in self._tasks:
                    self._tasks[phase] = self._bars.add_task(phase, found="")
                self._bars.update(
                    self._tasks[phase], completed=count.finished, total=count.planned, found=outcomes_of(count)
                )
            left_s = None if self._state.mistake else self._progress.left_s()
            left = "" if left_s is None else f", about {duration(left_s)} left"
            parts: list[RenderableType] = [self._bars, Text(f"spent   {spent(self._progress)}{left}")]
            parts += [Text(f"{name:<8}{why}") for name, why in held_up(self._progress)]
            if any(self._state.running):
                parts.append(self._running())
        # The cursor waits on an empty line: the `^C` of an interrupt would wrap a full one, and shift what is redrawn.
        return Group(*parts, Text())

    def _running(self) -> Table:
        table = Table(box=SIMPLE_HEAD)
        for name in ("running", "batch", "ranks", "learning rate", "epochs", self._state.objective.label):
            table.add_column(Text(printable(name)), justify="left" if name == "running" else "right")
        for trial, attempt in islice(self._state.running, _SHOWN_RUNNING):
            done, whole = self._progress.epochs(trial) or (0.0, 0.0)
            table.add_row(
                attempt.phase,
                str(attempt.batch_size),
                str(attempt.world_size),
                number(attempt.lr),
                f"{done:.1f}/{whole:g}",
                self._value(trial.last) if trial.last else NOTHING,
            )
        if (hidden := sum(1 for _ in self._state.running) - _SHOWN_RUNNING) > 0:
            table.add_row(f"and {hidden} more")
        return table

    def _value(self, point: CurvePoint) -> str:
        objective = self._state.objective
        return value_text(objective, objective.of(point))
