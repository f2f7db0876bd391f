"""Reads files of tables into named columns of cells: text from a csv, else the values that the file holds."""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from study.analysis.tables.cells import is_blank
from study.errors import DataError

_DELIMITERS = (",", ";", "\t", "|")
_KINDS = (".csv", ".tsv", ".parquet", ".json", ".jsonl", ".ndjson")
_COMMA_NUMBER = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?\s*%?")
_POINT_NUMBER = re.compile(r"[+-]?(?:0|\d+)\.(?:\d{1,2}|\d{4,})(?:[eE][+-]?\d+)?\s*%?|[+-]?0\.\d+\s*%?")
_THOUSAND = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_NAMES = {"nan": "nan", "NaN": "nan", "inf": "inf", "Infinity": "inf", "null": None, "true": True, "false": False}
_OBJECT_COLUMNS = {"config", "summary", "summary_metrics", "params", "metrics"}
MAX_DEPTH = 8  # of objects within objects


@dataclass
class Sheet:
    """The cells of a table by column, in the order of the file. Every column has `len(row_numbers)` cells."""

    source: str
    cells: dict[str, list[Any]]
    row_numbers: list[int]  # of each row in the file, from 1, for messages
    decimal_comma: bool = False  # decimals are written 0,95
    mixed_point: bool = False  # but some are written 0.95
    notes: list[str] = field(default_factory=list)  # to users: what was left out or assumed

    def note(self, text: str) -> None:
        """Add a note for the user, unless it is there already."""
        if text not in self.notes:
            self.notes.append(text)

    def error(self, i: int, column: str, allowed: str) -> DataError:
        """Return the error for the cell of row i (from 0), which says what is allowed."""
        cell = self.cells[column][i]
        what = "is empty" if is_blank(cell) else f"{str(cell)[:40]!r} is not allowed"
        return DataError(f"{self.source}: row {self.row_numbers[i]}: {column}: {what}; needs {allowed}")

    def rows_text(self, rows: Iterable[int]) -> str:
        """Return the numbers of rows (from 0) in words, for messages."""
        return numbers_text([self.row_numbers[i] for i in sorted(rows)])

    def keep(self, chosen: list[int]) -> None:
        """Keep these rows (from 0) alone."""
        self.cells = {name: [cells[i] for i in chosen] for name, cells in self.cells.items()}
        self.row_numbers = [self.row_numbers[i] for i in chosen]


def numbers_text(numbers: Sequence[int]) -> str:
    """Return `row 3`, or `rows 3, 5, 9, 11, 12 and 4 more`."""
    if len(numbers) == 1:
        return f"row {numbers[0]}"
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"rows {', '.join(map(str, numbers[:5]))}{more}"


def read_sheet(path: Path) -> Sheet:
    """Return the table of a csv, tsv, json, json lines or parquet file, which may be gzipped; at least one row.

    Objects within cells become columns `outer.inner`. Index columns without a name, and columns without name and
    content, are left out with a note. Raises DataError, one line, for anything else.
    """
    packed = path.suffix.lower() == ".gz"
    kind = (path.with_suffix("") if packed else path).suffix.lower()
    sheet = Sheet(str(path), {}, [])
    try:
        if kind not in _KINDS:
            known = f"{', '.join(_KINDS[:-2])} or {_KINDS[-2]}, or one of them with .gz"
            raise DataError(f"a table is {known}, not {kind or 'without a suffix'}")
        data = path.read_bytes()
        if packed:
            data = gzip.decompress(data)
        if kind == ".parquet":
            names, rows = _of_frame(pd.read_parquet(io.BytesIO(data)))
        elif kind in (".csv", ".tsv"):
            names, rows = _from_text(_decoded(data), kind, sheet)
        else:
            names, rows = _from_json(_decoded(data))
        _fill(sheet, names, rows)
    except DataError as error:
        raise DataError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or 'cannot be read'}") from None
    except (ValueError, ImportError, csv.Error, EOFError, RecursionError, zlib.error) as error:
        raise DataError(f"{path}: not a table: {(str(error).strip() or 'damaged').splitlines()[0]}") from None
    if not sheet.row_numbers:
        raise DataError(f"{path}: no rows")
    return sheet


