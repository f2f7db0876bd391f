"""The two axes of a table: what a run cost, and how good its model is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.analysis.tables.cells import is_blank, is_not_finite, scaled
from study.analysis.tables.columns import FAMILIES, TARGETS, Columns, QualityColumn, header, option, plain, quality_of
from study.analysis.tables.costs import (
    COSTS,
    CostColumn,
    as_cost,
    cost_column_for,
    find_cost,
    in_device_hours,
    is_cost,
    unread_time,
)
from study.errors import DataError

_SPLITS = ("validation", "test", "")


def quality_columns(columns: Columns) -> list[QualityColumn]:
    """Return all columns that are named like a measure of quality and hold numbers."""
    found = (quality_of(head) for head in columns.filled)
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


def unread_quality(columns: Columns) -> DataError | None:
    """Return the error for a column that is named like a quality without any numbers, None if there is none."""
    for head in columns.filled:
        one = quality_of(head)
        if one is not None and one.split != "training" and not _holds_numbers(columns, head.name):
            i = next(i for i, cell in enumerate(columns.sheet.cells[head.name]) if not is_blank(cell))
            return columns.sheet.error(i, head.name, "a finite number")
    return None


def _rank(one: QualityColumn) -> tuple[int, int, bool, bool]:
    return _SPLITS.index(one.split), FAMILIES.index(one.family), one.best, one.wordy


def find_quality(columns: Columns, without: Sequence[str] = ()) -> QualityColumn | None:
    """Return the likeliest quality, leaving out the columns in `without`; None if there are only training measures."""
    known = [one for one in quality_columns(columns) if one.header.name not in without]
    ranked = sorted((one for one in known if one.split != "training"), key=_rank)
    if not ranked:
        return None
    same = [one for one in ranked if _rank(one) == _rank(ranked[0])]
    exact = [one for one in same if one.header.name == one.family.name] or same
    first = columns.merge([one.header for one in exact], exact[0].family.name, "quality")
    chosen = next(one for one in exact if one.header.name == first)
    if chosen.split == "test":
        columns.sheet.note(f"There is no validation figure: the quality is the test figure {first}.")
    _note_best(columns, chosen)
    for one in ranked if chosen.split else ():
        if not one.split and FAMILIES.index(one.family) < FAMILIES.index(chosen.family):
            columns.sheet.note(f"{one.header.name} does not say that it is of validation: the quality is {first}.")
    return chosen


def _note_best(columns: Columns, one: QualityColumn) -> None:
    if one.best:
        columns.sheet.note(f"{one.header.name} is the best figure of each run, not its final one.")


def named_quality(columns: Columns, name: str) -> QualityColumn | None:
    """Return what the name of a chosen column says of it, and note that it is of training or of each run's best."""
    head = columns.headers.get(name)
    one = quality_of(head) if head else None
    if one is not None:
        if one.split == "training":
            columns.sheet.note(f"{name} is a training figure.")
        _note_best(columns, one)
    return one


def quality_column_for(columns: Columns, word: str) -> str | None:
    """Return the column for a bare word such as `accuracy` or `loss`, None if no family has the word."""
    for family in FAMILIES:
        if word == family.name or word in family.words:
            same = [one for one in quality_columns(columns) if one.family == family and one.split != "training"]
            if same:
                best = min(map(_rank, same))
                return columns.merge([one.header for one in same if _rank(one) == best], family.name, "quality")
    return None


@dataclass(frozen=True)
class Objective:
    """The column of one axis. Samples hold its values signed, so that cost is minimised and quality maximised."""

    column: str
    maximize: bool


@dataclass(frozen=True)
class _Named:
    """A column that --minimize or --maximize names."""

    column: str
    maximize: bool


def find_objectives(
    columns: Columns, minimize: Sequence[str], maximize: Sequence[str], devices: str | None, has_target: bool
) -> tuple[Objective | None, Objective | None]:
    """Return cost and quality, as the options name them, else as the headers do; None for an axis that is not needed.

    One option names one axis, and the other is found. Raises DataError where an axis is missing in a table
    without steps to a target, or where the options contradict one another.
    """
    named = [
        _Named(_meant(columns, word, f"--{way}"), way == "maximize")
        for way, words in (("minimize", minimize), ("maximize", maximize))
        for word in words
    ]
    columns.direction_given = {one.column for one in named}
    cost, quality = columns.chosen.get("cost"), columns.chosen.get("quality")
    if len(named) > 2 or len({one.column for one in named} | {name for name in (cost, quality) if name}) > 2:
        raise DataError(f"{columns.source}: the options name more than two objectives")
    columns_named = [one.column for one in named]
    for one in named:
        if columns_named.count(one.column) > 1:
            raise DataError(f"{columns.source}: {one.column}: named twice by --minimize and --maximize")
    if cost is not None and cost == quality:
        raise DataError(f"{columns.source}: {cost}: cannot be both the cost and the quality")
    free = [one.column for one in named if one.column not in (cost, quality)]
    if len(free) == 2:
        first, second = free
        same_way = named[0].maximize == named[-1].maximize
        is_second_cost = is_cost(header(second)) or (same_way and not _is_quality(columns, second))
        swapped = _is_quality(columns, first) and is_second_cost
        cost, quality = (second, first) if swapped else (first, second)
    elif free:
        alone = free[0]
        way = next(one.maximize for one in named if one.column == alone)
        if cost is not None or (quality is None and _is_quality_alone(columns, alone, way)):
            quality = alone
        else:
            cost = alone
    return _completed(columns, named, cost, quality, devices, has_target)


