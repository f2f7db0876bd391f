"""Tables with a row for each report of a run: recognised, and brought to the last row of each run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any

from study.analysis.tables.cells import is_blank
from study.analysis.tables.columns import Columns, option
from study.analysis.tables.costs import is_cost
from study.analysis.tables.names import RESULT, SETTING
from study.analysis.tables.states import state_column, truth
from study.analysis.tables.varying import is_setting_by_name
from study.plan.errors import PlanError

_PROGRESS = (
    *("training_iteration", "epoch", "train_epoch", "current_epoch", "trainer_epoch", "iteration", "iter"),
    *("step", "global_step", "trainer_global_step", "update"),
)
_RUNS = ("run_id", "trial_id", "run", "trial", "run_name", "trial_name", "name", "id", "experiment_name", "number")
_DISPLAYED = {"name", "run_name", "trial_name", "experiment_name"}  # which runs may share
_HINT = "`study replay` compares schedulers on such curves"
_GROWTH = 2.0  # a cost that grows so many times over the rows of a configuration is that of a curve


def last_rows(
    columns: Columns, key: Sequence[str], cost: str | None, quality: str | None, as_seeds: bool
) -> str | None:
    """Bring a table of curves to one row for each run, in place, with a note; the progress column if it was one.

    `key` are the columns that make a configuration, rate and seed. A run's cells are the last that are not empty.
    Raises PlanError where it is a table of curves and the runs cannot be told apart.
    """
    progress = _find_progress(columns)
    runs = _runs_by_column(columns, progress, key, quality)
    if runs is None and progress is not None and columns.chosen.get("run", "") is not None:
        runs = _runs_by_restart(columns, progress, key, quality, certain=not _says_what_became(columns))
    if runs is None:
        if not as_seeds and progress is None and cost is not None:
            _refuse_rising(columns, key, cost)
        return None
    if all(len(rows) == 1 for rows in runs):
        return None
    assert progress is not None, "or no runs of several rows were found"
    if cost is not None:
        _check_cumulative(columns, cost, runs)
    sheet = columns.sheet
    n_rows = len(sheet.numbers)
    sheet.cells = {name: [_last(cells, rows) for rows in runs] for name, cells in sheet.cells.items()}
    sheet.numbers = [sheet.numbers[rows[-1]] for rows in runs]
    sheet.note(
        f"The {n_rows} rows are curves, by {progress}: the last row of each of {len(runs)} runs is taken; {_HINT}."
    )
    return progress


def _says_what_became(columns: Columns) -> bool:
    """Every row has the state of a run that is over, so that each is a run."""
    if state_column(columns) is not None:
        return True
    done = columns.find("done")
    return done is not None and all(truth(columns, i, done) for i in range(len(columns.sheet.numbers)))


def _last(cells: Sequence[Any], rows: Sequence[int]) -> Any:
    return next((cells[i] for i in reversed(rows) if not is_blank(cells[i])), None)


def _find_progress(columns: Columns) -> str | None:
    for word in _PROGRESS:
        for head in columns.filled:
            counts = head.plain == word and head.kind != SETTING and columns.is_numeric(head.name)
            if counts and len(set(columns.numbers(head.name)) - {None}) > 1:
                return head.name
    return None


def _runs_by_column(
    columns: Columns, progress: str | None, key: Sequence[str], quality: str | None
) -> list[list[int]] | None:
    """Rows by run as a column names them; None without one whose runs have rows of growing progress."""
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
        ordered = [_in_order(columns, progress, rows, quality) for rows in runs.values()] if progress else [None]
        if all(rows is not None for rows in ordered):
            if not asked and columns.headers[name].plain in _DISPLAYED and state_column(columns):
                raise PlanError(
                    f"{columns.source}: several rows have one {name} and a growing {progress}: {option('run')} {name} "
                    f"says that they are one run, {option('run')} none that each row is a run"
                )
            return [rows for rows in ordered if rows is not None]
        if asked:
            lacking = (
                f"several rows of one {progress}" if progress else "several rows, and no column counts their epochs"
            )
            raise PlanError(f"{columns.source}: {option('run')} {name}: some runs have {lacking}")
    return None


def _key(columns: Columns, key: Sequence[str], i: int) -> tuple[str, ...]:
    """What row i is set to."""
    return tuple(str(columns.sheet.cells[name][i]).strip() for name in key)


def _in_order(columns: Columns, progress: str, rows: Sequence[int], quality: str | None) -> list[int] | None:
    """Rows by progress, those that say none by their place; None if they are no curve."""
    at = columns.numbers(progress)
    if len(rows) > 1 and len({at[i] for i in rows} - {None}) < 2:
        return None
    low = -1.0
    places: dict[int, float] = {}
    for i in rows:
        if at[i] is not None and _repeats(columns, list(places), i, at, quality):
            return None
        value = at[i]
        low = low if value is None else value
        places[i] = low
    return sorted(rows, key=lambda i: (places[i], i))


def _runs_by_restart(
    columns: Columns, progress: str, key: Sequence[str], quality: str | None, certain: bool
) -> list[list[int]] | None:
    """Rows by run where no column names it: a run ends where its configuration does, or its counter begins anew.

    None where progress says nothing. Raises PlanError where runs seem to be mixed; unless it is `certain` that rows
    are no final results, only plain curves count.
    """
    at = columns.numbers(progress)
    names = [name for name in (*key, *_other_settings(columns, key, progress)) if columns.sheet.cells.get(name)]
    by_key: dict[Hashable, list[int]] = defaultdict(list)
    for i in range(len(at)):
        by_key[_key(columns, names, i)].append(i)
    if not any(len({at[i] for i in rows} - {None}) > 1 for rows in by_key.values()):
        return None
    try:
        runs = [run for rows in by_key.values() for run in _cut(columns, progress, rows, quality)]
    except PlanError:
        if certain:
            raise
        return None
    if not certain and min(map(len, runs)) < 3:
        return None
    ends = [(at[run[0]] or 0.0, at[run[-1]] or 0.0) for run in runs if len(run) > 1]
    if all(len(run) <= 2 for run in runs) and all(last - first > max(first, 1.0) for first, last in ends):
        raise PlanError(
            f"{columns.source}: {progress} varies within a configuration, as in curves or as a setting; say "
            f"--config {progress} if it is one, or name the column that tells runs apart with {option('run')}"
        )
    return sorted(runs)


def _other_settings(columns: Columns, key: Sequence[str], progress: str) -> list[str]:
    """Columns by prefix or words that hold settings, which one run does not change."""
    return [h.name for h in columns.filled if h.name not in key and h.name != progress and is_setting_by_name(h)]


def _cut(columns: Columns, progress: str, rows: Sequence[int], quality: str | None) -> list[list[int]]:
    at = columns.numbers(progress)
    known = [i for i in rows if at[i] is not None]
    least = min((at[i] or 0.0 for i in known), default=0.0)
    runs: list[list[int]] = [[]]
    for i in rows:
        before = next((at[j] for j in reversed(runs[-1]) if at[j] is not None), None)
        value = at[i]
        if before is not None and value is not None and (value < before or _repeats(columns, runs[-1], i, at, quality)):
            runs.append([])
        runs[-1].append(i)
    starts = [at[run[0]] for run in runs]
    lengths = [len({at[i] for i in run}) for run in runs]
    if any(start != least for start in starts) or (len(runs) > 1 and min(lengths) == 1 < max(lengths)):
        raise PlanError(
            f"{columns.source}: the rows are curves, by {progress}, and runs are mixed or cannot be told apart (row "
            f"{columns.sheet.numbers[rows[0]]} and others); name the column that tells them apart with "
            f"{option('run')}; {_HINT}"
        )
    return runs


def _repeats(columns: Columns, run: Sequence[int], i: int, at: Sequence[float | None], quality: str | None) -> bool:
    """Row i has the progress of a row of the run, and a figure of quality as that row has: another run's."""
    same = [j for j in run if at[j] == at[i]]
    if quality is None or not same:
        return bool(same)
    cells = columns.sheet.cells[quality]
    return not is_blank(cells[i]) and any(not is_blank(cells[j]) for j in same)


