"""How large a study the analysis can take: 10,000 trials of 50 reports each, read, summarised and rendered as a page.

The ledger is made by formula, with the rows that the product writes: an attempt, 50 reports each with its decision, a
bill and an end for every trial. Reading, summary and page run in a process of their own, whose memory is counted whole;
so does parsing the same lines into plain objects with a fast JSON library (pydantic's), the floor of it.
The page is opened in Chromium, if there is one. Then the fronts of 100,000 points: random ones, and ones that are all
on the front.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml
from playwright.sync_api import sync_playwright
from pydantic_core import from_json
from show import show

from study.config.loader import load_study
from study.ledger.paths import StudyPaths
from study.ledger.schema import PHASES, AnyRow, AttemptRow, DecisionRow, EndRow, LeaseRow, ReportRow, StudyRow
from study.ledger.store import encode
from study.pareto.fronts import hypervolume, on_coarse_front, on_front
from study.planning.trials import Plan, TrialSpec, make_plan

CONFIG = {
    "name": "ten thousand trials",
    "batch_sizes": [16, 32, 64, 128, 256],
    "search": {"lr": {"low": 1e-3, "high": 1.0}, "samples": 497},
    "budget": {"epochs": 50},
    "confirm": {"seeds": 3},
    "hardware": {"world_size": [1, 2, 4, 8], "gpus_per_rank": 1},
    "price": {"usd_per_device_hour": 2.0},
}
WRITTEN = "2026-01-01T00:00:00.000+00:00"
MANY_POINTS = 100_000
PAGE = "report.html"


def trials(plan: Plan) -> list[TrialSpec]:
    """Every trial of the plan, confirm trials at the first rate."""
    confirm = [spec for cell in plan.cells for spec in plan.confirm_trials(cell, plan.rates(cell)[0])]
    return [*plan.search, *confirm]


def ledger_rows(plan: Plan) -> Iterator[AnyRow]:
    """The rows of a study on GPUs that was run to its end; most search trials count as stopped."""
    yield StudyRow(
        at_s=0.0, written=WRITTEN, study_id="made up", config=plan.config.model_dump(mode="json"), config_hash="0" * 64,
        hardware={"machine": "none"}, versions={"study": "0"},
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for number, spec in enumerate(trials(plan)):
        yield from trial_rows(spec, number, rng)


def trial_rows(spec: TrialSpec, number: int, rng: np.random.Generator) -> Iterator[AnyRow]:
    """One trial: its accuracy rises towards one that falls with the batch and with the distance to a good rate."""
    at_s, batch = 100.0 * number, spec.batch.global_batch
    common = {"written": WRITTEN, "trial_id": spec.trial_id}
    lease = {"lease_id": f"{spec.trial_id}#1", "group_id": "g", "device": "made up GPU", "nodes": ("n",)}
    yield AttemptRow(
        at_s=at_s, **common, **lease, attempt=1, setup_s=1.0, phase=spec.phase, batch_size=batch,
        world_size=spec.batch.world_size, micro_batch=spec.batch.micro_batch, accumulation=spec.batch.accumulation,
        norm_batch=None, base_lr=spec.base_lr, lr=spec.lr, seed_index=spec.seed_index,
        updates_per_epoch=spec.total_updates // 50, total_updates=spec.total_updates,
    )  # fmt: skip
    best = 0.97 - 0.01 * np.log2(batch) / 4 - 0.02 * abs(np.log10(spec.lr / 0.1)) + rng.normal(0, 0.003)
    step_s = (2e-3 + 2e-5 * spec.batch.micro_batch) * rng.lognormal(0, 0.05)
    kept = spec.phase == "confirm" or number % 3 == 0
    accuracy = 0.0
    for i, updates in enumerate(spec.report_at):
        accuracy = float(best * (1 - np.exp(-8 * updates / spec.total_updates)) + rng.normal(0, 0.002))
        seconds = step_s * updates
        yield ReportRow(
            at_s=at_s + seconds, **common, attempt=1, updates=updates, samples=updates * batch,
            epochs=50 * updates / spec.total_updates, lr=spec.lr, train_loss=1 - accuracy, train_accuracy=accuracy,
            val_loss=1 - accuracy, val_accuracy=accuracy, test_accuracy=None, samples_per_s=batch / step_s,
            device_seconds=spec.batch.world_size * seconds, phases_s={"train": seconds, "validate": 0.0},
        )  # fmt: skip
        last = i == len(spec.report_at) - 1
        if spec.phase == "search":
            decision = "stop" if last and not kept else "continue"
            yield DecisionRow(at_s=at_s + seconds, **common, attempt=1, updates=updates, decision=decision)
    seconds = step_s * spec.total_updates
    yield LeaseRow(
        at_s=at_s + seconds, **common, **lease, attempt=1, devices=spec.batch.world_size, reason="released",
        billed_s=1 + seconds, phases_s=dict.fromkeys(PHASES, 0.0) | {"setup": 1.0, "train": seconds},
    )  # fmt: skip
    final = accuracy if kept else None
    yield EndRow(
        at_s=at_s + seconds, **common, attempts=1, outcome="completed" if kept else "stopped",
        final_val_accuracy=final, best_val_accuracy=accuracy, test_accuracy=None, error=None,
    )  # fmt: skip


def make_study(folder: Path) -> None:
    """A folder as `study run` leaves it."""
    StudyPaths(folder).config.write_text(yaml.safe_dump(CONFIG))
    plan = make_plan(load_study(StudyPaths(folder).config).config)
    with StudyPaths(folder).ledger.open("wb") as file:
        file.writelines(encode(row) for row in ledger_rows(plan))


def parse(ledger: Path) -> float:
    """Processor seconds to make plain objects of the same lines with a fast JSON library: the floor."""
    began_cpu_s = time.process_time()
    with ledger.open("rb") as file:
        for line in file:
            from_json(line)
    return time.process_time() - began_cpu_s


def report(folder: Path) -> dict[str, float]:
    """What `study report --format html` does, timed; to be run in a process of its own."""
    begin = time.perf_counter()
    from study.analysis.summary.summarize import summarize
    from study.ledger.store import LedgerScan
    from study.reporting.html.report_page import render_page

    plan = make_plan(load_study(StudyPaths(folder).config).config)
    parse_cpu_s = parse(StudyPaths(folder).ledger)
    imported, began_cpu_s = time.perf_counter(), time.process_time()
    summary = summarize(LedgerScan(StudyPaths(folder).ledger), plan)
    summarised = time.perf_counter()
    page = render_page(summary)
    done = time.perf_counter()
    cpu_s = time.process_time() - began_cpu_s
    (folder / PAGE).write_text(page)
    return {
        "summary_s": done - imported,
        "cpu_s": cpu_s,
        "parse_cpu_s": parse_cpu_s,
        "summary_over_parse": cpu_s / parse_cpu_s,
        "of_it_page_s": done - summarised,
        "import_s": imported - begin - parse_cpu_s,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "page_bytes": len(page.encode()),
        "trials": len(summary.trials),
        "reports": sum(len(trial.curve) for trial in summary.trials),
    }


def interactive_s(page: Path) -> float | None:
    """Seconds from opening the page until the frontier is drawn and answers a click; None without Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        return None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.goto("about:blank")
        begin = time.perf_counter()
        tab.goto(page.as_uri(), wait_until="commit")
        tab.locator("#frontier .main-svg").first.wait_for()
        tab.locator("label").get_by_text("linear", exact=True).click()
        tab.locator("#scale-linear:checked").wait_for(state="attached")
        taken = time.perf_counter() - begin
        browser.close()
    return taken


