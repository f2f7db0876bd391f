"""The two axes of a table: what a run cost, and how good its model is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.analysis.tables.columns import TARGETS, Columns, option
from study.analysis.tables.costs import (
    COSTS,
    Cost,
    as_cost,
    cost_meant,
    find_cost,
    in_device_hours,
    is_cost,
    unread_time,
)
from study.analysis.tables.names import figure_of, header, plain
from study.analysis.tables.qualities import figures, find_quality, named_figure, quality_meant, unread_figure
from study.errors import DataError


@dataclass(frozen=True)
class Objective:
    """What one axis shows. Samples hold it signed, so that cost is minimised and quality maximised."""

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
    """Cost and quality: as the options say, else as the names do.

    One option names one axis, and the other is found. Raises DataError where an axis is missing and there are no steps
    to a target to go by, or where the options contradict one another.
    """
    named = [
        _Named(_meant(columns, word, f"--{way}"), way == "maximize")
        for way, words in (("minimize", minimize), ("maximize", maximize))
        for word in words
    ]
    columns.insisted = {one.column for one in named}
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
    found: Cost | None
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
    figure = named_figure(columns, quality)
    if quality not in ways:
        if figure is None:
            raise DataError(
                f"{columns.source}: {quality}: is more of it better or worse? say --maximize {quality} "
                f"or --minimize {quality}"
            )
        return Objective(quality, figure.family.maximize)
    if figure is not None and figure.family.maximize != ways[quality]:
        usual = "higher" if figure.family.maximize else "lower"
        columns.sheet.note(f"{quality} is better when {usual}, by its name; the options say the contrary.")
    return Objective(quality, ways[quality])


def _lacking(columns: Columns, cost: Cost | None, quality: Objective | None) -> DataError:
    """The error for an axis that is not there; a column of it may be, without a cell that says anything."""
    blank = [head for head in columns.headers.values() if head not in columns.filled]
    for head in blank:
        if (cost is None and is_cost(head)) or (quality is None and figure_of(head) is not None):
            return columns.sheet.error(0, head.name, "a finite number")
        if head.plain in TARGETS:
            return columns.sheet.error(0, head.name, "a number above 0")
    if cost is None and (unread := unread_time(columns)) is not None:
        return unread
    if quality is None and (unread := unread_figure(columns)) is not None:
        return unread
    if cost is not None:
        return DataError(f"{columns.source}: no column for {_no_quality(columns)}")
    lacking = [f"a cost ({', '.join([*COSTS, 'wall_s'])})", *([_no_quality(columns)] if quality is None else [])]
    return DataError(
        f"{columns.source}: no column for {' nor for '.join(lacking)}, nor any steps to a target; "
        f"{option('cost')} and {option('quality')} name others"
    )


def _no_quality(columns: Columns) -> str:
    """What to say of a quality that is not there: Optuna's has no name, and a training figure is none."""
    training = [one.header.name for one in figures(columns) if one.split == "training"]
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
        found = quality_meant(columns, bare) or cost_meant(columns, bare)
        if found is not None:
            return found
    return columns.named(word, asked)


def _is_quality(columns: Columns, name: str) -> bool:
    return any(one.header.name == name for one in figures(columns))


def _is_quality_alone(columns: Columns, name: str, maximize: bool) -> bool:
    """Whether the only column that the options name is the quality, the cost being left to be found."""
    head = header(name)
    if _is_quality(columns, name) or head.plain in ("value", "values_0", "values_1"):
        return True
    if is_cost(head):
        return False
    if maximize or not any(one.split != "training" for one in figures(columns)):
        return True
    columns.sheet.note(f"{name} is taken for the cost; {option('quality')} {name} makes it the quality.")
    return False
