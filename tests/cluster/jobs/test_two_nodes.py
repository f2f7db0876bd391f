"""A study from a laptop to a real cluster of two nodes and back, by the commands alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from study.ledger.schema import AttemptRow, EndRow, LeaseRow
from study.ledger.store import read
from tests.cluster.jobs.two_nodes import TwoNodes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[3]
OWN = {
    "name": "My own: two nodes",
    "batch_sizes": [16, 32],
    "search": {"lr": [0.1, 0.3]},
    "budget": {"epochs": 8},
    "confirm": {"seeds": 2},
    "hardware": {"world_size": 2},  # of one CPU each, so that every group spans both nodes
    "workload": {
        "module": "mine:Net",
        "data": "mine:Points",
        "train_samples": 64,
        "val_accuracy": "acc",
        "val_loss": "loss",
    },
}
# A module of one's own with a neighbour that it imports; slow as long as a file is there.
MINE = """
from pathlib import Path
from neighbour import LinearData, LinearModule

class Net(LinearModule):
    def __init__(self, slow_while: str = "") -> None:
        super().__init__(0.25 if slow_while and Path(slow_while).exists() else 0.0)

class Points(LinearData):
    pass
"""

THROUGH_THE_HEAD = """
import sys
from pathlib import Path
from study.cluster.jobs.fetch import OnNode, fetch
from study.cluster.jobs.head import Head
from study.cluster.jobs.submissions import studies_of

address, study_id, to = sys.argv[1:]
head = Head(address)
fetch(OnNode(head, studies_of(head.jobs())[study_id]), Path(to), checkpoints=True)
"""


class Laptop:
    """A folder with a study file and a module, on a machine that is not of the cluster."""

    def __init__(self, cluster: TwoNodes, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        (folder / "own.yaml").write_text(yaml.safe_dump(OWN))
        (folder / "mine.py").write_text(MINE)
        (folder / "neighbour.py").write_text((ROOT / "tests" / "linear.py").read_text())

    def start(self, *arguments: str, token: str | None = "", address: str = "") -> subprocess.Popen[str]:
        """Start a command."""
        environment = {
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "120",
            "HOME": str(self.folder),  # where no token lies
            "RAY_API_SERVER_ADDRESS": address or self.cluster.http,
        }
        return self.cluster.laptop(
            [sys.executable, "-m", "study", *arguments],
            token,
            env=environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def study(self, *arguments: str, code: int = 0, **options: str | None) -> str:
        """Run a command that must exit with `code`; what it said."""
        process = self.start(*arguments, **options)
        try:
            said, wrong = process.communicate(timeout=240)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        assert process.returncode == code, f"{arguments}: {process.returncode}\n{said}\n{wrong}"
        assert self.cluster.token not in said + wrong
        if code == 2:
            assert len(wrong.strip().splitlines()) == 1, wrong
            return wrong
        return said

    def fetch_through_the_head(self, study_id: str, to: str) -> None:
        """Fetch without a look at the storage."""
        process = self.cluster.laptop(
            [sys.executable, "-c", THROUGH_THE_HEAD, self.cluster.http, study_id, to],
            env={"PYTHONPATH": str(ROOT), "HOME": str(self.folder)},
            cwd=self.folder,
            stderr=subprocess.PIPE,
        )
        _, wrong = process.communicate(timeout=120)
        assert process.returncode == 0, wrong

    def submit(self, *options: str) -> str:
        """Submit the study; its id."""
        said = self.study("submit", "own", *options)
        found = re.search(r"Submitted (my-own-two-nodes-[0-9a-f]{6}):", said)
        assert found, said
        return found[1]

    def follow_until(self, study_id: str, seen: Callable[[str], bool]) -> None:
        """Follow the study's log until a line of it has been seen."""
        process = self.start("logs", study_id, "-f")
        lines = []
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if seen(line):
                    return
            raise AssertionError("the log ended:\n" + "".join(lines))
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def laptop(two_nodes: TwoNodes, tmp_path: Path) -> Laptop:
    return Laptop(two_nodes, tmp_path)