def front_100k_s() -> float:
    """The slowest of front, coarse front and hypervolume over 100,000 points, scattered or all on the front."""
    rng = np.random.default_rng(0)
    scattered = rng.random((MANY_POINTS, 2))
    line = np.stack([np.arange(MANY_POINTS), np.arange(MANY_POINTS)], axis=1).astype(float)
    slowest = 0.0
    for points in (scattered, line):
        begin = time.perf_counter()
        on_front(points)
        on_coarse_front(points, 0.05)
        hypervolume(points, (float(MANY_POINTS), 0.0))
        slowest = max(slowest, time.perf_counter() - begin)
    return slowest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--folder", type=Path, help="report on this study's folder, print JSON, and nothing else")
    arguments = parser.parse_args()
    if arguments.folder:
        print(json.dumps(report(arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as name:
        make_study(Path(name))
        mebibytes = StudyPaths(Path(name)).ledger.stat().st_size / 2**20
        command = [sys.executable, __file__, "--folder", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        opened = interactive_s(Path(name) / PAGE)
    further = {"ledger_mib": round(mebibytes), "interactive_s": opened, "front_100k_s": front_100k_s()}
    result = json.loads(done.stdout) | further
    limits = {
        "summary_over_parse": 3,
        "summary_s": 10,
        "peak_bytes": 1e9,
        "page_bytes": 8e6,
        "interactive_s": 3,
        "front_100k_s": 1,
    }
    shown = {name: "no Chromium here" if value is None else f"{value:,.4g}" for name, value in result.items()}
    rows = [{"figure": name, "value": value, "limit": limit(limits, name)} for name, value in shown.items()]
    show("A large study analysed", rows, result, arguments.json)


def limit(limits: dict[str, float], name: str) -> str:
    """What a figure should stay below, if anything."""
    return f"{limits[name]:,.4g}" if name in limits else ""


if __name__ == "__main__":
    main()
