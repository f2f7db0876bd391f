"""What every benchmark prints: a table for people, and with --json one object as the last line."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import date

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def show(title: str, rows: Sequence[Mapping[str, object]], result: Mapping[str, object], as_json: bool) -> None:
    """Print the rows under the keys of the first, then the result."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    table = Table(box=SIMPLE_HEAD, title=f"{title} ({date.today()}, {machine})", title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 120).print(table)  # a file has no width, and rich would assume 80
    if as_json:
        print(json.dumps(result))
