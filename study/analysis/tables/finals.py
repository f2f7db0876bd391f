"""The figures of final rows: what diverged, what is missing, and accuracies on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

from study.analysis.tables.cells import is_missing, is_not_finite, scaled
from study.analysis.tables.columns import Columns
from study.analysis.tables.names import PERCENT, figure_of, header
from study.analysis.tables.objectives import Objective
from study.errors import DataError

_LEAST_PERCENT = 10.0
_HUGE = 1000.0  # times the median of the losses: such a run diverged
_LOW = 0.5  # a fraction beside percentages must, in percent, be at least this share of the least of them


def diverged_rows(columns: Columns, quality: Objective | None) -> set[int]:
    """The rows (from 0) whose quality, or whose loss of training or validation, is NaN or infinite."""
    names = [quality.column] if quality else []
    for name in _losses(columns):
        cells = columns.sheet.cells[name]
        if not all(is_missing(cell) or is_not_finite(cell) for cell in cells):
            names.append(name)
        elif name not in names and len(cells) > 1:
            columns.sheet.note(f"{name} is NaN in all rows: it does not say which diverged.")
    return {i for name in names for i, cell in enumerate(columns.sheet.cells[name]) if is_not_finite(cell)}


def _losses(columns: Columns) -> list[str]:
    """The columns of losses of training or validation that are no run's best."""
    figures = [figure for figure in map(figure_of, columns.filled) if figure is not None]
    losses = [one for one in figures if one.family.name in ("loss", "perplexity")]
    return [one.header.name for one in losses if one.split != "test" and not one.best]


def note_huge(columns: Columns, rows: Sequence[int]) -> None:
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
                f"{name} is {known[most]:.3g} in row {sheet.numbers[most]}, where {usual:.3g} is usual: if that run "
                "diverged, write NaN there."
            )


def final_values(columns: Columns, objective: Objective, rows: list[int]) -> dict[int, float]:
    """The figures of an objective in final rows; percent signs become fractions, and mixed scales one.

    Under a header with a percent sign all stay in percent.

    Where the user has said the direction of the column, its figures may be of any size. Raises DataError for a cell
    that is no finite number, or whose scale is ambiguous.
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
    figure = figure_of(head) if head else None
    if figure is None or not figure.family.fraction:
        if 0 < len(signed) < len(values):
            raise DataError(f"{sheet.source}: {name}: some cells have a percent sign and some have none; write one way")
        return values
    strange = _strange(objective, values, set(values) if in_percent else signed)
    if strange is not None and name in columns.insisted:
        sheet.note(f"{name} holds {values[strange]:g}, which no {figure.family.name} is; taken as it is.")
        return values
    if strange is not None:
        way = "maximize" if objective.maximize else "minimize"
        raise DataError(
            f"{sheet.source}: row {sheet.numbers[strange]}: {name}: {values[strange]:g} is no {figure.family.name}, "
            f"which is a fraction or in percent; --{way} {name} takes it as it is"
        )
    return _one_scale(columns, name, figure.family.maximize, in_percent, values, signed)


def _strange(objective: Objective, values: dict[int, float], signed: set[int]) -> int | None:
    """The first row whose value is no fraction and no percentage; of an accuracy, all in percent, one must be 10%."""
    for i, value in values.items():
        if not 0 <= value <= 100:
            return i
    percent = [i for i, value in values.items() if value > 1 and i not in signed]
    low = bool(percent) and max(values[i] for i in percent) < _LEAST_PERCENT
    return percent[0] if low and objective.maximize else None


def _one_scale(
    columns: Columns, name: str, maximize: bool, in_percent: bool, values: dict[int, float], signed: set[int]
) -> dict[int, float]:
    """Accuracies, errors and the like as fractions where some are; in percent where all are."""
    sheet = columns.sheet
    percent = {i for i, value in values.items() if value > 1 and i not in signed}
    fractions = set(values) - percent
    if not percent or not fractions:
        return values
    if in_percent and not maximize:
        return values
    least = min(values[i] for i in percent)
    for i in sorted(fractions - signed):
        # A low error is as well a fraction as a percentage; so is a low accuracy, and any that is called a percentage.
        if values[i] == 1 or (values[i] and (in_percent or not maximize or 100 * values[i] < _LOW * least)):
            raise DataError(
                f"{sheet.source}: row {sheet.numbers[i]}: {name}: {values[i]:g} beside {least:g} may be a fraction or "
                f"a percentage; write one scale{'' if in_percent else f', or call the column {name} (%)'}"
            )
    sheet.note(f"{name} is in percent in {len(percent)} of {len(values)} rows: all are taken as fractions.")
    return {i: value / 100 if i in percent else value for i, value in values.items()}
