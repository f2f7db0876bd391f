"""The `study` command."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study import __version__
from study.analysis.replay.contenders import CONTENDERS, contenders
from study.analysis.replay.curve_table import read_curves
from study.analysis.replay.curves import curves_of
from study.analysis.replay.replay import replay as replay_schedulers
from study.api.plans import import_own, recorded, tried
from study.api.results import read_results
from study.cli import dashboard_commands as dashboards
from study.cli import decision_commands as deciding
from study.cli import job_commands as jobs
from study.cli.common import (
    CUT,
    DISK_ERROR,
    INTERRUPTED,
    NOTHING_COMPLETED,
    USAGE_ERROR,
    FolderArgument,
    JsonOption,
    afterwards,
    out,
    planned,
    say,
)
from study.cluster.connection import connected, this_machine
from study.cluster.jobs.head import environment_address, is_http
from study.config.loader import find_config
from study.config.template import commented_yaml, starter
from study.errors import ConfigError, DiskError, StudyError, did_you_mean
from study.ledger.atomic_files import write_atomic
from study.ledger.store import LEDGER, REPORT, read, refuse_links
from study.planning.capacity import check_capacity, ranks_that_fit
from study.planning.trials import Plan
from study.reporting.live.server import LOOPBACK
from study.safe_text import escaped

if TYPE_CHECKING:
    from study.analysis.records import Summary
    from study.reporting.live.page import LivePage
    from study.tuning.driver import RunOutcome


app = typer.Typer(
    help="Which batch size, on how many GPUs, should I pay for?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(deciding.app)
app.add_typer(dashboards.app, name="dashboards")
app.add_typer(jobs.app)

ConfigArgument = Annotated[str, typer.Argument(help="a study file, with or without .yaml, or a shipped one's name")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="key.path=value, over the file; repeatable")]
AddressOption = Annotated[str, typer.Option(help="local: a Ray of our own; auto or host:port: join a cluster")]
CpusOption = Annotated[int | None, typer.Option(min=1, help="logical CPUs of a local Ray; its cores when left out")]
TryOption = Annotated[
    bool, typer.Option("--try/--no-try", help="first train two batches of a module of your own here, on the CPU")
]
FormatOption = Annotated[
    list[str] | None, typer.Option("--format", help="any of html, csv, parquet, json, md, png, svg, pdf; a list")
]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="port of the live page; 0 takes a free one")]
HostOption = Annotated[
    str, typer.Option(help="address to serve the live page at; any but this machine's own asks for a token")
]
ALL_FORMATS = "html,csv,json,md"


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="the file to write")] = Path("study.yaml"),
    name: Annotated[str | None, typer.Option(help="the study's name; the file's when left out")] = None,
) -> None:
    """Write a commented study file to start from."""
    if path.exists():
        raise ConfigError(f"{path}: exists already; name another file")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}")
    write_atomic(path, commented_yaml(starter(name or path.stem)))
    say(f"Wrote {path}. Next: study check {path}")


@app.command()
def check(
    config: ConfigArgument,
    set_: SetOption = None,
    address: AddressOption = "local",
    cpus: CpusOption = None,
    measure: Annotated[bool, typer.Option(help="train a few updates here, to tell what the study can cost")] = True,
    try_: TryOption = True,
) -> None:
    """Show what a study file means: trials, rungs, derived values, and the most it can cost."""
    plan = planned(find_config(config), set_, address, cpus, try_)  # a mistake is told before torch is imported
    _show_plan(plan, address, cpus, measure)


def _show_plan(plan: Plan, address: str, cpus: int | None, measure: bool) -> None:
    from study.reporting.text.plan import print_plan
    from study.training.preflight.pace import measure_paces

    with nullcontext(this_machine(cpus)) if address == "local" else connected(address, cpus) as nodes:
        check_capacity(nodes, plan.config.hardware)
        ranks = ranks_that_fit(nodes, plan.config.hardware)
    paces = measure_paces(plan, os.cpu_count() or 1) if measure else {}
    print_plan(plan, paces, ranks, out)


@app.command()
def run(
    config: ConfigArgument,
    folder: Annotated[Path, typer.Option("--out", help="a new folder for ledger and report")],
    set_: SetOption = None,
    address: AddressOption = "local",
    cpus: CpusOption = None,
    live: Annotated[bool, typer.Option("--live", help="serve the report while the study runs")] = False,
    port: PortOption = 0,
    host: HostOption = LOOPBACK,
    try_: TryOption = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="price the plan as `check` does, and start nothing")
    ] = False,
) -> None:
    """Run a study and write its report."""
    plan = planned(find_config(config), set_, address, cpus, try_)
    if dry_run:
        _show_plan(plan, address, cpus, measure=True)
        return
    from study.tuning.driver import run_study
    from study.tuning.micro_batch_cache import fitted

    plan = fitted(plan, address, cpus, say)
    with _live(folder, plan, port, host) if live else nullcontext():
        _drive(run_study, plan, folder, address, cpus)


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(help="a study's folder; or the id of a submitted one, with its --address")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="limits.usd=20: only limits, recovery and tracking may change"),
    ] = None,
    address: Annotated[
        str, typer.Option(help="local, auto or host:port; or the head that it was submitted to: http://head:8265")
    ] = "local",
    cpus: CpusOption = None,
) -> None:
    """Go on with a study that was interrupted, or cut by a limit that is raised."""
    if is_http(address) or (address == "local" and not folder.exists() and environment_address()):
        jobs.resume_submitted(str(folder), address if is_http(address) else None, set_)
        return
    from study.tuning.driver import resume_study

    read(folder)  # says so where there is no study
    plan = recorded(folder, address, cpus, set_)
    import_own(plan.config)
    _drive(resume_study, plan, folder, address, cpus)


@app.command(hidden=True)
def drive(study_id: str, storage: str | None = None) -> None:
    """Run a submitted study or go on with it: what its Ray job does, in the folder that was sent."""
    from study.cluster.jobs.driver_folder import study_folder
    from study.tuning.driver import resume_study, run_study
    from study.tuning.micro_batch_cache import fitted

    print(f"study {__version__}: {study_id}", flush=True)  # the first sign of life
    plan = recorded(Path.cwd(), "auto")
    with study_folder(study_id, storage) as folder:
        if (folder / LEDGER).exists():
            _drive(resume_study, plan, folder, "auto", None, study_id)
        else:
            _drive(run_study, fitted(tried(plan, say), "auto", None, say), folder, "auto", None, study_id)


def _drive(
    drive: Callable[..., RunOutcome], plan: Plan, folder: Path, address: str, cpus: int | None, name: str | None = None
) -> None:
    again = f"study resume {name or folder}"
    try:
        _drive_and_report(drive, plan, folder, address, cpus, again)
    except KeyboardInterrupt:  # the second, or before there was anything to end in order
        say(f"Interrupted at once. Go on with: {again if (folder / LEDGER).exists() else 'the same command'}")
        raise typer.Exit(INTERRUPTED) from None


def _drive_and_report(
    drive: Callable[..., RunOutcome], plan: Plan, folder: Path, address: str, cpus: int | None, again: str
) -> None:
    from study.reporting.text.terminal import ProgressView
    from study.reporting.text.verdict import mistake_sentence, nothing_completed

    try:
        with ProgressView(plan, out) as view:
            outcome = drive(plan, folder, address, cpus, view)
    except DiskError as error:
        raise afterwards(error, again if (folder / LEDGER).exists() else "the same command") from error
    if outcome.quarantined:
        say(f"The ledger was damaged: {outcome.quarantined}")
    summary = _write_report(plan, folder, ALL_FORMATS)
    if (cut := outcome.cut) is not None:
        again += f" --set limits.{cut.limit}={2 * cut.allowed:g}"
    if (mistake := mistake_sentence(summary)) is not None:
        say(f"{mistake} Mend it, then go on with: {again}")
        raise typer.Exit(NOTHING_COMPLETED)
    if cut is not None:
        say(f"Cut by limits.{cut.limit}. Go on with: {again}")
        raise typer.Exit(CUT)
    if not outcome.finished:
        say(f"Interrupted. Go on with: {again}")
        raise typer.Exit(INTERRUPTED)
    if (nothing := nothing_completed(summary)) is not None:
        say(nothing)
        raise typer.Exit(NOTHING_COMPLETED)


@app.command()
def status(folder: FolderArgument) -> None:
    """Say how far a study is; safe while it runs."""
    from study.reporting.text.terminal import status_lines

    contents = read(folder)
    for line in status_lines(recorded(folder), contents.rows):
        say(line)
    if contents.damage:
        say(f"Damaged: {contents.damage}")


@contextmanager
def _live(folder: Path, plan: Plan, port: int, host: str) -> Iterator[LivePage]:
    """The study's page, served; where it is, said."""
    from study.reporting.live.page import LivePage

    with LivePage(folder, plan, port, host) as page:
        say(f"Live: {page.url}")
        if page.asks_for_token:
            say("Whoever has this address may look, over a connection that is not encrypted.")
        yield page


