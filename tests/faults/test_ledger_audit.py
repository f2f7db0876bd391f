"""The audit of a ledger finds each kind of error."""

from collections.abc import Callable

import pytest

from study.ledger.schema import AnyRow, EndRow, LeaseRow, ReportRow
from tests.conftest import Run
from tests.faults.conftest import COLUMNS, Injections
from tests.faults.ledger_audit import Audit, audit


def without(kind: type[AnyRow]) -> Callable[[list[AnyRow]], list[AnyRow]]:
    """Return a function that drops the first row of a kind."""

    def drop(rows: list[AnyRow]) -> list[AnyRow]:
        first = next(row for row in rows if isinstance(row, kind))
        return [row for row in rows if row is not first]

    return drop


def twice(kind: type[AnyRow]) -> Callable[[list[AnyRow]], list[AnyRow]]:
    """Return a function that repeats the first row of a kind."""

    def repeat(rows: list[AnyRow]) -> list[AnyRow]:
        first = next(index for index, row in enumerate(rows) if isinstance(row, kind))
        return [*rows[: first + 1], rows[first], *rows[first + 1 :]]

    return repeat


def test_an_undisturbed_study_has_no_errors(asha_run: Run) -> None:
    assert audit(asha_run.rows) == Audit(0.0, 0)


@pytest.mark.parametrize("kind", [LeaseRow, EndRow, ReportRow])
def test_a_row_recorded_twice_is_found(asha_run: Run, kind: type[AnyRow]) -> None:
    found = audit(twice(kind)(asha_run.rows))
    assert found.double_counted == (2 if kind is LeaseRow else 1)  # the second bill overlaps the first
    assert found.device_h_lost == 0


def test_an_attempt_without_a_bill_is_found(asha_run: Run) -> None:
    assert audit(without(LeaseRow)(asha_run.rows)).device_h_lost > 0


def test_a_report_of_another_attempt_is_found(asha_run: Run) -> None:
    rows = list(asha_run.rows)
    at, report = next((index, row) for index, row in enumerate(rows) if isinstance(row, ReportRow))
    rows[at] = report.model_copy(update={"attempt": report.attempt + 1})
    assert audit(rows) == Audit(0.0, 0, misbooked=1)


def test_a_fault_that_cost_anything_is_not_survived() -> None:
    line = dict.fromkeys(COLUMNS, 0.0)
    faults = Injections(line)
    faults.inject()
    with pytest.raises(AssertionError):
        faults.survived(Audit(0.5, 2))
    assert line == dict(zip(COLUMNS, (1, 0, 0.5, 2), strict=True))
