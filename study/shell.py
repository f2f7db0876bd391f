"""What the commands share: the console, arguments of one meaning, plans from files and folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from study.cluster.connect import this_machine
from study.ledger.store import LedgerError
from study.plan.capacity import check_capacity
from study.plan.config import Custom
from study.plan.load import load_study
from study.plan.trials import Plan, make_plan
from study.workloads.custom import import_class

CONFIG = "config.yaml"
REPORT = "report"

out = Console()

FolderArgument = Annotated[Path, typer.Argument(help="a study's folder")]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object as the last line")]


def planned(path: Path, overrides: list[str] | None, address: str, cpus: int | None) -> Plan:
    """The plan of a file, refused if it cannot work on the cluster meant, as far as that is known by now."""
    file = load_study(path, overrides or ())
    with file.naming_places():
        plan = make_plan(file.config)
        if isinstance(plan.config.workload, Custom):
            import_class(plan.config.workload.module, "module")
            import_class(plan.config.workload.data, "data")
        if address == "local":
            check_capacity(this_machine(cpus), plan.config.hardware)
    return plan


def recorded(folder: Path, address: str = "", cpus: int | None = None) -> Plan:
    """The plan of a study's own file."""
    if not (folder / CONFIG).is_file():
        raise LedgerError(f"{folder}: no study here ({CONFIG} is missing)")
    return planned(folder / CONFIG, None, address, cpus)


def say(*lines: str) -> None:
    """Lines on the terminal as they are, long ones unbroken."""
    for line in lines:
        out.print(line, markup=False, soft_wrap=True, highlight=False)
