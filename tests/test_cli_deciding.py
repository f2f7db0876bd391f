"""`study recommend`, `analyze`, `compare` and `prices` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from study.ledger.paths import StudyPaths
from tests.analysis.ledgers import made_study
from tests.analysis.tables.test_fronts import EXAMPLE
from tests.test_cli import study_in_process as study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies made by formula, one of another protocol, and tables that are none."""
    folder = tmp_path_factory.mktemp("deciding")
    made_study(folder / "one")
    made_study(folder / "two", seed=1, optimizer={"kind": "lars"})
    old = StudyPaths(made_study(folder / "old")).ledger
    old.write_bytes(b"".join(_older(line) for line in old.read_bytes().splitlines()))
    (folder / "empty.csv").write_text("")
    (folder / "ragged.csv").write_text("batch_size,usd\n1,2,3\n")
    (folder / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    (folder / "t.csv").write_text("batch_size,usd,acc\n8,1,0.9\n16,x,0.8\n")
    (folder / "t.xlsx").write_text("")
    (folder / "vary.csv").write_text(
        "bs,model,wd,hours,runtime,val_loss,val_acc\n"
        "8,a,0,2,70,0.3,0.9\n8,a,1,3,80,0.2,0.8\n8,b,0,4,90,0.5,0.7\n16,a,0,1,60,0.4,0.6\n"
    )
    return folder


def _older(line: bytes) -> bytes:
    """The same row, of a protocol of another major."""
    import zlib

    body = line.rpartition(b',"crc32"')[0].replace(b'"protocol_version":"1.', b'"protocol_version":"0.')
    return body + b',"crc32":"%08x"}\n' % zlib.crc32(body)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["recommend", "."], "study: .: no study here"),
        (
            ["recommend", "one", "--min-accuracy", "95"],
            "--min-accuracy: must be a fraction between 0 and 1; got 95 (did you",
        ),
        (["recommend", "one", "--max-latency-ms", "5"], "--max-latency-ms: nothing is known of latencies"),
        (["recommend", "one", "--prices", "own.yaml"], "--prices: the study names no price.gpu_type"),
        (["recommend", "old"], "protocol 0."),
        (["analyze", "nothing.csv"], "nothing.csv: "),
        (["analyze", "empty.csv"], "empty.csv: empty"),
        (["analyze", "ragged.csv"], "ragged.csv: not a table"),
        (["analyze", "binary.csv"], "binary.csv: not a table"),
        (["analyze", "t.xlsx"], "t.xlsx: a table is .csv, .tsv, .parquet, .json or .jsonl"),
        (["analyze", "t.csv"], "t.csv: row 2: usd: 'x' is not allowed; needs a finite number"),
        (["analyze", "t.csv", "--group-by", "batchsize"], "(did you mean batch_size?)"),
        (
            ["analyze", "t.csv", "--minimize", "usd", "--minimize", "acc", "--maximize", "acc"],
            "more than two objectives",
        ),
        (["analyze", "vary.csv"], "vary.csv: columns"),
        (["analyze", "vary.csv", "--cost-column", "hours"], "vary within a configuration: model (a, b), wd (0, 1)"),
        (
            ["analyze", "vary.csv", "--cost-column", "hours", "--as-seeds", "model"],
            "vary within a configuration: wd (0, 1)",
        ),
        (["analyze", "vary.csv", "--cost-column", "val_acc", "--quality-column", "val_acc"], "cannot be both"),
        (["analyze", "vary.csv", "--batch-column", "batch"], "no column 'batch' for --batch-column"),
        (["analyze", "vary.csv", "--minimize", "runtime,val_loss,val_acc"], "more than two objectives"),
        (["compare", "one"], "one: nothing to compare with"),
        (["compare", "one", "old"], "protocol 0."),
        (["compare", "one", "two", "three"], "three: no study here"),
        (["prices", "--prices", "none.yaml"], "none.yaml: No such file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(folder: Path, arguments: list[str], says: str) -> None:
    done = study(folder, *arguments)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_recommend_answers_in_words_and_json(folder: Path) -> None:
    done = study(folder, "recommend", "one", "--max-usd", "100", "--min-accuracy", "0.9", "--json")
    assert done.returncode == 0, done.stderr
    assert "Choose batch " in done.stdout
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["aim"] == "reaches"
    assert record["choice"]["quality"] >= 0.9


def test_recommend_reckons_with_another_price(folder: Path) -> None:
    costs = [
        json.loads(study(folder, "recommend", "one", *price, "--json").stdout.splitlines()[-1])["configuration"]["cost"]
        for price in ((), ("--usd-per-device-hour", "6"))
    ]
    assert costs[1]["usd"] == pytest.approx(3 * costs[0]["usd"])


def test_analyze_writes_what_it_says(folder: Path) -> None:
    done = study(folder, "analyze", str(EXAMPLE), "--group-by", "gpu", "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "out" / "summary.json").read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == record
    assert set(record["groups"]) == {"A", "B"}
    assert (folder / "out" / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    "lists",
    [
        ["--config", "model,wd"],
        ["--config", "model", "--config", "wd"],
        ["--config", " model, wd ,"],
        ["--as-seeds", "model,wd"],
        ["--as-seeds", "model", "--as-seeds", "wd"],
        ["--as-seeds", "all"],
    ],
)
def test_lists_take_commas_and_repetition_alike(folder: Path, lists: list[str]) -> None:
    for axes in (["--minimize", "hours,val_loss"], ["--minimize", "hours", "--minimize", "val_loss"]):
        done = study(folder, "analyze", "vary.csv", *lists, *axes, "--json")
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout.splitlines()[-1])
        points = {(p["batch_size"], p["cost"], round(p["quality"], 9), p["n_seeds"]) for p in record["points"]}
        pooled = {(8, 3.0, round(1 / 3, 9), 3), (16, 1.0, 0.4, 1)}
        apart = {(8, 2.0, 0.3, 1), (8, 3.0, 0.2, 1), (8, 4.0, 0.5, 1), (16, 1.0, 0.4, 1)}
        assert points == (pooled if lists[0] == "--as-seeds" else apart)


def test_strict_makes_any_note_an_error(folder: Path) -> None:
    (folder / "mixed.csv").write_text("batch_size,usd,val_acc\n8,1,95.0\n8,1,0.946\n")
    assert study(folder, "analyze", "mixed.csv").returncode == 0
    done = study(folder, "analyze", "mixed.csv", "--strict")
    assert done.returncode == 2
    assert "mixed.csv: --strict: val_acc is in percent in 1 of 2 rows" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert study(folder, "analyze", str(EXAMPLE), "--group-by", "gpu", "--strict").returncode == 0


def test_compare_writes_what_it_says(folder: Path) -> None:
    done = study(folder, "compare", "one", "two", "--out", "both", "--json")
    assert done.returncode == 0, done.stderr
    assert "optimizer.kind" in done.stdout
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["studies"][1]["ratio_ci"][0] < record["studies"][1]["ratio"]
    assert (folder / "both" / "compare.html").stat().st_size > 10_000


def test_prices_lists_source_and_date(folder: Path) -> None:
    done = study(folder, "prices", "--json")
    assert done.returncode == 0, done.stderr
    assert "H100-SXM-80GB" in done.stdout
    assert all(price["date"] and price["source"] for price in json.loads(done.stdout.splitlines()[-1]))
