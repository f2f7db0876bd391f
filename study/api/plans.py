"""Plans of studies from files, mappings and folders, refused in one line where they cannot work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from study.cluster.target import HEAD, LOCAL, ClusterTarget
from study.errors import ConfigError, LedgerError
from study.ledger.paths import StudyPaths

if TYPE_CHECKING:
    from study.config.loader import StudyFile
    from study.config.schema import StudyConfig
    from study.planning.trials import Plan


def checked_plan(
    file: StudyFile, target: ClusterTarget, cpus: int | None, note: Callable[[str], None] | None = None
) -> Plan:
    """Return the plan of a study file, once it is checked as far as possible before it runs.

    Samples that the file does not state are counted. With `note`, modules of the user's own are trained for some
    updates, and what is worth knowing of them is passed to it. `target` is where the study will run, on this
    machine with `cpus` logical CPUs.

    Raises ConfigError and DataError.
    """
    from study.workloads.data.discovery import with_sample_counts

    with file.naming_places():
        plan = _plan_for(with_sample_counts(file.config), target, cpus)
        import_own(plan.config)
        return plan if note is None else tried(plan, note)


def recorded(
    folder: Path, target: ClusterTarget = HEAD, cpus: int | None = None, overrides: list[str] | None = None
) -> Plan:
    """Return the plan of the study in a folder, in which all samples are counted; no code of the user's is run.

    A target of HEAD checks nothing of this machine. Raises LedgerError where there is no study, and ConfigError.
    """
    from study.config.loader import load_study

    config = StudyPaths(folder).config
    if not config.is_file():
        raise LedgerError(f"no study here ({config.name} is missing)", str(folder))
    file = load_study(config, overrides or ())
    with file.naming_places():
        return _plan_for(file.config, target, cpus)


def _plan_for(config: StudyConfig, target: ClusterTarget, cpus: int | None) -> Plan:
    """Return the plan. Raises ConfigError if this machine is meant, and is too small for it or lacks the files."""
    from study.planning.trials import make_plan

    plan = make_plan(config)
    if target == LOCAL:
        from study.cluster.connection import this_machine
        from study.planning.capacity import check_capacity
        from study.workloads.data.discovery import find_files

        check_capacity(this_machine(cpus), plan.config.hardware)
        find_files(plan.config.workload)
    if target.kind != "head":  # this process will run the study
        from study.cluster.sinks.dispatcher import open_sinks

        open_sinks(plan, Path())
    return plan


def tried(plan: Plan, note: Callable[[str], None]) -> Plan:
    """Return the plan with what was found when some updates were trained with each module of the user's own; pass their
    notes to `note`. Raises ConfigError.
    """
    from study.config.workloads import Custom

    if any(isinstance(variant.workload, Custom) for variant in plan.variants.values()):
        from study.training.preflight.dry_run import dry_run

        found = dry_run(plan)
        lines = [f"variant {one.variant}: {line}" if one.variant else line for one in found for line in one.notes]
        for line in dict.fromkeys(lines):
            note(f"Note: {line}")
        return replace(plan, tried=found)
    return plan


def import_own(config: StudyConfig) -> None:
    """Import the user's own classes. Raises ConfigError if they are not where they were."""
    from study.config.workloads import Custom

    for name in config.variant_names:
        workload = config.variant(name).workload
        if isinstance(workload, Custom):
            from study.workloads.user_code.build import import_class

            for key, path in workload.import_paths:
                import_class(path, key)


def repriced(plan: Plan, usd_per_device_hour: float | None, prices: Path | None) -> Plan:
    """Return the plan at another price: this one, or that of a price list for the GPU that the study names."""
    from study.config.price_list import priced
    from study.config.sections import MOST_USD_PER_DEVICE_HOUR, Price

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
