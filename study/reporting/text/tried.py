"""What was found of a user's own module, as `study check` ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from study.config.workloads import Custom
from study.planning.tried import FirstRates, TriedModule
from study.reporting.text.formatting import number, ranks
from study.reporting.text.quality import value_text

if TYPE_CHECKING:
    from study.config.objective import Objective
    from study.planning.cost_estimate import Paces
    from study.planning.trials import Cell, Plan


def module_lines(plan: Plan, found: TriedModule, rates: FirstRates | str, paces: Paces) -> list[str]:
    """Return a heading, and a line for each thing that was found."""
    workload = plan.variants[found.variant].workload
    assert isinstance(workload, Custom)
    cells = [cell for cell in plan.cells if cell.variant == found.variant]
    rows = {
        "metric": _metric(plan.config.objective, found),
        "samples": f"{plan.train_samples:,} to train on, "
        + ("unknown" if found.val_samples is None else f"{found.val_samples:,}")
        + " to validate on",
        "updates": _by_cell(plan, cells, [str(plan.confirm_trials(cell, 1.0)[0].total_updates) for cell in cells]),
        "tokens": _tokens(plan, cells),
        workload.loss_weight or "": _weights(cells[0], found),
        **_optimizers(workload, rates),
        "pace": _pace(plan, cells, paces),
    }
    width = max(map(len, rows))
    return [
        f"Found of {workload.module}" + (f" (variant {found.variant})" if found.variant else "") + ":",
        *(f"  {name.ljust(width)}  {text}" for name, text in rows.items() if text),
    ]


def cell_name(plan: Plan, cell: Cell) -> str:
    """Return `batch size 32`, with the ranks and the variant where a study has several."""
    says = f"batch size {cell.batch_size}"
    if len(plan.config.hardware.world_sizes) > 1:
        says += f" on {ranks(cell.world_size)}"
    return says + (f" of {cell.variant}" if plan.config.variants else "")


def _metric(objective: Objective, found: TriedModule) -> str:
    value = value_text(objective, objective.quality(found.metrics[found.logged]))
    others = sorted(found.metrics.keys() - {found.logged})
    better = "more" if objective.mode == "max" else "less"
    says = f"{found.logged}, of which {better} is better; {value} after the updates that were tried"
    return says + (f"; also logged: {', '.join(others)}" if others else "")


def _by_cell(plan: Plan, cells: list[Cell], texts: list[str]) -> str:
    """Return each text with its cell, or the first and the last where there are many."""
    named = [f"{text} at {cell_name(plan, cell)}" for cell, text in zip(cells, texts, strict=True)]
    return ", ".join(named if len(named) <= 3 else [named[0], "...", named[-1]])


def _tokens(plan: Plan, cells: list[Cell]) -> str:
    tokens = plan.config.tokens_per_sample
    if tokens is None:
        return ""
    return f"{tokens:,} a sample: " + _by_cell(
        plan, cells, [f"{tokens * cell.batch_size:,} an update" for cell in cells]
    )


def _weights(cell: Cell, found: TriedModule) -> str:
    weights = found.weights
    if weights is None:
        return ""
    return (
        f"{number(weights.per_sample)} a sample, so about {number(weights.per_sample * cell.batch_size)} an update at "
        f"batch size {cell.batch_size}; from {number(weights.least)} to {number(weights.most)} in a micro batch of "
        f"{weights.micro_batch}"
    )


def _optimizers(workload: Custom, rates: FirstRates | str) -> dict[str, str]:
    if isinstance(rates, str):
        return {"optimizer": f"not known: {rates}"}
    whose = "the module's" if workload.optimizer == "module" else "the study's"
    lr = f"{'factor' if workload.optimizer == 'module' else 'rate'} {rates.lr:g}"
    return {
        "optimizer": f"{whose} {'; '.join(rates.optimizers)}",
        "scheduler": "; ".join(rates.schedules) or "none",
        "rates": "; ".join(", ".join(f"{rate:.4g}" for rate in one) for one in rates.rates)
        + f" in the first updates at batch size {rates.batch_size} with {lr}",
    }


def _pace(plan: Plan, cells: list[Cell], paces: Paces) -> str:
    measured = [cell for cell in cells if cell in paces.measured]
    if not measured:
        return f"not measured: {paces.missing[cells[0]]}"
    texts = [f"{number(1000 * paces.measured[cell].update_s)} ms an update" for cell in measured]
    return _by_cell(plan, measured, texts) + ", on this machine"
