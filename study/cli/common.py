"""What the commands share: the console, arguments of one meaning, plans from files and folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from study.cluster.connection import this_machine
from study.cluster.sinks.dispatcher import open_sinks
from study.config.loader import load_study
from study.config.price_list import priced
from study.config.schema import StudyConfig
from study.config.sections import MOST_USD_PER_DEVICE_HOUR, Price
from study.config.workloads import Custom, ImageFolder
from study.errors import ConfigError, DiskError, LedgerError
from study.ledger.store import CONFIG
from study.planning.capacity import check_capacity
from study.planning.trials import Plan, make_plan
from study.safe_text import printable
from study.workloads.data.discovery import find_images, with_sample_counts
from study.workloads.user_code.build import import_class

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
    """The plan of a file, refused if it cannot work on the cluster meant, as far as that is known by now.

    Samples that the file does not tell are counted; `try_` also trains two batches of a module of the user's own.
    """
    file = load_study(path, overrides or ())
    with file.naming_places():
        plan = _plan_for(with_sample_counts(file.config), address, cpus)
        import_own(plan.config)
        return tried(plan) if try_ else plan


def recorded(folder: Path, address: str = "", cpus: int | None = None, overrides: list[str] | None = None) -> Plan:
    """The plan of a study's own file, in which all samples are counted: no code of the user's is run."""
    if not (folder / CONFIG).is_file():
        raise LedgerError(f"{folder}: no study here ({CONFIG} is missing)")
    file = load_study(folder / CONFIG, overrides or ())
    with file.naming_places():
        return _plan_for(file.config, address, cpus)


def _plan_for(config: StudyConfig, address: str, cpus: int | None) -> Plan:
    """The plan. Raises ConfigError if this machine is meant, and is too small for it or lacks the files."""
    plan = make_plan(config)
    if address == "local":
        check_capacity(this_machine(cpus), plan.config.hardware)
        if isinstance(plan.config.workload, ImageFolder):
            find_images(plan.config.workload)
    if address not in ("", "cluster"):  # the study is to run from here
        open_sinks(plan, Path())
    return plan


def tried(plan: Plan) -> Plan:
    """The plan, once three updates have been trained with each module of the user's own. Raises ConfigError."""
    if any(isinstance(variant.workload, Custom) for variant in plan.variants.values()):
        from study.training.preflight.dry_run import try_out

        say(*(f"Note: {note}" for note in try_out(plan)))
    return plan


def import_own(config: StudyConfig) -> None:
    """Import the user's own classes. Raises ConfigError if they are not where they were."""
    for name in config.variant_names:
        workload = config.variant(name).workload
        if isinstance(workload, Custom):
            import_class(workload.module, "module")
            import_class(workload.data, "data")


def repriced(plan: Plan, usd_per_device_hour: float | None, prices: Path | None) -> Plan:
    """The plan at another price: this one, or what a price list asks for the GPU that the study names."""
    price = plan.config.price
    if usd_per_device_hour is not None:
        if not 0 <= usd_per_device_hour <= MOST_USD_PER_DEVICE_HOUR:
            raise ConfigError(
                f"must be from 0 to {MOST_USD_PER_DEVICE_HOUR:,.0f}; got {usd_per_device_hour:g}",
                "--usd-per-device-hour",
            )
        price = Price(usd_per_device_hour=usd_per_device_hour, source="--usd-per-device-hour")
    elif prices is not None:
        if price.gpu_type is None:
            raise ConfigError("the study names no price.gpu_type to look up; give --usd-per-device-hour", "--prices")
        asked = price.model_copy(update={"usd_per_device_hour": None, "file": prices.name})
        price = priced(asked, prices.parent)
    return replace(plan, config=plan.config.model_copy(update={"price": price}))


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
