"""What varies among the rows of one configuration: settings must not be averaged as if they were seeds.

A tracker's prefix says what is a setting (config., params., config/) and what was measured (metrics., summary.).
Without one, known words do; then a column whose fractions or words all differ is a measurement or a name, and whatever
is left is a setting.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import pairwise

from study.analysis.tables.cells import is_blank, is_duration_text
from study.analysis.tables.columns import Columns
from study.analysis.tables.costs import is_cost
from study.analysis.tables.names import ATTRIBUTE, RESULT, SETTING, TAG, Header, figure_of
from study.plan.errors import PlanError

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
_NAMES = {
    *("run", "run_id", "trial", "trial_id", "id", "uuid", "name", "run_name", "trial_name", "exp_name"),
    *("experiment_name", "experiment_id", "experiment", "experiment_tag", "job_id", "job_name", "display_name"),
    *("number", "index", "idx", "row", "user", "username", "author", "host", "hostname", "node", "node_ip"),
    *("nodename", "ip", "pid", "logdir", "sweep", "port", "state", "status", "notes", "note", "description"),
    *("tags", "tag", "comment", "commit", "git_commit", "git_sha", "source_name", "source_type"),
    *("checkpoint_dir_name", "should_checkpoint", "done", "trial_num", "run_number"),
    *("iterations_since_restore", "training_iteration", "epoch", "step", "global_step", "trainer_global_step"),
    *("project", "seed", "random_seed", "seed_index", "random_state", "lifecycle_stage", "resume", "job_type"),
    *("replicate", "repeat", "iteration", "iter", "github", "entity", "start", "end", "begin"),
    *("finished", "ended"),
}
_NAME_WORDS = {
    *("uri", "url", "path", "dir", "directory", "logdir", "uuid", "hostname", "checkpoint", "ckpt"),
    *("id", "pid"),
}
_HARDWARE = {
    *("gpu", "gpu_type", "gpu_name", "device", "device_name", "hardware", "accelerator"),
    *("instance_type", "machine"),
}
_LEAST_ROWS = 3  # by which distinct values are taken for a measurement or a name


def is_setting_by_name(head: Header) -> bool:
    """The header says that the column is a setting."""
    if _is_name(head) or head.internal:
        return False
    if head.kind == SETTING:
        return True
    return (
        head.kind in ("", TAG)
        and not _is_measured(head)
        and (head.leaf in _HARDWARE or bool(set(head.leaf.split("_")) & _SETTING_WORDS))
    )


def _is_name(head: Header) -> bool:
    return (
        head.plain in _NAMES
        or head.leaf in _NAMES
        or bool(set(head.leaf.split("_")) & _NAME_WORDS)
        or (head.kind == TAG and head.plain.startswith("mlflow"))
    )


def _is_measured(head: Header) -> bool:
    tokens = head.leaf.split("_")
    if head.kind == RESULT or figure_of(head) is not None or is_cost(head):
        return True
    if tokens[-1] in _SETTING_TAILS or tokens[0] == "target":
        return False
    if {"grad", "norm"} <= set(tokens) or {"gradient", "norm"} <= set(tokens):
        return not {"clip", "max"} & set(tokens)
    if head.leaf.startswith(("lr_", "learning_rate_")) or any(a == "per" and b in _PER for a, b in pairwise(tokens)):
        return True
    return bool(set(head.tokens) & _MEASURED_WORDS)


def is_setting(columns: Columns, head: Header) -> bool:
    """The column holds settings, by its name or else by its cells."""
    if _is_name(head) or head.internal:
        return False
    if head.kind == SETTING:
        return True
    cells = [cell for cell in columns.sheet.cells[head.name] if not is_blank(cell)]
    words = not columns.is_numeric(head.name)
    if _is_measured(head):
        return False
    if head.kind == ATTRIBUTE and not words:
        return False
    fractions = not words and any(value is not None and value != int(value) for value in columns.numbers(head.name))
    if is_setting_by_name(head):
        return head.leaf.rpartition("_")[2] != "precision" or not fractions  # a metric is called so too
    distinct = len({str(cell).strip() for cell in cells}) == len(cells) >= _LEAST_ROWS
    if words:
        return not distinct and not any(map(is_duration_text, cells[:1]))
    return not (distinct and fractions)


def varying(columns: Columns, key: Sequence[str], rows: Sequence[int], used: Sequence[str]) -> dict[str, list[str]]:
    """Settings that vary among `rows` (from 0) that are equal in all `key` columns, with some of their values."""
    by_key: dict[Hashable, list[int]] = defaultdict(list)
    for i in rows:
        by_key[tuple(_value(columns, name, i) for name in key)].append(i)
    found = {}
    for head in columns.filled:
        if head.name in (*key, *used) or "batch" in head.leaf:
            continue
        if not any(len({_value(columns, head.name, i) for i in same}) > 1 for same in by_key.values()):
            continue
        if is_setting(columns, head):
            values = dict.fromkeys(_value(columns, head.name, i) for i in rows)
            found[head.name] = [value or "nothing" for value in values]
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
    """Raise PlanError for settings that vary within a configuration."""
    if not found:
        return
    told = ", ".join(f"{name} ({_some(values)})" for name, values in found.items())
    names = ",".join(found)
    raise PlanError(
        f"{columns.source}: within a configuration there varies {told}; settings are not averaged as seeds: say "
        f"--config {names} to tell configurations apart, --group-by for fronts of their own, or --as-seeds {names}"
    )


def _some(values: Sequence[str]) -> str:
    return ", ".join(values[:3]) + (", ..." if len(values) > 3 else "")
