"""The commands that turn results into decisions."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from study.analysis.choices import check_limits, choose
from study.analysis.recommend import Limits
from study.analysis.summary import summarize
from study.ledger.store import read
from study.plan.errors import PlanError
from study.shell import FolderArgument, JsonOption, recorded, say

app = typer.Typer()


@app.command()
def recommend(
    folder: FolderArgument,
    max_usd: Annotated[float | None, typer.Option(help="most US dollars that one training run may cost")] = None,
    max_device_hours: Annotated[float | None, typer.Option(help="most billed device-hours of one run")] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(help="least validation accuracy, a fraction; asks for the cheapest that has it")
    ] = None,
    deadline_h: Annotated[float | None, typer.Option(help="most hours from lease to release")] = None,
    gpus: Annotated[int | None, typer.Option(help="most ranks of one run")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="most milliseconds to answer a request")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which configuration to pay for under limits, what it is expected to cost and reach, and what comes next."""
    from study.report.recommendation import recommendation_json, recommendation_lines

    limits = Limits(max_usd, max_device_hours, min_accuracy, deadline_h, gpus, max_latency_ms)
    plan = recorded(folder)
    summary = summarize(read(folder).rows, plan)
    check_limits(limits, summary.points)
    found = choose(summary.points, summary.trials, summary.cost_axis, limits, plan.config.report.margin)
    if found is None:
        raise PlanError(f"{folder}: no confirm trial has completed, so there is nothing to choose from")
    say(*recommendation_lines(summary, found, limits))
    if as_json:
        print(json.dumps(recommendation_json(summary, found, limits)))
