"""What the columns of a table from elsewhere are called, and what they mean here."""

from __future__ import annotations

import re
from collections.abc import Sequence

from study.plan.errors import PlanError, did_you_mean

# Each name with what other people call it, likeliest first.
SETTINGS: dict[str, tuple[str, ...]] = {
    "batch_size": ("global_batch_size", "global_batch", "train_batch_size", "batchsize", "batch", "bs"),
    "seed": ("random_seed", "seed_index", "random_state"),
    "lr": ("learning_rate", "base_lr"),
    "world_size": ("n_gpus", "num_gpus", "gpus", "n_devices", "devices"),
    "dataset_size": ("n_train", "train_samples", "num_examples", "n_samples"),
}
COSTS: dict[str, tuple[str, ...]] = {
    "cost": (),
    "device_hours": ("gpu_hours", "device_h", "gpu_h", "billed_device_h", "billed_gpu_h"),
    "usd": ("cost_usd", "dollars", "price_usd"),
    "energy_j": ("energy", "joules", "total_energy_j"),
    "wall_s": ("wall_time_s", "time_s", "seconds", "runtime", "duration_s", "train_time_s", "wall_time"),
}
QUALITIES: dict[str, tuple[str, ...]] = {
    "accuracy": ("val_accuracy", "validation_accuracy", "val_acc", "eval_accuracy", "test_accuracy", "test_acc", "acc"),
    "error": ("val_error", "validation_error", "eval_error", "test_error", "error_rate"),
    "loss": ("val_loss", "validation_loss", "eval_loss", "test_loss"),
}
TARGETS: dict[str, tuple[str, ...]] = {
    "steps_to_target": ("updates_to_target", "iterations_to_target"),
    "epochs_to_target": (),
    "samples_to_target": ("examples_to_target",),
    "reached": ("reached_target", "target_reached", "converged"),
}
STATES: dict[str, tuple[str, ...]] = {"status": ("state",)}  # of an MLflow or W&B run
KNOWN = SETTINGS | COSTS | QUALITIES | TARGETS | STATES
HIGHER_IS_BETTER = {"accuracy"}

# MLflow writes metrics.val_accuracy and params.batch_size, exports of W&B's API summary.* and config.*.
_PREFIX = re.compile(r"^(metrics|summary|params|config)\.")
_RESULT, _SETTING = ("metrics", "summary"), ("params", "config")


class Columns:
    """The columns of one table by their meaning. Raises PlanError for a header that appears twice, or is empty."""

    def __init__(self, names: Sequence[str], source: str) -> None:
        self.names = list(names)
        self.source = source
        for i, name in enumerate(self.names):
            if not name.strip():
                raise PlanError(f"{source}: column {i + 1} has no name")
            if name in self.names[:i]:
                raise PlanError(f"{source}: column {name!r} appears twice")

    def find(self, meaning: str) -> str | None:
        """The column with this meaning, None if there is none.

        Raises PlanError if several columns have an equally good claim to it.
        """
        wanted = _SETTING if meaning in SETTINGS else _RESULT
        for alias in (meaning, *KNOWN[meaning]):
            same = [name for name in self.names if plain(name) == alias]
            # MLflow may hold params.loss, the loss's name, beside metrics.loss.
            fitting = [name for name in same if name == alias or name.startswith(wanted)] or same
            exact = [name for name in fitting if name == alias] or fitting
            if len(exact) > 1:
                raise PlanError(f"{self.source}: columns {exact[0]!r} and {exact[1]!r} both mean {meaning}; keep one")
            if exact:
                return exact[0]
        return None

    def named(self, word: str, option: str) -> str:
        """The column that a user means by `word`: its header, its bare name, or a meaning from above.

        Raises PlanError, with the nearest name there is, if there is no such column.
        """
        if word in self.names:
            return word
        bare = [name for name in self.names if plain(name) == plain(word)]
        found = bare[0] if len(bare) == 1 else self.find(word) if word in KNOWN else None
        if found is None:
            raise self.missing(word, option)
        return found

    def missing(self, word: str, option: str = "") -> PlanError:
        """The error for a column that is not there."""
        hint = did_you_mean(word, self.names) or did_you_mean(plain(word), map(plain, self.names))
        shown = ", ".join(self.names[:12]) + (", ..." if len(self.names) > 12 else "")
        asked = f" for {option}" if option else ""
        return PlanError(f"{self.source}: no column {word!r}{asked}{hint}; there are {shown}")


def plain(name: str) -> str:
    """A header without its tracker's prefix, in lower case with underscores: `metrics.val/Accuracy` is val_accuracy."""
    bare = _PREFIX.sub("", name.strip()).removesuffix(".value")
    return re.sub(r"[^a-z0-9]+", "_", bare.lower()).strip("_")