def _check_cumulative(columns: Columns, cost: str, runs: Sequence[Sequence[int]]) -> None:
    """A run's last cost is its whole cost only where costs add up from row to row."""
    head = columns.headers.get(cost)
    if head is not None and not is_cost(head):
        return
    values = columns.numbers(cost)
    for run in runs:
        known = [(i, values[i]) for i in run if values[i] is not None]
        for (_, a), (i, b) in pairwise(known):
            if (b or 0.0) < (a or 0.0) or known[0][1] == known[-1][1] != 0:
                raise PlanError(
                    f"{columns.source}: row {columns.sheet.numbers[i]}: {cost}: does not add up from row to row of a "
                    f"run, so its last value is not what the run cost; name another with {option('cost')}; {_HINT}"
                )


def _refuse_rising(columns: Columns, key: Sequence[str], cost: str) -> None:
    """Costs that double and more from row to row of every configuration are those of curves."""
    values = columns.numbers(cost)
    by_key: dict[Hashable, list[float]] = defaultdict(list)
    for i, value in enumerate(values):
        if value is not None:
            by_key[_key(columns, key, i)].append(value)
    several = [costs for costs in by_key.values() if len(costs) > 1]
    if not any(len(costs) > 2 for costs in several):
        return
    if all(all(a < b for a, b in pairwise(costs)) and costs[-1] >= _GROWTH * costs[0] for costs in several):
        raise PlanError(
            f"{columns.source}: {cost} rises from row to row of each configuration, as in curves, which are no final "
            f"results; name the column that tells runs apart with {option('run')} and one that counts epochs or steps, "
            f"or say --as-seeds all; {_HINT}"
        )
