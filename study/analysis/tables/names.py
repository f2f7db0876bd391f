"""What the headers of trackers' exports say by themselves: whose column it is, and what it is called in plain words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# Where a tracker keeps a column: W&B's API, MLflow's search_runs, Ray's and Optuna's data frames.
SETTING, RESULT, ATTRIBUTE, TAG = "setting", "result", "attribute", "tag"
_PREFIXES = (
    (re.compile(r"(?:config|params|parameters|hparams|hyperparameters|hyper_parameters)[./]", re.IGNORECASE), SETTING),
    (re.compile(r"params_(?!(?:count|total|m|million|millions|num)$)"), SETTING),
    (re.compile(r"(?:metrics|summary|summary_metrics)[./](?:_wandb[./])?|_wandb[./]", re.IGNORECASE), RESULT),
    (re.compile(r"values_(?!\d+$)"), RESULT),
    (re.compile(r"(?:user_attrs|system_attrs)[._]"), ATTRIBUTE),
    (re.compile(r"tags\."), TAG),
)

VALIDATION = {"val", "valid", "validation", "eval", "evaluation", "dev", "holdout", "heldout"}
TEST = {"test", "testing"}
TRAINING = {"train", "training", "trn", "fit"}
_BEST = {"best", "max", "min", "peak", "maximum", "minimum"}
_WORN = {"final", "last", "mean", "avg", "average", "epoch", "score", "metric", "metrics", "end", "value"}
PERCENT = {"pct", "percent", "percentage", "perc"}


@dataclass(frozen=True)
class Family:
    """The spellings of one figure, such as accuracy or loss, and which direction is better."""

    name: str
    maximize: bool
    fraction: bool  # between 0 and 1, or 0 and 100%
    words: frozenset[str]


def _family(name: str, maximize: bool, fraction: bool, words: str = "") -> Family:
    return Family(name, maximize, fraction, frozenset([name, *words.split()]))


# By preference, where a table has several.
FAMILIES = (
    _family(
        "accuracy",
        True,
        True,
        "acc top1 top_1 acc1 acc_1 acc_at_1 top1_acc top1_accuracy acc_top1 accuracy_top1 top_1_acc top_1_accuracy "
        "acc_top_1 accuracy_top_1 prec1 multiclass_accuracy categorical_accuracy "
        "sparse_categorical_accuracy binary_accuracy",
    ),
    _family(
        "error",
        False,
        True,
        "err error_rate err_rate top1_error top1_err top_1_error top_1_err err_top1 error_top1 err_top_1 error_top_1 "
        "err1 err_1 top1_error_rate top_1_error_rate misclassification misclassification_rate",
    ),
    _family("f1", True, True, "f1_macro macro_f1 f1_micro micro_f1"),
    _family("auc", True, True, "auroc roc_auc"),
    _family("iou", True, True, "miou m_io_u"),
    _family("map", True, True, "m_ap"),
    _family("bleu", True, False),
    _family("wer", False, False),
    _family("cer", False, False),
    _family("rmse", False, False),
    _family("mse", False, False),
    _family("mae", False, False),
    _family("perplexity", False, False, "ppl"),
    _family(
        "loss", False, False, "nll ce ce_loss cross_entropy cross_entropy_loss nll_loss xent log_loss logloss bpb bpc"
    ),
)


@dataclass(frozen=True)
class Header:
    """One column's header, taken apart: `metrics.val/Accuracy` is a result with the parts val and accuracy."""

    name: str  # as in the file
    kind: str  # SETTING, RESULT, ATTRIBUTE, TAG, or empty where no tracker's prefix says
    parts: tuple[str, ...]  # nested keys, in lower case with underscores
    internal: bool  # begins with an underscore, as W&B's _runtime

    @property
    def plain(self) -> str:
        """Return the parts joined by underscores, the form that names are compared in."""
        return "_".join(self.parts)

    @property
    def leaf(self) -> str:
        """Return the last part: batch_size of config.data.batch_size."""
        return self.parts[-1]

    @property
    def tokens(self) -> list[str]:
        """Return the words of all parts, in order."""
        return [token for token in self.plain.split("_") if token]


