"""Ledgers that a disk or a death has damaged: the good prefix survives, damage is named, a resume runs the rest."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from study.ledger.paths import StudyPaths
from study.ledger.schema import AnyRow, EndRow, PulseRow
from study.ledger.store import Ledger, read
from study.planning.trials import Plan, make_plan
from tests.conftest import make_config, run_for_real
from tests.faults.conftest import Injections
from tests.faults.ledger_audit import Audit, audit, trial_facts
from tests.tuning.faketune import FakeStore, FakeTune, without_ray

SMALL: dict[str, Any] = {
    "batch_sizes": [16],
    "search": {"lr": [0.1]},
    "budget": {"epochs": 2},
    "confirm": {"seeds": 2},
    "scheduler": {"kind": "grid"},
    "recovery": {"checkpoint_every_s": 0},
}
INTERVAL_S = {16: 5.0}
NEXT = PulseRow(at_s=1e6, written="2026-01-01T00:00:00.000+00:00")


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what is tried here, and thousands of times dear."""
    for module in ("store", "atomic_files"):
        monkeypatch.setattr(f"study.ledger.{module}.os.fsync", lambda handle: None)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(make_config(**SMALL))


def simulate(plan: Plan, folder: Path) -> list[AnyRow]:
    """Run a study, or what its ledger lacks, and return its rows."""
    with without_ray(1), Ledger(folder) as ledger:
        assert FakeTune(plan, ledger, FakeStore(), 1, INTERVAL_S).run()
    return list(read(folder).rows)


@pytest.fixture
def simulated(plan: Plan, tmp_path: Path) -> bytes:
    """A ledger as the study's own driver wrote it, of a simulated cluster."""
    simulate(plan, tmp_path / "undisturbed")
    return StudyPaths(tmp_path / "undisturbed").ledger.read_bytes()


@pytest.fixture(scope="module")
def real(local_ray: None, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A ledger of the same plan, of a study that was really run."""
    folder = tmp_path_factory.mktemp("real")
    run_for_real(plan.config, folder)
    return StudyPaths(folder).ledger.read_bytes()


class Lines:
    """A ledger's lines, taken apart without the code that reads them."""

    def __init__(self, whole: bytes) -> None:
        self.whole = whole
        lines = whole.split(b"\n")
        assert lines.pop() == b""
        self.ends = [0]  # of the prefixes that are whole lines, in bytes
        self.values: list[dict[str, Any]] = []
        for line in lines:
            value = json.loads(line)
            checksum = int(value.pop("crc32"), 16)
            assert checksum == zlib.crc32(line[: line.rindex(b',"crc32"')])
            self.ends.append(self.ends[-1] + len(line) + 1)
            self.values.append(value)

    def good(self, n_bytes: int) -> int:
        """Lines that lie wholly within the first bytes."""
        return sum(end <= n_bytes for end in self.ends) - 1


def check(lines: Lines, damaged: bytes, good_bytes: int, folder: Path) -> None:
    """What is sound up to `good_bytes`, and in no line behind that."""
    n_good = lines.good(good_bytes)
    end = lines.ends[n_good]
    path = StudyPaths(folder).ledger
    path.write_bytes(damaged)
    with Ledger(folder) as ledger:
        assert [json.loads(row.model_dump_json()) for row in ledger.rows] == lines.values[:n_good]
        sides = list(folder.glob(f"{StudyPaths.QUARANTINE}*"))
        if end == len(damaged):
            assert ledger.quarantined is None
            assert sides == []
        else:
            assert ledger.quarantined is not None
            assert ledger.quarantined.startswith(f"{path}:{n_good + 1}: ")
            assert [side.read_bytes() for side in sides] == [damaged[end:]]
            assert ledger.quarantined.endswith(sides[0].name)
        ledger.append(NEXT)
    assert path.read_bytes()[:end] == lines.whole[:end]
    contents = read(folder)
    assert contents.damage is None
    assert (len(contents.rows), contents.rows[-1]) == (n_good + 1, NEXT)
    for side in sides:
        side.unlink()


def check_cuts(whole: bytes, offsets: Iterable[int], folder: Path, line: Injections) -> None:
    lines = Lines(whole)
    for offset in offsets:
        line.inject()
        check(lines, whole[:offset], offset, folder)
        line.survived()


def check_flips(whole: bytes, n: int, folder: Path, line: Injections) -> None:
    lines, rng = Lines(whole), random.Random(7)
    for bit in (rng.randrange(8 * len(whole)) for _ in range(n)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        line.inject()
        check(lines, bytes(damaged), bit // 8, folder)
        line.survived()


def test_a_ledger_cut_or_flipped_somewhere(
    simulated: bytes, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    offsets = random.Random(5).sample(range(len(simulated) + 1), 150)
    check_cuts(simulated, offsets, tmp_path, faults("ledger cut"))
    check_flips(simulated, 100, tmp_path, faults("ledger bit flipped"))


@pytest.mark.thorough
def test_a_real_ledger_cut_at_every_byte(real: bytes, tmp_path: Path, faults: Callable[[str], Injections]) -> None:
    check_cuts(real, range(len(real) + 1), tmp_path, faults("ledger cut"))


@pytest.mark.thorough
def test_a_real_ledger_with_a_thousand_bits_flipped(
    real: bytes, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    check_flips(real, 1000, tmp_path, faults("ledger bit flipped"))


def test_a_resume_runs_what_a_cut_ledger_lacks(
    plan: Plan, simulated: bytes, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    StudyPaths(tmp_path).ledger.write_bytes(simulated)
    expected, lines, line = trial_facts(read(tmp_path).rows), Lines(simulated), faults("ledger cut")
    # At each line's end, and once within each line.
    rng = random.Random(3)
    within = [rng.randrange(start + 1, end) for start, end in zip(lines.ends, lines.ends[1:], strict=False)]
    for offset in (*lines.ends, *within):
        line.inject()
        StudyPaths(tmp_path).ledger.write_bytes(simulated[:offset])
        rows = simulate(plan, tmp_path)
        assert trial_facts(rows) == expected, offset
        n_good = lines.good(offset)
        assert [json.loads(row.model_dump_json()) for row in rows[:n_good]] == lines.values[:n_good]
        line.survived(audit(rows))


@pytest.mark.thorough
def test_a_resume_runs_what_a_real_ledger_lacks(
    plan: Plan, real: bytes, tmp_path: Path, faults: Callable[[str], Injections]
) -> None:
    StudyPaths(tmp_path).ledger.write_bytes(real)
    whole = [row for row in read(tmp_path).rows if isinstance(row, EndRow)]
    line = faults("ledger cut")
    for offset in random.Random(4).sample(range(len(real)), 60):
        line.inject()
        StudyPaths(tmp_path).ledger.write_bytes(real[:offset])
        kept = [row for row in read(tmp_path).rows if isinstance(row, EndRow)]
        rows = simulate(plan, tmp_path)
        ends = [row for row in rows if isinstance(row, EndRow)]
        assert ends[: len(kept)] == kept
        assert {row.trial_id for row in ends} == {row.trial_id for row in whole}
        assert audit(rows) == Audit(0.0, 0)
        line.survived(audit(rows))
