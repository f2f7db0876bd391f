"""The learning rate that a run was configured with, not the last that its schedule came to."""

from __future__ import annotations

from study.analysis.tables.columns import Columns, option
from study.analysis.tables.names import RESULT, SETTING, TRAINING, VALIDATION, Header

_CONFIGURED = (
    *("learning_rate", "base_lr", "initial_lr", "init_lr", "peak_lr", "max_lr", "lr0", "eta"),
    *("initial_learning_rate", "base_learning_rate", "peak_learning_rate", "max_learning_rate"),
)


def logged_rates(columns: Columns) -> list[str]:
    """Columns with the learning rate that no tracker calls a setting: beside a configured one, its last values."""
    names = ("lr", *_CONFIGURED)
    return [h.name for h in columns.filled if h.kind != SETTING and (h.plain in names or h.leaf in names)]


def find_rate(columns: Columns) -> str | None:
    """The column with the configured learning rate."""
    if "lr" in columns.chosen:
        return columns.chosen["lr"]
    ranked: dict[int, list[Header]] = {}
    logged = []
    for head in columns.filled:
        if head.leaf not in ("lr", *_CONFIGURED) and head.plain not in ("lr", *_CONFIGURED):
            continue
        of_figures = head.kind != SETTING and set(head.tokens[:-1]) & (TRAINING | VALIDATION)
        if head.kind == RESULT or of_figures:
            logged.append(head.name)
            continue
        configured = head.kind == SETTING or len(head.parts) > 1
        ranked.setdefault(0 if configured else 1 if head.leaf in _CONFIGURED else 2, []).append(head)
    if not ranked:
        if logged:
            columns.sheet.note(
                f"{logged[0]} was logged and may be the last of a schedule: the learning rate is unknown; "
                f"{option('lr')} names one."
            )
        return None
    best, *others = (ranked[rank] for rank in sorted(ranked))
    name = columns.one(sorted(best, key=lambda head: len(head.parts)), "lr", "lr")
    for head in (head for same in others for head in same):
        if columns.differ(name, head.name) is not None:
            columns.sheet.note(f"{head.name} is not {name}: the configured rate is {name}.")
    return name
