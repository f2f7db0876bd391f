"""Files of tables to cells, nothing guessed and nothing lost."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from study.plan.errors import PlanError


def read_frame(path: Path) -> pd.DataFrame:
    """The cells of a csv, parquet or json file: text in a csv, else what the file holds. At least one row.

    Raises PlanError, one line, for anything else.
    """
    kind = path.suffix.lower()
    try:
        if kind == ".csv":
            raw = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")
            frame = raw.iloc[1:].reset_index(drop=True)
            frame.columns = pd.Index(raw.iloc[0].tolist())
        elif kind == ".parquet":
            frame = pd.read_parquet(path)
        elif kind == ".json":
            frame = pd.DataFrame(_records(json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_no_repeats)))
        else:
            raise PlanError(f"{path}: a table is .csv, .parquet or .json, not {kind or 'without a suffix'}")
    except PlanError as error:
        raise PlanError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror or 'not a parquet file'}") from None
    except pd.errors.EmptyDataError:
        raise PlanError(f"{path}: empty") from None
    except (ValueError, ImportError) as error:  # not UTF-8, ragged rows, not JSON, not Parquet, no pyarrow
        raise PlanError(f"{path}: not a table: {str(error).strip().splitlines()[0]}") from None
    if frame.empty:
        raise PlanError(f"{path}: no rows")
    frame.columns = pd.Index([str(name) for name in frame.columns])
    return frame


def _records(data: Any) -> Any:
    """JSON that holds a list of rows, or columns of equal length."""
    rows = isinstance(data, list) and all(isinstance(row, dict) for row in data)
    columns = isinstance(data, dict) and all(isinstance(column, list) for column in data.values())
    if not rows and not columns:
        raise PlanError("a JSON table is a list of rows, each an object, or an object of columns, each a list")
    return data


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are all different: the last of two equal ones would win in silence."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise PlanError(f"column {name!r} appears twice")
    return dict(pairs)


def is_empty(cell: Any) -> bool:
    """Nothing was written here."""
    return cell is None or cell is pd.NA or (isinstance(cell, float) and math.isnan(cell)) or not str(cell).strip()
