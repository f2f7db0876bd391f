"""Detects that a study fails everywhere with the same mistake, so that further trials would be paid for in vain."""

from __future__ import annotations

import re
from collections.abc import Sequence

from study.ledger.state import StudyState
from study.planning.trials import Cell

_PLACE = re.compile(r" \([^()\s]+:\d+\)$")  # `(net.py:41)`, as study.workloads.user_code.build writes it
_VARIES = re.compile(r"(\S*[\d/\\]\S*\s*)+")  # words with a digit or a slash: numbers, shapes, addresses, paths
_ENOUGH = 2  # failed trials: a single one may have had an unlucky rate


def without_what_varies(error: str) -> str:
    """Return the error text with every run of words that hold a digit or a path replaced by `#`; the place at its end
    is kept. Two trials made the same mistake if this is equal.
    """
    place = _PLACE.search(error)
    text = error[: place.start()] if place else error
    return _VARIES.sub("# ", text).strip() + (place.group() if place else "")


def same_mistake(state: StudyState, cells: Sequence[Cell], n_trials: int) -> tuple[str, int] | None:
    """Return (error text, trials that failed with it) if a study fails everywhere with one mistake.

    That is so if no trial has completed since the study began, or began again; at least one trial of every cell failed
    with the mistake (a cell that does not fit into memory counts as well); none failed with another; and in no cell a
    trial got further. Cells are those of one world size: the sizes are run one after the other. `n_trials` is how many
    the study has at least, in case they are fewer than two.
    """
    failed = list(state.mistaken.values())
    if len(failed) < min(_ENOUGH, n_trials) or any(outcome == "completed" for _, outcome in state.outcomes):
        return None
    errors = [trial.end.error or "" for trial in failed if trial.end is not None]
    if len({without_what_varies(error) for error in errors}) != 1:
        return None
    failed_at: dict[Cell, int] = {}  # updates at the last report of the furthest that failed
    furthest: dict[Cell, int] = {}  # updates at the last report of any trial
    infeasible: set[Cell] = set()
    for trial, attempt in state.begun:
        cell = Cell(attempt.batch_size, attempt.world_size, attempt.variant)
        furthest[cell] = max(trial.furthest_updates, furthest.get(cell, 0))
        if trial.trial_id in state.mistaken:
            failed_at[cell] = max(trial.updates, failed_at.get(cell, 0))
        elif trial.status == "infeasible":
            infeasible.add(cell)
    sizes = {cell.world_size for cell in failed_at}
    if any(cell.world_size in sizes and cell not in failed_at and cell not in infeasible for cell in cells):
        return None
    if any(furthest[cell] > updates for cell, updates in failed_at.items()):
        return None
    return errors[0], len(failed)
