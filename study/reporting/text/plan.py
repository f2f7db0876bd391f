"""A plan on the terminal: what will run, and the most it can cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from study.analysis.early_stopping import forecast
from study.planning.cost_estimate import estimate_plan, trial_h
from study.reporting.text.formatting import column, cost_unit, duration, number, of_limit
from study.reporting.text.tried import cell_name, module_lines

if TYPE_CHECKING:
    from study.analysis.early_stopping import Forecast, PlannedBracket
    from study.planning.cost_estimate import Pace, Paces, PlanEstimate
    from study.planning.trials import Cell, Plan, TrialSpec
    from study.planning.tried import FirstRates


def print_plan(plan: Plan, paces: Paces, ranks: int, rates: Mapping[str, FirstRates | str], console: Console) -> None:
    """Print batch sizes with derived values, all trials, the cost on hardware that holds `ranks` ranks at once, and
    what was found of modules that were tried; `rates` has the first rates of each, by variant.
    """
    measured = paces.measured
    console.print(
        f"Study {plan.config.name!r}: {len(plan.search)} search and {_n_confirm(plan)} confirm trials",
        markup=False,
    )
    console.print(_cells(plan, measured))
    if plan.config.hardware.micro_batch == "auto" and plan.config.hardware.on_gpu:
        console.print("Micro batch auto: a run first finds the largest that fits on a GPU, and splits larger batches.")
    planned = _forecast(plan, measured)
    if planned is not None:
        console.print(_brackets(plan, planned))
    console.print(_trials(plan))
    price = estimate_plan(plan, measured, ranks)
    if price is not None:
        console.print(_prices(plan, price))
    lines = [*_unmeasured(plan, paces.missing), _cost(plan, price, ranks)]
    if planned is not None:
        lines.append(f"The search is expected to take {planned.cost_fraction:.0%} of the full grid's cost.")
    for line in (*lines, *(_limits(plan, price, planned) if price else ())):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for one in plan.tried:
        for line in module_lines(plan, one, rates[one.variant], paces):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _n_confirm(plan: Plan) -> str:
    most = len(plan.cells) * plan.config.confirm.most
    return str(most) if most == plan.n_confirm else f"{plan.n_confirm} to {most}"


def _cells(plan: Plan, paces: Mapping[Cell, Pace]) -> Table:
    table = Table(box=SIMPLE_HEAD, title="Batch sizes", title_justify="left")
    if _has_variants(plan):
        table.add_column("variant")
    tokens = plan.config.tokens_per_sample
    for name in (
        "batch",
        *(("tokens an\nupdate",) if tokens else ()),
        "ranks",
        "micro\nbatch",
        "accumu-\nlation",
        "updates\nper epoch",
        "updates\nin total",
        "dropped\nper epoch",
        "ms per\nupdate",
        *(("tokens\na second",) if tokens else ()),
    ):
        table.add_column(name, justify="right")
    for cell in plan.cells:
        spec = plan.confirm_trials(cell, plan.rates(cell)[0])[0]
        pace = paces.get(cell)
        table.add_row(
            *_variant(plan, cell),
            _batch_sizes(spec),
            *((_batch_sizes(spec, tokens),) if tokens else ()),
            str(cell.world_size),
            str(spec.batch.micro_batch),
            str(spec.batch.accumulation),
            str(spec.updates_per_epoch),
            str(spec.total_updates),
            str(plan.train_samples - spec.updates_per_epoch * cell.batch_size),
            f"{1000 * pace.update_s:.2f}" if pace else "?",
            *((number(tokens * cell.batch_size / pace.update_s) if pace else "?",) if tokens else ()),
        )
    return table


def _brackets(plan: Plan, planned: Forecast) -> Table:
    table = Table(box=SIMPLE_HEAD, title="Early stopping of the search", title_justify="left")
    if _has_variants(plan):
        table.add_column("variant")
    for name in ("batch", "ranks", "trials", "share of the\ngrid's cost", "bracket", "trials that continue, and where"):
        table.add_column(name, justify="left" if name[0] in "bt" and name not in ("batch", "trials") else "right")
    for bracket in planned.brackets:
        table.add_row(
            *_variant(plan, bracket.cell),
            str(bracket.cell.batch_size),
            str(bracket.cell.world_size),
            str(bracket.trials),
            f"{bracket.cost_share:.1%}",
            "" if bracket.grade is None else ("low cost", "medium cost", "high cost")[bracket.grade],
            _who_goes_on(bracket),
        )
    return table


def _who_goes_on(bracket: PlannedBracket) -> str:
    if bracket.adaptive:
        return f"by their scores: about {bracket.whole_trials:.1f} whole trials"
    return ", ".join(f"{rung.keep} at {rung.at:.0%}" for rung in bracket.rungs) or "all, to the end"


def _has_variants(plan: Plan) -> bool:
    return bool(plan.config.variants)


def _variant(plan: Plan, cell: Cell) -> tuple[str, ...]:
    """Return the variant's cell of a row, and nothing in a study without variants."""
    return (cell.variant,) if _has_variants(plan) else ()


