"""Which rows are final results, why the others are not, and the values of the final ones on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low
from typing import Any

from study.analysis.tables.cells import is_missing, is_not_finite, scaled
from study.analysis.tables.columns import PERCENT, SETTING, STATES, Columns, header, option, quality_of
from study.analysis.tables.objectives import Objective
from study.errors import DataError

_FINAL = {
    *("finished", "complete", "completed", "terminated", "success", "succeeded", "successful", "done", "ok", "passed"),
}
_NOT_FINAL = {
    *("failed", "fail", "failure", "error", "errored", "crashed", "killed", "oom", "out_of_memory", "node_fail"),
    *("running", "scheduled", "pending", "queued", "preempted", "preempting", "waiting", "paused", "suspended"),
    *("pruned", "stopped", "canceled", "cancelled", "aborted", "interrupted", "timeout", "timed_out", "infeasible"),
    *("created", "starting", "stopping", "initializing", "unfinished", "incomplete", "early_stopped", "diverged"),
}
# A run with one of these states ended because of its configuration; with another, because of the machine, or not yet.
OF_CONFIGURATION = {"pruned", "stopped", "early_stopped", "infeasible", "diverged", "not reached", "stopped early"}
_PROGRESS = "training_iteration"
_EPOCHS = {"epoch", "train_epoch", "trainer_epoch", "current_epoch", "epochs_trained", "epochs_completed"}
_SEEN = {"samples_seen", "examples_seen", "tokens_seen", "consumed_samples", "consumed_tokens"}
_LENGTHS = {"epochs", "num_epochs", "max_epochs", "n_epochs", "iterations", "num_iterations", "max_iterations", "max_t"}
_LENGTHS |= {"max_steps", "num_steps", "total_steps", "training_iterations"}
_TRUE, _FALSE = {"true", "yes", "y", "x", "1", "1.0"}, {"false", "no", "n", "0", "0.0"}


def state_flags(columns: Columns) -> list[tuple[str, str, bool]]:
    """Return columns that answer yes or no to a state, as Ray's `done`: name, state, and whether it is final."""
    found = []
    for head in columns.filled:
        state = head.leaf.removeprefix("is_").removeprefix("was_").removeprefix("has_")
        cells = {str(cell).strip().lower() for cell in columns.sheet.cells[head.name] if not is_missing(cell)}
        if head.kind != SETTING and state in _FINAL | _NOT_FINAL and cells <= _TRUE | _FALSE and not quality_of(head):
            found.append((head.name, state, state in _FINAL))
    return found


def is_true(columns: Columns, i: int, name: str) -> bool:
    """Return whether a cell says yes. Raises DataError if it says neither yes nor no."""
    word = str(columns.sheet.cells[name][i]).strip().lower()
    if word not in _TRUE | _FALSE:
        raise columns.sheet.error(i, name, "true or false")
    return word in _TRUE


def why_not_final(columns: Columns, batch: str, reached: str | None, progress: str | None) -> list[str]:
    """Return for each row why it is not a final result, in a word or two; empty for final ones.

    Decided by the tracker's state, by columns such as Ray's `done`, and by `training_iteration`, since Ray calls trials
    done that its schedulers stopped. Curves are judged by `progress`, the column that counts their epochs or steps.
    """
    why = _by_state(columns)
    for name, state, final in state_flags(columns) if "state" not in columns.chosen else ():
        for i, cell in enumerate(columns.sheet.cells[name]):
            if (not is_missing(cell) and is_true(columns, i, name)) != final:
                why[i] = why[i] or (f"not {state}" if final else state)
    if reached is not None:
        return [word or ("" if is_true(columns, i, reached) else "not reached") for i, word in enumerate(why)]
    progress = progress or next((head.name for head in columns.filled if head.plain == _PROGRESS), None)
    if progress is not None:
        short = stopped_early(columns, progress, batch, why)
        why = [word or ("stopped early" if i in short else "") for i, word in enumerate(why)]
    return why


def named_states(columns: Columns) -> list[str]:
    """Return the columns that are called state or status."""
    return [h.name for h in columns.filled if h.plain in ("status", *STATES["status"]) and h.kind != SETTING]


def state_columns(columns: Columns) -> list[str]:
    """Return the columns with the state of each run, and note columns that hold no known state."""
    names = [columns.chosen["state"]] if "state" in columns.chosen else named_states(columns)
    found = []
    for name in (name for name in names if name is not None):
        if {_state(cell) for cell in columns.sheet.cells[name]} & (_FINAL | _NOT_FINAL):
            found.append(name)
        else:
            columns.sheet.note(f"{name} holds no known state of a run, such as finished or failed: it is ignored.")
    return found


