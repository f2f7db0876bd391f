"""YAML with positions: plain data, the line of every key, and no surprises.

PyYAML's safe loader reads `1e-3` as text, `no` as false and `2026-01-01` as a date, keeps the last of two
equal keys, and expands aliases without bound. A study file needs none of that.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from study.plan.errors import PlanError

Path_ = tuple[str | int, ...]
MAX_BYTES = 1_000_000
MAX_DEPTH = 20


class _Resolver(yaml.SafeLoader):
    """The scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own interface)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
):
    _Resolver.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def parse(text: str, source: str) -> tuple[Any, dict[Path_, int]]:
    """Plain data, and the line (from 1) at which each key path stands.

    Raises PlanError for text that is not YAML, too large or too deep, for repeated keys, and for aliases.
    """
    if len(text.encode()) > MAX_BYTES:
        raise PlanError(f"{source}: larger than {MAX_BYTES:,} bytes, which no study file needs to be")
    lines: dict[Path_, int] = {}
    try:
        loader = _Resolver(text)
        _refuse_aliases_and_depth(text, source)
        node = loader.get_single_node()
        return (None if node is None else _build(node, (), loader, lines, source)), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        raise PlanError(f"{where}: not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise PlanError(f"{source}: not YAML: {str(error).splitlines()[0]}") from None


def _refuse_aliases_and_depth(text: str, source: str) -> None:
    """On the stream of events, before anything is built from it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        assert event.start_mark is not None, "only events made by hand have no place"
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise PlanError(f"{source}:{line}: aliases (*{event.anchor}) are not allowed")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise PlanError(f"{source}:{line}: nested more than {MAX_DEPTH} deep")


def read(path: Path) -> tuple[Any, dict[Path_, int]]:
    """`parse` the file. Raises PlanError if it cannot be read as UTF-8 text."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise PlanError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}") from None


def scalar(text: str) -> Any:
    """The value that `text` would have in a study file, for `--set key=value`."""
    return parse(text, "--set")[0]


def _build(node: yaml.Node, at: Path_, loader: _Resolver, lines: dict[Path_, int], source: str) -> Any:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*at, i), loader, lines, source) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise PlanError(f"{source}:{line}: a key must be a word")
            key = key_node.value
            if key in built:
                raise PlanError(f"{source}:{line}: {'.'.join(map(str, (*at, key)))}: given twice")
            within = (*at, key)
            lines[within] = line
            built[key] = _build(value_node, within, loader, lines, source)
        return built
    try:
        return loader.construct_object(node)
    except ValueError as error:
        raise PlanError(f"{source}:{node.start_mark.line + 1}: {error}") from None
