"""What TensorBoard's own reader finds in a folder, against the rows of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from study.ledger.schema import AnyRow
from tests.cluster.sinks.studies import curves_told, facts


def read_boards(folder: Path) -> dict[str, EventAccumulator]:
    """Every run of the folder, by trial."""
    found = {path.name: EventAccumulator(str(path), size_guidance={"scalars": 0}) for path in folder.iterdir()}
    return {trial: accumulator.Reload() for trial, accumulator in found.items()}


def assert_told(folder: Path, rows: Sequence[AnyRow]) -> None:
    """All that is to be there, once."""
    boards, truth, curves = read_boards(folder), facts(rows), curves_told(rows)
    assert boards.keys() == truth.keys()
    for trial, board in boards.items():
        for name, curve in curves[trial].items():
            assert [(point.step, point.value) for point in board.Scalars(name)] == [
                (updates, pytest.approx(value, rel=1e-6)) for updates, value in curve
            ]
        billed = board.Scalars("billed_device_h")
        assert billed[-1].value == pytest.approx(truth[trial]["billed_device_h"])
        # TensorBoard drops no text at a restart: the same one may stand there again.
        outcomes = {point.tensor_proto.string_val[0].decode() for point in board.Tensors("outcome/text_summary")}
        assert outcomes == {truth[trial]["outcome"]}
        data = board.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        given = HParamsPluginData.FromString(data).session_start_info.hparams
        assert given["batch_size"].number_value == truth[trial]["attempt"].batch_size
        assert given["lr"].number_value == truth[trial]["attempt"].lr
        assert given["phase"].string_value == truth[trial]["attempt"].phase