def _decoded(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    if b"\0" in data[:200]:  # UTF-16 without its mark
        return data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-16-be")
    return data.decode("utf-8-sig")


def _from_text(text: str, kind: str, sheet: Sheet) -> tuple[list[str], list[list[Any]]]:
    lines = text.splitlines(keepends=True)
    comments = []
    while lines and (not lines[0].strip() or lines[0].startswith("#") or re.match(r"(?i)sep=.$", lines[0].strip())):
        comments.append(lines.pop(0))
    if not lines:
        if not "".join(comments).strip():
            raise DataError("empty")
        raise DataError("no rows: all lines begin with #")
    delimiter = "\t" if kind == ".tsv" else max(_DELIMITERS, key=lambda mark: len(_split(lines[0], mark)))
    if comments and (head := _commented_header(comments[-1], lines[0], delimiter)):
        lines.insert(0, head)
        comments.pop()
    if any(line.startswith("#") for line in comments):
        sheet.note(f"Left out: {_counted(sum(line.startswith('#') for line in comments), 'line')} above the header.")
    table = [
        row for row in csv.reader(io.StringIO("".join(lines), newline=""), delimiter=delimiter, strict=True) if row
    ]
    names, rows = [name.strip() for name in table[0]], table[1:]
    if not rows and len(names) == 1:
        raise DataError("not a table: one cell")
    for number, row in enumerate(rows, start=1):
        while len(row) > len(names) and not row[-1].strip():
            row.pop()
        if len(row) > len(names):
            raise DataError(f"not a table: row {number} has {len(row)} cells, the header {len(names)}")
        row += [""] * (len(names) - len(row))
    if delimiter != ",":
        _find_decimal_comma(sheet, rows)
    return names, list(rows)


def _split(line: str, delimiter: str) -> list[str]:
    return next(iter(csv.reader([line], delimiter=delimiter)), [])


def _commented_header(comment: str, first: str, delimiter: str) -> str:
    """Return the header if it is in a comment, as numpy.savetxt writes it, else nothing."""
    head, cells = _split(comment.lstrip("# "), delimiter), _split(first, delimiter)
    if len(head) != len(cells) or len(cells) < 2:
        return ""
    try:
        for cell in cells:
            float(cell)
    except ValueError:
        return ""
    return comment.lstrip("# ")


def _find_decimal_comma(sheet: Sheet, rows: list[list[str]]) -> None:
    cells = [cell.strip() for row in rows for cell in row]
    sheet.decimal_comma = any(_COMMA_NUMBER.fullmatch(cell) for cell in cells)
    # Where each may mean thousands, commas are not surely decimal commas.
    surely = any(_COMMA_NUMBER.fullmatch(cell) and not _THOUSAND.fullmatch(cell) for cell in cells)
    sheet.mixed_point = sheet.decimal_comma and (not surely or any(_POINT_NUMBER.fullmatch(cell) for cell in cells))


def _from_json(text: str) -> tuple[list[str], list[list[Any]]]:
    """Return names and rows of a list of rows, an object of columns, one row, or a row on each line."""
    if not text.strip():
        raise DataError("empty")
    try:
        data: Any = _loaded(text)
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise
        data = [_loaded(line) for line in text.splitlines() if line.strip()]
    if isinstance(data, dict) and data and all(isinstance(column, list) for column in data.values()):
        lengths = {len(column) for column in data.values()}
        if len(lengths) > 1:
            raise DataError("not a table: columns of different lengths")
        return list(data), [list(row) for row in zip(*data.values(), strict=True)]
    if isinstance(data, dict) and not all(isinstance(value, dict) for value in data.values()):
        data = [data]
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise DataError(
            "a JSON table is a list of rows, each an object, or an object of columns, each a list, or a row a line"
        )
    names = list(dict.fromkeys(name for row in data for name in row))
    return names, [[row.get(name) for name in names] for row in data]


def _loaded(text: str) -> Any:
    """Return parsed JSON, in which NaN and Infinity stay text, so that they do not read as empty cells."""
    return json.loads(text, object_pairs_hook=_no_repeats, parse_constant=str)


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raises DataError for a key that is there twice, of which JSON would keep the last."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"column {name!r} appears twice")
    return dict(pairs)


def sheet_of_frame(frame: pd.DataFrame, source: str = "frame") -> Sheet:
    """Return a pandas frame as `read_sheet` returns a file; named indexes become columns. Raises DataError."""
    sheet = Sheet(source, {}, [])
    try:
        _fill(sheet, *_of_frame(frame))
    except DataError as error:
        raise DataError(f"{source}: {error}") from None
    if not sheet.row_numbers:
        raise DataError(f"{source}: no rows")
    return sheet


def _of_frame(frame: pd.DataFrame) -> tuple[list[str], list[list[Any]]]:
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    columns = [frame.iloc[:, i].tolist() for i in range(frame.shape[1])]
    return [str(name) for name in frame.columns], [list(row) for row in zip(*columns, strict=True)]


def _fill(sheet: Sheet, names: list[str], rows: list[list[Any]]) -> None:
    """Fill the sheet's columns, without index columns, and with objects within cells as columns."""
    sheet.row_numbers = list(range(1, len(rows) + 1))
    index, blank = [], 0
    for place, name in enumerate(names):
        cells = [row[place] for row in rows]
        if re.fullmatch(r"Unnamed: \d+(\.\d+)?|__index_level_\d+__", name) or (not name.strip() and place == 0):
            index.append(name.strip() or "the unnamed first column")
        elif not name.strip():
            if not all(map(is_blank, cells)):
                raise DataError(f"column {place + 1} has no name")
            blank += 1
        else:
            for inner, values in _spread(name, cells).items():
                if inner in sheet.cells:
                    raise DataError(f"column {inner!r} appears twice")
                sheet.cells[inner] = values
    if index:
        sheet.note(f"Left out: {', '.join(index)}, taken for an index.")
    if blank:
        sheet.note(f"Left out: {_counted(blank, 'column')} without name and content.")


def _spread(name: str, cells: list[Any], depth: int = 0) -> dict[str, list[Any]]:
    """Return the column itself, or a column for each key where its cells are objects."""
    objects = [_object(cell) for cell in cells]
    others = [i for i, cell in enumerate(cells) if objects[i] is None and not is_blank(cell)]
    if others and depth == 0 and name in _OBJECT_COLUMNS and any(str(cell).lstrip()[:1] == "{" for cell in cells):
        raise DataError(f"row {others[0] + 1}: {name}: cannot be read as an object of JSON or Python")
    if depth >= MAX_DEPTH or others or not any(objects):
        return {name: cells}
    objects = [one and {str(key): value for key, value in one.items()} for one in objects]
    keys = dict.fromkeys(key for one in objects if one for key in one)
    found: dict[str, list[Any]] = {}
    for key in keys:
        if key != "_wandb":  # the tracker's own
            inner = [one.get(key) if one else None for one in objects]
            found |= _spread(f"{name}.{key}", inner, depth + 1)
    return found


def _object(cell: Any) -> dict[Any, Any] | None:
    """Return the object in a cell, as such or as JSON or Python writes it; None if it holds none."""
    if isinstance(cell, dict):
        return cell
    if not isinstance(cell, str) or not cell.lstrip().startswith("{"):
        return None
    try:
        tree = ast.parse(cell.strip(), mode="eval")
        found = ast.literal_eval(_Constants().visit(tree))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class _Constants(ast.NodeTransformer):
    """Replaces names by the values they mean; nan and inf become text, so that they do not read as empty cells."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(_NAMES[node.id]) if node.id in _NAMES else node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Name) and node.operand.id in _NAMES:
            return ast.Constant("-inf")
        return node


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
