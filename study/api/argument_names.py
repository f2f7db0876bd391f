"""Errors of functions that the command line shares, with the names that they have in Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from study.errors import StudyError

_OTHER_NAMES = {"set": "overrides"}
_OPTION = re.compile(r"(?<!\S)--([a-z][a-z-]*)")


@contextmanager
def argument_names() -> Iterator[None]:
    """Within, a StudyError that names an option names the argument of the same meaning: `min_accuracy`."""
    try:
        yield
    except StudyError as error:
        text, key = _argument(error.text), _argument(error.key)
        if (text, key) == (error.text, error.key):
            raise
        raise type(error)(text, key) from error


def _argument(text: str) -> str:
    return _OPTION.sub(lambda option: _OTHER_NAMES.get(option[1], option[1].replace("-", "_")), text)
