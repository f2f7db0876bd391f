"""A study file with every key, its value and what it means."""

from __future__ import annotations

import json
from typing import Any

from study.config.schema import Budget, LogUniform, RidgeConfig, Search, Section, StudyConfig

HEADER = """\
# A study: which batch size, on how many ranks, should I pay for?
# `study check FILE` shows what it means and costs; `study run FILE --out FOLDER` runs it.
# Keys behind a # have no value unless you give one.
"""


def starter(name: str) -> StudyConfig:
    """Return a small study of the embedded digits as a starting point."""
    return StudyConfig(
        name=name,
        batch_sizes=(32, 128, 512),
        search=Search(lr=LogUniform(low=0.01, high=1.0), samples=4),
        budget=Budget(epochs=10),
        scheduler=RidgeConfig(kind="ridge"),
    )


def commented_yaml(config: StudyConfig) -> str:
    """Return the config as YAML, each key with its description in a comment."""
    return HEADER + "\n".join(_lines(config, "")) + "\n"


def _lines(section: Section, indent: str) -> list[str]:
    lines: list[str] = []
    for key, value in section:
        field = type(section).model_fields[key]
        about = field.description or (key == "kind" and "which workload") or ""
        if isinstance(value, Section) and not isinstance(value, LogUniform):
            within = _lines(value, indent + "  ")
            # A key with nothing but comments under it would read as null.
            empty = all(line.lstrip().startswith("#") for line in within)
            lines += ["", f"{indent}{'# ' if empty else ''}{key}:  # {about}", *within]
        elif value is None:
            lines.append(f"{indent}# {key}:  # {about}")
        else:
            lines.append(f"{indent}{key}: {_inline(value)}  # {about}")
    return lines


def _inline(value: Any) -> str:
    """Return a value on one line: as JSON, which is YAML, but a range without quotes around its keys."""
    if isinstance(value, LogUniform):
        return f"{{low: {value.low:g}, high: {value.high:g}}}"
    return json.dumps(value, ensure_ascii=False)
