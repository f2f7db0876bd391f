"""What `study check` prints of paces that are missing and of modules that were tried."""

from dataclasses import replace
from io import StringIO
from typing import Any

from rich.console import Console

from study.planning.cost_estimate import Pace, Paces
from study.planning.trials import Plan, make_plan
from study.planning.tried import FirstRates, LossWeights, TriedModule
from study.reporting.text.plan import print_plan
from tests.conftest import make_config

WORKLOAD = {
    "kind": "custom", "module": "mine:Net", "data": "mine:Data", "train_samples": 640, "val_accuracy": "val_acc",
}  # fmt: skip


def printed(plan: Plan, paces: Paces, rates: dict[str, Any] | None = None) -> str:
    out = StringIO()
    print_plan(plan, paces, 2, rates or {}, Console(file=out, width=200))
    return out.getvalue()


def test_each_reason_for_a_missing_pace_is_said_with_its_batch_sizes() -> None:
    plan = make_plan(make_config(workload=WORKLOAD, batch_sizes=[32, 64], hardware={"world_size": [1, 4]}))
    reasons = {
        cell: "they need 4 cores, and this machine has 2" if cell.world_size == 4 else "out of memory"
        for cell in plan.cells[1:]
    }
    text = printed(plan, Paces({plan.cells[0]: Pace(0.01, 0.1)}, reasons))
    assert "Pace not measured: batch size 64 on 1 rank: out of memory." in text
    assert (
        "Pace not measured: batch size 32 on 4 ranks, batch size 64 on 4 ranks: they need 4 cores, and this machine"
        in text
    )
    assert "Cost: not known, for want of these paces." in text


def test_what_was_found_of_a_module_comes_last() -> None:
    plan = make_plan(make_config(workload=WORKLOAD | {"loss_weight": "tokens"}, batch_sizes=[32, 64]))
    weights = LossWeights(per_sample=10.5, least=40, most=96, micro_batch=8)
    found = TriedModule((), "val_acc", {"val_acc": 0.25, "val_loss": 1.5}, 397, weights)
    rates = FirstRates(32, 0.1, ("AdamW, weight decay 0.1",), ("LambdaLR after every update",), ((0.01, 0.02, 0.03),))
    paces = Paces({cell: Pace(0.002 * i, 0.1) for i, cell in enumerate(plan.cells, 1)}, {})
    lines = printed(replace(plan, tried=(found,)), paces, {"": rates}).splitlines()
    updates = [plan.confirm_trials(cell, 0.1)[0].total_updates for cell in plan.cells]
    assert lines[lines.index("Found of mine:Net:") :] == [
        "Found of mine:Net:",
        "  metric     val_acc, of which more is better; 25.0% after the updates that were tried; also logged: val_loss",
        "  samples    640 to train on, 397 to validate on",
        f"  updates    {updates[0]} at batch size 32, {updates[1]} at batch size 64",
        "  tokens     10.5 a sample, so about 336 an update at batch size 32; from 40 to 96 in a micro batch of 8",
        "  optimizer  the study's AdamW, weight decay 0.1",
        "  scheduler  LambdaLR after every update",
        "  rates      0.01, 0.02, 0.03 in the first updates at batch size 32 with rate 0.1",
        "  pace       2 ms an update at batch size 32, 4 ms an update at batch size 64, on this machine",
    ]


def test_what_is_not_known_says_why() -> None:
    plan = make_plan(make_config(workload=WORKLOAD | {"tokens_per_sample": 128}, batch_sizes=[32]))
    paces = Paces({}, {plan.cells[0]: "--no-measure"})
    found = replace(plan, tried=(TriedModule((), "val_acc", {"val_acc": 0.25}, None, None),))
    text = printed(found, paces, {"": "KeyError: 'x' (mine.py:3)"})
    assert "640 to train on, unknown to validate on" in text
    assert "optimizer  not known: KeyError: 'x' (mine.py:3)" in text
    assert "pace       not measured: --no-measure" in text
    assert "tokens     128 a sample: 4,096 an update at batch size 32" in text


def test_a_loss_is_shown_with_its_direction_and_unit() -> None:
    objective = {"metric": "loss/val", "mode": "min", "unit": "nats"}
    plan = make_plan(make_config(workload=WORKLOAD, batch_sizes=[32], objective=objective))
    found = TriedModule((), "loss/val", {"loss/val": 2.5}, 5, None)
    text = printed(replace(plan, tried=(found,)), Paces({plan.cells[0]: Pace(0.01, 0.1)}, {}), {"": "x"})
    assert "metric     loss/val, of which less is better; 2.5 nats after the updates that were tried\n" in text


def test_batches_of_a_language_model_are_shown_in_tokens_too() -> None:
    plan = make_plan(make_config(workload=WORKLOAD | {"tokens_per_sample": 128}, batch_sizes=[32, 64]))
    lines = printed(plan, Paces({plan.cells[0]: Pace(0.5, 0.1)}, {plan.cells[1]: "--no-measure"})).splitlines()
    rows = [line.split() for line in lines if line.split()[:2] in (["32", "4096"], ["64", "8192"])]
    assert [row[-1] for row in rows] == ["8,192", "?"]  # 32 x 128 tokens in half a second
