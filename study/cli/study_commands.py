"""The commands that write, check, run and resume studies, and report on them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study import __version__
from study.cli.common import (
    CUT,
    INTERRUPTED,
    NOTHING_COMPLETED,
    FolderArgument,
    planned,
    say,
    with_next_step,
)
from study.cluster.target import AUTO, LOCAL, ClusterTarget
from study.errors import ConfigError, DiskError, did_you_mean

# Commands import what they need when they run, so that `study --help` stays fast (benchmarks/startup.py).
if TYPE_CHECKING:
    from study.analysis.records import Summary
    from study.planning.trials import Plan
    from study.reporting.live.page import LivePage
    from study.tuning.driver import RunOutcome

app = typer.Typer()

ConfigArgument = Annotated[str, typer.Argument(help="a study file, with or without .yaml, or a shipped one's name")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="key.path=value, over the file; repeatable")]
AddressOption = Annotated[str, typer.Option(help="local: a Ray of its own; auto or host:port: join a cluster")]
CpusOption = Annotated[
    int | None, typer.Option(min=1, help="logical CPUs of a local Ray; by default this machine's cores")
]
TryOption = Annotated[
    bool, typer.Option("--try/--no-try", help="first train three updates of a module of your own here, on the CPU")
]
FormatOption = Annotated[
    list[str] | None, typer.Option("--format", help="any of html, csv, parquet, json, md, png, svg, pdf; a list")
]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="port of the live page; 0 takes a free one")]
HostOption = Annotated[
    str, typer.Option(help="address to serve the live page at; any but this machine's own asks for a token")
]
ALL_FORMATS = "html,csv,json,md"
THIS_MACHINE = "127.0.0.1"


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="the file to write")] = Path("study.yaml"),
    name: Annotated[str | None, typer.Option(help="the study's name; the file's when left out")] = None,
) -> None:
    """Write a commented study file to start from."""
    from study.config.template import commented_yaml, starter
    from study.ledger.atomic_files import write_atomic

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
    measure: Annotated[bool, typer.Option(help="train a few updates here, to estimate what the study can cost")] = True,
    try_: TryOption = True,
) -> None:
    """Show what a study file means and the most it can cost.

    That is its trials, rungs and derived values.
    """
    target = ClusterTarget.parse(address)
    plan = planned(config, set_, target, cpus, try_)  # a mistake is reported before torch is imported
    _show_plan(plan, target, cpus, measure)


def _show_plan(plan: Plan, target: ClusterTarget, cpus: int | None, measure: bool) -> None:
    from study.cli.terminal import out
    from study.cluster.connection import connected, this_machine
    from study.planning.capacity import check_capacity, ranks_that_fit
    from study.planning.cost_estimate import Paces
    from study.reporting.text.plan import print_plan
    from study.training.preflight.first_rates import first_rates
    from study.training.preflight.pace import measure_paces

    with nullcontext(this_machine(cpus)) if target == LOCAL else connected(target, cpus) as nodes:
        check_capacity(nodes, plan.config.hardware)
        ranks = ranks_that_fit(nodes, plan.config.hardware)
    unmeasured = Paces({}, dict.fromkeys(plan.cells, "--no-measure"))
    paces = measure_paces(plan, os.cpu_count() or 1) if measure else unmeasured
    rates = {one.variant: first_rates(plan, one.variant) for one in plan.tried}
    print_plan(plan, paces, ranks, rates, out)


@app.command()
def run(
    config: ConfigArgument,
    folder: Annotated[Path, typer.Option("--out", help="a new folder for ledger and report")],
    set_: SetOption = None,
    address: AddressOption = "local",
    cpus: CpusOption = None,
    live: Annotated[bool, typer.Option("--live", help="serve the report while the study runs")] = False,
    port: PortOption = 0,
    host: HostOption = THIS_MACHINE,
    try_: TryOption = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="price the plan as `check` does, and start nothing")
    ] = False,
) -> None:
    """Run a study and write its report."""
    target = ClusterTarget.parse(address)
    plan = planned(config, set_, target, cpus, try_)
    if dry_run:
        _show_plan(plan, target, cpus, measure=True)
        return
    from study.tuning.driver import run_study
    from study.tuning.micro_batch_cache import fitted

    plan = fitted(plan, target, cpus, say)
    with _live(folder, plan, port, host) if live else nullcontext():
        _run_and_report(run_study, plan, folder, target, cpus)


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
    """Continue a study that was interrupted or cut by a limit.

    Raise the limit with --set.
    """
    from study.cluster.jobs.head import environment_address

    target = ClusterTarget.parse(address)
    if target.kind == "head" or (target == LOCAL and not folder.exists() and environment_address()):
        from study.cli.job_commands import resume_submitted

        resume_submitted(str(folder), address if target.kind == "head" else None, set_)
        return
    from study.api.plans import import_own, recorded
    from study.ledger.store import read
    from study.tuning.driver import resume_study

    read(folder)  # raises LedgerError where there is no study
    plan = recorded(folder, target, cpus, set_)
    import_own(plan.config)
    _run_and_report(resume_study, plan, folder, target, cpus)


@app.command("drive", hidden=True)
def run_submitted(study_id: str, storage: str | None = None) -> None:
    """Run or resume a submitted study: what its Ray job does, in the folder that was sent."""
    from study.api.plans import recorded, tried
    from study.cluster.jobs.driver_folder import study_folder
    from study.ledger.paths import StudyPaths
    from study.tuning.driver import resume_study, run_study
    from study.tuning.micro_batch_cache import fitted

    print(f"study {__version__}: {study_id}", flush=True)  # the first sign of life
    plan = recorded(Path.cwd(), AUTO)
    with study_folder(study_id, storage) as folder:
        if StudyPaths(folder).ledger.exists():
            _run_and_report(resume_study, plan, folder, AUTO, None, study_id)
        else:
            _run_and_report(run_study, fitted(tried(plan, say), AUTO, None, say), folder, AUTO, None, study_id)


def _run_and_report(
    start: Callable[..., RunOutcome],
    plan: Plan,
    folder: Path,
    target: ClusterTarget,
    cpus: int | None,
    name: str | None = None,
) -> None:
    """Run the driver with its progress shown, write the report, and exit with the code of how the study ended.

    `start` is `run_study` or `resume_study`; `name` is what `study resume` calls the study, its folder when left out.
    """
    from study.cli.terminal import out
    from study.ledger.paths import StudyPaths
    from study.reporting.text.terminal import ProgressView

    resume_command = f"study resume {name or folder}"

    def next_command() -> str:
        return resume_command if StudyPaths(folder).ledger.exists() else "the same command"

    try:
        try:
            with ProgressView(plan, out) as view:
                outcome = start(plan, folder, target, cpus, view)
        except DiskError as error:
            raise with_next_step(error, next_command()) from error
        if outcome.quarantined:
            say(f"The ledger was damaged: {outcome.quarantined}")
        summary = _write_report(plan, folder, ALL_FORMATS)
    except KeyboardInterrupt:  # the second, or before there was anything to end in order
        say(f"Interrupted at once. Go on with: {next_command()}")
        raise typer.Exit(INTERRUPTED) from None
    _exit_as_ended(outcome, summary, resume_command)


def _exit_as_ended(outcome: RunOutcome, summary: Summary, resume_command: str) -> None:
    """Say why the study ended early, if it did, and raise typer.Exit with the code for that."""
    from study.reporting.text.verdict import mistake_sentence, nothing_completed

    if (cut := outcome.cut) is not None:
        resume_command += f" --set limits.{cut.limit}={2 * cut.allowed:g}"
    if (mistake := mistake_sentence(summary)) is not None:
        say(f"{mistake} Correct it, then go on with: {resume_command}")
        raise typer.Exit(NOTHING_COMPLETED)
    if cut is not None:
        say(f"Cut by limits.{cut.limit}. Go on with: {resume_command}")
        raise typer.Exit(CUT)
    if not outcome.finished:
        say(f"Interrupted. Go on with: {resume_command}")
        raise typer.Exit(INTERRUPTED)
    if (nothing := nothing_completed(summary)) is not None:
        say(nothing)
        raise typer.Exit(NOTHING_COMPLETED)


@app.command()
def status(folder: FolderArgument) -> None:
    """Show how far a study is; safe while it runs."""
    from study.api.plans import recorded
    from study.ledger.store import read
    from study.reporting.text.status import status_lines

    contents = read(folder)
    say(*status_lines(recorded(folder), contents.rows))
    if contents.damage:
        say(f"Damaged: {contents.damage}")


@contextmanager
def _live(folder: Path, plan: Plan, port: int, host: str) -> Iterator[LivePage]:
    """Serve the study's page within, and print its address."""
    from study.reporting.live.page import LivePage

    with LivePage(folder, plan, port, host) as page:
        say(f"Live: {page.url}")
        if page.asks_for_token:
            say("Anyone who has this address may look, over a connection that is not encrypted.")
        yield page


