"""Which rows are final results: what became of each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from study.analysis.tables.cells import is_missing
from study.analysis.tables.columns import STATES, Columns, option
from study.analysis.tables.names import SETTING, figure_of

_FINAL = {
    *("finished", "complete", "completed", "terminated", "success", "succeeded", "successful", "done", "ok", "passed"),
}
_NOT_FINAL = {
    *("failed", "fail", "failure", "error", "errored", "crashed", "killed", "oom", "out_of_memory", "node_fail"),
    *("running", "scheduled", "pending", "queued", "preempted", "preempting", "waiting", "paused", "suspended"),
    *("pruned", "stopped", "canceled", "cancelled", "aborted", "interrupted", "timeout", "timed_out", "infeasible"),
    *("created", "starting", "stopping", "initializing", "unfinished", "incomplete", "early_stopped", "diverged"),
}
# These say something of the configuration, the others of the machine or of the moment.
SELECTED = {"pruned", "stopped", "early_stopped", "infeasible", "diverged", "not reached", "stopped early"}
_PROGRESS = "training_iteration"
_EPOCHS = {"epoch", "train_epoch", "trainer_epoch", "current_epoch", "epochs_trained", "epochs_completed"}
_SEEN = {"samples_seen", "examples_seen", "tokens_seen", "consumed_samples", "consumed_tokens"}
_LENGTHS = {"epochs", "num_epochs", "max_epochs", "n_epochs", "iterations", "num_iterations", "max_iterations", "max_t"}
_LENGTHS |= {"max_steps", "num_steps", "total_steps", "training_iterations"}
_TRUE, _FALSE = {"true", "yes", "y", "x", "1", "1.0"}, {"false", "no", "n", "0", "0.0"}


def flags(columns: Columns) -> list[tuple[str, str, bool]]:
    """Columns that are called like a state and say whether it is so, as Ray's `done`: name, state, whether final."""
    found = []
    for head in columns.filled:
        state = head.leaf.removeprefix("is_").removeprefix("was_").removeprefix("has_")
        cells = {str(cell).strip().lower() for cell in columns.sheet.cells[head.name] if not is_missing(cell)}
        if head.kind != SETTING and state in _FINAL | _NOT_FINAL and cells <= _TRUE | _FALSE and not figure_of(head):
            found.append((head.name, state, state in _FINAL))
    return found


def truth(columns: Columns, i: int, name: str) -> bool:
    """A cell that is true or false. Raises DataError for any other."""
    word = str(columns.sheet.cells[name][i]).strip().lower()
    if word not in _TRUE | _FALSE:
        raise columns.sheet.error(i, name, "true or false")
    return word in _TRUE


def why_not_final(columns: Columns, batch: str, reached: str | None, progress: str | None) -> list[str]:
    """For each row why it is no final result, in a word or two; empty for the final ones.

    By the state that a tracker gives, columns such as Ray's `done`, and `training_iteration`, which shows the trials
    that Ray's schedulers stopped, since these are called done too; of curves by `progress`, their own count.
    """
    why = _by_state(columns)
    for name, state, final in flags(columns) if "state" not in columns.chosen else ():
        for i, cell in enumerate(columns.sheet.cells[name]):
            if (not is_missing(cell) and truth(columns, i, name)) != final:
                why[i] = why[i] or (f"not {state}" if final else state)
    if reached is not None:
        return [word or ("" if truth(columns, i, reached) else "not reached") for i, word in enumerate(why)]
    progress = progress or next((head.name for head in columns.filled if head.plain == _PROGRESS), None)
    if progress is not None:
        short = shorter(columns, progress, batch, why)
        why = [word or ("stopped early" if i in short else "") for i, word in enumerate(why)]
    return why


def named_states(columns: Columns) -> list[str]:
    """The columns that are called state or status."""
    return [h.name for h in columns.filled if h.plain in ("status", *STATES["status"]) and h.kind != SETTING]


def state_columns(columns: Columns) -> list[str]:
    """The columns with what became of each run; a note on those that hold no known state."""
    names = [columns.chosen["state"]] if "state" in columns.chosen else named_states(columns)
    found = []
    for name in (name for name in names if name is not None):
        if {_state(cell) for cell in columns.sheet.cells[name]} & (_FINAL | _NOT_FINAL):
            found.append(name)
        else:
            columns.sheet.note(f"{name} holds no known state of a run, such as finished or failed: it is ignored.")
    return found


def _by_state(columns: Columns) -> list[str]:
    why = [""] * len(columns.sheet.numbers)
    for name in state_columns(columns):
        words = [_state(cell) for cell in columns.sheet.cells[name]]
        unknown = sorted(set(words) - _FINAL - _NOT_FINAL - {""})
        if unknown:
            listed = ", ".join(repr(word)[:40] for word in unknown[:4])
            columns.sheet.note(
                f"{name} holds {listed}, which is no known state: such rows are not taken for final; "
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


def shorter(columns: Columns, progress: str, batch: str, why: Sequence[str]) -> set[int]:
    """The rows (from 0) that ended before the others did, by a column that counts iterations or epochs.

    The configured length counts where it varies. Batch sizes that all come to one number of samples, or of updates by a
    count of samples, are not compared.
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
                f"{head.name} differs between final rows of one configuration: runs that were stopped early are no "
                f"final results; {option('state')} says which were."
            )
            return
