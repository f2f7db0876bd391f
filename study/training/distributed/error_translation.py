"""Errors of a rank as errors that any other process can read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from study.errors import ConfigError, DataError
from study.training.messages import Mistake, OutOfMemory, PeerLost
from study.workloads.user_code.build import describe, text_of

T = TypeVar("T")
# gloo's words, then those of nccl.
_CLOSED = re.compile(r"connection (reset|closed) by peer|remote process exited", re.IGNORECASE)
# Lightning's words, then DDP's.
_UNUSED = re.compile(r"parameters that were not used in producing|finished reduction in the prior iteration")


def translate_errors(act: Callable[[], T]) -> T:
    """Return what `act` returns. Raises OutOfMemory, ConfigError, PeerLost, and Mistake for all else.

    A user's exception may be of a class that no other process has, or that cannot be pickled; and SystemExit would end
    the rank's process as if it had died.
    """
    try:
        return act()
    except (OutOfMemory, ConfigError, DataError):
        raise
    except BaseException as error:
        if isinstance(error, RuntimeError) and _UNUSED.search(text_of(error)):
            raise ConfigError(
                "must be true: the module has parameters that play no part in its loss",
                "workload.find_unused_parameters",
            ) from None
        text = describe(error)
        # A rank that makes a mistake keeps its process, and with it its connections: only death closes them.
        lost = isinstance(error, RuntimeError) and _CLOSED.search(text_of(error)) is not None
    raise PeerLost(text) if lost else Mistake(text)
