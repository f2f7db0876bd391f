"""Exports of W&B, MLflow, Optuna, Ray and Lightning: which column means what, and what each row says."""

from __future__ import annotations

import json
from pathlib import Path

from study.analysis.tables.objectives import Objective
from tests.analysis.tables.made import by_batch, read, refused


def test_a_wandb_run_table(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        "Name,State,Notes,User,Created,Runtime,Sweep,batch_size,eval_batch_size,lr,parameters.batch_size,epoch,val_loss",
        "calm-1,finished,-,me,2026-01-01,40,s,16,8,0.1,,9,0.30",
        "calm-2,finished,,you,2026-01-02,44,s,16,8,0.1,,9,0.34",
        "calm-3,finished,-,me,2026-01-03,3,s,16,8,0.1,,,",  # evaluated only
        "calm-4,crashed,-,me,2026-01-03,2,s,16,8,0.1,,1,2.0",
        "calm-5,running,-,me,2026-01-03,1,s,32,8,0.1,,1,2.1",
        "calm-6,finished,-,me,2026-01-04,20,s,32,8,0.1,,9,0.50",
    )
    assert by_batch(table) == {16: ([40.0, 44.0], [0.30, 0.34]), 32: ([20.0], [0.50])}
    found = table.understood
    assert (found.n_rows, found.n_final, found.n_censored, found.n_left_out) == (6, 3, 2, 1)
    assert found.why == {"crashed": 1, "running": 1}
    assert any("row 3 without val_loss" in note for note in found.notes)


def test_one_option_names_one_axis(tmp_path: Path) -> None:
    rows = ("batch_size,val_loss,val_acc,Runtime", "16,0.3,0.9,40", "32,0.5,0.8,20")
    for option, quality in (
        ({"minimize": ["val_loss"]}, Objective("val_loss", False)),
        ({"maximize": ["val_acc"]}, Objective("val_acc", True)),
    ):
        table = read(tmp_path, *rows, **option)
        assert (table.cost, table.quality) == (Objective("Runtime", False), quality)
    line = refused(tmp_path, "batch_size,val_loss", "16,0.3", minimize=["val_loss"])
    assert line.startswith("no column for a cost")
    assert "--cost-column" in line
    assert "both" in refused(tmp_path, *rows, named={"cost": "val_acc", "quality": "val_acc"})
    assert "twice" in refused(tmp_path, *rows, minimize=["val_acc"], maximize=["val_acc"])


