"""The commands that turn results into decisions: recommend, prices, analyze, compare, replay, claims."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from study.cli.common import FolderArgument, JsonOption, listed, say
from study.errors import ConfigError

if TYPE_CHECKING:
    from study.analysis.replay.curves import Curve
    from study.config.objective import Objective

app = typer.Typer()
PricesOption = Annotated[
    Path | None, typer.Option(help="a price list of your own, which takes precedence over the package's")
]


@app.command()
def recommend(
    folder: FolderArgument,
    max_usd: Annotated[
        float | None, typer.Option(help="most US dollars for one training run, a group's setup included")
    ] = None,
    max_device_hours: Annotated[
        float | None, typer.Option(help="most device-hours of one run, a group's setup included")
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="value of the objective, as logged; asks for the cheapest that reaches it")
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(help="the same for the validation accuracy, a fraction from 0 to 1")
    ] = None,
    deadline_h: Annotated[
        float | None, typer.Option(help="most hours from lease to release, a group's setup included")
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="most ranks of one run")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="most milliseconds to answer a request")] = None,
    confidence: Annotated[
        float, typer.Option(help="least probability that the choice is within the margin of the best, or at --target")
    ] = 0.9,
    usd_per_device_hour: Annotated[
        float | None, typer.Option(min=0, help="price to use instead of the study's own")
    ] = None,
    prices: PricesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recommend a configuration under limits.

    Chooses the cheapest that is good enough with a stated probability, and says what would settle what is open.
    """
    from study.analysis.recommend import asked_quality
    from study.analysis.records import Constraints
    from study.api.results import read_results
    from study.api.results import recommend as recommend_under

    results = read_results(folder, usd_per_device_hour, prices)
    quality = asked_quality(results.summary.objective, target, min_accuracy)
    limits = Constraints(max_usd, max_device_hours, quality, deadline_h, gpus, max_latency_ms)
    found = recommend_under(results, limits, confidence)
    say(*found.sentences)
    if as_json:
        print(json.dumps(found.to_dict()))


@app.command()
def prices(
    prices: PricesOption = None,
    refresh: Annotated[
        bool, typer.Option(help="write today's prices from gpuhunt to --prices, prices.yaml when left out")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List what GPUs cost, with source and date."""
    from study.cli.terminal import out
    from study.config.gpuhunt_prices import market_prices, prices_yaml
    from study.config.price_list import read_prices
    from study.ledger.atomic_files import write_atomic
    from study.reporting.text.tables import print_prices

    if refresh:
        prices = prices or Path("prices.yaml")
        found = market_prices(datetime.now(timezone.utc).date().isoformat())
        write_atomic(prices, prices_yaml(found, prices))
        say(f"Wrote {prices}: {len(found)} prices.")
    listed = read_prices(prices)
    print_prices(listed, out)
    if as_json:
        print(json.dumps([price.model_dump() for price in listed]))


def _role(what: str) -> Any:
    return typer.Option(help=f"column with {what}, or none")


@app.command()
def analyze(
    table: Annotated[
        Path, typer.Argument(help="results made elsewhere, a row a run: .csv, .tsv, .parquet, .json or .jsonl, or .gz")
    ],
    group_by: Annotated[
        list[str] | None, typer.Option(help="columns: one front for each of their values; a list")
    ] = None,
    config: Annotated[
        list[str] | None, typer.Option(help="columns that make a configuration beside the batch size; a list")
    ] = None,
    as_seeds: Annotated[
        list[str] | None, typer.Option(help="settings that may vary between seeds; a list, or all")
    ] = None,
    minimize: Annotated[list[str] | None, typer.Option(help="column to minimise instead; a list")] = None,
    maximize: Annotated[list[str] | None, typer.Option(help="column to maximise instead; a list")] = None,
    batch_column: Annotated[str | None, typer.Option(help="column with the global batch size")] = None,
    cost_column: Annotated[str | None, _role("the cost")] = None,
    quality_column: Annotated[str | None, _role("the quality")] = None,
    seed_column: Annotated[str | None, _role("the seed")] = None,
    lr_column: Annotated[str | None, _role("the learning rate")] = None,
    state_column: Annotated[str | None, _role("what became of the run, such as finished or failed")] = None,
    run_column: Annotated[str | None, _role("the run, where each has a row an epoch")] = None,
    devices_column: Annotated[str | None, _role("the number of devices")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="make any note on how the table was read an error")] = False,
    folder: Annotated[Path | None, typer.Option("--out", help="folder to write page and summary.json into")] = None,
    as_json: JsonOption = False,
) -> None:
    """Analyse results that were made elsewhere.

    Shows fronts with uncertainty and critical batch sizes. How the table was read is printed first. Lists take commas
    and repetition alike.
    """
    from study.api.tables import read_and_analyze
    from study.cli.terminal import out
    from study.reporting.text.json_records import json_text
    from study.reporting.text.table_analysis import print_analysis

    results = read_and_analyze(
        table,
        config=listed(config),
        group_by=listed(group_by),
        as_seeds=listed(as_seeds),
        minimize=listed(minimize),
        maximize=listed(maximize),
        named={
            "batch": batch_column,
            "cost": cost_column,
            "quality": quality_column,
            "seed": seed_column,
            "lr": lr_column,
            "state": state_column,
            "run": run_column,
            "devices": devices_column,
        },
        strict=strict,
    )
    print_analysis(results.record, out)
    if folder is not None:
        say("Report: " + ", ".join(str(path) for path in results.write_report(folder)))
    if as_json:
        print(json_text(results.to_dict()))


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(help="studies' folders, the one to compare with first")],
    folder: Annotated[Path | None, typer.Option("--out", help="folder to write page and compare.json into")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the fronts of studies and list what differs in their configs."""
    if len(folders) < 2:
        raise ConfigError(f"{folders[0]}: nothing to compare with; name two studies or more")
    from study.api.comparing import compare as compare_studies
    from study.api.results import read_results
    from study.cli.terminal import out
    from study.reporting.text.comparison import print_comparison

    compared = compare_studies(*map(read_results, folders))
    print_comparison(compared.record, out)
    if folder is not None:
        say("Report: " + ", ".join(str(path) for path in compared.write_report(folder)))
    if as_json:
        print(json.dumps(compared.to_dict()))


class ReplayColumns(str, Enum):
    """Which figures `study replay` prints."""

    WORTH = "worth"
    ALL = "all"


@app.command()
def replay(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="a study run with scheduler.kind=grid, a .csv or .parquet of curves, or a folder of such files"
        ),
    ],
    scheduler: Annotated[
        list[str] | None,
        typer.Option(help="such as asha,frontier_asha:quick; a list, all when left out; an unknown name lists them"),
    ] = None,
    shuffles: Annotated[int, typer.Option(min=1, help="random draws of seeds and order to replay")] = 200,
    slots: Annotated[int, typer.Option(min=1, help="trials at a time")] = 2,
    seeds: Annotated[int | None, typer.Option(min=1, help="seeds of a draw; a third of them when left out")] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="of a table: accuracy, loss, another preset, or the column of a metric; accuracy when left out"
        ),
    ] = None,
    columns: Annotated[ReplayColumns, typer.Option(help="all: also what the trials trained to the end cover")] = (
        ReplayColumns.WORTH
    ),
    as_json: JsonOption = False,
) -> None:
    """Compare schedulers on the curves of a full grid, or of several.

    Shows what each would have cost, and what the rates that it would have chosen are worth on fresh seeds.
    """
    from study.analysis.replay.contenders import CONTENDERS, contenders
    from study.analysis.replay.replay import pooled
    from study.analysis.replay.replay import replay as replay_schedulers
    from study.cli.terminal import out
    from study.ledger.paths import StudyPaths
    from study.reporting.exports import write_replay
    from study.reporting.text.replay import print_replay, replay_record

    chosen = contenders(",".join(scheduler or CONTENDERS))
    found = _replay_sources(sources)
    replays = []
    for source in found:
        curves, judged_by = _curves(source, objective)
        replays.append(replay_schedulers(str(source), curves, chosen, shuffles, slots, seeds, judged_by))
    whole = pooled(replays) if len(replays) > 1 else replays[0]
    print_replay(whole, out, columns is ReplayColumns.ALL)
    for source, replayed in zip(found, replays, strict=True):
        if source.is_dir():
            written = write_replay(replayed, StudyPaths(source).report)
            say("Report: " + ", ".join(str(path) for path in written))
    if as_json:
        tables = {"of_tables": list(map(replay_record, replays))} if len(replays) > 1 else {}
        print(json.dumps(replay_record(whole) | tables))


