"""The record that rank reports, ledger rows and learning curves share."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.ledger.schema import ROW, ReportRow
from study.measurement import NO_READINGS, CurvePoint, Measurement, ProbeReadings, ServingPoint

EVERYTHING = ProbeReadings(
    noise_b_simple=12.5,
    parameters=1000.0,
    sharpness_full={1e-3: 1.0, 5e-4: 2.0},
    sharpness_subspace={1e-3: 3.0, 5e-4: 4.0},
    hessian_top=-0.5,
    serving=(ServingPoint(1, 900.0, 1.0, 2.0), ServingPoint(1024, 9e5, 3.0, 4.0)),
)
STORED = {
    "noise_b_simple": 12.5,
    "parameters": 1000.0,
    "sharpness_full_1e-3": 1.0,
    "sharpness_subspace_1e-3": 3.0,
    "sharpness_full_5e-4": 2.0,
    "sharpness_subspace_5e-4": 4.0,
    "hessian_top": -0.5,
    "serving_1_predictions_per_s": 900.0,
    "serving_1_p50_ms": 1.0,
    "serving_1_p99_ms": 2.0,
    "serving_1024_predictions_per_s": 9e5,
    "serving_1024_p50_ms": 3.0,
    "serving_1024_p99_ms": 4.0,
}
PROGRESS: dict[str, Any] = {"updates": 1, "samples": 1, "epochs": 1.0, "lr": 0.1, "samples_per_s": 1.0}
OF_A_ROW: dict[str, Any] = {"at_s": 0.0, "written": "", "trial_id": "t", "attempt": 1, "phases_s": {}}
METRICS: dict[str, Any] = {"train_loss": 1.0, "train_accuracy": None, "val_loss": 1.0, "val_accuracy": 0.5}


def row(measured: Measurement) -> ReportRow:
    """The row of a measurement, as it is read from a ledger."""
    written = ReportRow(**OF_A_ROW, **measured.as_stored(), device_seconds=2.0)
    found: ReportRow = ROW.validate_json(written.model_dump_json())
    return found


def test_readings_keep_the_keys_and_the_order_of_protocol_1() -> None:
    assert list(EVERYTHING.as_stored().items()) == list(STORED.items())
    assert ProbeReadings.from_stored(STORED) == EVERYTHING
    assert ProbeReadings.from_stored({}) is NO_READINGS
    assert NO_READINGS.as_stored() == {}


@pytest.mark.parametrize(
    "stored",
    [
        {"sharpness_full_": 1.0, "sharpness_full_x": 1.0, "sharpness_1e-3": 1.0},
        {"serving_x_predictions_per_s": 1.0, f"serving_{'9' * 5000}_predictions_per_s": 1.0},
        {"serving_1_predictions_per_s": 1.0},  # without its latencies
        {"of_a_later_version": 1.0},
    ],
)
def test_unknown_keys_are_left_out(stored: dict[str, float]) -> None:
    assert ProbeReadings.from_stored(stored) == NO_READINGS


def test_a_row_gives_back_what_was_measured() -> None:
    measured = Measurement(
        **PROGRESS, train_loss=0.1, train_accuracy=0.9, val_loss=0.2, val_accuracy=0.8, test_accuracy=0.7,
        skipped_batches=3, probes=EVERYTHING,
    )  # fmt: skip
    point = row(measured).point
    assert point.device_seconds == 2.0
    assert {field.name: getattr(point, field.name) for field in fields(Measurement)} == {
        field.name: getattr(measured, field.name) for field in fields(Measurement)
    }
    assert json.loads(row(measured).model_dump_json())["probes"] == STORED


@given(train_loss=st.floats(), val_loss=st.none() | st.floats(), val_accuracy=st.floats())
def test_ranks_rows_and_curves_agree_on_what_has_diverged(**metrics: float | None) -> None:
    measured = Measurement(**PROGRESS, train_accuracy=None, **metrics)  # type: ignore[arg-type]
    finite = all(math.isfinite(value) for value in metrics.values() if value is not None)
    assert measured.diverged is not finite
    assert row(measured).non_finite == row(measured).point.non_finite == measured.non_finite


def test_the_first_metric_that_is_not_finite_is_named() -> None:
    lost = METRICS | {"val_loss": math.nan, "val_accuracy": math.inf}
    assert CurvePoint(**PROGRESS, **lost, device_seconds=1.0).non_finite == "val_loss is nan"
    assert CurvePoint(**PROGRESS, **METRICS, device_seconds=1.0).non_finite is None
