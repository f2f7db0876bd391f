"""The bytes of a text: a file, the files of a folder, or the help topics of Python's standard library."""

from __future__ import annotations

import os
from pathlib import Path

from study.config.workloads import Text
from study.errors import DataError

KEY = "workload.path"
BYTES = 256  # values of a byte
MOST_BYTES = 10**9
PARAGRAPHS = "\n\n"


def read_text(config: Text) -> bytes:
    """Return the whole text. Raises DataError if it cannot be read, or is not as long as the config says."""
    text = help_topics() if config.path is None else _of_files(Path(config.path).expanduser())
    if config.text_bytes not in (None, len(text)):
        whose = f"{config.path} has" if config.path else "the help topics of this Python have"
        raise DataError(f"is {config.text_bytes:,}, but {whose} {len(text):,} bytes", "workload.text_bytes")
    return text


def help_topics() -> bytes:
    """Return the help topics in the order of their names, in English; each Python version has its own.

    A paragraph that several topics share is kept in the first alone: else much of the validation part would have been
    trained on.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DataError("is required: this Python comes without its help topics", KEY) from None
    paragraphs = PARAGRAPHS.join(topics[name].strip() for name in sorted(topics)).split(PARAGRAPHS)
    return PARAGRAPHS.join(dict.fromkeys(paragraphs)).encode()


def _of_files(path: Path) -> bytes:
    """Return a file, or the files of a folder and of those in it, in the order of their paths and a blank line apart.

    Files and folders whose names begin with a dot are left out.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder", KEY)
    files = [path] if path.is_file() else _files_in(path)
    if not files:
        raise DataError(f"{path}: holds no file", KEY)
    try:
        if sum(file.stat().st_size for file in files) > MOST_BYTES:
            raise DataError(f"{path}: is longer than {MOST_BYTES:,} bytes, the most that a text may have", KEY)
        return PARAGRAPHS.encode().join(file.read_bytes() for file in files)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}", KEY) from error


def _files_in(root: Path) -> list[Path]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(folder, name) for name in names if not name.startswith("."))
        found += [path for path in paths if path.is_file()]
    return sorted(found)
