"""A plan on the terminal: what will run, and the most it can cost."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from study.analysis.forecast import Forecast, forecast
from study.plan.estimate import Pace, most_device_h, trial_device_h
from study.plan.trials import Cell, Plan, TrialSpec


def print_plan(plan: Plan, paces: Mapping[Cell, Pace], console: Console) -> None:
    """Cells with their derived values, the exact trials, and the cost."""
    console.print(
        f"Study {plan.config.name!r}: {len(plan.search)} search and {plan.n_confirm} confirm trials",
        markup=False,
    )
    console.print(_cells(plan, paces))
    if plan.config.hardware.micro_batch == "auto":
        console.print("Micro batch auto: a run first finds out what fits on a GPU, and splits batches that do not.")
    planned = _forecast(plan, paces)
    if planned is not None:
        console.print(_brackets(plan, planned))
    console.print(_trials(plan))
    console.print(_cost(plan, paces), markup=False, soft_wrap=True)
    if planned is not None:
        console.print(
            f"The search is expected to take {planned.cost_fraction:.0%} of the full grid's cost.", markup=False
        )


def _cells(plan: Plan, paces: Mapping[Cell, Pace]) -> Table:
    table = Table(box=SIMPLE_HEAD, title="Batch sizes", title_justify="left")
    if _has_variants(plan):
        table.add_column("variant")
    for name in (
        "batch",
        "ranks",
        "micro\nbatch",
        "accumu-\nlation",
        "updates\nan epoch",
        "updates\nin all",
        "dropped\nan epoch",
        "ms an\nupdate",
    ):
        table.add_column(name, justify="right")
    for cell in plan.cells:
        spec = plan.confirm_trials(cell, plan.rates(cell)[0])[0]
        pace = paces.get(cell)
        table.add_row(
            *_variant(plan, cell),
            _course(spec),
            str(cell.world_size),
            str(spec.batch.micro_batch),
            str(spec.batch.accumulation),
            str(spec.updates_per_epoch),
            str(spec.total_updates),
            str(plan.train_samples - spec.updates_per_epoch * cell.batch_size),
            f"{1000 * pace.update_s:.2f}" if pace else "?",
        )
    return table


def _brackets(plan: Plan, planned: Forecast) -> Table:
    table = Table(box=SIMPLE_HEAD, title="Early stopping of the search", title_justify="left")
    if _has_variants(plan):
        table.add_column("variant")
    for name in ("batch", "ranks", "trials", "share of the\ngrid's cost", "bracket", "trials that go on, and where"):
        table.add_column(name, justify="left" if name[0] in "bt" and name not in ("batch", "trials") else "right")
    for bracket in planned.brackets:
        table.add_row(
            *_variant(plan, bracket.cell),
            str(bracket.cell.batch_size),
            str(bracket.cell.world_size),
            str(bracket.trials),
            f"{bracket.cost_share:.1%}",
            "" if bracket.grade is None else ("cheap", "middling", "dear")[bracket.grade],
            ", ".join(f"{rung.keep} at {rung.at:.0%}" for rung in bracket.rungs) or "all, to the end",
        )
    return table


def _has_variants(plan: Plan) -> bool:
    return bool(plan.config.variants)


def _variant(plan: Plan, cell: Cell) -> tuple[str, ...]:
    """A column of its own, where there are variants."""
    return (cell.variant,) if _has_variants(plan) else ()


def _course(spec: TrialSpec) -> str:
    """The batch, or the batches it grows through."""
    sizes = dict.fromkeys(stage.batch.global_batch for stage in spec.stages)
    return "→".join(map(str, sizes))


def _trials(plan: Plan) -> Table:
    table = Table(box=SIMPLE_HEAD, title="Trials", title_justify="left")
    for name in ("trial", "batch", "ranks", "rate", "seed", "updates", "reports"):
        table.add_column(name, justify="left" if name == "trial" else "right", no_wrap=name == "trial")
    for spec in plan.search:
        _add(table, spec, f"{spec.lr:.4g}")
    for cell in plan.cells:
        for spec in plan.confirm_trials(cell, plan.rates(cell)[0]):
            _add(table, spec, "chosen" if plan.search else f"{spec.lr:.4g}")
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


def _forecast(plan: Plan, paces: Mapping[Cell, Pace]) -> Forecast | None:
    """None where there is no search, or a pace is not known."""
    if not plan.search or any(cell not in paces for cell in plan.cells):
        return None
    return forecast(plan, {spec.cell: trial_device_h(spec, paces[spec.cell]) for spec in plan.search})


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