def _by_state(columns: Columns) -> list[str]:
    why = [""] * len(columns.sheet.row_numbers)
    for name in state_columns(columns):
        words = [_state(cell) for cell in columns.sheet.cells[name]]
        unknown = sorted(set(words) - _FINAL - _NOT_FINAL - {""})
        if unknown:
            listed = ", ".join(repr(word)[:40] for word in unknown[:4])
            columns.sheet.note(
                f"{name} holds {listed}, which is not a known state: such rows are not taken for final; "
                f"{option('state')} names another column, or none."
            )
        why = [
            before or ("" if word in _FINAL else word or "no state") for before, word in zip(why, words, strict=True)
        ]
    return why


def _state(cell: Any) -> str:
    if is_missing(cell):
        return ""
    return str(cell).strip().lower().rpartition(".")[2].replace(" ", "_").replace("-", "_")


def stopped_early(columns: Columns, progress: str, batch: str, why: Sequence[str]) -> set[int]:
    """Return the rows (from 0) that ended before the others, by a column that counts iterations or epochs.

    Rows of different configured lengths are not compared. Neither are batch sizes that all ended after the same number
    of samples, or of updates where samples are counted.
    """
    at, sizes = columns.numbers(progress), columns.numbers(batch)
    lengths = [
        columns.sheet.cells[head.name]
        for head in columns.filled
        if head.leaf in _LENGTHS and head.name != progress and head.kind in ("setting", "")
    ]
    short: set[int] = set()
    rows = [i for i, n in enumerate(at) if n is not None and not why[i]]
    for key in {tuple(str(cells[i]) for cells in lengths) for i in rows}:
        same = [i for i in rows if tuple(str(cells[i]) for cells in lengths) == key]
        by_batch = {size: {at[i] for i in same if sizes[i] == size} for size in {sizes[i] for i in same}}
        if len(by_batch) > 1 and all(len(ends) == 1 for ends in by_batch.values()):
            last = [(size or 1.0, next(iter(ends)) or 0.0) for size, ends in by_batch.items()]
            samples, updates = [size * end for size, end in last], [end / size for size, end in last]
            if max(samples) <= 1.05 * min(samples):
                columns.sheet.note(
                    f"By {progress} batch sizes ended after as many samples each: none is taken for stopped early."
                )
                continue
            if columns.headers[progress].plain in _SEEN and max(updates) <= 1.05 * min(updates):
                continue
        most = max(at[i] or 0.0 for i in same)
        short |= {i for i in same if (at[i] or 0.0) < most}
    if short:
        columns.sheet.note(
            f"{len(short)} of {len(rows)} runs ended before the longest by {progress}: they are taken for stopped "
            "early; a column `reached` says which met a target."
        )
    return short


def note_lengths(columns: Columns, key: Sequence[str], final: Sequence[int]) -> None:
    """Note that final rows of one configuration ended at different epochs: those that were stopped are no results."""
    for head in columns.filled:
        if head.plain not in _EPOCHS or head.kind == SETTING or head.name in key:
            continue
        at = columns.numbers(head.name)
        ends: dict[tuple[str, ...], set[float | None]] = {}
        for i in final:
            ends.setdefault(tuple(str(columns.sheet.cells[name][i]) for name in key), set()).add(at[i])
        if any(len(some - {None}) > 1 for some in ends.values()):
            columns.sheet.note(
                f"{head.name} differs between final rows of one configuration: runs that were stopped early are not "
                f"final results; {option('state')} says which were."
            )
            return


_LEAST_PERCENT = 10.0
_HUGE = 1000.0  # times the median of the losses: such a run diverged
_LOW = 0.5  # a fraction beside percentages must, in percent, be at least this share of the least of them


def diverged_rows(columns: Columns, quality: Objective | None) -> set[int]:
    """Return the rows (from 0) whose quality, training loss or validation loss is NaN or infinite."""
    names = [quality.column] if quality else []
    for name in _losses(columns):
        cells = columns.sheet.cells[name]
        if not all(is_missing(cell) or is_not_finite(cell) for cell in cells):
            names.append(name)
        elif name not in names and len(cells) > 1:
            columns.sheet.note(f"{name} is NaN in all rows: it does not show which diverged.")
    return {i for name in names for i, cell in enumerate(columns.sheet.cells[name]) if is_not_finite(cell)}