@app.command()
def watch(folder: FolderArgument, port: PortOption = 0, host: HostOption = LOOPBACK) -> None:
    """Serve a study's report, up to date, until the study is over or Ctrl-C."""
    read(folder)  # says so where there is no study
    with _live(folder, recorded(folder), port, host) as page, suppress(KeyboardInterrupt):
        page.wait_until_finished()
        say(f"The study is over. Its report as a file: study report {folder}")


@app.command()
def report(folder: FolderArgument, format_: FormatOption = None) -> None:
    """Write a study's report anew, from its ledger; safe while it runs."""
    _write_report(recorded(folder), folder, ",".join(format_ or [ALL_FORMATS]))


def _write_report(plan: Plan, folder: Path, formats: str) -> Summary:
    from study.reporting.exports import FORMATS
    from study.reporting.text.claims import print_verdicts
    from study.reporting.text.terminal import print_summary

    wanted = [name.strip() for name in formats.split(",") if name.strip()]
    for name in wanted:
        if name not in FORMATS:
            raise ConfigError(f"--format {name}: must be of {', '.join(FORMATS)}{did_you_mean(name, FORMATS)}")
    refuse_links(folder)
    results = read_results(folder, plan=plan)
    print_summary(results.summary, out)
    print_verdicts(results.summary, out)
    try:
        written = results.write_report(wanted)
    except DiskError as error:
        raise afterwards(error, f"study report {folder}") from error
    say("Report: " + ", ".join(str(path) for path in written))
    return results.summary


