"""Tables of learning curves, with a row for each report of a run: recognised, and reduced to each run's last row."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from study.analysis.tables.cells import is_blank
from study.analysis.tables.columns import RESULT, SETTING, Columns, option
from study.analysis.tables.costs import is_cost, wall_unit
from study.analysis.tables.final_rows import is_true, state_columns, state_flags
from study.analysis.tables.varying import is_setting_by_name
from study.errors import DataError

_PROGRESS = (
    *("training_iteration", "epoch", "train_epoch", "current_epoch", "trainer_epoch", "iteration", "iter"),
    *("step", "global_step", "trainer_global_step", "update", "iters", "updates", "num_updates", "samples_seen"),
    *("examples_seen", "tokens_seen", "consumed_samples", "consumed_tokens"),
)
_RUNS = ("run_id", "trial_id", "run", "trial", "run_name", "trial_name", "name", "id", "experiment_name", "number")
_DISPLAYED = {"name", "run_name", "trial_name", "experiment_name"}  # which runs may share
_HINT = "`study replay` compares schedulers on such curves"
_LEAST_ROWS = 4  # of each configuration, by which times that rise evenly are those of a curve
_EVEN = 1.5  # the largest step of such times, of the smallest


@dataclass(frozen=True)
class Roles:
    """The columns by which curves are recognised."""

    key: tuple[str, ...]  # those that make a configuration, and the seed
    cost: str | None
    quality: str | None
    seed: str | None
    lr: str | None  # unless it is in `key`


def last_rows(columns: Columns, roles: Roles, as_seeds: bool) -> tuple[str | None, bool]:
    """Reduce a table of curves to one row for each run, in place, with a note: the last filled cell of each column.

    Returns the column that counts epochs or steps, None for a table of final results, and whether the learning rate
    follows a schedule, so that its last value is not the configured one. With `as_seeds` times that rise from row
    to row are not taken for curves. Raises DataError where the rows are curves whose runs cannot be distinguished.
    """
    counts = _counts(columns)
    runs, scheduled = _runs(columns, counts, roles)
    if runs is None:
        if not as_seeds and not counts and roles.cost is not None:
            _refuse_rising(columns, roles)
        return None, False
    if all(len(rows) == 1 for rows in runs):
        return None, False
    if roles.cost is not None:
        _check_cumulative(columns, roles.cost, runs)
    sheet = columns.sheet
    n_rows = len(sheet.row_numbers)
    # A run ends at its last row with a quality: a row of training alone may follow.
    has, at = _has(columns, roles.quality), sheet.cells[counts[0]]
    ends = [_last(at, [i for i in rows if has[i]] or rows) for rows in runs]
    if roles.cost is not None:
        _note_early(columns, roles.cost, counts[0], runs, has)
    sheet.cells = {name: [_last(cells, rows) for rows in runs] for name, cells in sheet.cells.items()}
    sheet.cells[counts[0]] = ends
    sheet.row_numbers = [sheet.row_numbers[rows[-1]] for rows in runs]
    kept = "the last row is taken" if len(runs) == 1 else f"the last row of each of {len(runs)} runs is taken"
    sheet.note(f"The {n_rows} rows are curves, by {counts[0]}: {kept}; {_HINT}.")
    if scheduled:
        sheet.note(f"{roles.lr} changes within runs, as a schedule does: the learning rate is unknown.")
    return counts[0], scheduled


def _runs(columns: Columns, counts: Sequence[str], roles: Roles) -> tuple[list[list[int]] | None, bool]:
    """Return the rows (from 0) by run, None for final results, and whether the learning rate changes within runs.

    Learning rates distinguish runs only where the other columns do not.
    """
    if roles.lr is not None:
        cells = columns.sheet.cells[roles.lr]
        with suppress(DataError):
            runs = _distinguished(columns, counts, roles, roles.key)
            rates = [{str(cells[i]).strip() for i in rows if not is_blank(cells[i])} for rows in runs or ()]
            if any(len(some) > 1 for some in rates):
                return runs, True
    return _distinguished(columns, counts, roles, [*roles.key, *([roles.lr] if roles.lr else [])]), False


def _distinguished(columns: Columns, counts: Sequence[str], roles: Roles, key: Sequence[str]) -> list[list[int]] | None:
    runs = _runs_by_column(columns, counts, key, roles.quality)
    if runs is None and columns.chosen.get("run", "") is not None:
        without = [] if roles.lr is None or roles.lr in key else [roles.lr]
        runs = _runs_by_restart(columns, counts, key, roles, without)
    return runs


def _rows_have_states(columns: Columns) -> bool:
    """Return whether every row has the state of a run that has ended, so that each row is a run."""
    if state_columns(columns):
        return True
    done = [name for name, _, final in state_flags(columns) if final]
    return any(
        all(not is_blank(cell) and is_true(columns, i, name) for i, cell in enumerate(columns.sheet.cells[name]))
        for name in done
    )


def _last(cells: Sequence[Any], rows: Sequence[int]) -> Any:
    return next((cells[i] for i in reversed(rows) if not is_blank(cells[i])), None)


def _counts(columns: Columns) -> list[str]:
    """Return the columns that count epochs, iterations or steps, coarsest first."""
    found = []
    for word in _PROGRESS:
        for head in columns.filled:
            fits = head.plain == word and head.kind != SETTING and columns.is_numeric(head.name)
            if fits and len(set(columns.numbers(head.name)) - {None}) > 1:
                found.append(head.name)
    return found


def _runs_by_column(
    columns: Columns, counts: Sequence[str], key: Sequence[str], quality: str | None
) -> list[list[int]] | None:
    """Return the rows by the run that a column names; None if no such column has runs with rows of growing progress."""
    asked = "run" in columns.chosen
    names = [columns.chosen["run"]] if asked else []
    if not names:
        heads = [h for h in columns.filled if h.kind not in (RESULT, SETTING)]
        names = [h.name for word in _RUNS for h in heads if h.plain == word]
    for name in names:
        if name is None or (not asked and columns.headers[name].plain == "id" and columns.is_numeric(name)):
            continue  # numbers of rows
        runs: dict[Hashable, list[int]] = defaultdict(list)
        for i, cell in enumerate(columns.sheet.cells[name]):
            runs[i if is_blank(cell) else (str(cell), *_key(columns, key, i))].append(i)
        if all(len(rows) == 1 for rows in runs.values()):
            return list(runs.values())
        for progress in counts:
            at, has = columns.numbers(progress), _has(columns, quality)
            ordered = [_in_order(at, rows, has) for rows in runs.values()]
            if any(rows is None or not (asked or _from_start(at, rows)) for rows in ordered):
                continue
            if not asked and columns.headers[name].plain in _DISPLAYED and state_columns(columns):
                raise DataError(
                    f"{columns.source}: several rows have one {name} and a growing {progress}: {option('run')} {name} "
                    f"says that they are one run, {option('run')} none that each row is a run"
                )
            return [rows for rows in ordered if rows is not None]
        others = _settings(columns, [])
        repeats = any(len({_key(columns, others, i) for i in rows}) < len(rows) for rows in runs.values())
        if asked or (repeats and columns.headers[name].plain not in _DISPLAYED):
            lacking = f"of one {counts[-1]}" if counts else "and no column counts their epochs or steps"
            raise DataError(
                f"{columns.source}: {name}: some runs have several rows {lacking}; {option('run')} none says that "
                f"each row is a run; {_HINT}"
            )
    return None


def _key(columns: Columns, key: Sequence[str], i: int) -> tuple[str, ...]:
    """Return the cells of row i in the columns of `key`, which distinguish runs."""
    return tuple(str(columns.sheet.cells[name][i]).strip() for name in key)


def _has(columns: Columns, quality: str | None) -> list[bool]:
    """Return whether each row has a quality, which a run has at most once at one progress."""
    if quality is None:
        return [True] * len(columns.sheet.row_numbers)
    return [not is_blank(cell) for cell in columns.sheet.cells[quality]]


def _in_order(at: Sequence[float | None], rows: Sequence[int], has: Sequence[bool]) -> list[int] | None:
    """Return rows by progress, those without one by their place; None if they are not one curve.

    A curve has at most one row with a quality (`has`) at each progress, and at least two values of progress.
    """
    figures = [at[i] for i in rows if has[i] and at[i] is not None]
    if len(rows) > 1 and (len({at[i] for i in rows} - {None}) < 2 or len(set(figures)) < len(figures)):
        return None
    low = -1.0
    places: dict[int, float] = {}
    for i in rows:
        value = at[i]
        low = low if value is None else value
        places[i] = low
    return sorted(rows, key=lambda i: (places[i], i))


def _runs_by_restart(
    columns: Columns, counts: Sequence[str], key: Sequence[str], roles: Roles, without: Sequence[str]
) -> list[list[int]] | None:
    """Return rows by run where no column names it: a run ends with its configuration, or where its counter restarts.

    None where progress does not show runs. Raises DataError where runs seem to be mixed. Where each row has the state
    of a run, only clear curves count.
    """
    others = _settings(columns, [*key, *counts, *without])
    by_key: dict[Hashable, list[int]] = defaultdict(list)
    for i in range(len(columns.sheet.row_numbers)):
        by_key[_key(columns, [*key, *others], i)].append(i)
    has, certain = _has(columns, roles.quality), not _rows_have_states(columns)
    counting = []
    for progress in counts:
        at = columns.numbers(progress)
        if not any(len({at[i] for i in rows} - {None}) > 1 for rows in by_key.values()):
            continue
        counting.append(progress)
        cut = [_of_one_seed(columns, roles.seed, at, rows, has) or _cut(at, rows, has) for rows in by_key.values()]
        runs = [run for some in cut for run in some or ()]
        if None in cut or (not certain and min(map(len, runs)) < 3):
            continue
        _refuse_jumps(columns, progress, runs)
        return sorted(runs)
    if counting and certain:
        raise DataError(
            f"{columns.source}: the rows are curves, by {counting[0]}, and runs are mixed or cannot be distinguished; "
            f"name the column that distinguishes them with {option('run')}; {_HINT}"
        )
    return None


def _from_start(at: Sequence[float | None], rows: Sequence[int]) -> bool:
    """Return whether a count begins within one step of 0, as curves do; ends of different runs begin later."""
    counted = sorted({value for value in (at[i] for i in rows) if value is not None})
    return len(counted) < 2 or counted[0] <= max(1.0, *(b - a for a, b in pairwise(counted)))


def _of_one_seed(
    columns: Columns, seed: str | None, at: Sequence[float | None], rows: Sequence[int], has: Sequence[bool]
) -> list[list[int]] | None:
    """Return the one run of a configuration and seed, in any order of its rows; None for several runs or no seed."""
    if seed is None or is_blank(columns.sheet.cells[seed][rows[0]]):
        return None
    ordered = [rows[0]] if len(rows) == 1 else _in_order(at, rows, has)
    return None if ordered is None or not _from_start(at, ordered) else [ordered]


def _cut(at: Sequence[float | None], rows: Sequence[int], has: Sequence[bool]) -> list[list[int]] | None:
    """Return the rows of one configuration by run, None where runs are mixed: not all begin at the first progress.

    A run has at most one row with a quality (`has`) at each progress.
    """
    runs: list[list[int]] = [[]]
    seen: dict[float, bool] = {}  # progress in this run, and whether it has its figure
    last = -math.inf
    for i in rows:
        value = at[i]
        if value is not None and (value < last or (has[i] and seen.get(value, False))):
            runs.append([])
            seen = {}
        if value is not None:
            seen[value] = seen.get(value, False) or has[i]
            last = value
        runs[-1].append(i)
    if not all(_from_start(at, run) for run in runs):
        return None
    spans = [[value for value in (at[i] for i in run) if value is not None] for run in runs]
    lengths = [len(set(span)) for span in spans]
    least = min((min(span) for span in spans if span), default=0.0)
    if any(span and span[0] != least for span in spans) or (len(runs) > 1 and min(lengths) == 1 < max(lengths)):
        return None
    return runs


def _refuse_jumps(columns: Columns, progress: str, runs: Sequence[Sequence[int]]) -> None:
    """Raise DataError for pairs of rows with progress far apart, which may be settings of two runs or a curve."""
    at = columns.numbers(progress)
    ends = [(at[run[0]] or 0.0, at[run[-1]] or 0.0) for run in runs if len(run) > 1]
    if all(len(run) <= 2 for run in runs) and all(last - first > max(first, 1.0) for first, last in ends):
        raise DataError(
            f"{columns.source}: {progress} varies within a configuration, as in curves or as a setting; say "
            f"--config {progress} if it is one, or name the column that distinguishes runs with {option('run')}"
        )


def _check_cumulative(columns: Columns, cost: str, runs: Sequence[Sequence[int]]) -> None:
    """Raise DataError where costs do not add up from row to row, so that a run's last cost is not its whole cost."""
    head = columns.headers.get(cost)
    if head is not None and not is_cost(head):
        return
    values = columns.numbers(cost)
    for run in runs:
        known = [(i, values[i]) for i in run if values[i] is not None]
        for (_, a), (i, b) in pairwise(known):
            if (b or 0.0) < (a or 0.0) or known[0][1] == known[-1][1] != 0:
                raise DataError(
                    f"{columns.source}: row {columns.sheet.row_numbers[i]}: {cost}: does not add up from row to row "
                    f"of a run, so its last value is not what the run cost; name another with {option('cost')}; {_HINT}"
                )


