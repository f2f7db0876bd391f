"""Sets the metrics of a running study in its Ray, every few seconds."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Any

from study.cluster.metrics.definitions import METRICS
from study.cluster.metrics.readings import MetricReadings, Reading
from study.ledger.schema import AnyRow
from study.planning.trials import Plan

SET_EVERY_S = 5.0  # Ray forgets a gauge that was not set for 20 s

log = logging.getLogger(__name__)


class Export:
    """Exports metrics while a cluster is joined: enter it after joining, exit it before leaving the cluster.

    A failure here is counted and logged once, and never disturbs the study.
    """

    def __init__(self, plan: Plan) -> None:
        self.failures = 0
        self._readings, self._study = MetricReadings(plan), plan.config.name
        self._gauges: dict[str, Any] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="study-metrics", daemon=True)

    def follow(self, row: AnyRow) -> None:
        """Update the readings by the next row of the ledger. A failure is counted and never raised."""
        try:
            self._readings.follow(row)
        except Exception as error:
            self._failed(error)

    def __enter__(self) -> Export:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join()
        # A driver that raised has not ended in order: StudyDriverGone fires for it.
        self._set(ended=error is None)
        if self.failures > 1:
            log.warning("study: metrics failed %d times; the study was not disturbed", self.failures)

    def _run(self) -> None:
        while True:
            self._set(ended=False)
            if self._ending.wait(SET_EVERY_S):
                return

    def _set(self, ended: bool) -> None:
        try:
            now_s = time.time()  # one time for both: the alert fires for a driver whose last sign is later than its end
            ended_s = now_s if ended else 0.0
            signs = {"study_heartbeat_timestamp_seconds": now_s, "study_ended_timestamp_seconds": ended_s}
            for reading in (*self._readings.read(), *(Reading(name, value, {}) for name, value in signs.items())):
                self._gauge(reading.name).set(reading.value, {"study": self._study, **reading.tags})
        except Exception as error:
            self._failed(error)

    def _gauge(self, name: str) -> Any:
        if not self._gauges:
            from ray.util.metrics import Gauge

            self._gauges = {
                metric.name: Gauge(metric.name, f"{metric.help} [{metric.unit}]", ("study", *metric.tags))
                for metric in METRICS
            }
        return self._gauges[name]

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if self.failures == 1:
            log.warning("study: metrics are not exported: %r", error)