def test_an_objective_that_no_name_explains_is_the_quality_if_there_is_no_other(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,fid,runtime", "16,12.5,40", minimize=["fid"])
    assert (table.cost, table.quality) == (Objective("runtime", False), Objective("fid", False))
    assert "--maximize fid or --minimize fid" in refused(
        tmp_path, "batch_size,fid,runtime", "16,12.5,40", named={"quality": "fid"}
    )


def test_a_wandb_project_with_objects_in_its_cells(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        ",summary,config,name",
        "0,\"{'val_acc': 0.9, 'loss': nan, '_runtime': 40.5, '_wandb': {'runtime': 3}}\",\"{'batch_size': 16}\",a",
        "1,\"{'val_acc': 0.8, 'loss': .1, '_runtime': 20.5}\",\"{'batch_size': 32, 'data': {'aug': True}}\",b",
        '2,"{""val_acc"": 0.7, ""_runtime"": 30}","{""batch_size"": 16, ""data"": {""aug"": true}}",c',
    )
    assert by_batch(table) == {16: ([30.0], [0.7]), 32: ([20.5], [0.8])}  # the loss of the first is NaN
    assert table.understood.why == {"diverged": 1}
    assert table.understood.columns["batch size"] == "config.batch_size"
    assert "row 1: config: cannot be read" in refused(tmp_path, "config,summary", "{'batch_size': 1,{}")


def test_nested_keys_of_configs(tmp_path: Path) -> None:
    for header in (
        "config.data.batch_size,config.model.optimizer.lr,config.seed,summary.val/acc,summary._runtime",
        "data/batch_size,model/optimizer/lr,trainer.seed,val/acc,Runtime",
        "hparams.datamodule.batch_size,hparams.optim.learning_rate,hparams.seed,metrics.val.acc,metrics.time_s",
        "batchSize,learningRate,randomSeed,valAcc,runtime_s",
    ):
        table = read(tmp_path, header, "16,0.1,1,0.9,40", "16,0.1,2,0.8,44")
        assert by_batch(table) == {16: ([40.0, 44.0], [0.9, 0.8])}
        assert table.groups[0].configurations[0].lr == 0.1
        assert len(table.understood.columns) == 5


def test_mlflow_runs_cost_what_lies_between_start_and_end(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        "run_id,status,artifact_uri,start_time,end_time,metrics.val_acc,params.batch_size,params.seed,tags.mlflow.user",
        "a,FINISHED,s3://a,2026-05-01 10:00:00.250+00:00,2026-05-01 10:01:40.750+00:00,0.9,16,1,me",
        "b,FINISHED,s3://b,2026-05-01 23:59:50+00:00,2026-05-02 00:01:00+00:00,0.8,16,2,you",
        "c,FAILED,s3://c,2026-05-01 23:59:50+00:00,,,16,3,me",
    )
    assert by_batch(table) == {16: ([100.5, 70.0], [0.9, 0.8])}
    assert table.understood.why == {"failed": 1}
    milliseconds = read(
        tmp_path,
        "status,start_time,end_time,metrics.val_acc,params.batch_size",
        "FINISHED,1700000000000,1700000012500,0.9,16",
    )
    assert by_batch(milliseconds) == {16: ([12.5], [0.9])}
    for times in ("2026-05-02,2026-05-01", "02/03/2026,03/03/2026", "soon,later"):
        line = refused(tmp_path, "batch_size,val_acc,start_time,end_time", f"8,0.9,{times}")
        assert line.startswith("row 1: ")
        assert "_time" in line


def test_mlflows_page_writes_durations(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        "Start Time,Duration,Run ID,Name,Source Name,User,Status,batch_size,val_acc",
        "2026-05-01 10:00:00,17.1min,a,owl,train.py,me,FINISHED,16,0.9",
        "2026-05-01 10:00:00,9.5s,b,fox,train.py,me,FINISHED,16,0.8",
        "2026-05-01 10:00:00,2.1h,c,emu,train.py,me,FINISHED,32,0.7",
        "2026-05-01 10:00:00,1.5d,d,ape,train.py,me,FINISHED,32,0.6",
    )
    assert by_batch(table) == {16: ([1026.0, 9.5], [0.9, 0.8]), 32: ([7560.0, 129600.0], [0.7, 0.6])}
    assert "Duration in seconds" in table.understood.columns["cost"]


OPTUNA = (
    ",number,value,datetime_start,datetime_complete,duration,params_batch_size,params_lr,user_attrs_note,state",
    "0,0,0.90,2026-01-01 10:00:00.1,2026-01-01 10:02:00.1,0 days 00:02:00.500000,16,0.1,x,COMPLETE",
    "1,1,0.92,2026-01-01 10:00:00.1,2026-01-01 10:02:00.1,0 days 00:02:10,16,0.1,y,COMPLETE",
    "2,2,0.10,2026-01-01 10:00:00.1,2026-01-01 10:00:02.1,0 days 00:00:02,16,0.1,z,PRUNED",
    "3,3,,2026-01-01 10:00:00.1,,,32,0.1,w,FAIL",
    "4,4,0.80,2026-01-01 10:00:00.1,2026-01-01 10:01:00.1,0 days 00:01:00,32,0.1,v,TrialState.COMPLETE",
)


def test_an_optuna_frame_says_its_direction_by_option(tmp_path: Path) -> None:
    line = refused(tmp_path, *OPTUNA)
    assert "--maximize value or --minimize value" in line
    table = read(tmp_path, *OPTUNA, maximize=["value"])
    assert by_batch(table) == {16: ([120.5, 130.0], [0.90, 0.92]), 32: ([60.0], [0.80])}
    assert table.understood.why == {"fail": 1, "pruned": 1}
    assert [one.n_censored for one in table.groups[0].configurations] == [1, 1]
    assert by_batch(read(tmp_path, *OPTUNA, minimize=["value"])) == by_batch(table)


def test_an_optuna_frame_of_several_objectives(tmp_path: Path) -> None:
    rows = ("number,values_0,values_1,params_batch_size,state", "0,0.9,7,16,COMPLETE", "1,0.8,3,32,COMPLETE")
    table = read(tmp_path, *rows, maximize=["values_0"], minimize=["values_1"])
    assert by_batch(table) == {16: ([7.0], [0.9]), 32: ([3.0], [0.8])}
    named = read(tmp_path, "number,values_val_acc,params_batch_size,duration,state", "0,0.9,16,0:00:07,COMPLETE")
    assert by_batch(named) == {16: ([7.0], [0.9])}


def test_rays_result_grid_has_trials_that_a_scheduler_stopped(tmp_path: Path) -> None:
    rows = (
        "val_acc,timestamp,done,training_iteration,trial_id,time_this_iter_s,time_total_s,pid,config/batch_size,logdir",
        "0.90,1700000000,True,9,a,1.1,40,101,16,/a",
        "0.92,1700000001,True,9,b,1.1,44,102,16,/b",
        "0.30,1700000002,True,2,c,1.1,9,103,16,/c",
        "0.80,1700000003,True,9,d,1.1,20,104,32,/d",
        "0.20,1700000004,False,9,e,1.1,20,105,32,/e",
    )
    table = read(tmp_path, *rows)
    assert by_batch(table) == {16: ([40.0, 44.0], [0.90, 0.92]), 32: ([20.0], [0.80])}
    assert table.understood.why == {"not done": 1, "stopped early": 1}
    every = read(tmp_path, *rows, named={"state": "none"})
    assert by_batch(every)[32] == ([20.0, 20.0], [0.80, 0.20])
    # Trials that met a target end when they do, and say so.
    reached = read(tmp_path, f"{rows[0]},reached", *(f"{row},true" for row in rows[1:5]))
    assert by_batch(reached)[16] == ([40.0, 44.0, 9.0], [0.90, 0.92, 0.30])
    # Where reports come every so many updates, batch sizes end at different iterations, of as many samples.
    table = read(tmp_path, rows[0], rows[1].replace("True,9", "True,18"), rows[4])
    assert by_batch(table) == {16: ([40.0], [0.90]), 32: ([20.0], [0.80])}
    (note,) = table.understood.notes
    assert "as many samples each: none is taken for stopped early" in note


def test_a_whole_batch_size_that_was_stopped_has_no_point(tmp_path: Path) -> None:
    header = "val_acc,done,training_iteration,trial_id,time_total_s,config/batch_size"
    table = read(tmp_path, header, "0.9,True,9,a,40,16", "0.3,True,2,b,9,32", "0.3,True,2,c,9,32")
    assert by_batch(table) == {16: ([40.0], [0.9]), 32: ([], [])}


def test_rays_result_json_is_a_row_a_line(tmp_path: Path) -> None:
    rows = [
        json.dumps(
            {"val_acc": 0.1 * i, "training_iteration": i, "time_total_s": 2.0 * i, "trial_id": trial, "done": i == 5}
            | {"config": {"batch_size": batch, "lr": 0.1}}
        )
        for trial, batch in (("a", 16), ("b", 32))
        for i in range(1, 6)
    ]
    table = read(tmp_path, *rows, name="result.json")
    assert by_batch(table) == {16: ([10.0], [0.5]), 32: ([10.0], [0.5])}
    assert "curves, by training_iteration" in table.understood.notes[0]
    assert "study replay" in table.understood.notes[0]
    assert "no row is a final result (1 not done)" in refused(tmp_path, *rows[:3], name="result.json")


def test_lightnings_csv_logger_writes_training_and_validation_in_turn(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        "batch_size,epoch,step,train_loss,val_acc,time_s",
        *(
            row
            for batch, pace in ((16, 10), (32, 6))
            for epoch in range(3)
            for row in (
                f"{batch},{epoch},{10 * epoch + 4},{2 - epoch / 2},,",
                f"{batch},{epoch},{10 * epoch + 9},,{0.5 + epoch / 10},{pace * (epoch + 1)}",
            )
        ),
        "32,3,30,0.1,,",  # a training row at the end
    )
    assert by_batch(table) == {16: ([30.0], [0.7]), 32: ([18.0], [0.7])}
    assert "The 13 rows are curves, by epoch: the last row of each of 2 runs" in table.understood.notes[0]


def test_optunas_objectives_are_no_settings(tmp_path: Path) -> None:
    rows = (
        "number,values_0,values_1,duration,params_batch_size,state",
        "0,0.9,5,20s,8,COMPLETE",
        "1,0.8,6,22s,8,COMPLETE",
    )
    table = read(tmp_path, *rows, maximize=["values_0"])
    assert by_batch(table) == {8: ([20.0, 22.0], [0.9, 0.8])}
    table = read(
        tmp_path,
        "value,duration,params_batch_size,user_attrs_val_acc",
        "1,20s,8,0.9",
        "2,22s,8,0.8",
        maximize=["val_acc"],
    )
    assert by_batch(table) == {8: ([20.0, 22.0], [0.9, 0.8])}


def test_wandbs_clock_of_the_whole_run(tmp_path: Path) -> None:
    table = read(tmp_path, "config.batch_size,summary._wandb.runtime,summary.val_acc", "8,100,0.9")
    assert by_batch(table) == {8: ([100.0], [0.9])}


def test_the_order_of_two_options_of_one_kind_does_not_matter(tmp_path: Path) -> None:
    rows = ("batch_size,throughput,latency,val_acc,val_loss", "8,100,5,0.9,0.1")
    for way, columns in (("maximize", ["val_acc", "throughput"]), ("minimize", ["val_loss", "latency"])):
        for order in (columns, columns[::-1]):
            table = read(tmp_path, *rows, **{way: order})
            assert table.quality is not None
            assert table.quality.column == columns[0]