def _note_early(columns: Columns, cost: str, progress: str, runs: Sequence[Sequence[int]], has: Sequence[bool]) -> None:
    """Note runs whose last cost comes before their last quality: they cost more than that."""
    at, costs = columns.numbers(progress), columns.sheet.cells[cost]

    def latest(rows: Sequence[int]) -> float:
        return max((value for value in (at[i] for i in rows) if value is not None), default=0.0)

    early = sum(
        latest([i for i in rows if not is_blank(costs[i])]) < latest([i for i in rows if has[i]]) for rows in runs
    )
    if early:
        columns.sheet.note(
            f"In {early} of {len(runs)} runs {cost} ends before the last figure: they cost more than that."
        )


def _refuse_rising(columns: Columns, roles: Roles) -> None:
    """Raise DataError for times that grow by equal steps from row to row of every configuration, as curves do."""
    cost, key = roles.cost or "", [*roles.key, *([roles.lr] if roles.lr else [])]
    head = columns.headers.get(cost)
    if head is None or wall_unit(head) is None:
        return
    values = columns.numbers(cost)
    by_key: dict[Hashable, list[float]] = defaultdict(list)
    for i, value in enumerate(values):
        if value is not None:
            by_key[_key(columns, [*key, *_settings(columns, key)], i)].append(value)
    if min(map(len, by_key.values()), default=0) < _LEAST_ROWS:
        return
    steps = [[b - a for a, b in pairwise(times)] for times in by_key.values()]
    if all(
        0 < max(some) <= _EVEN * min(some) and times[-1] >= 2 * times[0]
        for some, times in zip(steps, by_key.values(), strict=True)
    ):
        raise DataError(
            f"{columns.source}: {cost} rises evenly from row to row of each configuration, as in curves, which are not "
            f"final results; add a column that counts epochs or steps, or say --as-seeds all; {_HINT}"
        )


def _settings(columns: Columns, without: Sequence[str]) -> list[str]:
    """Return the columns of settings by their names, which do not change within a run."""
    return [head.name for head in columns.filled if head.name not in without and is_setting_by_name(head)]
