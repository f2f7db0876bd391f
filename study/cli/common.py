"""What the commands share: the console, arguments of one meaning, plans from files and folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from study.api.plans import checked_plan
from study.config.loader import load_study
from study.errors import DiskError
from study.planning.trials import Plan
from study.safe_text import printable

# Exit codes beside 0 and 1.
USAGE_ERROR, CUT, DISK_ERROR, NOTHING_COMPLETED, INTERRUPTED = 2, 3, 4, 5, 130


class _Terminal(Console):
    """Writes no control code but its own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            clean = segment.control or segment.text.isprintable()
            yield segment if clean else Segment(printable(segment.text, keep="\n\t"), segment.style)


out = _Terminal()

FolderArgument = Annotated[Path, typer.Argument(help="a study's folder")]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object as the last line")]


def planned(path: Path, overrides: list[str] | None, address: str, cpus: int | None, try_: bool = False) -> Plan:
    """Return the plan of a study file, checked before it runs; notes on the user's own modules are printed."""
    return checked_plan(load_study(path, overrides or ()), address, cpus, say if try_ else None)


def afterwards(error: DiskError, command: str) -> DiskError:
    """The same, and what to do once the disk takes more."""
    return DiskError(f"{error}. Once that is mended, go on with: {command}")


def listed(values: Sequence[str] | None) -> list[str]:
    """What an option that may be repeated lists, each with commas between."""
    return [word.strip() for value in values or () for word in value.split(",") if word.strip()]


def say(*lines: str) -> None:
    """Lines on the terminal as they are, long ones unbroken."""
    for line in lines:
        out.print(line, markup=False, soft_wrap=True, highlight=False)
