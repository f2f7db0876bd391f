"""Watches the limits of a study: device-hours, dollars, wall-clock time, and waiting for a larger cluster."""

from __future__ import annotations

from study.config.sections import LimitsConfig
from study.ledger.schema import AnyRow, AttemptRow, LimitRow, WaitRow
from study.tuning.leases import Leases
from study.tuning.ledger_writer import LedgerWriter
from study.tuning.progress import Progress
from study.tuning.tune_searcher import ClusterCapacity


class LimitWatch:
    """Says which limit the study has passed, and writes down when it starts to wait for the cluster to grow."""

    def __init__(self, writer: LedgerWriter, progress: Progress, leases: Leases) -> None:
        self._writer, self._progress, self._leases = writer, progress, leases
        self._waits_since_s: float | None = None  # in this driver; a new one starts to count again
        writer.subscribe(self._follow)

    def _follow(self, row: AnyRow) -> None:
        since_s = self._waits_since_s
        if isinstance(row, AttemptRow) and since_s is not None and row.at_s - row.setup_s >= since_s:
            self._waits_since_s = None  # the cluster had room since then, if only between two looks at it

    def wait(self, capacity: ClusterCapacity) -> None:
        """Note how many ranks the cluster can hold; called at every turn of Tune's loop.

        The study waits while nothing runs and these are too few for one trial. Waiting ends when there is room again,
        before a group is ready, or with an attempt that began since, even one that died in its set-up.
        """
        needed = 0 if self._leases.running else self._progress.needed
        if capacity.ranks >= needed:
            self._waits_since_s = None
        elif self._waits_since_s is None and (ranks := capacity.ask()) < needed:  # the figure may be a second old
            self._writer.write(WaitRow(**self._writer.stamp(), ranks=ranks, needed=needed))
            self._waits_since_s = self._writer.now_s()

    def passed(self) -> LimitRow | None:
        """Return the first limit that the study has passed by now, as a row that is not written yet."""
        config, now_s = self._progress.plan.config, self._writer.now_s()
        if config.limits == LimitsConfig():
            return None
        device_h = self._progress.state.device_h(now_s) + self._leases.starting_device_s() / 3600
        wait_h = 0.0 if self._waits_since_s is None else (now_s - self._waits_since_s) / 3600
        figures = config.limits.against(device_h, now_s / 3600, config.price.usd_per_device_hour, wait_h)
        for name, (spent, allowed) in figures.items():
            if spent >= allowed:
                return LimitRow(**self._writer.stamp(), limit=name, allowed=allowed, spent=spent)
        return None

    def record(self, passed: LimitRow) -> None:
        """Write down that the study ends at this limit. The row gets the time of now: others came before it."""
        self._writer.write(passed.model_copy(update={**self._writer.stamp()}))
