"""What is wrong with a plan, in one line that a person can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PlanError(ValueError):
    """A study that cannot work. Its text is one line: `file:line: key: what is allowed`.

    `key` is the key path that is to blame, for whoever knows the file to put its place in front.
    """

    def __init__(self, text: str, key: str = "") -> None:
        whole = f"{key}: {text}" if key else text
        super().__init__("\\n".join(whole.splitlines()))  # a key may hold a line break
        self.text, self.key = text, key


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the nearest known word, or nothing."""
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""
