"""The few shapes of PromQL that panels and alert rules are made of. `[f]` stands for the filters of whoever asks."""

from __future__ import annotations

from study.cluster.metrics.definitions import METRICS


def most(metric: str, by: str = "") -> str:
    """A gauge without the labels of the process that set it; a resumed study's old and new driver may overlap."""
    return f"max by (study{', ' + by if by else ''}) (ray_{metric}[f])"


def total(metric: str, by: str, where: str = "") -> str:
    """The same, added up over the tags that are not in `by`."""
    tags = ", ".join(next(known.tags for known in METRICS if known.name == metric))
    chosen = f"ray_{metric}[f{',' + where if where else ''}]"
    return f"sum by (study{', ' + by if by else ''}) (max by (study, {tags}) ({chosen}))"


def filtered(query: str, filters: str) -> str:
    """A query with `[f]` and `[f,…]` written as a label selector."""
    opened = query.replace("[f]", "{" + filters + "}" if filters else "")
    head, *rest = opened.split("[f,")
    comma = "," if filters else ""
    return head + "".join("{" + filters + comma + part.replace("]", "}", 1) for part in rest)
