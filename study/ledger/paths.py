"""The names and paths of what is in a study's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True)
class StudyPaths:
    """The paths in the study's folder `folder`. The constants are the names in it, which archives and stores share."""

    LEDGER: ClassVar = "ledger.jsonl"
    LOCK: ClassVar = f".{LEDGER}.lock"
    QUARANTINE: ClassVar = f"{LEDGER}.quarantine-"  # and the time in ns
    CONFIG: ClassVar = "config.yaml"
    REPORT: ClassVar = "report"
    CHECKPOINTS: ClassVar = "checkpoints"
    SCRATCH: ClassVar = ".tune"

    folder: Path

    @property
    def ledger(self) -> Path:
        """The file of rows, one a line."""
        return self.folder / self.LEDGER

    @property
    def lock(self) -> Path:
        """The lock that the driver holds, so that a ledger has one writer."""
        return self.folder / self.LOCK

    def quarantine(self, time_ns: int) -> Path:
        """Return the file that takes the damaged end of a ledger, named by the time at which it was found."""
        return self.folder / f"{self.QUARANTINE}{time_ns}"

    @property
    def config(self) -> Path:
        """The validated copy of the study file."""
        return self.folder / self.CONFIG

    @property
    def report(self) -> Path:
        """The folder of the report's pages, tables and figures."""
        return self.folder / self.REPORT

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoint store, one file a snapshot."""
        return self.folder / self.CHECKPOINTS

    @property
    def scratch(self) -> Path:
        """The folder of Tune's own snapshots. It need not last, because a study resumes from its ledger."""
        return self.folder / self.SCRATCH
