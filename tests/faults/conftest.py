"""The table at the end: which faults were injected, how often, and what they cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import chain

import pytest

from tests.faults.ledger_audit import Audit

COLUMNS = ("injected", "survived", "device-hours lost", "rows double-counted")
_PROPERTY = "faults"  # of a test's report, which also comes from the workers of pytest-xdist


class Injections:
    """Counts one kind of fault: `inject` before each, `survived` after all that must hold has been asserted."""

    def __init__(self, line: dict[str, float]) -> None:
        self._line = line

    def inject(self, times: int = 1) -> None:
        """Count it, even if the test then fails on it."""
        self._line["injected"] += times

    def survived(self, audit: Audit | None = None, times: int = 1) -> None:
        """Count what was injected last as survived; `audit` is of the ledger after it, where there is one."""
        if audit is not None:
            self._line["device-hours lost"] += audit.device_h_lost
            self._line["rows double-counted"] += audit.double_counted
            assert audit == Audit(0.0, 0)
        self._line["survived"] += times


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Callable[[str], Injections]:
    """Return a function: `faults("driver killed")` counts for that line of the table."""
    lines: dict[str, dict[str, float]] = {}
    request.node.user_properties.append((_PROPERTY, lines))
    return lambda fault: Injections(lines.setdefault(fault, dict.fromkeys(COLUMNS, 0)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines: dict[str, Counter[str]] = defaultdict(Counter)
    for report in chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport) and report.when == "call":
            for counted in (value for name, value in report.user_properties if name == _PROPERTY):
                for fault, line in counted.items():
                    lines[fault].update(line)
    if not lines:
        return
    width = max(len("fault"), *map(len, lines))
    terminalreporter.section("faults")
    terminalreporter.write_line(f"{'fault':<{width}}  " + "  ".join(COLUMNS))
    for fault, line in sorted(lines.items()):
        cells = "  ".join(f"{line[name]:>{len(name)}g}" for name in COLUMNS)
        terminalreporter.write_line(f"{fault:<{width}}  {cells}", red=line["survived"] != line["injected"])