def test_submitted_stopped_fetched_resumed_and_fetched_again(laptop: Laptop) -> None:
    slow = laptop.folder / "slow"
    slow.touch()  # so that there is time to stop it
    submitted_s = time.monotonic()
    study_id = laptop.submit("--set", f"workload.module_args={{slow_while: {slow}}}")
    laptop.follow_until(study_id, lambda line: line.startswith("study "))
    print(f"\nfrom `study submit` to the entrypoint's first line: {time.monotonic() - submitted_s:.1f} s")
    assert study_id in laptop.study("jobs")
    assert "is running" in laptop.study("resume", study_id, "--address", laptop.cluster.http, code=2)
    laptop.follow_until(study_id, lambda line: line.startswith("[1/8]"))
    the_token_is_nowhere(laptop.cluster)
    assert "stopped" in laptop.study("stop", study_id)
    slow.unlink()

    cut = laptop.folder / "cut"
    assert "the study is stopped" in laptop.study("fetch", study_id, "--out", "cut", "--checkpoints")
    rows = read(cut).rows
    # Every lease is closed and billed, those of the trials that were cut short too.
    attempts = [row for row in rows if isinstance(row, AttemptRow)]
    assert sorted(row.lease_id for row in attempts) == sorted(row.lease_id for row in rows if isinstance(row, LeaseRow))
    assert all(len(row.nodes) == 2 for row in attempts)
    ends = [row for row in rows if isinstance(row, EndRow)]
    assert 1 <= len(ends) < 8
    summary = json.loads((cut / "report" / "summary.json").read_text())
    assert any("Not finished" in note for note in summary["notes"])
    assert f"{sum(end.trial_id.startswith('search') for end in ends)}/4 finished" in laptop.study("status", "cut")
    laptop.study("report", "cut", "--format", "json")

    laptop.study("resume", study_id, "--address", laptop.cluster.http)
    assert "[8/8]" in laptop.study("logs", study_id, "-f")
    assert re.search(rf"{study_id} .* finished .* 2 +8/8", laptop.study("jobs"))
    laptop.study("fetch", study_id, "--out", "whole")
    whole = read(laptop.folder / "whole").rows
    assert whole[: len(rows)] == rows
    names = [row.trial_id for row in whole if isinstance(row, EndRow)]
    assert len(names) == len(set(names)) == 8

    # What was fetched can go on here as well.
    assert "[8/8]" in laptop.study("resume", "cut", "--cpus", "2")


@pytest.mark.parametrize("storage", ["{shared}", "local://{shared}"])
def test_results_last_in_a_shared_folder_or_behind_a_uri(laptop: Laptop, storage: str) -> None:
    shared = laptop.folder / "shared"
    shared.mkdir()
    said = laptop.study("submit", "own", "--wait", "--storage", storage.format(shared=shared))
    assert said.rstrip().endswith("finished")
    [folder] = shared.iterdir()
    before = read(folder)
    assert before.damage is None
    assert sum(isinstance(row, EndRow) for row in before.rows) == 8
    laptop.study("fetch", folder.name, "--out", "back")
    assert (laptop.folder / "back" / "ledger.jsonl").read_bytes() == (folder / "ledger.jsonl").read_bytes()
    assert (laptop.folder / "back" / "report" / "report.html").stat().st_size > 0
    # As a laptop does that cannot see the storage: by what lies, or is linked, in Ray's log folder.
    laptop.fetch_through_the_head(folder.name, "through")
    for name in ("config.yaml", "ledger.jsonl", "report/report.html"):
        assert (laptop.folder / "through" / name).read_bytes() == (folder / name).read_bytes()
    again = ("resume", folder.name, "--address", laptop.cluster.http, "--set", "search.lr=[0.2]")
    assert "only limits, recovery and tracking may change" in laptop.study(*again, code=2)


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (["jobs"], {"token": "wrong"}, "refuses this token"),
        (["submit", "own"], {"token": "wrong"}, "refuses this token"),
        (["jobs"], {"token": None}, "wants a token, and got none: set RAY_AUTH_MODE=token"),
        (["logs", "nothing-0"], {"token": None}, "wants a token, and got none"),
        (["jobs"], {"address": "http://127.0.0.1:1"}, "nothing answers there"),
        (["logs", "nothing-0"], {}, "nothing-0: no study of that id"),
        (["stop", "nothing-0"], {}, "nothing-0: no study of that id"),
        (["fetch", "nothing-0", "--out", "x"], {}, "nothing-0: no study of that id"),
        (["submit", "own", "--set", "batch_sizes=[7]"], {}, "7 is not divisible"),
        (["submit", "own", "--storage", "nosuch://x"], {}, "--storage: nosuch://x: no such kind of storage"),
    ],
)
def test_what_goes_wrong_is_one_line_and_exit_code_2(
    laptop: Laptop, arguments: list[str], options: dict[str, str | None], says: str
) -> None:
    assert says in laptop.study(*arguments, code=2, **options)


def the_token_is_nowhere(cluster: TwoNodes) -> None:
    """Neither in a command line, nor in a file that Ray serves, nor in what is told of the jobs."""
    token = cluster.token.encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert token not in path.read_bytes(), path
        except OSError:
            continue
    logs = [path for folder in cluster.log_folders() for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "ledger.jsonl" for path in logs)
    for path in logs:
        assert token not in path.read_bytes(), path
    assert cluster.token not in cluster.asked("/api/jobs/")
