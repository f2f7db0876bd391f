"""The rows of a table as runs: settings, seed, cost, quality and state."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from study.analysis.statistics.critical import StepsToTarget
from study.analysis.tables.cells import is_blank, is_missing
from study.analysis.tables.columns import Columns
from study.analysis.tables.costs import is_cost
from study.analysis.tables.curves import Roles, last_rows
from study.analysis.tables.file_reader import Sheet, numbers_text
from study.analysis.tables.final_rows import (
    OF_CONFIGURATION,
    diverged_rows,
    final_values,
    named_states,
    note_huge_losses,
    note_lengths,
    state_columns,
    state_flags,
    why_not_final,
)
from study.analysis.tables.objectives import Objective, find_objectives
from study.analysis.tables.settings import find_batch, find_devices, find_rate, learning_rates, logged_rates
from study.analysis.tables.varying import refuse_varying, varying
from study.errors import DataError


@dataclass(frozen=True)
class ReadOptions:
    """The options of `read_table`, which explains them."""

    config: Sequence[str]
    group_by: Sequence[str]
    minimize: Sequence[str]
    maximize: Sequence[str]
    as_seeds: Sequence[str]
    named: Mapping[str, str]


@dataclass(frozen=True)
class RunRow:
    """One run of the table: its settings, and its result or why it has none."""

    number: int  # of its row in the file, from 1
    group: str
    settings: tuple[tuple[str, str], ...]
    pooled: tuple[str, ...]  # values of settings that --as-seeds names
    batch_size: int
    lr: float | None
    seed: str | None
    why: str  # why it is not a final result, in a word or two; empty if it is one
    cost: float | None  # signed; None if censored
    quality: float | None
    run: StepsToTarget | None

    @property
    def censored(self) -> bool:
        """Return whether the run is not a final result."""
        return bool(self.why)

    @property
    def counts_against(self) -> bool:
        """Return whether the run ended early because of its configuration, not because of the machine."""
        return self.why in OF_CONFIGURATION


@dataclass(frozen=True)
class ReadRows:
    """The rows of a table and how they were read."""

    source: str
    rows: list[RunRow]
    cost: Objective | None
    quality: Objective | None
    columns: dict[str, str]
    n_left_out: int
    as_seeds: tuple[str, ...]
    notes: list[str]
    sheet: Sheet
    others: tuple[str, ...]  # columns without a role

    def differing_columns(self, one: RunRow, other: RunRow) -> str:
        """Return the names of columns without a role in which two rows differ, at most 6."""
        numbers = self.sheet.row_numbers
        i, j = numbers.index(one.number), numbers.index(other.number)
        found = [name for name in self.others if str(self.sheet.cells[name][i]) != str(self.sheet.cells[name][j])]
        return ", ".join(found[:6])


def read_rows(sheet: Sheet, choices: ReadOptions) -> ReadRows:
    """Return the rows of a table as runs. Raises DataError, one line."""
    return _Reader(sheet, choices).reading()


class _Reader:
    """Finds the columns with a role, then reads the rows by them."""

    def __init__(self, sheet: Sheet, choices: ReadOptions) -> None:
        self.sheet = sheet
        self.source = self.sheet.source
        self.choices = choices
        self.columns = columns = Columns(self.sheet, choices.named)
        self.devices = find_devices(columns)
        self.batch = find_batch(columns, self.devices)
        self.lr, self.seed = find_rate(columns), columns.find("seed", "seed")
        known = {"batch_size": self.batch, "lr": self.lr, "seed": self.seed, "world_size": self.devices}
        for word, name in known.items():
            if name is not None:
                columns.meanings[word] = name
        self.reached = columns.find("reached")
        self.target = self._find_target()
        self.size = columns.find("dataset_size")
        self.group_by = [columns.resolve(word, "--group-by") for word in choices.group_by]
        self.config = self._find_config()
        self.cost, self.quality = find_objectives(
            columns, choices.minimize, choices.maximize, self.devices, self.target is not None
        )
        self.as_seeds = self._find_as_seeds()
        self.pooled: list[str] = []

    def _find_target(self) -> tuple[str, str] | None:
        """Return the meaning and the column of steps, samples or epochs to the target; None without such a column."""
        for meaning in ("steps_to_target", "samples_to_target", "epochs_to_target"):
            column = self.columns.find(meaning)
            if column is not None:
                if meaning == "epochs_to_target" and self.columns.find("dataset_size") is None:
                    raise DataError(f"{self.source}: {column}: needs a column dataset_size to become steps")
                return meaning, column
        return None

    def _find_config(self) -> list[str]:
        named = [self.columns.resolve(word, "--config") for word in self.choices.config]
        if named:
            return named if self.batch in named else [self.batch, *named]
        varies = self.devices is not None and len({*self.columns.numbers(self.devices)} - {None}) > 1
        return [self.batch, self.devices] if self.devices is not None and varies else [self.batch]

    def _find_as_seeds(self) -> list[str] | None:
        """Return the columns that --as-seeds names; None if it says all."""
        if list(self.choices.as_seeds) == ["all"] and "all" not in self.columns.names:
            return None
        return [self.columns.resolve(word, "--as-seeds") for word in self.choices.as_seeds]

    def reading(self) -> ReadRows:
        """Return the rows, after curves are reduced to their last row and rows that are not final are censored."""
        columns, sheet = self.columns, self.sheet
        n_rows = len(sheet.row_numbers)
        self._leave_out_unknown()
        for i in range(len(sheet.row_numbers)):
            self._whole(i, self.batch)
        cost, quality = (one.column if one else None for one in (self.cost, self.quality))
        key = dict.fromkeys(name for name in (*self.config, *self.group_by, self.seed) if name is not None)
        roles = Roles(tuple(key), cost, quality, self.seed, None if self.lr in key else self.lr)
        progress, scheduled = last_rows(columns, roles, self.as_seeds is None)
        if scheduled:
            self.lr = None
        before_curves = n_rows if progress is None else len(sheet.row_numbers)
        why = why_not_final(columns, self.batch, self.reached, progress)
        diverged = diverged_rows(columns, self.quality)
        why = [word or ("diverged" if i in diverged else "") for i, word in enumerate(why)]
        why = self._without_quality(why)
        why = self._without_settings(why)
        self._note_censored(why)
        final = [i for i, word in enumerate(why) if not word]
        if not final and self.target is None:
            reasons = ", ".join(f"{n} {word}" for word, n in Counter(why).items())
            raise DataError(f"{self.source}: no row is a final result ({reasons})")
        self._check_settings(final)
        if self.seed is not None:
            without = [i for i in final if is_missing(sheet.cells[self.seed][i])]
            if without:
                sheet.note(f"{self.seed} is empty in {sheet.rows_text(without)}: each counts as another seed.")
        if progress is None and self.reached is None:
            note_lengths(columns, [*self.config, *self.group_by], final)
        note_huge_losses(columns, final)
        self._note_repeats(final)
        costs, qualities = self._objectives(final)
        rates = learning_rates(columns, None if self.lr in self.pooled else self.lr, final)
        rows = [self._row(i, word, costs, qualities, rates[i]) for i, word in enumerate(why)]
        rows = self._with_known_rates(rows)
        return ReadRows(
            source=self.source,
            rows=rows,
            cost=self.cost,
            quality=self.quality,
            columns=self._meanings(rows),
            n_left_out=before_curves - len(rows),
            as_seeds=tuple(self.pooled),
            notes=sheet.notes,
            sheet=sheet,
            others=tuple(name for name in columns.names if name not in self._used()),
        )

    def _used(self) -> list[str]:
        columns = self.columns
        target = [self.target[1]] if self.target else []
        axes = [one.column for one in (self.cost, self.quality) if one]
        found = [self.batch, self.lr, self.seed, self.devices, self.reached, *self.group_by, *target, *axes]
        states = named_states(columns) if "state" in columns.chosen else state_columns(columns)
        flags = [name for name, *_ in state_flags(columns)]
        found += [*states, *flags, columns.chosen.get("run"), columns.chosen.get("state")]
        rates = [] if columns.chosen.get("lr", "") is None else logged_rates(columns)
        return [name for name in (*found, *rates, *self.config) if name is not None]

    def _states(self) -> list[str]:
        others = [] if "state" in self.columns.chosen else [name for name, *_ in state_flags(self.columns)]
        return [*state_columns(self.columns), *others]

    def _leave_out_unknown(self) -> None:
        """Leave out rows without a batch size, as those of evaluations: they belong to no configuration."""
        sheet = self.sheet
        empty = {i for i, cell in enumerate(sheet.cells[self.batch]) if is_missing(cell)}
        if not empty:
            return
        status = state_columns(self.columns)
        for i in sorted(empty):
            results = [one.column for one in (self.quality,) if one] + ([self.target[1]] if self.target else [])
            if any(not is_missing(sheet.cells[name][i]) for name in results) and not status:
                raise sheet.error(i, self.batch, "a whole number of at least 1")
        sheet.note(f"Left out: {sheet.rows_text(empty)} without {self.batch}.")
        sheet.keep([i for i in range(len(sheet.row_numbers)) if i not in empty])
        if not sheet.row_numbers:
            raise DataError(f"{self.source}: {self.batch}: no row has one")

    def _without_quality(self, why: list[str]) -> list[str]:
        """Leave out final rows without a quality, as those of evaluations, and return `why` of the other rows."""
        if self.quality is None or self.target is not None:
            return why
        sheet = self.sheet
        cells = sheet.cells[self.quality.column]
        empty = {i for i, word in enumerate(why) if not word and is_missing(cells[i])}
        if not empty:
            return why
        if len(empty) == len(why):
            raise sheet.error(0, self.quality.column, "a finite number")
        return self._leave_out(empty, f" without {self.quality.column}", why)

    def _without_settings(self, why: list[str]) -> list[str]:
        """Leave out censored rows without all settings, and return `why` of the other rows."""
        cells, names = self.sheet.cells, [*self.config, *self.group_by]
        empty = {i for i, word in enumerate(why) if word and any(is_blank(cells[name][i]) for name in names)}
        return self._leave_out(empty, ", unfinished and without all settings", why) if empty else why

    def _leave_out(self, rows: set[int], because: str, why: Sequence[str]) -> list[str]:
        self.sheet.note(f"Left out: {self.sheet.rows_text(rows)}{because}.")
        kept = [i for i in range(len(why)) if i not in rows]
        self.sheet.keep(kept)
        return [why[i] for i in kept]

    def _note_censored(self, why: Sequence[str]) -> None:
        reasons = Counter(word for word in why if word and word != "not reached")
        if reasons:
            listed = ", ".join(f"{n} {word}" for word, n in sorted(reasons.items()))
            self.sheet.note(f"Censored: {sum(reasons.values())} of {len(why)} rows are not final results ({listed}).")

    def _note_repeats(self, final: Sequence[int]) -> None:
        cells, seen, repeated = self.sheet.cells, set[Hashable](), []
        for i in final:
            row = tuple(str(column[i]) for column in cells.values())
            if row in seen:
                repeated.append(i)
            seen.add(row)
        if repeated:
            self.sheet.note(
                f"All columns of {self.sheet.rows_text(repeated)} are those of an earlier row: each counts as a seed; "
                "leave out rows of the same run."
            )

    def _check_settings(self, final: Sequence[int]) -> None:
        """Raise DataError for settings that vary within a configuration and are not counted as seeds."""
        pooled = self.as_seeds or []
        key = [name for name in (*self.config, *self.group_by, self.lr) if name is not None and name not in pooled]
        found = varying(self.columns, key, final, [*self._used(), *pooled])
        self.pooled = list(found) if self.as_seeds is None else self.as_seeds
        refuse_varying(self.columns, {name: values for name, values in found.items() if name not in self.pooled})

    def _objectives(self, final: list[int]) -> tuple[dict[int, float], dict[int, float]]:
        """Return costs and qualities of final rows (from 0), signed so that less cost and more quality are better."""
        if self.cost is None or self.quality is None:
            return {}, {}
        if self.target is not None:  # with steps to a target, a quality may be missing
            cells = self.sheet.cells[self.quality.column]
            final = [i for i in final if not is_missing(cells[i])]
        costs, qualities = (final_values(self.columns, one, final) for one in (self.cost, self.quality))
        head = self.columns.headers.get(self.cost.column)
        for i, value in costs.items():
            if value < 0 and (head is None or is_cost(head)):
                raise self.sheet.error(i, self.cost.column, "a number of at least 0")
        return (
            {i: -value if self.cost.maximize else value for i, value in costs.items()},
            {i: value if self.quality.maximize else -value for i, value in qualities.items()},
        )

    def _with_known_rates(self, rows: list[RunRow]) -> list[RunRow]:
        """Return rows of unknown rate with the only rate of their configuration, and without them if it has several."""
        known: dict[Hashable, set[float]] = defaultdict(set)
        for row in rows:
            if row.lr is not None:
                known[row.group, row.settings].add(row.lr)
        unknown = {row.number for row in rows if row.lr is None and known[row.group, row.settings]}
        if not unknown:
            return rows
        if max(map(len, known.values())) == 1:
            self.sheet.note("Rows of unknown rate are counted with the only rate of their configuration.")
            one = {key: next(iter(rates)) for key, rates in known.items() if rates}
            return [replace(row, lr=one[row.group, row.settings]) if row.number in unknown else row for row in rows]
        self.sheet.note(f"Left out: {numbers_text(sorted(unknown))} of unknown rate beside several rates.")
        return [row for row in rows if row.number not in unknown]

    def _row(
        self, i: int, why: str, costs: Mapping[int, float], qualities: Mapping[int, float], rate: float | None
    ) -> RunRow:
        """Return what row i (from 0) says. Raises DataError naming row and column."""
        batch = self._whole(i, self.batch)
        seed = self.sheet.cells[self.seed][i] if self.seed else None
        return RunRow(
            number=self.sheet.row_numbers[i],
            group=", ".join(self._setting(i, name) for name in self.group_by),
            settings=tuple((name, self._setting(i, name)) for name in self.config),
            pooled=tuple(str(self.sheet.cells[name][i]) for name in self.pooled),
            batch_size=batch,
            lr=rate,
            seed=None if self.seed is None or is_missing(seed) else self._setting(i, self.seed),
            why=why,
            cost=costs.get(i),
            quality=qualities.get(i),
            run=self._run(i, batch, bool(why)),
        )

    def _run(self, i: int, batch: int, censored: bool) -> StepsToTarget | None:
        if self.target is None:
            return None
        meaning, column = self.target
        if censored and is_missing(self.sheet.cells[column][i]):
            return None  # it ended without the target, and when is not known
        count = self._positive(i, column)
        per_step = {"steps_to_target": 1.0, "samples_to_target": 1.0 / batch}
        if meaning == "epochs_to_target" and self.size is not None:
            per_step[meaning] = self._positive(i, self.size) / batch
        return StepsToTarget(batch, count * per_step[meaning], not censored)

    def _setting(self, i: int, column: str) -> str:
        cell = self.sheet.cells[column][i]
        if is_blank(cell):
            raise self.sheet.error(i, column, "a value, since it distinguishes configurations")
        try:
            return f"{self.columns.number(cell):.12g}"  # 32, 32.0 and "32" are one setting
        except ValueError:
            return str(cell).strip()

    def _whole(self, i: int, column: str) -> int:
        value = self._number(i, column, "a whole number of at least 1")
        if value < 1 or value != int(value):
            raise self.sheet.error(i, column, "a whole number of at least 1")
        return int(value)

    def _positive(self, i: int, column: str) -> float:
        value = self._number(i, column, "a number above 0")
        if value <= 0:
            raise self.sheet.error(i, column, "a number above 0")
        return value

    def _number(self, i: int, column: str, allowed: str) -> float:
        try:
            return self.columns.number(self.sheet.cells[column][i])
        except ValueError:
            raise self.sheet.error(i, column, allowed) from None

    def _meanings(self, rows: Sequence[RunRow]) -> dict[str, str]:
        """Return the columns by the role that they were read in, for users."""
        ways = {True: "higher", False: "lower"}
        found = {"batch size": self.batch}
        for what, one in (("cost", self.cost), ("quality", self.quality)):
            if one is not None:
                unit = " in seconds" if one.column in self.columns.in_seconds else ""
                found[what] = f"{one.column}{unit}, {ways[one.maximize]} is better"
        for what, name in (
            ("seed", self.seed),
            ("learning rate", self.lr),
            ("devices", self.devices),
            ("state", ", ".join(self._states()) or None),
            ("steps to target", self.target[1] if self.target else None),
            ("reached", self.reached),
            ("group", ", ".join(self.group_by) or None),
        ):
            if name is not None:
                found[what] = name
        rates = {row.lr for row in rows} - {None}
        if self.lr is not None and len(rates) > 1 and self.lr not in self.config:
            found["learning rate"] += f", each configuration at its best of {len(rates)}"
        others = [name for name in self.config if name not in (self.batch, self.devices)]
        if others:
            found["configuration"] = ", ".join(others)
        return found
