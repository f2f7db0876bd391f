"""A cell of a table as a number, a fraction, a duration or a point in time."""

from __future__ import annotations

import math
import re
from typing import Any

import pandas as pd

_MISSING = {"", "-", "none", "null", "na", "n/a", "<na>", "nat"}
_NOT_FINITE = {"nan", "inf", "infinity", "-inf", "-infinity", "+inf", "+infinity"}
_WORDS = (  # units as people write them, to those that pandas knows
    (re.compile(r"(?<=[\d.])\s*(?:hrs?|hours?)\b", re.IGNORECASE), "h"),
    (re.compile(r"(?<=[\d.])\s*(?:mins?|minutes?)\b", re.IGNORECASE), "min"),
    (re.compile(r"(?<=[\d.])\s*(?:secs?|seconds?)\b", re.IGNORECASE), "s"),
    (re.compile(r"(?<=[\d.])\s*d\b"), "D"),
    (re.compile(r"(?<=\dh)(\d\d)$"), r"\1min"),  # 1h05
    (re.compile(r"^(\d+)-(\d+:\d\d:\d\d)"), r"\1 days \2"),  # SLURM's
)
SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def is_blank(cell: Any) -> bool:
    """Return whether a cell holds nothing: None, NaN, or blanks."""
    if cell is None or cell is pd.NA or cell is pd.NaT:
        return True
    return (isinstance(cell, float) and math.isnan(cell)) or (isinstance(cell, str) and not cell.strip())


def is_missing(cell: Any) -> bool:
    """Return whether a cell holds no value: it is blank, or a word such as N/A."""
    return is_blank(cell) or (isinstance(cell, str) and cell.strip().lower() in _MISSING)


def is_not_finite(cell: Any) -> bool:
    """Return whether a cell holds NaN or infinity, which a run that diverged leaves."""
    if isinstance(cell, str):
        return cell.strip().lower() in _NOT_FINITE
    return isinstance(cell, float) and math.isinf(cell)


def number(cell: Any, decimal_comma: bool = False, mixed_point: bool = False) -> float:
    """Return a cell as a finite number. Raises ValueError, also where a separator may mean thousands or a fraction."""
    if isinstance(cell, bool):
        raise ValueError("a truth value")
    if isinstance(cell, str) and decimal_comma:
        cell = _with_point(cell.strip(), mixed_point)
    try:
        value = float(cell)
    except TypeError:
        raise ValueError("not a number") from None
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def _with_point(text: str, mixed_point: bool) -> str:
    """Return a number that was written with a decimal comma with a point instead."""
    if re.fullmatch(r"[+-]?\d{1,3}(\.\d{3})+,\d+", text):
        return text.replace(".", "").replace(",", ".")
    separators = r"[.,]" if mixed_point else r"\."
    if re.fullmatch(rf"[+-]?[1-9]\d{{0,2}}{separators}\d{{3}}", text):
        raise ValueError("a thousand, or a fraction")
    return text.replace(",", ".")


def scaled(cell: Any, decimal_comma: bool = False, mixed_point: bool = False) -> tuple[float, bool]:
    """Return a number, and whether it had a percent sign, in which case it is divided by 100. Raises ValueError."""
    if isinstance(cell, str) and cell.strip().endswith("%"):
        return number(cell.strip()[:-1].strip(), decimal_comma, mixed_point) / 100, True
    return number(cell, decimal_comma, mixed_point), False


def duration_s(cell: Any, unit_s: float = 1.0, decimal_comma: bool = False, mixed_point: bool = False) -> float:
    """Return seconds of a number in `unit_s`, or of a duration: 0:17:02, 17.1min, 0 days 00:17:02.25, 1h 2m, PT17M.

    Raises ValueError for anything else, and for 17:02, which may start with hours or with minutes.
    """
    if isinstance(cell, pd.Timedelta):
        return cell.total_seconds()
    if not isinstance(cell, str):
        return number(cell) * unit_s
    try:
        return number(cell, decimal_comma, mixed_point) * unit_s
    except ValueError:
        if cell.strip().lower() in _NOT_FINITE | _MISSING:
            raise
    text = cell.strip().replace(",", ".") if decimal_comma else cell.strip()
    for pattern, unit in _WORDS:
        text = pattern.sub(unit, text)
    seconds = pd.Timedelta(text).total_seconds()
    if not seconds >= 0:
        raise ValueError("a negative time")
    return seconds


def is_duration_text(cell: Any) -> bool:
    """Return whether a cell holds a duration with units, not just a number."""
    if isinstance(cell, pd.Timedelta):
        return True
    return (
        isinstance(cell, str)
        and not is_missing(cell)
        and bool(re.search(r"\d\s*(?!e[+-]?\d)[a-zA-Z]|:|^P", cell.strip(), re.IGNORECASE))
    )


def time_s(cell: Any) -> float:
    """Return a point in time in seconds since 1970, from ISO text or a number of seconds, milliseconds or nanoseconds.

    Raises ValueError for anything else, such as 02/03/2026, which may be in February or in March.
    """
    try:
        value = number(cell)
    except ValueError:
        if isinstance(cell, str) and not re.match(r"\d{4}[-/]\d", cell.strip()):
            raise ValueError("not in the order of ISO") from None
        stamp = pd.Timestamp(cell)
        if stamp is pd.NaT:
            raise ValueError("no time") from None
        return float(stamp.timestamp())
    for least, scale in ((1e17, 1e-9), (1e11, 1e-3), (1e8, 1.0)):
        if value >= least:
            return value * scale
    raise ValueError("no time")
