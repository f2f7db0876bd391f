"""What the commands share: exit codes, options of one meaning, plans of study files, and plain lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study.errors import DiskError
from study.safe_text import printable

if TYPE_CHECKING:
    from study.cluster.target import ClusterTarget
    from study.planning.trials import Plan

# Exit codes beside 0 and 1.
USAGE_ERROR, CUT, DISK_ERROR, NOTHING_COMPLETED, INTERRUPTED = 2, 3, 4, 5, 130


FolderArgument = Annotated[Path, typer.Argument(help="a study's folder")]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object as the last line")]


def planned(
    config: str | Path, overrides: list[str] | None, target: ClusterTarget, cpus: int | None, try_: bool = False
) -> Plan:
    """Return the plan of a study file, by path or name, checked before it runs; print notes on the user's modules."""
    from study.api.plans import checked_plan
    from study.config.loader import find_config, load_study

    return checked_plan(load_study(find_config(str(config)), overrides or ()), target, cpus, say if try_ else None)


def with_next_step(error: DiskError, command: str) -> DiskError:
    """Return the error with the command to run once the disk takes more."""
    return DiskError(f"{error}. Once that is mended, go on with: {command}")


def listed(values: Sequence[str] | None) -> list[str]:
    """Return the words of an option that takes commas and repetition alike."""
    return [word.strip() for value in values or () for word in value.split(",") if word.strip()]


def say(*lines: str) -> None:
    """Print lines as they are, with a space for each control character."""
    for line in lines:
        print(printable(line, keep="\n\t"))
