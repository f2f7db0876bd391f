"""Writes each trial as a run of TensorBoard."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from study.cluster.sinks.events import METRICS, TrialEvent
from study.ledger.schema import AttemptRow, LeaseRow, ReportRow


class TensorBoardSink:
    """A folder of event files, one for each trial and driver.

    They are appended to and closed for each row: a study has more trials than a process may have open files, and a
    disk that refuses says so here, not in the thread of a writer. An attempt begins with what TensorBoard takes for a
    restart: it drops what it knows of later updates, from an attempt that was lost or from the driver before.
    """

    def __init__(self, folder: Path) -> None:
        self.name, self._folder = f"TensorBoard in {folder}", folder
        self._files: dict[str, Path] = {}  # by trial

    def forget(self) -> None:
        """Begin new files, because a file may end in half a record."""
        self._files = {}

    def take(self, event: TrialEvent) -> None:
        """Write an event into the file of its trial. Raises OSError if the disk refuses."""
        row = event.row
        if isinstance(row, AttemptRow):
            restart = Event(step=row.from_updates and row.from_updates + 1)
            restart.session_log.status = SessionLog.START
            experiment, start, _ = summary.hparams(event.params, dict.fromkeys((*METRICS, event.objective), 0.0))
            self._write(event, restart, *(Event(summary=one) for one in (experiment, start)))
        elif isinstance(row, ReportRow):
            # One record, so that a disk that fills up takes all of a report or nothing.
            scalars = [value for name, of in event.metrics.items() for value in summary.scalar(name, of).value]
            self._write(event, Event(step=row.updates, summary=Summary(value=scalars)))
        elif isinstance(row, LeaseRow):
            billed = summary.scalar("billed_device_h", event.billed_device_h)
            self._write(event, Event(step=event.updates, summary=billed))
        else:
            self._write(event, Event(step=event.updates, summary=summary.text("outcome", row.outcome)))

    def _write(self, event: TrialEvent, *records: Any) -> None:
        path = self._files.get(event.trial_id)
        if path is None:  # a new name: TensorBoard reads the files of a run in the order of their names
            path = self._folder / event.trial_id / f"events.out.tfevents.{time.time_ns()}"
            if path.parent.is_symlink():
                raise OSError(f"{path.parent}: is a link")
            path.parent.mkdir(parents=True, exist_ok=True)
            records = (Event(file_version="brain.Event:2"), *records)
        for record in records:
            record.wall_time = event.at_s
        with path.open("ab") as file:
            file.write(b"".join(_framed(record.SerializeToString()) for record in records))
        self._files[event.trial_id] = path


def _framed(record: bytes) -> bytes:
    """TFRecord: length, its checksum, the record, its checksum."""
    length = struct.pack("<Q", len(record))
    sums = (struct.pack("<I", masked_crc32c(part)) for part in (length, record))
    return length + next(sums) + record + next(sums)
