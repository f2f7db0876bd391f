"""The ledger file: what is written survives, what is damaged is named."""

import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.errors import DiskError, LedgerError
from study.ledger.paths import StudyPaths
from study.ledger.schema import AnyRow, DecisionRow, EndRow, ReportRow
from study.ledger.store import Ledger, LedgerScan, decode, encode, read

STAMP = {"at_s": 1.5, "written": "2026-01-01T00:00:00.000+00:00"}


def decision(n: int) -> DecisionRow:
    return DecisionRow(**STAMP, trial_id=f"t{n}", attempt=1, updates=n, decision="continue")


def write(folder: Path, n: int = 5) -> list[AnyRow]:
    rows: list[AnyRow] = [decision(i) for i in range(n)]
    with Ledger(folder) as ledger:
        ledger.append(*rows)
    return rows


@given(
    loss=st.floats(),
    name=st.from_regex(r"[A-Za-z0-9+_][A-Za-z0-9_+.-]{0,30}", fullmatch=True),
    phases=st.dictionaries(st.text(max_size=5), st.floats(0, 1e9)),
)
def test_a_row_comes_back_as_it_went(loss: float, name: str, phases: dict[str, float]) -> None:
    row = ReportRow(
        **STAMP, trial_id=name, attempt=1, updates=1, samples=2, epochs=0.5, lr=0.1, train_loss=loss,
        train_accuracy=None, val_loss=-loss, val_accuracy=0.5, test_accuracy=None, samples_per_s=3.0,
        device_seconds=1.0, phases_s=phases,
    )  # fmt: skip
    line = encode(row)
    assert line.count(b"\n") == 1
    back = decode(line[:-1])
    assert isinstance(back, ReportRow)
    assert back.train_loss == loss or (math.isnan(back.train_loss) and math.isnan(loss))
    assert (back.trial_id, back.phases_s) == (name, phases)


def test_appends_add_up_over_openings(tmp_path: Path) -> None:
    rows = write(tmp_path)
    with Ledger(tmp_path) as ledger:
        assert list(ledger.rows) == rows
        ledger.append(decision(99))
    assert list(read(tmp_path).rows) == [*rows, decision(99)]


def test_cut_at_every_byte_the_prefix_survives_and_the_next_append_succeeds(tmp_path: Path) -> None:
    rows = write(tmp_path, 3)
    path = StudyPaths(tmp_path).ledger
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends)
        with Ledger(tmp_path) as ledger:
            assert list(ledger.rows) == rows[:kept]
            torn = cut not in (0, *ends)
            assert (ledger.quarantined is not None) == torn
            ledger.append(decision(99))
        assert list(read(tmp_path).rows) == [*rows[:kept], decision(99)]
        sides = list(tmp_path.glob(f"{StudyPaths.QUARANTINE}*"))
        assert len(sides) == torn
        for side in sides:
            assert side.read_bytes() == whole[max([0, *(end for end in ends if end <= cut)]) : cut]
            side.unlink()


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path: Path) -> None:
    rows = write(tmp_path, 4)
    path = StudyPaths(tmp_path).ledger
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        bit = rng.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        contents = read(tmp_path)
        line = whole[: bit // 8].count(b"\n")
        assert list(contents.rows) == rows[:line]
        assert contents.damage is not None
        assert f"{path}:{line + 1}:" in contents.damage


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path), pytest.raises(LedgerError, match="another process is running this study"):
        Ledger(tmp_path)
    Ledger(tmp_path).close()


def test_a_full_disk_leaves_the_old_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = write(tmp_path)
    with Ledger(tmp_path) as ledger:

        def full(fd: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("study.ledger.store.os.fsync", full)
            with pytest.raises(DiskError, match="No space left on device"):
                ledger.append(decision(99))
        assert list(read(tmp_path).rows) == rows
        with pytest.raises(DiskError, match="No space left on device"):  # whoever writes has lost what it knew
            ledger.append(decision(99))
    with Ledger(tmp_path) as ledger:
        ledger.append(decision(100))
    assert list(read(tmp_path).rows) == [*rows, decision(100)]


def test_another_major_protocol_is_refused(tmp_path: Path) -> None:
    end = EndRow(
        **STAMP, protocol_version="2.0", trial_id="t", attempts=1, outcome="completed", final_val_accuracy=1.0,
        best_val_accuracy=1.0, test_accuracy=None, error=None,
    )  # fmt: skip
    StudyPaths(tmp_path).ledger.write_bytes(encode(end))
    with pytest.raises(LedgerError, match=r"protocol 2.0 cannot be mixed with 1"):
        read(tmp_path)


def test_no_study_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no study here"):
        read(tmp_path)


def test_rows_one_by_one_are_those_of_the_good_prefix(tmp_path: Path) -> None:
    rows = write(tmp_path)
    path = StudyPaths(tmp_path).ledger
    assert list(LedgerScan(path)) == rows
    whole = path.read_bytes()
    for cut in (len(whole) - 1, len(whole) // 2):
        path.write_bytes(whole[:cut])
        assert list(LedgerScan(path)) == list(read(tmp_path).rows) != rows
    path.unlink()
    with pytest.raises(LedgerError, match="no study here"):
        list(LedgerScan(path))
