"""Joining a cluster."""

import signal

import pytest

from study.cluster.connect import take_sigterm_as_ctrl_c


def test_whoever_terminates_the_driver_interrupts_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    # As Ray leaves the driver of a job.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        take_sigterm_as_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGTERM, before)
