"""The columns that say how good a run's model is: validation before test, never training unless the user says so."""

from __future__ import annotations

from collections.abc import Sequence

from study.analysis.tables.cells import is_blank, is_not_finite, scaled
from study.analysis.tables.columns import Columns
from study.analysis.tables.names import FAMILIES, Figure, figure_of
from study.errors import DataError

_SPLITS = ("validation", "test", "")


def figures(columns: Columns) -> list[Figure]:
    """All columns whose names are those of figures of quality and that hold numbers."""
    found = (figure_of(head) for head in columns.filled)
    return [one for one in found if one is not None and _holds_numbers(columns, one.header.name)]


def _holds_numbers(columns: Columns, name: str) -> bool:
    for cell in columns.sheet.cells[name]:
        try:
            scaled(cell, columns.sheet.decimal_comma, columns.sheet.mixed_point)
        except ValueError:
            if not is_not_finite(cell):
                continue
        return True
    return False


def unread_figure(columns: Columns) -> DataError | None:
    """The error for the first cell of a figure that nowhere holds a number, None if there is no such figure."""
    for head in columns.filled:
        one = figure_of(head)
        if one is not None and one.split != "training" and not _holds_numbers(columns, head.name):
            i = next(i for i, cell in enumerate(columns.sheet.cells[head.name]) if not is_blank(cell))
            return columns.sheet.error(i, head.name, "a finite number")
    return None


def _rank(one: Figure) -> tuple[int, int, bool, bool]:
    return _SPLITS.index(one.split), FAMILIES.index(one.family), one.best, one.worn


def find_quality(columns: Columns, without: Sequence[str] = ()) -> Figure | None:
    """The likeliest quality but for the columns in `without`; None if there is none but of training."""
    known = [one for one in figures(columns) if one.header.name not in without]
    ranked = sorted((one for one in known if one.split != "training"), key=_rank)
    if not ranked:
        return None
    same = [one for one in ranked if _rank(one) == _rank(ranked[0])]
    exact = [one for one in same if one.header.name == one.family.name] or same
    first = columns.one([one.header for one in exact], exact[0].family.name, "quality")
    chosen = next(one for one in exact if one.header.name == first)
    if chosen.split == "test":
        columns.sheet.note(f"There is no validation figure: the quality is the test figure {first}.")
    _note_best(columns, chosen)
    for one in ranked if chosen.split else ():
        if not one.split and FAMILIES.index(one.family) < FAMILIES.index(chosen.family):
            columns.sheet.note(f"{one.header.name} does not say that it is of validation: the quality is {first}.")
    return chosen


def _note_best(columns: Columns, one: Figure) -> None:
    if one.best:
        columns.sheet.note(f"{one.header.name} is the best figure of each run, not its final one.")


def named_figure(columns: Columns, name: str) -> Figure | None:
    """What the name of a column that the user chose says of it, with notes on what to beware of."""
    head = columns.headers.get(name)
    one = figure_of(head) if head else None
    if one is not None:
        if one.split == "training":
            columns.sheet.note(f"{name} is a training figure.")
        _note_best(columns, one)
    return one


def quality_meant(columns: Columns, word: str) -> str | None:
    """The column for a bare word such as `accuracy` or `loss`, None if the word is of no family."""
    for family in FAMILIES:
        if word == family.name or word in family.words:
            same = [one for one in figures(columns) if one.family == family and one.split != "training"]
            if same:
                best = min(map(_rank, same))
                return columns.one([one.header for one in same if _rank(one) == best], family.name, "quality")
    return None
