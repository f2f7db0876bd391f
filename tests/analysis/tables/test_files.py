"""How a table is written does not change what it says: delimiters, encodings, formats, order, columns beside it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.analysis.tables.fronts import analyze_table
from study.analysis.tables.table import read_table
from study.errors import DataError
from tests.analysis.tables.made import by_batch, lines, refused

ROWS = ("batch_size,seed,accuracy,wall_s", "8,1,0.95,1023.5", "8,2,0.94,1021.0", "16,1,0.9,512.25")
SAYS = {8: ([1023.5, 1021.0], [0.95, 0.94]), 16: ([512.25], [0.9])}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", lines(*ROWS)),
        ("t.csv", lines(*ROWS).replace(",", ";")),
        ("t.csv", lines(*ROWS).replace(",", ";").replace(".", ",")),
        ("t.csv", lines(*ROWS).replace(",", ";").replace(".", ",").replace("1023", "1.023")),
        ("t.csv", lines(*ROWS).replace(",", "\t")),
        ("t.csv", lines(*ROWS).replace(",", "|")),
        ("t.tsv", lines(*ROWS).replace(",", "\t")),
        ("t.tsv", lines(*ROWS).replace(",", "\t").replace(".", ",")),
        ("t.csv", "# sweep of May, node a\n#\n" + lines(*ROWS)),
        ("t.csv", "# " + lines(*ROWS)),  # as numpy.savetxt writes a header
        ("t.csv", "sep=;\n" + lines(*ROWS).replace(",", ";")),
        ("t.csv", lines(*ROWS).replace("\n", ",\n")),
        ("t.csv", lines(*ROWS).replace("\n", ",,\n")),
        ("t.csv", lines(ROWS[0], *(f"{row}," for row in ROWS[1:]))),
        ("t.csv", lines(f",{ROWS[0]}", *(f"{i},{row}" for i, row in enumerate(ROWS[1:])))),
        ("t.csv", lines(f"Unnamed: 0,{ROWS[0]}", *(f"{i},{row}" for i, row in enumerate(ROWS[1:])))),
        ("t.csv", lines(*ROWS).replace(",", " , ").replace("\n", "\r\n")),
        ("t.csv", lines(*(",".join(f'"{cell}"' for cell in row.split(",")) for row in ROWS))),
    ],
)
def test_text_in_every_way(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode())
    assert by_batch(read_table(tmp_path / name)) == SAYS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("packed", [False, True])
def test_encodings(tmp_path: Path, encoding: str, packed: bool) -> None:
    data = lines(f"{ROWS[0]},host", *(f"{row},größe" for row in ROWS[1:])).encode(encoding)
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(data) if packed else data)
    assert by_batch(read_table(path)) == SAYS


def test_json_in_every_shape(tmp_path: Path) -> None:
    frame = pd.DataFrame([row.split(",") for row in ROWS[1:]], columns=ROWS[0].split(",")).astype(float)
    records = frame.to_dict("records")
    nested = [{"config": {"batch_size": r["batch_size"], "seed": r["seed"]}, **r} for r in records]
    for row in nested:
        del row["batch_size"], row["seed"]
    for name, text in (
        ("t.json", json.dumps(records)),
        ("t.json", json.dumps(frame.to_dict("list"))),
        ("t.json", "\n".join(map(json.dumps, records))),
        ("t.jsonl", "\n".join(map(json.dumps, records)) + "\n\n"),
        ("t.ndjson", "\n".join(map(json.dumps, nested))),
    ):
        (tmp_path / name).write_text(text)
        assert by_batch(read_table(tmp_path / name)) == SAYS
    for indexed in (frame, frame.set_index("batch_size"), frame.set_index(["batch_size", "seed"])):
        indexed.to_parquet(tmp_path / "t.parquet")
        assert by_batch(read_table(tmp_path / "t.parquet")) == SAYS


def test_ambiguous_thousands_and_decimal_signs_are_refused(tmp_path: Path) -> None:
    for row, column in (
        ("8;0,95;1.023", "wall_s"),  # a thousand, or one and a bit
        ("1.024;0,95;1023", "batch_size"),
        ("8;95;1,023", "wall_s"),
        ("8;0.95;1,023", "wall_s"),
    ):
        assert f"row 1: {column}" in refused(tmp_path, "batch_size;accuracy;wall_s", row)
    assert "row 1: batch_size: '1,024'" in refused(tmp_path, "batch_size,accuracy,wall_s", '"1,024",0.9,1')


def test_files_that_are_damaged(tmp_path: Path) -> None:
    for name, data, said in (
        ("t.csv.gz", b"no gzip", "t.csv.gz: "),
        ("t.csv.gz", gzip.compress(b"batch_size,usd\n" * 99)[:40], "t.csv.gz: "),
        ("t.csv", b'batch_size,usd\n8,"1\n', "not a table"),
        ("t.csv", b"batch_size,usd\n8,1,2\n", "not a table: row 1 has 3 cells, the header 2"),
        ("t.csv", b"# nothing but this\n", "no rows"),
        ("t.jsonl", b'{"batch_size": 8}\n{"batch_size": \n', "not a table"),
        ("t.json", b'{"a": {"b": 1}, "c": {"b": 1}}', "a JSON table is"),
        ("t.json", b'{"a": [1], "c": [1, 2]}', "columns of different lengths"),
        ("t.gz", b"", "not without a suffix"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match="t\\.") as caught:
            read_table(tmp_path / name)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


WORDS = (
    *(
        "batch_size",
        "Batch",
        "per_device_batch_size",
        "global_batch_size",
        "num_gpus",
        "nodes",
        "lr",
        "train/lr",
        "seed",
    ),
    *(
        "val_acc",
        "accuracy",
        "test_loss",
        "val/acc_best",
        "value",
        "runtime",
        "_runtime",
        "duration",
        "usd",
        "start_time",
    ),
    *(
        "end_time",
        "state",
        "done",
        "epoch",
        "step",
        "training_iteration",
        "run_id",
        "name",
        "model",
        "wd",
        "config",
        "批量",
    ),
    *(
        "steps_to_target",
        "reached",
        "metrics.x",
        "params.y",
        "",
        "%",
        "._",
        "accum",
        "samples_to_target",
        "epochs_to_target",
    ),
)
CELLS = (
    *(
        "",
        "8",
        "16",
        "8.0",
        "0",
        "-1",
        "0.5",
        "95%",
        "0,5",
        "1,024",
        "nan",
        "Infinity",
        "None",
        "x",
        "True",
        "finished",
    ),
    *("FAILED", "{'a': 1}", '{"a": nan}', "{", "0:01:02", "3 min", "17:02", "2026-01-01 10:00", "1e400", "#", "批"),
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_table_is_analysed_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8, unique=True))
    names = [*names, *(name for name in ("batch_size", "val_acc", "usd") if name not in names)]
    cells = st.one_of(st.sampled_from(CELLS), st.sampled_from(["8", "0.5", "finished"]))
    rows = data.draw(st.lists(st.lists(cells, min_size=len(names), max_size=len(names)), min_size=1, max_size=6))
    path = tmp_path_factory.mktemp("any") / "t.csv"
    pd.DataFrame(rows, columns=names).to_csv(path, index=False, sep=data.draw(st.sampled_from([",", ";", "\t"])))
    options = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "config": st.lists(st.sampled_from(WORDS), max_size=2),
                "group_by": st.sampled_from(WORDS),
                "minimize": st.lists(st.sampled_from(WORDS), max_size=2),
                "maximize": st.lists(st.sampled_from(WORDS), max_size=2),
                "as_seeds": st.just(["all"]),
                "named": st.dictionaries(
                    st.sampled_from(["batch", "cost", "quality", "seed", "lr", "state", "run", "devices"]),
                    st.sampled_from([*WORDS, "none"]),
                    max_size=2,
                ),
            },
        )
    )
    line, table = "", None
    try:
        table = read_table(path, **options)
    except DataError as error:
        line = str(error)
    if table is None:
        assert line.startswith(str(path))
        assert "\n" not in line
        return
    analyze_table(table, "group_by" in options)
    found = table.understood
    assert found.n_rows == found.n_final + found.n_censored + found.n_left_out


EXTRA = (
    "train_loss",
    "gpu_util",
    "Name",
    "_step",
    "summary.norm",
    "samples_per_second",
    "metrics.x",
    "hostname",
    "val_top5",
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_order_format_and_unrelated_columns_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("invariants")
    n = data.draw(st.integers(2, 10))
    column = {
        "params.batch_size": data.draw(st.lists(st.sampled_from([8, 16, 32]), min_size=n, max_size=n)),
        "params.seed": list(range(n)),
        "status": data.draw(st.lists(st.sampled_from(["FINISHED", "FAILED", "PRUNED"]), min_size=n, max_size=n)),
        "runtime": data.draw(st.lists(st.integers(1, 10**5), min_size=n, max_size=n)),
        "metrics.val_acc": [f / 1000 for f in data.draw(st.lists(st.integers(1, 999), min_size=n, max_size=n))],
    }
    column["status"][0] = "FINISHED"
    expected = _sorted(read_table(_written(folder, pd.DataFrame(column), "csv")))
    for name in data.draw(st.lists(st.sampled_from(EXTRA), unique=True)):
        column[name] = data.draw(st.lists(st.sampled_from([0.25, 0.5, 3.0, 7.125]), min_size=n, max_size=n))
    frame = pd.DataFrame(column).sample(frac=1, random_state=data.draw(st.integers(0, 99)))
    frame = frame[data.draw(st.permutations(list(frame.columns)))]
    found = read_table(
        _written(folder, frame, data.draw(st.sampled_from(["csv", "tsv", "json", "jsonl", "parquet", "comma"])))
    )
    assert _sorted(found) == expected


def _sorted(table) -> dict[int, list[tuple[float, float]]]:
    return {batch: sorted(zip(*axes, strict=True)) for batch, axes in by_batch(table).items()}


def _written(folder: Path, frame: pd.DataFrame, kind: str) -> Path:
    path = folder / ("t.csv" if kind == "comma" else f"t.{kind}")
    if kind == "comma":
        frame.to_csv(path, sep=";", decimal=",", index=False)
    elif kind in ("csv", "tsv"):
        frame.to_csv(path, sep="," if kind == "csv" else "\t", index=False)
    elif kind == "parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=kind == "jsonl")
    return path