def _batch_sizes(spec: TrialSpec, tokens: int = 1) -> str:
    """Return the batch size, or the batch sizes that it grows through, of `tokens` a sample."""
    sizes = dict.fromkeys(tokens * stage.batch.global_batch for stage in spec.stages)
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
    """Return what early stopping is expected to save; None without a search, or if a pace is unknown."""
    if not plan.search or any(cell not in paces for cell in plan.cells):
        return None
    return forecast(plan, {spec.cell: spec.cell.world_size * trial_h(spec, paces[spec.cell]) for spec in plan.search})


def _prices(plan: Plan, price: PlanEstimate) -> Table:
    table = Table(box=SIMPLE_HEAD, title="What it can cost", title_justify="left")
    if _has_variants(plan):
        table.add_column("variant")
    unit = cost_unit([max(one.device_h for one in price.cells)])
    usd = plan.config.price.usd_per_device_hour
    for name in ("batch", "ranks", "search\ntrials", "confirm\ntrials", f"at most\n{unit.label}"):
        table.add_column(name, justify="right")
    if usd is not None:
        table.add_column("at most\nUSD", justify="right")
    figures = column(one.device_h * unit.scale for one in price.cells)
    for one, figure in zip(price.cells, figures, strict=True):
        table.add_row(
            *_variant(plan, one.cell),
            str(one.cell.batch_size),
            str(one.cell.world_size),
            str(one.search_trials),
            str(one.confirm_trials),
            figure,
            *([] if usd is None else [number(one.device_h * usd)]),
        )
    return table


def _unmeasured(plan: Plan, missing: Mapping[Cell, str]) -> list[str]:
    """Return a line for each reason for which paces were not measured."""
    lines = []
    for why in dict.fromkeys(missing.values()):
        cells = ", ".join(cell_name(plan, cell) for cell, reason in missing.items() if reason == why)
        lines.append(f"Pace not measured: {cells}: {why}.")
    return lines


def _cost(plan: Plan, price: PlanEstimate | None, ranks: int) -> str:
    if price is None:
        return "Cost: not known, for want of these paces."
    usd = plan.config.price.usd_per_device_hour
    dollars = "" if usd is None else f", {number(price.device_h * usd)} USD at {usd:g} USD per device-hour"
    return (
        f"At most {cost_unit([price.device_h]).show(price.device_h)}{dollars}, and {duration(3600 * price.wall_h)} on "
        f"hardware that holds {ranks} rank(s) at once: all trials to the end, at the pace just measured on this "
        f"machine. Early stopping saves some of it; setup of groups and retries add to it."
    )


def _limits(plan: Plan, price: PlanEstimate, planned: Forecast | None) -> list[str]:
    """Return a line for each limit: the most that the plan can cost, and whether it is likely to be cut."""
    usd = plan.config.price.usd_per_device_hour
    against = plan.config.limits.against
    most = against(price.device_h, price.wall_h, usd)
    saved = price.search_device_h * (1 - (planned.cost_fraction if planned else 1.0))
    share = 1 - saved / price.device_h
    expected = against(share * price.device_h, share * price.wall_h, usd)
    lines = []
    for name, (cost, allowed) in most.items():
        if cost < allowed:
            verdict = "the plan fits"
        elif expected[name][0] < allowed:
            verdict = "early stopping should keep the study within it; if not, the study is cut there"
        else:
            verdict = (
                f"even with early stopping about {of_limit(name, *expected[name])}: the study is likely to be cut there"
            )
        lines.append(f"limits.{name}: at most {of_limit(name, cost, allowed)}; {verdict}.")
    return lines
