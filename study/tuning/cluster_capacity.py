"""How much room the cluster has for a study's ranks: machines come and go."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from study.cluster.connection import alive_nodes
from study.config.schema import Hardware
from study.planning.capacity import ranks_that_fit

ASK_EVERY_S = 1.0


class ClusterCapacity:
    """The ranks that the cluster would hold if it were empty, as of a second ago."""

    def __init__(self, hardware: Hardware, clock: Callable[[], float] = time.monotonic) -> None:
        self._hardware, self._clock = hardware, clock
        self._ranks, self._asked_s = 0, -math.inf

    @property
    def ranks(self) -> int:
        """Asked of Ray anew where what is known is too old."""
        if self._clock() - self._asked_s > ASK_EVERY_S:
            self._ranks = ranks_that_fit(alive_nodes(), self._hardware)
            self._asked_s = self._clock()
        return self._ranks
