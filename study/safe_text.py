"""Text that others wrote, made safe to print: control characters, credentials in addresses, markup, length."""

from __future__ import annotations

import html
import re

# Credentials in an address: user:password@, where a password may hold an @ too, and parameters such as ?token=.
_USER = re.compile(r"(https?://|://[^/\s:]*:)[^/\s]*@", re.IGNORECASE)
_PARAMETER = re.compile(
    r"([?&;#](?=[\w.-]*=)[\w.-]*?(?:token|auth|pass|pw|jwt|secret|key|sig|cred)[\w.-]*=)[^&#;\s]*", re.IGNORECASE
)

MAX_TEXT = 2000  # characters of an error


def masked(text: str) -> str:
    """Return the text with `***` in place of the credentials in its addresses."""
    return _PARAMETER.sub(r"\1***", _USER.sub(r"\1***@", text))


def escaped(text: str) -> str:
    """Return the text as one line, with a backslash escape for each character that is not printable."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def printable(text: str, keep: str = "") -> str:
    """Return the text with a space for each character that is not printable and not in `keep`: one line by default."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in keep else " " for letter in text)


def plotly_text(text: str) -> str:
    """Return the text as Plotly shows it character for character: Plotly reads tags and entities in all its labels."""
    return html.escape(text, quote=False)


def markdown_text(text: str) -> str:
    """Return the text as one line of Markdown that shows it character for character."""
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", html.escape(printable(text), quote=False))


def cut(text: str, most: int = MAX_TEXT) -> str:
    """Return the text, cut to at most `most` characters, with an ellipsis for the rest."""
    return text if len(text) <= most else text[: most - 1] + "…"