def _completed(
    columns: Columns,
    named: Sequence[_Named],
    cost: str | None,
    quality: str | None,
    devices: str | None,
    has_target: bool,
) -> tuple[Objective | None, Objective | None]:
    ways = {one.column: one.maximize for one in named}
    found: CostColumn | None
    if cost is not None:
        found = as_cost(columns, cost)
    else:
        found = None if "cost" in columns.chosen else find_cost(columns, [quality] if quality else [])
        found = in_device_hours(columns, found, devices) if found else None
    good = _quality(columns, quality, ways, cost)
    if not has_target and (found is None or good is None):
        raise _lacking(columns, found, good)
    return Objective(found.column, ways.get(found.column, False)) if found else None, good


def _quality(columns: Columns, quality: str | None, ways: dict[str, bool], cost: str | None) -> Objective | None:
    if quality is None:
        if "quality" in columns.chosen:
            return None
        one = find_quality(columns, [cost] if cost else [])
        return Objective(one.header.name, one.family.maximize) if one else None
    figure = named_quality(columns, quality)
    if quality not in ways:
        if figure is None:
            raise DataError(
                f"{columns.source}: {quality}: is more of it better or worse? say --maximize {quality} "
                f"or --minimize {quality}"
            )
        return Objective(quality, figure.family.maximize)
    if figure is not None and figure.family.maximize != ways[quality]:
        usual = "higher" if figure.family.maximize else "lower"
        columns.sheet.note(f"{quality} is better when {usual}, by its name; the options say the opposite.")
    return Objective(quality, ways[quality])


def _lacking(columns: Columns, cost: CostColumn | None, quality: Objective | None) -> DataError:
    """Return the error for a missing axis, which names an empty or unreadable column of it if there is one."""
    blank = [head for head in columns.headers.values() if head not in columns.filled]
    for head in blank:
        if (cost is None and is_cost(head)) or (quality is None and quality_of(head) is not None):
            return columns.sheet.error(0, head.name, "a finite number")
        if head.plain in TARGETS:
            return columns.sheet.error(0, head.name, "a number above 0")
    if cost is None and (unread := unread_time(columns)) is not None:
        return unread
    if quality is None and (unread := unread_quality(columns)) is not None:
        return unread
    if cost is not None:
        return DataError(f"{columns.source}: no column for {_no_quality(columns)}")
    lacking = [f"a cost ({', '.join([*COSTS, 'wall_s'])})", *([_no_quality(columns)] if quality is None else [])]
    return DataError(
        f"{columns.source}: no column for {' nor for '.join(lacking)}, nor any steps to a target; "
        f"{option('cost')} and {option('quality')} name others"
    )


def _no_quality(columns: Columns) -> str:
    """Return the words for a missing quality: Optuna's column does not name it, and training measures do not count."""
    training = [one.header.name for one in quality_columns(columns) if one.split == "training"]
    values = [head.name for head in columns.filled if head.plain in ("value", "values_0") and not head.internal]
    if values:
        way = f"--maximize {values[0]} or --minimize {values[0]}"
        return f"a quality: does more or less of {values[0]}, the objective, count as better? say {way}"
    if training:
        return f"a quality: {training[0]} is a training figure; {option('quality')} {training[0]} takes it all the same"
    return f"a quality (val_accuracy, val_error, val_loss, ...; {option('quality')} names it)"


def _meant(columns: Columns, word: str, asked: str) -> str:
    bare = plain(word)
    if not any(head.plain == bare for head in columns.headers.values()):
        found = quality_column_for(columns, bare) or cost_column_for(columns, bare)
        if found is not None:
            return found
    return columns.resolve(word, asked)


def _is_quality(columns: Columns, name: str) -> bool:
    return any(one.header.name == name for one in quality_columns(columns))


def _is_quality_alone(columns: Columns, name: str, maximize: bool) -> bool:
    """Return whether the only column that the options name is the quality, so that the cost must be found."""
    head = header(name)
    if _is_quality(columns, name) or head.plain in ("value", "values_0", "values_1"):
        return True
    if is_cost(head):
        return False
    if maximize or not any(one.split != "training" for one in quality_columns(columns)):
        return True
    columns.sheet.note(f"{name} is taken for the cost; {option('quality')} {name} makes it the quality.")
    return False
