"""Settings that vary among the rows of one configuration: they must not be averaged as if they were seeds.

A tracker's prefix says what is a setting (config., params., config/) and what was measured (metrics., summary.).
Without one, known words do; then a column whose fractions or words all differ is a measurement or a name, and whatever
is left is a setting.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import pairwise

from study.analysis.tables.cells import is_blank
from study.analysis.tables.columns import (
    ATTRIBUTE,
    HARDWARE,
    RESULT,
    SETTING,
    TAG,
    Columns,
    Header,
    quality_of,
    split_of,
)
from study.analysis.tables.costs import is_cost
from study.errors import DataError

_SETTING_WORDS = {
    *("model", "arch", "architecture", "backbone", "network", "net", "encoder", "optimizer", "optim"),
    *("optimiser", "dataset", "augmentation", "augment", "aug", "scheduler", "schedule", "variant", "method"),
    *("algorithm", "algo", "activation", "precision", "amp", "criterion", "norm", "normalization", "hardware"),
    *("backend", "strategy", "task", "decay", "wd", "dropout", "momentum", "warmup", "beta", "beta1", "beta2"),
    *("betas", "eps", "epsilon", "gamma", "smoothing", "clip", "clipping", "width", "depth", "hidden"),
    *("layers", "heads", "dim", "epochs", "nesterov", "ratio", "prob", "pretrained", "compile", "mixup"),
    *("cutmix", "resolution", "kernel", "init", "alpha", "lambda", "quantization", "dtype", "sampler"),
    *("freeze", "finetune", "lr", "accelerator"),
}
_MEASURED_WORDS = {
    *("loss", "losses", "acc", "accuracy", "error", "err", "f1", "auc", "auroc", "recall", "top1", "top5"),
    *("perplexity", "ppl", "bleu", "score", "reward", "mse", "mae", "rmse", "metric", "metrics", "iou", "miou"),
    *("r2", "gap", "sharpness", "throughput", "util", "utilization", "utilisation", "memory", "mem", "vram"),
    *("power", "watts", "energy", "joules", "flops", "mfu", "latency", "temp", "speed", "bytes", "mb", "gib"),
    *("cost", "usd", "price", "heartbeat", "allocated", "best", "last", "seen", "elapsed", "completed"),
    *("trained", "reached", "time", "timestamp", "date", "datetime", "runtime", "duration", "sec", "second"),
    *("seconds", "ms", "minutes", "hours", "created", "updated", "started"),
}
_SETTING_TAILS = {
    *("fn", "func", "function", "type", "name", "weight", "limit", "cap", "scale", "budget"),
}
_PER = {
    *("sec", "second", "s", "step", "iter", "iteration", "minute", "hour", "day", "joule", "usd"),
    *("watt", "epoch"),
}
_RATES = {"s", "sec", "second", "min", "h", "hour"}
_NAMES = {
    *(
        "gpu_id",
        "device_id",
        "gpu_index",
        "cuda_visible_devices",
        "run",
        "run_id",
        "trial",
        "trial_id",
        "id",
        "uuid",
        "name",
        "run_name",
        "trial_name",
        "exp_name",
    ),
    *("experiment_name", "experiment_id", "experiment", "experiment_tag", "job_id", "job_name", "display_name"),
    *("number", "index", "idx", "row", "user", "username", "author", "host", "hostname", "node", "node_ip"),
    *("nodename", "ip", "pid", "logdir", "sweep", "port", "notes", "note", "description"),
    *("tags", "tag", "comment", "commit", "git_commit", "git_sha", "source_name", "source_type"),
    *("checkpoint_dir_name", "should_checkpoint", "trial_num", "run_number"),
    *("iterations_since_restore", "training_iteration", "epoch", "step", "global_step", "trainer_global_step"),
    *("project", "seed", "random_seed", "seed_index", "random_state", "lifecycle_stage", "resume", "job_type"),
    *("replicate", "repeat", "iteration", "iter", "github", "entity", "start", "end", "begin"),
    *("finished", "ended", "command", "args", "argv", "program", "executable", "python", "python_version", "os"),
    *("cpu_count", "agent", "server"),
}
_TIME_WORDS = {
    "time",
    "timestamp",
    "date",
    "datetime",
    "created",
    "updated",
    "started",
    "runtime",
    "duration",
    "elapsed",
}
_SEEDS = {"seed", "random_seed", "seed_index", "random_state", "rng_seed", "manual_seed"}
_NAMED = {"run", "logger", "wandb", "mlflow", "experiment", "exp", "trial", "job", "host", "user", "project", "hydra"}
_NAMED |= {"sweep", "session", "worker", "process", "node", "entity", "display"}
_PLACE_WORDS = {
    "uri",
    "url",
    "path",
    "dirpath",
    "dir",
    "directory",
    "logdir",
    "uuid",
    "hostname",
    "checkpoint",
    "ckpt",
    "pid",
}
_SPLIT_TAILS = {"size", "split", "ratio", "fraction", "frac", "interval", "every", "crop", "res", "resolution", "scale"}
_LEAST_ROWS = 3  # of which so large a share of distinct values is that of a measurement or a name
_DISTINCT = 0.75


def is_setting_by_name(head: Header) -> bool:
    """Return whether a header by itself says that the column is a setting."""
    if _is_name(head) or head.internal:
        return False
    if head.kind == SETTING:
        return True
    return (
        head.kind in ("", TAG)
        and not _is_measured(head)
        and (head.leaf in HARDWARE or bool(set(head.leaf.split("_")) & _SETTING_WORDS))
    )


def _is_name(head: Header) -> bool:
    """Return whether a header is that of a run's name, place or time, or of its seed."""
    tokens = head.tokens
    if head.plain in _NAMES or head.leaf in _SEEDS or (head.kind == TAG and tokens[0] == "mlflow"):
        return True
    if tokens[-1] in {"id", "name"}:  # of what has a name: logger.name, but not model.name
        return bool(set(tokens) & _NAMED)
    return bool(set(head.leaf.split("_")) & _PLACE_WORDS) and not set(tokens) & (_SETTING_WORDS | {"data", "tokenizer"})


