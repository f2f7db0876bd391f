"""The columns of a table: what their headers say by themselves, and which column has which meaning."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study.analysis.tables.cells import is_blank, is_missing, number
from study.analysis.tables.file_reader import Sheet
from study.errors import DataError, did_you_mean

# The kinds of columns by the prefixes of trackers: W&B's API, MLflow's search_runs, Ray's and Optuna's data frames.
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
_EXTRA_WORDS = {"final", "last", "mean", "avg", "average", "epoch", "score", "metric", "metrics", "end", "value"}
PERCENT = {"pct", "percent", "percentage", "perc"}


@dataclass(frozen=True)
class Family:
    """The spellings of one measure of quality, such as accuracy or loss, and which direction is better."""

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
    """The parts of one column's header: `metrics.val/Accuracy` is a result with the parts val and accuracy."""

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
    """Return a header without its tracker's prefix, in lower case: val_accuracy for `metrics.val/Accuracy`."""
    return header(name).plain


def _plain(text: str) -> str:
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text.strip())
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def split_of(tokens: Iterable[str]) -> str:
    """Return the data that a measure is of by its last word that names any: validation, test, training, or empty."""
    split = ""
    for token in tokens:
        for name, words in (("validation", VALIDATION), ("test", TEST), ("training", TRAINING)):
            if token in words:
                split = name
    return split


@dataclass(frozen=True)
class QualityColumn:
    """A column that holds a measure of quality, by its name."""

    header: Header
    family: Family
    split: str  # validation, test, training, or empty
    best: bool  # the best of a run, not its last
    wordy: bool  # named with words that add nothing, such as final or mean


def quality_of(head: Header) -> QualityColumn | None:
    """Return the measure of quality that a header names; None if it names none, or a setting."""
    if head.kind == SETTING:
        return None
    tokens = head.tokens
    core = [token for token in tokens if token not in VALIDATION | TEST | TRAINING]
    best = any(token in _BEST for token in core)
    wordy = any(token in _EXTRA_WORDS for token in core)
    short = "_".join(token for token in core if token not in _BEST | _EXTRA_WORDS | PERCENT)
    for family in FAMILIES:
        if short in family.words:
            return QualityColumn(head, family, split_of(tokens), best, wordy)
    return None


# Words in names of batch sizes, which say whose samples they count.
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
    """Return global, part (of one device or step), bare (it does not say), or empty: not a training batch size."""
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


# Names of columns that say what hardware a run had.
HARDWARE = {
    *("gpu", "gpu_type", "gpu_name", "device", "device_name", "hardware", "accelerator"),
    *("instance_type", "machine"),
}


# Each meaning with its other names, likeliest first.
SETTINGS: dict[str, tuple[str, ...]] = {
    "seed": ("random_seed", "seed_index", "random_state", "rng_seed", "manual_seed", "seed_everything", "global_seed"),
    "dataset_size": ("n_train", "train_samples", "num_examples", "n_samples"),
    "accumulation": (
        *("accumulate_grad_batches", "gradient_accumulation_steps", "grad_accumulation_steps", "grad_accum_steps"),
        *("gradient_accumulation", "grad_accumulation", "grad_accum", "accumulation_steps", "accum_steps", "accum"),
    ),
}
TARGETS: dict[str, tuple[str, ...]] = {
    "steps_to_target": ("updates_to_target", "iterations_to_target"),
    "epochs_to_target": (),
    "samples_to_target": ("examples_to_target",),
    "reached": ("reached_target", "target_reached", "converged"),
}
STATES: dict[str, tuple[str, ...]] = {
    "status": ("state", "run_state", "run_status", "trial_state", "trial_status", "job_status"),
}
KNOWN = SETTINGS | TARGETS | STATES