def _losses(columns: Columns) -> list[str]:
    """Return the columns of training and validation losses, without those of a run's best."""
    figures = [figure for figure in map(quality_of, columns.filled) if figure is not None]
    losses = [one for one in figures if one.family.name in ("loss", "perplexity")]
    return [one.header.name for one in losses if one.split != "test" and not one.best]


def note_huge_losses(columns: Columns, rows: Sequence[int]) -> None:
    """Note losses of final rows so large that the run diverged, though finite."""
    sheet = columns.sheet
    for name in _losses(columns):
        values = columns.numbers(name)
        known = {i: value for i in rows if (value := values[i]) is not None}
        if not known:
            continue
        most, usual = max(known, key=known.__getitem__), median_low(known.values())
        if known[most] > _HUGE * abs(usual):
            sheet.note(
                f"{name} is {known[most]:.3g} in row {sheet.row_numbers[most]}, where {usual:.3g} is usual: if that "
                "run diverged, write NaN there."
            )


def final_values(columns: Columns, objective: Objective, rows: list[int]) -> dict[int, float]:
    """Return the values of an objective in final rows (from 0), on one scale.

    Values with a percent sign become fractions, unless the header has the sign: then all stay in percent.

    Where --minimize or --maximize names the column, its values may be of any size. Raises DataError for a cell that is
    not a finite number, or whose scale is ambiguous.
    """
    sheet, name = columns.sheet, objective.column
    values: dict[int, float] = {}
    signed: set[int] = set()
    in_percent = "%" in name or bool(PERCENT & set(header(name).tokens))
    for i in rows:
        try:
            values[i], sign = scaled(sheet.cells[name][i], sheet.decimal_comma, sheet.mixed_point)
        except ValueError:
            raise sheet.error(i, name, "a finite number") from None
        if sign and in_percent:
            values[i] *= 100
        elif sign:
            signed.add(i)
    head = columns.headers.get(name)
    figure = quality_of(head) if head else None
    if figure is None or not figure.family.fraction:
        if 0 < len(signed) < len(values):
            raise DataError(f"{sheet.source}: {name}: some cells have a percent sign and some have none; write one way")
        return values
    strange = _first_impossible(objective, values, set(values) if in_percent else signed)
    if strange is not None and name in columns.direction_given:
        sheet.note(f"{name} holds {values[strange]:g}, which is not a possible {figure.family.name}; taken as it is.")
        return values
    if strange is not None:
        way = "maximize" if objective.maximize else "minimize"
        raise DataError(
            f"{sheet.source}: row {sheet.row_numbers[strange]}: {name}: {values[strange]:g} is not a possible "
            f"{figure.family.name}, which is a fraction or in percent; --{way} {name} takes it as it is"
        )
    return _one_scale(columns, name, figure.family.maximize, in_percent, values, signed)


def _first_impossible(objective: Objective, values: dict[int, float], signed: set[int]) -> int | None:
    """Return the first row whose value is neither a fraction nor a percentage.

    Accuracies that are all under 10 and not all fractions cannot be read as percentages either.
    """
    for i, value in values.items():
        if not 0 <= value <= 100:
            return i
    percent = [i for i, value in values.items() if value > 1 and i not in signed]
    low = bool(percent) and max(values[i] for i in percent) < _LEAST_PERCENT
    return percent[0] if low and objective.maximize else None


def _one_scale(
    columns: Columns, name: str, maximize: bool, in_percent: bool, values: dict[int, float], signed: set[int]
) -> dict[int, float]:
    """Return values as fractions where some are fractions, in percent where all are. Raises DataError if ambiguous."""
    sheet = columns.sheet
    percent = {i for i, value in values.items() if value > 1 and i not in signed}
    fractions = set(values) - percent
    if not percent or not fractions:
        return values
    if in_percent and not maximize:
        return values
    least = min(values[i] for i in percent)
    for i in sorted(fractions - signed):
        # A low error may be a fraction or a percentage; so may a low accuracy, and any value called a percentage.
        if values[i] == 1 or (values[i] and (in_percent or not maximize or 100 * values[i] < _LOW * least)):
            raise DataError(
                f"{sheet.source}: row {sheet.row_numbers[i]}: {name}: {values[i]:g} beside {least:g} may be a fraction "
                f"or a percentage; write one scale{'' if in_percent else f', or call the column {name} (%)'}"
            )
    sheet.note(f"{name} is in percent in {len(percent)} of {len(values)} rows: all are taken as fractions.")
    return {i: value / 100 if i in percent else value for i, value in values.items()}
