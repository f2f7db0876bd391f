"""Joining a cluster."""

import signal
from typing import Any

import pytest

from study.cluster.connect import take_sigterm_as_ctrl_c


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_whoever_terminates_the_driver_interrupts_it(handler: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    before_int = signal.signal(signal.SIGINT, handler)
    # As Ray leaves the driver of a job.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        take_sigterm_as_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, before_int)