def header(name: str) -> Header:
    """Split a header into its tracker's prefix and the nested parts behind it."""
    kind, rest = "", name.strip()
    for pattern, its in _PREFIXES:
        if (found := pattern.match(rest)) and found.end() < len(rest):
            kind, rest = its, rest[found.end() :]
            break
    rest = rest.removesuffix(".value")
    parts = tuple(part for part in map(_plain, re.split(r"[./](?!\s)", rest)) if part)
    return Header(name, kind, parts or (name.strip().lower(),), rest.startswith("_"))


def plain(name: str) -> str:
    """A header without its tracker's prefix, in lower case with underscores: `metrics.val/Accuracy` is val_accuracy."""
    return header(name).plain


def _plain(text: str) -> str:
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text.strip())
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def split_of(tokens: Iterable[str]) -> str:
    """Which data a figure is of, by the last word that says so: validation, test, training, or empty."""
    split = ""
    for token in tokens:
        for name, words in (("validation", VALIDATION), ("test", TEST), ("training", TRAINING)):
            if token in words:
                split = name
    return split


@dataclass(frozen=True)
class Figure:
    """What a column's name says of a figure of quality."""

    header: Header
    family: Family
    split: str  # validation, test, training, or empty
    best: bool  # the best of a run, not its last
    worn: bool  # named with more words than it needs


def figure_of(head: Header) -> Figure | None:
    """The figure of quality that a header names, None if it names none, or a setting."""
    if head.kind == SETTING:
        return None
    tokens = head.tokens
    core = [token for token in tokens if token not in VALIDATION | TEST | TRAINING]
    best = any(token in _BEST for token in core)
    worn = any(token in _WORN for token in core)
    short = "_".join(token for token in core if token not in _BEST | _WORN | PERCENT)
    for family in FAMILIES:
        if short in family.words:
            return Figure(head, family, split_of(tokens), best, worn)
    return None


# The batch size: whose samples a name counts.
_SIZES = {
    *("batch_size", "batchsize", "batch", "bs", "bsz", "minibatch", "minibatch_size", "mini_batch", "mini_batch_size"),
    *("gbs", "mbs", "microbatch", "microbatch_size", "samples", "imgs"),
}
_GLOBAL = {"global", "effective", "eff", "total", "gbs", "overall", "combined"}
_PARTIAL = {
    *("device", "devices", "gpu", "gpus", "card", "rank", "worker", "replica", "core", "tpu", "process", "node"),
    *("local", "micro", "microbatch", "mbs", "physical", "ghost"),
}
_OF_OTHERS = VALIDATION | TEST | {"predict", "prediction", "inference", "infer", "generation", "sampling"}


def batch_kind(head: Header) -> str:
    """`global`, `part` (per device, or of accumulation), `bare`, or empty for what is no training batch size."""
    tokens = head.leaf.split("_")
    whole = set(head.tokens)
    if whole & _OF_OTHERS:
        return ""
    core = [token for token in tokens if token not in TRAINING | _GLOBAL | _PARTIAL | {"per"}]
    if tokens[-2:] == ["per", "batch"] and tokens[0] in {"ims", "imgs", "images", "samples", "examples", "sequences"}:
        return "global"
    joined = "_".join(core)
    alone = {"gbs", "mbs", "microbatch"} & set(tokens) and joined in {"", "size"}
    if not alone and joined not in _SIZES:
        return ""
    partial, overall = whole & _PARTIAL, set(tokens) & _GLOBAL
    if joined in {"samples", "imgs"}:
        return "part" if partial and "per" in tokens else ""
    if partial:
        return "part"
    return "global" if overall else "bare"


# What a run ran on.
HARDWARE = {
    *("gpu", "gpu_type", "gpu_name", "device", "device_name", "hardware", "accelerator"),
    *("instance_type", "machine"),
}
