"""Small tables as text, and what is read from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from study.analysis.tables.table import ResultTable, read_table
from study.errors import DataError


def lines(*rows: str) -> str:
    """A file of these lines."""
    return "\n".join(rows) + "\n"


def read(folder: Path, *rows: str, name: str = "t.csv", **options: Any) -> ResultTable:
    """The table of a file of these lines."""
    path = folder / name
    path.write_text(lines(*rows))
    return read_table(path, **options)


def refused(folder: Path, *rows: str, name: str = "t.csv", **options: Any) -> str:
    """The one line with which the table of these lines is refused."""
    with pytest.raises(DataError) as caught:
        read(folder, *rows, name=name, **options)
    line = str(caught.value)
    assert line.startswith(str(folder / name))
    assert "\n" not in line
    return line.removeprefix(f"{folder / name}: ")


def results(table: ResultTable) -> dict[str, tuple[list[float], list[float]]]:
    """Costs and qualities of final rows by configuration, in the table's own sign; empty where there are none."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for group in table.groups:
        for one in group.configurations:
            sign = -1 if table.quality is not None and not table.quality.maximize else 1
            costs, qualities = (one.sample.cost, one.sample.quality) if one.sample else ((), ())
            found[" ".join(filter(None, (group.name, one.label)))] = (
                list(costs),
                [sign * value for value in qualities],
            )
    return found


def by_batch(table: ResultTable) -> dict[int, tuple[list[float], list[float]]]:
    """The same by batch size, for tables with one configuration of each."""
    sizes = [one.batch_size for group in table.groups for one in group.configurations]
    return dict(zip(sizes, results(table).values(), strict=True))
