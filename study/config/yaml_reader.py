"""YAML with positions: plain data, the line of every key, and no surprises.

PyYAML's safe loader reads `1e-3` as text, `no` as false and `2026-01-01` as a date, keeps the last of two
equal keys, and expands aliases without bound. A study file needs none of that, so this builds plain data from
PyYAML's events, with bounds on all that can grow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from study.errors import ConfigError

KeyPath = tuple[str | int, ...]
MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_NODES = 50_000  # keys and values together
MAX_KEY = 100  # letters of a key
MAX_DIGITS = 100  # of a whole number

# The plain scalars of YAML 1.2's core schema that are not text.
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|(?P<odd>[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))"
)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def read(path: Path) -> tuple[Any, dict[KeyPath, int]]:
    """`parse` the file. Raises ConfigError if it is no file that can be read as UTF-8 text."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for, a device has no end
            raise ConfigError(f"{path}: is not a file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        _check_size(len(data), str(path))
        return parse(data.decode(), str(path))
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def parse(text: str, source: str) -> tuple[Any, dict[KeyPath, int]]:
    """Return plain data, and the line (from 1) of each key path.

    Raises ConfigError for text that is not one YAML document, past a bound, or has what no study file needs: aliases,
    tags, repeated keys, control codes, numbers that are not finite.
    """
    reader = _Reader(text, source)
    return reader.document(()), reader.lines


def _check_size(size_bytes: int, source: str) -> None:
    if size_bytes > MAX_BYTES:
        raise ConfigError(f"{source}: larger than {MAX_BYTES:,} bytes, which no study file needs to be")


def scalar(text: str, at: KeyPath) -> Any:
    """Return the value that `text` would have in a study file at key path `at`, for `--set key=value`."""
    return _Reader(text, None).document(at)


def dump(data: Any) -> str:
    """Return plain data as text that `parse` reads back."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes all text that YAML 1.1 or 1.2 would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: an object that occurs twice is written twice."""
        return True


for _kind, _pattern in (("int", _INT), ("float", _FLOAT)):
    _Dumper.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern.pattern})$"), list("-+.0123456789")
    )


class _Reader:
    """One pass over the events of a text; `source` is None for the value of a `--set`."""

    def __init__(self, text: str, source: str | None) -> None:
        self._source, self._line, self._nodes = source, 1, 0
        self.lines: dict[KeyPath, int] = {}
        _check_size(len(text.encode(errors="surrogatepass")), source or "--set")
        self._events = self._parsed(text)

    def document(self, at: KeyPath) -> Any:
        """Return the plain data of the text, None if it is empty."""
        next(self._events)  # the stream begins
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        data = self._build(next(self._events), at)
        next(self._events)  # the document ends
        if not isinstance(next(self._events), yaml.StreamEndEvent):
            raise self._error("a second document; a study is one", at)
        return data

    def _parsed(self, text: str) -> Iterator[yaml.Event]:
        try:
            for event in yaml.parse(text, Loader=yaml.SafeLoader):
                assert event.start_mark is not None, "the parser gives every event a place"
                self._line = event.start_mark.line + 1
                yield event
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._line = mark.line + 1 if mark else self._line
            raise self._error(f"not YAML: {error.problem or error.context}", ()) from None
        except yaml.YAMLError as error:
            raise self._error(f"not YAML: {str(error).splitlines()[0]}", ()) from None
        except (ValueError, OverflowError):  # an escape for a code point that does not exist
            raise self._error("not YAML: an escape that is no letter", ()) from None

    def _build(self, event: yaml.Event, at: KeyPath) -> Any:
        self.lines.setdefault(at, self._line)
        self._check(event, at)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
                items.append(self._build(event, (*at, len(items))))
            return items
        if isinstance(event, yaml.MappingStartEvent):
            built: dict[str, Any] = {}
            while not isinstance(event := next(self._events), yaml.MappingEndEvent):
                key = self._key(event, at)
                within = (*at, key)
                if key in built:
                    raise self._error("given twice", within)
                self.lines[within] = self._line
                built[key] = self._build(next(self._events), within)
            return built
        assert isinstance(event, yaml.ScalarEvent)
        return self._value(event, at)

    def _key(self, event: yaml.Event, at: KeyPath) -> str:
        self._check(event, at)
        if not isinstance(event, yaml.ScalarEvent):
            raise self._error("a key must be a word", at)
        if len(event.value) > MAX_KEY:
            raise self._error(f"a key of {len(event.value):,} letters; at most {MAX_KEY}", at)
        return self._text(event, at)

    def _check(self, event: yaml.Event, at: KeyPath) -> None:
        if isinstance(event, yaml.AliasEvent):
            raise self._error(f"aliases (*{event.anchor}) are not allowed", at)
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            raise self._error(f"tags ({event.tag}) are not allowed", at)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._error(f"more than {MAX_NODES:,} keys and values", ())
        if len(at) >= MAX_DEPTH and isinstance(event, yaml.CollectionStartEvent):
            raise self._error(f"nested more than {MAX_DEPTH} deep", ())

    def _value(self, event: yaml.ScalarEvent, at: KeyPath) -> Any:
        word = event.value
        if not event.implicit[0]:  # quoted
            return self._text(event, at)
        if _NULL.fullmatch(word):
            return None
        if _BOOL.fullmatch(word):
            return word[0] in "tT"
        if _INT.fullmatch(word):
            if len(word) > MAX_DIGITS:
                raise self._error(f"a number of more than {MAX_DIGITS} digits", at)
            return int(word)
        if number := _FLOAT.fullmatch(word):
            found = math.inf if number["odd"] else float(word)
            if not math.isfinite(found):
                raise self._error("should be a finite number", at)
            return found
        return self._text(event, at)

    def _text(self, event: yaml.ScalarEvent, at: KeyPath) -> str:
        if code := _CONTROL.search(event.value):
            raise self._error(f"a control code, U+{ord(code[0]):04X}, is not allowed", at)
        return str(event.value)

    def _error(self, text: str, at: KeyPath) -> ConfigError:
        where = "--set" if self._source is None else f"{self._source}:{self._line}"
        key = ".".join(map(str, at))
        return ConfigError(f"{where}: {key + ': ' if key else ''}{text}")