class Columns:
    """Finds the columns of one table by their meaning. Raises DataError for options that name no column."""

    def __init__(self, sheet: Sheet, named: Mapping[str, str]) -> None:
        self.sheet = sheet
        self.source = sheet.source
        self.names = list(sheet.cells)
        self.headers = {name: header(name) for name in self.names}
        # Empty columns mean nothing: W&B exports those of other runs' settings.
        self.filled = [h for h in self.headers.values() if not all(map(is_blank, sheet.cells[h.name]))]
        self.meanings: dict[str, str] = {}  # columns that were found, by meaning: bs for batch_size
        self.direction_given: set[str] = set()  # columns that --minimize or --maximize names
        self.in_seconds: set[str] = set()  # columns that were computed from durations or times
        self.chosen: dict[str, str | None] = {}  # by role, as the options say; None for no column
        self.chosen = {role: self._chosen(role, word) for role, word in named.items()}

    def _chosen(self, role: str, word: str) -> str | None:
        if word.strip().lower() == "none" and word not in self.names:
            return None
        return self.resolve(word, option(role))

    def find(self, meaning: str, role: str = "") -> str | None:
        """Return the column with this meaning, None if there is none; `role` is that of the option that names it.

        Columns of one meaning that agree become one. Raises DataError for those that differ.
        """
        if role in self.chosen:
            return self.chosen[role]
        wanted = SETTING if meaning in SETTINGS else RESULT
        for alias in (meaning, *KNOWN[meaning]):
            same = [h for h in self.filled if h.plain == alias and not (wanted == RESULT and h.kind == SETTING)]
            same = [h for h in same if h.kind == wanted] or same
            exact = [h for h in same if h.name == alias] or same
            if exact:
                return self.merge(exact, meaning, role)
        if meaning in SETTINGS:  # data.seed, in configs that nest
            for alias in (meaning, *KNOWN[meaning]):
                nested = [h for h in self.filled if h.leaf == alias and h.kind != RESULT]
                least = min((len(h.parts) for h in nested), default=0)
                if nested:
                    return self.merge([h for h in nested if len(h.parts) == least], meaning, role)
        return None

    def merge(self, same: Sequence[Header], meaning: str, role: str = "") -> str:
        """Return the first of columns whose names fit a meaning equally well, its gaps filled from the others.

        Raises DataError where they differ.
        """
        first = same[0].name
        for other in same[1:]:
            different = self.first_difference(first, other.name)
            if different is not None:
                cells = self.sheet.cells
                remedy = f"name one with {option(role)}" if role else "keep one"
                raise DataError(
                    f"{self.source}: columns {first!r} and {other.name!r} both mean {meaning} and differ (row "
                    f"{self.sheet.row_numbers[different]}: {_short(cells[first][different])}, "
                    f"{_short(cells[other.name][different])}); {remedy}"
                )
            self.sheet.cells[first] = [
                b if is_blank(a) else a
                for a, b in zip(self.sheet.cells[first], self.sheet.cells[other.name], strict=True)
            ]
        return first

    def first_difference(self, one: str, other: str, same: Callable[[Any, Any], bool] | None = None) -> int | None:
        """Return the first row (from 0) in which two columns hold different values, None if there is none."""
        same = same or self.same
        for i, (a, b) in enumerate(zip(self.sheet.cells[one], self.sheet.cells[other], strict=True)):
            if not is_blank(a) and not is_blank(b) and not same(a, b):
                return i
        return None

    def same(self, a: Any, b: Any) -> bool:
        """Return whether two cells hold one value; numbers are compared as numbers."""
        try:
            return abs(self.number(a) - self.number(b)) <= 1e-9 * abs(self.number(a))
        except ValueError:
            return str(a).strip() == str(b).strip()

    def number(self, cell: Any) -> float:
        """Return a cell as a finite number, by the table's decimal sign. Raises ValueError."""
        return number(cell, self.sheet.decimal_comma, self.sheet.mixed_point)

    def is_numeric(self, name: str) -> bool:
        """Return whether a column holds finite numbers, at least one, and empty cells only."""
        cells = [cell for cell in self.sheet.cells[name] if not is_missing(cell)]
        try:
            return bool([self.number(cell) for cell in cells])
        except ValueError:
            return False

    def resolve(self, word: str, option: str) -> str:
        """Return the column that a user means by `word`: its header, its bare name, its last part, or a known meaning.

        Raises DataError, with the most similar name, if there is no such column.
        """
        if word in self.names:
            return word
        bare = [name for name in self.names if name.strip().lower() == word.strip().lower()]
        bare = bare or [name for name in self.names if plain(name) == plain(word)]
        bare = bare or [name for name in self.names if self.headers[name].leaf == plain(word)]
        if len(bare) > 1:
            raise DataError(f"{self.source}: {option} {word}: may be {' or '.join(bare[:4])}; write one in full")
        found = bare[0] if bare else self.meanings.get(plain(word)) or (self.find(word) if word in KNOWN else None)
        if found is None:
            raise self.missing_column(word, option)
        return found

    def missing_column(self, word: str, option: str = "", remedy: str = "") -> DataError:
        """Return the error for a column that does not exist, with those that do."""
        hint = did_you_mean(word, self.names) or did_you_mean(plain(word), map(plain, self.names))
        shown = ", ".join(self.names[:12]) + (", ..." if len(self.names) > 12 else "")
        asked = f" for {option}" if option else ""
        return DataError(f"{self.source}: no column {word!r}{asked}{hint}; there are {shown}{remedy}")

    def numbers(self, name: str) -> list[float | None]:
        """Return the numbers of a column by row, None where a cell is not a number."""
        found: list[float | None] = []
        for cell in self.sheet.cells[name]:
            try:
                found.append(self.number(cell))
            except ValueError:
                found.append(None)
        return found

    def add(self, name: str, cells: list[Any]) -> str:
        """Add a column that was computed from others, and return its name."""
        while name in self.sheet.cells:
            name += "'"
        self.sheet.cells[name] = cells
        return name


def option(role: str) -> str:
    """Return the option that names the column of a role."""
    return f"--{role}-column"


def _short(cell: Any) -> str:
    return str(cell).strip()[:40]
