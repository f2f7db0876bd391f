"""What is wrong with a plan, in one line that a person can act on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# What authorizes, in an address: user:password@, where a password may hold an @ too, and the like of ?token=.
_USER = re.compile(r"(https?://|://[^/\s:]*:)[^/\s]*@", re.IGNORECASE)
_GIVEN = re.compile(
    r"([?&;#](?=[\w.-]*=)[\w.-]*?(?:token|auth|pass|pw|jwt|secret|key|sig|cred)[\w.-]*=)[^&#;\s]*", re.IGNORECASE
)

MAX_TEXT = 2000  # letters of an error


def masked(text: str) -> str:
    """The text, without what authorizes in the addresses in it."""
    return _GIVEN.sub(r"\1***", _USER.sub(r"\1***@", text))


class PlanError(ValueError):
    """A study that cannot work. Its text is one line: `file:line: key: what is allowed`.

    `key` is the key path that is to blame, for whoever knows the file to put its place in front.
    """

    def __init__(self, text: str, key: str = "") -> None:
        whole = f"{key}: {text}" if key else text
        super().__init__(cut(escaped(masked(cut(whole, 10 * MAX_TEXT)))))
        self.text, self.key = text, key


def escaped(text: str) -> str:
    """The text in one line, whatever would not print as itself being escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def cut(text: str, most: int = MAX_TEXT) -> str:
    """The text, or as much of it as anybody reads."""
    return text if len(text) <= most else text[: most - 1] + "…"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the nearest known word, or nothing."""
    nearest = difflib.get_close_matches(cut(word, 100), list(known), n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""