@app.command()
def replay(
    source: Annotated[
        Path, typer.Argument(help="a study run with scheduler.kind=grid, or a .csv or .parquet of curves")
    ],
    scheduler: Annotated[
        list[str] | None, typer.Option(help=f"any of {','.join(CONTENDERS)}, all when left out; a list")
    ] = None,
    shuffles: Annotated[int, typer.Option(min=1, help="random draws of seeds and order to replay")] = 200,
    slots: Annotated[int, typer.Option(min=1, help="trials at a time")] = 2,
    seeds: Annotated[int | None, typer.Option(min=1, help="seeds of a draw; a third of them when left out")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare schedulers on the curves of a full grid: what each would have cost, and kept of the frontier."""
    from study.reporting.exports import write_replay
    from study.reporting.text.replay import print_replay, replay_record

    chosen = contenders(",".join(scheduler or CONTENDERS))
    is_study = source.is_dir()
    if is_study:
        refuse_links(source)
    curves = curves_of(read_results(source).summary) if is_study else read_curves(source)
    replayed = replay_schedulers(str(source), curves, chosen, shuffles, slots, seeds)
    print_replay(replayed, out)
    if is_study:
        written = write_replay(replayed, source / REPORT)
        say("Report: " + ", ".join(str(path) for path in written))
    if as_json:
        print(json.dumps(replay_record(replayed)))


@app.command()
def claims(
    folders: Annotated[list[Path], typer.Argument(help="folders of studies; each is judged by itself")],
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object instead")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="print Markdown instead")] = False,
) -> None:
    """Say what studies show of the claims made about batch size: the verdicts, and what they rest on."""
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


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command; a mistake of the user's is one line on stderr and exit code 2, a disk that refuses code 4."""
    # A user's module is imported from where they stand, as `python -m` would.
    sys.path.insert(0, os.getcwd())
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except StudyError as error:
        print(f"study: {error}", file=sys.stderr)
        raise SystemExit(DISK_ERROR if isinstance(error, DiskError) else USAGE_ERROR) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # Of what we print to, or of the folder for temporary files. What Python still holds back would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(escaped(f"study: {error.filename or 'standard output'}: {error.strerror}"), file=sys.stderr)
        raise SystemExit(DISK_ERROR) from None
