"""The commands that write files for Grafana and Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from study.cli.common import say

app = typer.Typer(help="Files for Grafana and Prometheus.", no_args_is_help=True)


@app.callback()
def _dashboards() -> None:
    """Make `dashboards` a group, though it has one command so far."""


@app.command()
def build(
    folder: Annotated[Path, typer.Option("--out", help="folder to write into; made if missing")] = Path("dashboards"),
) -> None:
    """Write the Grafana dashboard, its provisioning, the scrape configuration and the alert rules."""
    from study.cluster.metrics.grafana import files
    from study.ledger.atomic_files import write_atomic

    for name, text in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
        say(f"Wrote {path}")
