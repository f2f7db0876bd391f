"""Which column means what: by the names that people and trackers give, or as the user says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from study.analysis.tables.cells import is_blank, is_missing, number
from study.analysis.tables.file_reader import Sheet
from study.analysis.tables.names import RESULT, SETTING, Header, header, plain
from study.errors import DataError, did_you_mean

# Each name with what other people call it, likeliest first.
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
    """The columns of one table by their meaning. Raises DataError for options that name no column."""

    def __init__(self, sheet: Sheet, named: Mapping[str, str]) -> None:
        self.sheet = sheet
        self.source = sheet.source
        self.names = list(sheet.cells)
        self.headers = {name: header(name) for name in self.names}
        # Columns without content mean nothing, as W&B's of other runs' settings.
        self.filled = [h for h in self.headers.values() if not all(map(is_blank, sheet.cells[h.name]))]
        self.meanings: dict[str, str] = {}  # words of a user's for the columns that were found, as batch_size for bs
        self.insisted: set[str] = set()  # columns whose direction the user has said
        self.in_seconds: set[str] = set()  # columns that were made of durations or of times
        self.chosen: dict[str, str | None] = {}  # by role, as the user says; None for no column
        self.chosen = {role: self._chosen(role, word) for role, word in named.items()}

    def _chosen(self, role: str, word: str) -> str | None:
        if word.strip().lower() == "none" and word not in self.names:
            return None
        return self.named(word, option(role))

    def find(self, meaning: str, role: str = "") -> str | None:
        """The column with this meaning, None if there is none; `role` is that of the option that names it.

        Columns of one meaning that agree become one; raises DataError for those that differ.
        """
        if role in self.chosen:
            return self.chosen[role]
        wanted = SETTING if meaning in SETTINGS else RESULT
        for alias in (meaning, *KNOWN[meaning]):
            same = [h for h in self.filled if h.plain == alias and not (wanted == RESULT and h.kind == SETTING)]
            same = [h for h in same if h.kind == wanted] or same
            exact = [h for h in same if h.name == alias] or same
            if exact:
                return self.one(exact, meaning, role)
        if meaning in SETTINGS:  # data.seed, in configs that nest
            for alias in (meaning, *KNOWN[meaning]):
                nested = [h for h in self.filled if h.leaf == alias and h.kind != RESULT]
                least = min((len(h.parts) for h in nested), default=0)
                if nested:
                    return self.one([h for h in nested if len(h.parts) == least], meaning, role)
        return None

    def one(self, same: Sequence[Header], meaning: str, role: str = "") -> str:
        """The first of columns that have an equally good claim to a meaning, its gaps filled from the others.

        Raises DataError where they differ.
        """
        first = same[0].name
        for other in same[1:]:
            different = self.differ(first, other.name)
            if different is not None:
                cells = self.sheet.cells
                remedy = f"name one with {option(role)}" if role else "keep one"
                raise DataError(
                    f"{self.source}: columns {first!r} and {other.name!r} both mean {meaning} and differ (row "
                    f"{self.sheet.numbers[different]}: {_short(cells[first][different])}, "
                    f"{_short(cells[other.name][different])}); {remedy}"
                )
            self.sheet.cells[first] = [
                b if is_blank(a) else a
                for a, b in zip(self.sheet.cells[first], self.sheet.cells[other.name], strict=True)
            ]
        return first

    def differ(self, one: str, other: str, same: Callable[[Any, Any], bool] | None = None) -> int | None:
        """The first row in which two columns hold different values, None if there is none."""
        same = same or self.same
        for i, (a, b) in enumerate(zip(self.sheet.cells[one], self.sheet.cells[other], strict=True)):
            if not is_blank(a) and not is_blank(b) and not same(a, b):
                return i
        return None

    def same(self, a: Any, b: Any) -> bool:
        """Two cells hold one value, as numbers if they are some."""
        try:
            return abs(self.number(a) - self.number(b)) <= 1e-9 * abs(self.number(a))
        except ValueError:
            return str(a).strip() == str(b).strip()

    def number(self, cell: Any) -> float:
        """A cell's number. Raises ValueError."""
        return number(cell, self.sheet.decimal_comma, self.sheet.mixed_point)

    def is_numeric(self, name: str) -> bool:
        """Every cell that says anything is a finite number, and there is one."""
        cells = [cell for cell in self.sheet.cells[name] if not is_missing(cell)]
        try:
            return bool([self.number(cell) for cell in cells])
        except ValueError:
            return False

    def named(self, word: str, option: str) -> str:
        """The column that a user means by `word`: its header, its bare name, the end of it, or a known meaning.

        Raises DataError, with the nearest name there is, if there is no such column.
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
            raise self.missing(word, option)
        return found

    def missing(self, word: str, option: str = "", remedy: str = "") -> DataError:
        """The error for a column that is not there."""
        hint = did_you_mean(word, self.names) or did_you_mean(plain(word), map(plain, self.names))
        shown = ", ".join(self.names[:12]) + (", ..." if len(self.names) > 12 else "")
        asked = f" for {option}" if option else ""
        return DataError(f"{self.source}: no column {word!r}{asked}{hint}; there are {shown}{remedy}")

    def numbers(self, name: str) -> list[float | None]:
        """The numbers of a column by row, None where there is none."""
        found: list[float | None] = []
        for cell in self.sheet.cells[name]:
            try:
                found.append(self.number(cell))
            except ValueError:
                found.append(None)
        return found

    def add(self, name: str, cells: list[Any]) -> str:
        """A column worked out from others; its name."""
        while name in self.sheet.cells:
            name += "'"
        self.sheet.cells[name] = cells
        return name


def option(role: str) -> str:
    """The option that names the column of a role."""
    return f"--{role}-column"


def _short(cell: Any) -> str:
    return str(cell).strip()[:40]
