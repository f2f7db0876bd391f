"""The columns that hold what a run cost; wall time as durations and device-hours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from study.analysis.tables.cells import SECONDS, duration_s, is_duration_text, is_missing, time_s
from study.analysis.tables.columns import HARDWARE, SETTING, Columns, Header, header, option
from study.errors import DataError

# By preference, where a table has several; wall time comes after all of these.
COSTS: dict[str, tuple[str, ...]] = {
    "cost": (),
    "device_hours": (
        "gpu_hours",
        "device_h",
        "gpu_h",
        "billed_device_h",
        "billed_gpu_h",
        "total_gpu_hours",
        "total_gpu_h",
        "gpuhours",
    ),
    "usd": ("cost_usd", "dollars", "price_usd"),
    "energy_j": ("energy", "joules", "total_energy_j", "energy_kwh", "kwh", "energy_k_wh", "k_wh"),
}
_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "seconds"), "s"),
    **dict.fromkeys(("min", "mins", "minutes"), "min"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("ms", "milliseconds"), "ms"),
    **dict.fromkeys(("d", "days"), "d"),
}
_UNIT = "|".join(_UNITS)
_WALL = re.compile(
    r"(?P<of>(?:total_|train_|training_|fit_|run_)*)(?:"
    r"(?:wall|wall_?time|wall_?clock(?:_time)?|time_total|total_time|run_?time|duration|time|elapsed(?:_time)?|time_elapsed)"
    rf"(?:_(?:in_)?(?P<unit>{_UNIT}))?|(?P<only>seconds|minutes|hours))"
)
_STARTS = ("start_time", "datetime_start", "started_at", "start", "started", "time_start", "start_timestamp", "begin")
_ENDS = (
    *("end_time", "datetime_complete", "finished_at", "end", "ended", "time_end", "end_timestamp", "ended_at"),
    *("completed_at", "finished"),
)
_CLOCKS = 0.03  # two clocks of one run may differ by this share, or by _ROUNDED_S
_ROUNDED_S = 2.0
_DURATIONS = "a duration such as 17.1min, 1h 2m or 0:17:02"
_LONGEST_S = 1e8  # a larger number is a date in seconds since 1970


@dataclass(frozen=True)
class CostColumn:
    """A column of costs; `unit_s` are the seconds of its unit where it is wall time, else None."""

    column: str
    unit_s: float | None = None


def is_cost(head: Header) -> bool:
    """Return whether a header names a cost: money, energy, device time, or a wall time with its unit."""
    return any(head.plain in (name, *others) for name, others in COSTS.items()) or wall_unit(head) is not None


def wall_unit(head: Header) -> float | None:
    """Return the seconds of the unit that a column of wall time is in, 1 if it names none; None for other columns."""
    found = _WALL.fullmatch(head.plain)
    if found is None or head.kind == SETTING:
        return None
    word = found["unit"] or found["only"]
    return SECONDS[_UNITS[word]] if word else 1.0


def find_cost(columns: Columns, without: Sequence[str] = ()) -> CostColumn | None:
    """Return the likeliest cost, leaving out the columns in `without`; None if there is none."""
    filled = [head for head in columns.filled if head.name not in without]
    for meaning, others in COSTS.items():
        for alias in (meaning, *others):
            same = [head for head in filled if head.plain == alias]
            same = [head for head in same if head.kind != SETTING] or same
            same = [head for head in same if head.name == alias] or same
            if same:
                return CostColumn(columns.merge(same, meaning, "cost"))
    return _find_wall(columns, filled) or _between_times(columns, filled)


def cost_column_for(columns: Columns, word: str) -> str | None:
    """Return the column for a bare word such as `device_hours` or `wall_s`, None if there is none."""
    for meaning, others in COSTS.items():
        if word in (meaning, *others):
            return next((head.name for head in columns.filled if head.plain in (meaning, *others)), None)
    if wall_unit(header(word)) is not None:
        return next((head.name for head in columns.filled if wall_unit(head) is not None), None)
    return None


def _find_wall(columns: Columns, filled: Sequence[Header]) -> CostColumn | None:
    """Return the column of wall time. Raises DataError where two such columns differ by more than two clocks do."""
    found = [head for head in filled if wall_unit(head) is not None and _is_time(columns, head)]
    if not found:
        return None
    # The tracker's own clock of the whole run, then others, then that of training alone; W&B's _runtime ends early.
    found.sort(key=lambda head: (head.internal, _is_training(head), head.plain == "time"))
    seconds = {head.name: _seconds(columns, head) for head in found}
    first = found[0].name
    for other in found[1:]:
        for i, (a, b) in enumerate(zip(seconds[first], seconds[other.name], strict=True)):
            if a is not None and b is not None and abs(a - b) > max(_CLOCKS * abs(a), _ROUNDED_S):
                raise DataError(
                    f"{columns.source}: columns {first!r} and {other.name!r} both are wall times and differ (row "
                    f"{columns.sheet.row_numbers[i]}: {a:g} s, {b:g} s); name one with {option('cost')}"
                )
        if any(a != b for a, b in zip(seconds[first], seconds[other.name], strict=True) if None not in (a, b)):
            columns.sheet.note(f"{first} and {other.name} are two clocks that nearly agree: the cost is {first}.")
    return as_cost(columns, first)


def _is_training(head: Header) -> bool:
    found = _WALL.fullmatch(head.plain)
    return bool(found and found["of"] and re.search("train|fit", found["of"]))


def _is_time(columns: Columns, head: Header) -> bool:
    known = [seconds for seconds in _seconds(columns, head) if seconds is not None]
    return bool(known) and max(known) < _LONGEST_S


def _seconds(columns: Columns, head: Header) -> list[float | None]:
    unit = wall_unit(head) or 1.0
    found: list[float | None] = []
    for cell in columns.sheet.cells[head.name]:
        try:
            found.append(duration_s(cell, unit, columns.sheet.decimal_comma, columns.sheet.mixed_point))
        except ValueError:
            found.append(None)
    return found


def unread_time(columns: Columns) -> DataError | None:
    """Return the error for the first cell of wall time that cannot be read, None if there is none."""
    for head in columns.filled:
        for i, seconds in enumerate(_seconds(columns, head) if wall_unit(head) is not None else []):
            if seconds is None and not is_missing(columns.sheet.cells[head.name][i]):
                return columns.sheet.error(i, head.name, _DURATIONS)
    return None


def as_cost(columns: Columns, name: str) -> CostColumn:
    """Return a column as a cost. Durations become numbers in the header's unit, or seconds without one; numbers stay.

    Raises DataError for a duration that cannot be read.
    """
    head = columns.headers.get(name)
    unit = wall_unit(head) if head else None
    says_unit = _says_unit(name)
    cells = columns.sheet.cells[name]
    if not any(map(is_duration_text, cells)):
        return CostColumn(name, unit)
    sheet, found, scale = columns.sheet, list[Any](), (unit or 1.0) if says_unit else 1.0
    if not says_unit:
        for i, cell in enumerate(cells):
            if not is_missing(cell) and not is_duration_text(cell):
                raise sheet.error(i, name, f"its unit, as other rows have: {_DURATIONS}")
    for i, cell in enumerate(cells):
        try:
            found.append(duration_s(cell, scale, sheet.decimal_comma, sheet.mixed_point) / scale)
        except ValueError:
            if not is_missing(cell):
                raise sheet.error(i, name, _DURATIONS) from None
            found.append(None)
    sheet.cells[name] = found
    if not says_unit:
        columns.in_seconds.add(name)
    return CostColumn(name, scale)


def _between_times(columns: Columns, filled: Sequence[Header]) -> CostColumn | None:
    """Return the seconds from a column of starts to one of ends; None if either is missing."""
    ends = [next((h.name for word in words for h in filled if h.plain == word), None) for words in (_STARTS, _ENDS)]
    start, end = ends
    if start is None or end is None:
        return None
    seconds: list[Any] = []
    for i in range(len(columns.sheet.row_numbers)):
        times = []
        for name in (start, end):
            cell = columns.sheet.cells[name][i]
            try:
                times.append(None if is_missing(cell) else time_s(cell))
            except ValueError:
                raise columns.sheet.error(i, name, "a date and time such as 2026-01-31 10:00:00") from None
        begun, ended = times
        if begun is None or ended is None:
            seconds.append(None)
        elif ended < begun:
            raise columns.sheet.error(i, end, f"a time that is not before {start}")
        else:
            seconds.append(ended - begun)
    name = columns.add(f"{end} - {start}", seconds)
    columns.in_seconds.add(name)
    return CostColumn(name, 1.0)


def in_device_hours(columns: Columns, cost: CostColumn, devices: str | None) -> CostColumn:
    """Return wall time times the number of devices, in hours, if any run used several; else the cost as it is."""
    if cost.unit_s is None:
        return cost
    if devices is None:
        _note_hardware(columns, cost)
        return cost
    counts = columns.numbers(devices)
    if all(n in (None, 1.0) for n in counts):
        return cost
    hours: list[Any] = []
    for seconds, n in zip(columns.numbers(cost.column), counts, strict=True):
        hours.append(None if seconds is None or n is None else seconds * cost.unit_s * n / 3600)
    said = "" if cost.column in columns.in_seconds or _says_unit(cost.column) else f", {cost.column} taken for seconds"
    columns.sheet.note(f"The cost is device-hours: {cost.column} x {devices}{said}.")
    return CostColumn(columns.add(f"device_hours ({cost.column} x {devices})", hours))


def _says_unit(name: str) -> bool:
    found = _WALL.fullmatch(header(name).plain)
    return bool(found and (found["unit"] or found["only"]))


def _note_hardware(columns: Columns, cost: CostColumn) -> None:
    """Note that what is called gpu may be the number of devices, or begins with it: 8, or 8x A100."""
    if "devices" in columns.chosen:
        return
    for head in columns.filled:
        begins = [re.match(r"\s*(\d+)\s*(?:[x\u00d7*]|$)", str(cell)) for cell in columns.sheet.cells[head.name]]
        counts = {found[1] for found in begins if found}
        if head.leaf in HARDWARE and counts - {"1"} and "0" not in counts:
            columns.sheet.note(
                f"{head.name} may say how many devices a run had: {cost.column} is not multiplied by them; "
                f"{option('devices')} names a column with their number, or none."
            )
