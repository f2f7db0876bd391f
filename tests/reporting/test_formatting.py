"""Numbers keep their value and a readable size."""

from __future__ import annotations

import math
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from study.reporting import text
from study.reporting.text.formatting import column, cost_unit, duration, number, percent
from study.reporting.text.tables import TextTable, rich_table
from study.safe_text import printable

HEAVY = {"jinja2", "kaleido", "pandas", "plotly", "ray", "scipy", "torch"}


@pytest.mark.parametrize(
    ("hours", "label", "shown"),
    [
        ([2.0, 0.001], "device-hours", "2"),
        ([0.1], "device-hours", "0.1"),
        ([0.05, 0.001], "device-minutes", "3"),
        ([0.01], "device-seconds", "36"),
        ([], "device-seconds", None),
    ],
)
def test_the_largest_cost_chooses_the_unit(hours: list[float], label: str, shown: str | None) -> None:
    unit = cost_unit(hours)
    assert unit.label == label
    if shown is not None:
        assert unit.show(hours[0]) == f"{shown} {label}"


def test_gpus_and_dollars_are_not_relabelled() -> None:
    assert cost_unit([0.001], "billed_gpu_h").label == "GPU-seconds"
    assert cost_unit([0.001], "usd").show(0.001) == "0.001 USD"


def test_a_column_has_equal_decimals_and_three_digits_of_its_smallest() -> None:
    assert column([12.3456, 0.4567]) == ["12.346", "0.457"]
    assert column([1234.5, 100.0]) == ["1,234", "100"]
    assert column([0.0, math.nan]) == ["0", "–"]  # noqa: RUF001


def test_what_is_missing_is_a_dash() -> None:
    assert number(None) == number(math.inf) == percent(math.nan) == "–"  # noqa: RUF001


def test_large_numbers_keep_all_their_digits() -> None:
    assert number(123456.7) == "123,457"
    assert number(0.0123456) == "0.0123"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (0.34, "0.3 s"), (8.2, "8 s"), (240, "4 min"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_control_codes_do_not_survive() -> None:
    assert printable("a\x1b[31mb\nc") == "a [31mb c"


def test_heads_and_cells_of_a_terminal_table_are_not_markup() -> None:
    console = Console(file=StringIO(), width=80)
    console.print(rich_table(TextTable(("", "[bold]variant"), (("accuracy", "[red]\x1b[31m0.9"),), (True,))))
    assert isinstance(console.file, StringIO)
    assert "[bold]variant" in console.file.getvalue()
    assert "[red] [31m0.9" in console.file.getvalue()


def test_text_loads_no_heavy_library() -> None:
    names = [f"study.reporting.text.{path.stem}" for path in Path(text.__path__[0]).glob("[a-z]*.py")]
    assert "study.reporting.text.verdict" in names
    code = f"import sys, {', '.join(names)}; print(*{HEAVY} & {{name.partition('.')[0] for name in sys.modules}})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == ""
