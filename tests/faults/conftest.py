"""The table at the end: which faults were injected, how often, and what they cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.faults.books import Audit


@dataclass
class _Line:
    injected: int = 0
    survived: int = 0
    device_h_lost: float = 0.0
    double_counted: int = 0


_LINES = pytest.StashKey[dict[str, _Line]]()


class Injections:
    """Of one kind of fault. `inject` before each, `survived` once all that must hold after it has been asserted."""

    def __init__(self, line: _Line) -> None:
        self._line = line

    def inject(self, times: int = 1) -> None:
        """Counted even if the test fails on it."""
        self._line.injected += times

    def survived(self, audit: Audit | None = None, times: int = 1) -> None:
        """What was injected last is survived; `audit` is of the books after it, where there are any."""
        if audit is not None:
            self._line.device_h_lost += audit.device_h_lost
            self._line.double_counted += audit.double_counted
            assert audit == Audit(0.0, 0)
        self._line.survived += times


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Callable[[str], Injections]:
    """`faults("driver killed")` counts for that line of the table."""
    lines = request.config.stash.setdefault(_LINES, defaultdict(_Line))
    return lambda fault: Injections(lines[fault])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(_LINES, {})
    if not lines:
        return
    width = max(len("fault"), *map(len, lines))
    terminalreporter.section("faults")
    columns = ("injected", "survived", "device-hours lost", "rows double-counted")
    terminalreporter.write_line(f"{'fault':<{width}}  " + "  ".join(columns))
    for fault, line in lines.items():
        figures = (f"{line.injected}", f"{line.survived}", f"{line.device_h_lost:g}", f"{line.double_counted}")
        cells = "  ".join(f"{figure:>{len(name)}}" for figure, name in zip(figures, columns, strict=True))
        terminalreporter.write_line(f"{fault:<{width}}  {cells}", red=line.survived != line.injected)
