"""A plan on the terminal: what will run, and the most it can cost."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from study.plan.estimate import Pace, most_device_h
from study.plan.trials import Cell, Plan, TrialSpec, rung_levels


def print_plan(plan: Plan, paces: Mapping[Cell, Pace], console: Console) -> None:
    """Cells with their derived values, the exact trials, and the cost."""
    console.print(
        f"Study {plan.config.name!r}: {len(plan.search)} search and {plan.n_confirm} confirm trials",
        markup=False,
    )
    console.print(_cells(plan, paces))
    console.print(_trials(plan))
    console.print(_cost(plan, paces), markup=False, soft_wrap=True)


def _cells(plan: Plan, paces: Mapping[Cell, Pace]) -> Table:
    unit = plan.config.scheduler.unit.replace("_", " ")
    table = Table(box=SIMPLE_HEAD, title="Batch sizes", title_justify="left")
    for name in (
        "batch",
        "ranks",
        "micro\nbatch",
        "accumu-\nlation",
        "updates\nan epoch",
        "updates\nin all",
        "dropped\nan epoch",
        f"rungs in\n{unit}",
        "ms an\nupdate",
    ):
        table.add_column(name, justify="right")
    for cell in plan.cells:
        spec = plan.confirm_trials(cell, plan.rates()[0])[0]
        levels = rung_levels(plan.config, spec) if plan.search else ()
        pace = paces.get(cell)
        table.add_row(
            str(cell.batch_size),
            str(cell.world_size),
            str(spec.batch.micro_batch),
            str(spec.batch.accumulation),
            str(spec.updates_per_epoch),
            str(spec.total_updates),
            str(plan.train_samples - spec.updates_per_epoch * cell.batch_size),
            ", ".join(f"{level:g}" for level in levels) or "none",
            f"{1000 * pace.update_s:.2f}" if pace else "?",
        )
    return table


def _trials(plan: Plan) -> Table:
    table = Table(box=SIMPLE_HEAD, title="Trials", title_justify="left")
    for name in ("trial", "batch", "ranks", "learning rate", "seed", "updates", "reports"):
        table.add_column(name, justify="left" if name == "trial" else "right", no_wrap=name == "trial")
    for spec in plan.search:
        _add(table, spec, f"{spec.lr:.4g}")
    for cell in plan.cells:
        for spec in plan.confirm_trials(cell, plan.rates()[0]):
            _add(table, spec, "search's choice" if plan.search else f"{spec.lr:.4g}")
    return table


def _add(table: Table, spec: TrialSpec, rate: str) -> None:
    batch = spec.batch
    table.add_row(
        spec.trial_id,
        str(batch.global_batch),
        str(batch.world_size),
        rate,
        str(spec.seed_index),
        str(spec.total_updates),
        str(len(spec.report_at)),
    )


def _cost(plan: Plan, paces: Mapping[Cell, Pace]) -> str:
    most = most_device_h(plan, paces)
    if most is None:
        return "Cost: not known; the pace of some batch size was not measured on this machine."
    price = plan.config.price.usd_per_device_hour
    dollars = "" if price is None else f", {most * price:.2f} USD at {price:g} USD per device-hour"
    return (
        f"At most {most:.4g} device-hours{dollars}: all trials to the end, at the pace just measured on this machine; "
        f"early stopping takes away from it, setting up groups and retries add to it."
    )
