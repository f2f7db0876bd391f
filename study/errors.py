"""The errors that a user can act on, each one line, and the context that makes them of other exceptions."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from study.safe_text import MAX_TEXT, cut, escaped, masked

Self = TypeVar("Self", bound="StudyError")


class StudyError(Exception):
    """The base of all. Its text is one line without credentials: `key: what is wrong; what is allowed`.

    `key` is what is to blame: a key path of the study file, an option, or a file. `text` is the rest.
    """

    def __init__(self, text: str, key: str = "") -> None:
        whole = f"{key}: {text}" if key else text
        super().__init__(cut(escaped(masked(cut(whole, 10 * MAX_TEXT)))))
        self.text, self.key = text, key

    def with_key(self: Self, key: str) -> Self:
        """Return an error of the same kind and text that blames `key`."""
        return type(self)(self.text, key)


class ConfigError(StudyError, ValueError):
    """A study file, an option or a user's module cannot be used."""


class DataError(StudyError, ValueError):
    """A data set, a table or a file of curves cannot be used."""


class ClusterError(StudyError):
    """Ray, the head, a store of results, or a rank does not answer, or refuses."""


class LedgerError(StudyError):
    """A ledger cannot be used as it is."""


class DiskError(StudyError):
    """The disk refuses to write, or to read back."""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, or its class if it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]


def reason(error: BaseException) -> str:
    """Return what the system says of an OSError, without the path; of any other exception its first line."""
    return getattr(error, "strerror", None) or first_line(error)


@contextmanager
def error_context(
    kind: type[StudyError],
    key: str | Path,
    catch: type[Exception] | tuple[type[Exception], ...] = OSError,
    describe: Callable[[Exception], str] = reason,
) -> Iterator[None]:
    """Within, an exception of `catch` becomes a `kind` that blames `key`. A StudyError passes as it is."""
    try:
        yield
    except StudyError:
        raise
    except catch as error:
        raise kind(describe(error), str(key)) from error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)` for the nearest known word, or an empty string."""
    nearest = difflib.get_close_matches(cut(word, 100), list(known), n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""