def _replay_sources(sources: list[Path]) -> list[Path]:
    """Return studies and tables; of a folder that holds no study, the tables in it."""
    from study.analysis.replay.curve_table import SUFFIXES
    from study.ledger.paths import StudyPaths

    found: list[Path] = []
    for source in sources:
        tables = sorted(path for path in source.glob("*") if path.suffix in SUFFIXES) if source.is_dir() else []
        found += tables if tables and not StudyPaths(source).ledger.exists() else [source]
    return found


def _curves(source: Path, objective: str | None) -> tuple[tuple[Curve, ...], Objective]:
    """Return the curves of a study or a table, and what they are judged by."""
    from study.analysis.replay.curve_table import read_curves
    from study.analysis.replay.curves import curves_of
    from study.api.results import read_results
    from study.config.objective import named_objective
    from study.ledger.store import refuse_links

    if not source.is_dir():
        judged_by = named_objective(objective or "accuracy")
        return read_curves(source, judged_by), judged_by
    refuse_links(source)
    if objective is not None:
        raise ConfigError("a study is judged by its own objective", "--objective")
    summary = read_results(source).summary
    return curves_of(summary), summary.objective


@app.command()
def claims(
    folders: Annotated[list[Path], typer.Argument(help="folders of studies; each is judged by itself")],
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object instead")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="print Markdown instead")] = False,
) -> None:
    """Show what studies say about published claims on batch size.

    Prints a verdict for each claim, and what it rests on.
    """
    from study.api.results import read_results
    from study.cli.terminal import out
    from study.reporting.text.claims import claims_record, print_claims
    from study.reporting.text.markdown import study_claims_markdown

    if as_json and as_markdown:
        raise ConfigError("give --json or --markdown, not both")
    summaries = [read_results(folder).summary for folder in folders]
    if as_json:
        print(json.dumps(claims_record(summaries), allow_nan=False))
    for summary in () if as_json else summaries:
        if as_markdown:
            print(study_claims_markdown(summary))
        else:
            print_claims(summary, out)