def _is_measured(head: Header) -> bool:
    tokens = head.leaf.split("_")
    if head.kind == RESULT or quality_of(head) is not None or is_cost(head) or re.fullmatch(r"values_\d+", head.plain):
        return True
    if len(head.parts) > 1 and tokens == [head.leaf] and head.leaf in _RATES:
        return True  # img/s
    if tokens[-1] in _SETTING_TAILS or tokens[0] == "target":
        return False
    if {"grad", "norm"} <= set(tokens) or {"gradient", "norm"} <= set(tokens):
        return not {"clip", "max"} & set(tokens)
    if head.leaf.startswith(("lr_", "learning_rate_")) or any(a == "per" and b in _PER for a, b in pairwise(tokens)):
        return True
    return bool(set(head.tokens) & _MEASURED_WORDS)


def _is_setting(columns: Columns, head: Header) -> bool | None:
    """Return whether a column holds settings, by its name and kind of cells; None where these do not say."""
    if _is_name(head) or head.internal:
        return False
    if head.kind == SETTING:
        return True
    if head.plain == "value" and any(name.startswith("params_") for name in columns.names):
        return False  # Optuna's objective
    words = not columns.is_numeric(head.name)
    if _is_measured(head) and (not words or set(head.tokens) & _TIME_WORDS or head.kind == RESULT):
        return False
    if head.kind == ATTRIBUTE and not words:
        return False
    fractions = _has_fractions(columns, head)
    if split_of(head.tokens) and fractions and head.leaf.rpartition("_")[2] not in _SPLIT_TAILS:
        return False  # val_dice, test_ece
    if is_setting_by_name(head):
        return head.leaf.rpartition("_")[2] != "precision" or not fractions  # a metric is called so too
    return None


def _has_fractions(columns: Columns, head: Header) -> bool:
    numbers = columns.numbers(head.name) if columns.is_numeric(head.name) else []
    return any(value is not None and value != int(value) for value in numbers)


def _looks_measured(columns: Columns, head: Header, rows: Sequence[int]) -> bool:
    """Return whether a column seems to hold measurements or names: fractions or words that nearly all differ."""
    values = [value for value in (_value(columns, head.name, i) for i in rows) if value]
    differ = len(set(values)) > _DISTINCT * len(values) and len(values) >= _LEAST_ROWS
    return differ and (not columns.is_numeric(head.name) or _has_fractions(columns, head))


def varying(columns: Columns, key: Sequence[str], rows: Sequence[int], used: Sequence[str]) -> dict[str, list[str]]:
    """Return settings that vary among `rows` (from 0) that are equal in all `key` columns, with their values.

    Columns that only their cells show not to be settings are noted.
    """
    by_key: dict[Hashable, list[int]] = defaultdict(list)
    for i in rows:
        by_key[tuple(_value(columns, name, i) for name in key)].append(i)
    found, measured = {}, []
    for head in columns.filled:
        if head.name in (*key, *used) or "batch" in head.leaf:
            continue
        if not any(len({_value(columns, head.name, i) for i in same}) > 1 for same in by_key.values()):
            continue
        setting = _is_setting(columns, head)
        if setting is None and _looks_measured(columns, head, rows):
            measured.append(head.name)
        elif setting is not False:
            values = dict.fromkeys(_value(columns, head.name, i) for i in rows)
            found[head.name] = [value or "nothing" for value in values]
    if measured:
        columns.sheet.note(
            f"Taken for measurements or names, by their cells: {', '.join(measured)}; --config names those that are "
            "settings, --as-seeds those that are not."
        )
    return found


def _value(columns: Columns, name: str, i: int) -> str:
    cell = columns.sheet.cells[name][i]
    if is_blank(cell):
        return ""
    try:
        return f"{columns.number(cell):.12g}"
    except ValueError:
        return str(cell).strip()


def refuse_varying(columns: Columns, found: dict[str, list[str]]) -> None:
    """Raise DataError for settings that vary within a configuration."""
    if not found:
        return
    listed = ", ".join(f"{name} ({_some(values)})" for name, values in found.items())
    names = ",".join(found)
    raise DataError(
        f"{columns.source}: settings vary within a configuration: {listed}; they are not averaged as seeds: say "
        f"--config {names} to distinguish configurations, --group-by {names} for separate fronts, or "
        f"--as-seeds {names}"
    )


def _some(values: Sequence[str]) -> str:
    return ", ".join(values[:3]) + (", ..." if len(values) > 3 else "")