@app.command()
def watch(folder: FolderArgument, port: PortOption = 0, host: HostOption = THIS_MACHINE) -> None:
    """Serve a study's report live until the study has finished.

    Ctrl-C ends it before.
    """
    from study.api.plans import recorded
    from study.ledger.store import read

    read(folder)  # raises LedgerError where there is no study
    plan = recorded(folder)
    with _until_interrupted() as stopped, _live(folder, plan, port, host) as page:
        if page.wait_until_finished(stopped):
            say(f"The study has finished. Its report as a file: study report {folder}")


@contextmanager
def _until_interrupted() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets. An exception could be lost: in an import, or in a callback."""
    stopped = threading.Event()

    def stop(*signalled: object) -> None:
        signal.signal(signal.SIGINT, before)  # a second one ends the command at once
        stopped.set()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


@app.command()
def report(folder: FolderArgument, format_: FormatOption = None) -> None:
    """Write a study's report from its ledger; safe while it runs."""
    from study.api.plans import recorded

    _write_report(recorded(folder), folder, ",".join(format_ or [ALL_FORMATS]))


def _write_report(plan: Plan, folder: Path, formats: str) -> Summary:
    from study.api.results import read_results
    from study.cli.terminal import out
    from study.ledger.store import refuse_links
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
        raise with_next_step(error, f"study report {folder}") from error
    say("Report: " + ", ".join(str(path) for path in written))
    return results.summary
