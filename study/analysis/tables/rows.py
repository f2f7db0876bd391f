"""A table's rows to what each says of one run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from study.analysis.statistics.critical import StepsToTarget
from study.analysis.tables.cells import is_blank, is_missing
from study.analysis.tables.columns import Columns
from study.analysis.tables.costs import is_cost
from study.analysis.tables.curves import Roles, last_rows
from study.analysis.tables.file_reader import Sheet
from study.analysis.tables.finals import diverged_rows, final_values, note_huge
from study.analysis.tables.objectives import find_objectives
from study.analysis.tables.rates import find_rate, logged_rates
from study.analysis.tables.reading import Choices, Reading, Row
from study.analysis.tables.scale import find_batch, find_devices
from study.analysis.tables.states import flags, named_states, note_lengths, state_columns, why_not_final
from study.analysis.tables.varying import refuse_varying, varying
from study.errors import DataError


def read_rows(sheet: Sheet, choices: Choices) -> Reading:
    """Return the rows of a table, read by their columns. Raises DataError, one line."""
    return _Reader(sheet, choices).reading()


class _Reader:
    """Which columns mean what, and rows read by them."""

    def __init__(self, sheet: Sheet, choices: Choices) -> None:
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
        self.group_by = [columns.named(word, "--group-by") for word in choices.group_by]
        self.config = self._find_config()
        self.cost, self.quality = find_objectives(
            columns, choices.minimize, choices.maximize, self.devices, self.target is not None
        )
        self.as_seeds = self._find_as_seeds()
        self.pooled: list[str] = []

    def _find_target(self) -> tuple[str, str] | None:
        """What the way to the target is counted in, and the column that has it."""
        for meaning in ("steps_to_target", "samples_to_target", "epochs_to_target"):
            column = self.columns.find(meaning)
            if column is not None:
                if meaning == "epochs_to_target" and self.columns.find("dataset_size") is None:
                    raise DataError(f"{self.source}: {column}: needs a column dataset_size to become steps")
                return meaning, column
        return None

    def _find_config(self) -> list[str]:
        named = [self.columns.named(word, "--config") for word in self.choices.config]
        if named:
            return named if self.batch in named else [self.batch, *named]
        varies = self.devices is not None and len({*self.columns.numbers(self.devices)} - {None}) > 1
        return [self.batch, self.devices] if self.devices is not None and varies else [self.batch]

    def _find_as_seeds(self) -> list[str] | None:
        """The columns of --as-seeds; None if it says all."""
        if list(self.choices.as_seeds) == ["all"] and "all" not in self.columns.names:
            return None
        return [self.columns.named(word, "--as-seeds") for word in self.choices.as_seeds]

    def reading(self) -> Reading:
        """The rows, once curves are brought to their last and what is not final is censored."""
        columns, sheet = self.columns, self.sheet
        n_rows = len(sheet.numbers)
        self._leave_out_unknown()
        for i in range(len(sheet.numbers)):
            self._whole(i, self.batch)
        cost, quality = (one.column if one else None for one in (self.cost, self.quality))
        key = dict.fromkeys(name for name in (*self.config, *self.group_by, self.seed) if name is not None)
        roles = Roles(tuple(key), cost, quality, self.seed, None if self.lr in key else self.lr)
        progress, scheduled = last_rows(columns, roles, self.as_seeds is None)
        if scheduled:
            self.lr = None
        before_curves = n_rows if progress is None else len(sheet.numbers)
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
        without = [sheet.numbers[i] for i in final if self.seed is not None and is_missing(sheet.cells[self.seed][i])]
        if without:
            sheet.note(f"{self.seed} is empty in {_rows(without)}: each counts as a seed of its own.")
        if progress is None and self.reached is None:
            note_lengths(columns, [*self.config, *self.group_by], final)
        note_huge(columns, final)
        self._note_repeats(final)
        costs, qualities = self._figures(final)
        rates = self._rates(final)
        rows = [self._row(i, word, costs, qualities, rates[i]) for i, word in enumerate(why)]
        rows = self._with_known_rates(rows)
        return Reading(
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
        found += [
            *states,
            *(name for name, *_ in flags(columns)),
            columns.chosen.get("run"),
            columns.chosen.get("state"),
        ]
        rates = [] if columns.chosen.get("lr", "") is None else logged_rates(columns)
        return [name for name in (*found, *rates, *self.config) if name is not None]

    def _states(self) -> list[str]:
        others = [] if "state" in self.columns.chosen else [name for name, *_ in flags(self.columns)]
        return [*state_columns(self.columns), *others]

    def _leave_out_unknown(self) -> None:
        """Rows without a batch size, as of evaluations: they belong to no configuration."""
        sheet = self.sheet
        empty = {i for i, cell in enumerate(sheet.cells[self.batch]) if is_missing(cell)}
        if not empty:
            return
        status = state_columns(self.columns)
        for i in sorted(empty):
            results = [one.column for one in (self.quality,) if one] + ([self.target[1]] if self.target else [])
            if any(not is_missing(sheet.cells[name][i]) for name in results) and not status:
                raise sheet.error(i, self.batch, "a whole number of at least 1")
        sheet.note(f"Left out: {_rows([sheet.numbers[i] for i in sorted(empty)])} without {self.batch}.")
        sheet.keep([i for i in range(len(sheet.numbers)) if i not in empty])
        if not sheet.numbers:
            raise DataError(f"{self.source}: {self.batch}: no row has one")

    def _without_quality(self, why: list[str]) -> list[str]:
        """Leave out final rows without a quality, as of evaluations; what is left of `why`."""
        if self.quality is None or self.target is not None:
            return why
        sheet = self.sheet
        cells = sheet.cells[self.quality.column]
        empty = {i for i, word in enumerate(why) if not word and is_missing(cells[i])}
        if not empty:
            return why
        if len(empty) == len(why):
            raise sheet.error(0, self.quality.column, "a finite number")
        sheet.note(f"Left out: {_rows([sheet.numbers[i] for i in sorted(empty)])} without {self.quality.column}.")
        kept = [i for i in range(len(why)) if i not in empty]
        sheet.keep(kept)
        return [why[i] for i in kept]

    def _without_settings(self, why: list[str]) -> list[str]:
        """Leave out censored rows whose configuration is not known; what is left of `why`."""
        sheet = self.sheet
        names = [*self.config, *self.group_by]
        empty = {i for i, word in enumerate(why) if word and any(is_blank(sheet.cells[name][i]) for name in names)}
        if not empty:
            return why
        sheet.note(
            f"Left out: {_rows([sheet.numbers[i] for i in sorted(empty)])}, unfinished and without all settings."
        )
        kept = [i for i in range(len(why)) if i not in empty]
        sheet.keep(kept)
        return [why[i] for i in kept]

    def _note_censored(self, why: Sequence[str]) -> None:
        reasons = Counter(word for word in why if word and word != "not reached")
        if reasons:
            listed = ", ".join(f"{n} {word}" for word, n in sorted(reasons.items()))
            self.sheet.note(f"Censored: {sum(reasons.values())} of {len(why)} rows are no final results ({listed}).")

    def _note_repeats(self, final: Sequence[int]) -> None:
        cells, seen, repeated = self.sheet.cells, set[Hashable](), []
        for i in final:
            row = tuple(str(column[i]) for column in cells.values())
            if row in seen:
                repeated.append(self.sheet.numbers[i])
            seen.add(row)
        if repeated:
            self.sheet.note(
                f"All columns of {_rows(repeated)} are those of an earlier row: each counts as a seed; leave out what "
                "is the same run."
            )

    def _check_settings(self, final: Sequence[int]) -> None:
        """What varies within a configuration must be a seed, or called so."""
        pooled = self.as_seeds or []
        key = [name for name in (*self.config, *self.group_by, self.lr) if name is not None and name not in pooled]
        found = varying(self.columns, key, final, [*self._used(), *pooled])
        self.pooled = list(found) if self.as_seeds is None else self.as_seeds
        refuse_varying(self.columns, {name: values for name, values in found.items() if name not in self.pooled})

    def _figures(self, final: list[int]) -> tuple[dict[int, float], dict[int, float]]:
        """Costs and qualities of final rows, signed so that less cost and more quality are better."""
        if self.cost is None or self.quality is None:
            return {}, {}
        sheet = self.sheet
        if self.target is not None:  # beside steps to a target, figures may be missing
            final = [i for i in final if not is_missing(sheet.cells[self.quality.column][i])]
        costs = final_values(self.columns, self.cost, final)
        qualities = final_values(self.columns, self.quality, final)
        head = self.columns.headers.get(self.cost.column)
        for i, value in costs.items():
            if value < 0 and (head is None or is_cost(head)):
                raise sheet.error(i, self.cost.column, "a number of at least 0")
        return (
            {i: -value if self.cost.maximize else value for i, value in costs.items()},
            {i: value if self.quality.maximize else -value for i, value in qualities.items()},
        )

    def _rates(self, final: Sequence[int]) -> list[float | None]:
        """Learning rates by row; a rate of 0 or none is unknown."""
        rates: list[float | None] = [None] * len(self.sheet.numbers)
        if self.lr is None or self.lr in self.pooled:
            return rates
        for i, cell in enumerate(self.sheet.cells[self.lr]):
            if is_missing(cell) or str(cell).strip().lower() == "nan":
                continue
            try:
                rate = self.columns.number(cell)
            except ValueError:
                raise self.sheet.error(i, self.lr, "a number above 0") from None
            rates[i] = rate or None
            if rate < 0:
                raise self.sheet.error(i, self.lr, "a number above 0")
        unknown = [self.sheet.numbers[i] for i in final if rates[i] is None]
        if unknown:
            self.sheet.note(f"{self.lr} is 0 or empty in {_rows(unknown)}: the learning rate is unknown there.")
        return rates

    def _with_known_rates(self, rows: list[Row]) -> list[Row]:
        """Rows of unknown rate: with the only rate of their configuration, or left out beside several rates."""
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
        self.sheet.note(f"Left out: {_rows(sorted(unknown))} of unknown rate beside several rates.")
        return [row for row in rows if row.number not in unknown]

    def _row(
        self, i: int, why: str, costs: Mapping[int, float], qualities: Mapping[int, float], rate: float | None
    ) -> Row:
        """Row i, from 0. Raises DataError naming row and column."""
        batch = self._whole(i, self.batch)
        seed = self.sheet.cells[self.seed][i] if self.seed else None
        return Row(
            number=self.sheet.numbers[i],
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
            return None  # it gave up, nobody knows when
        count = self._positive(i, column)
        per_step = {"steps_to_target": 1.0, "samples_to_target": 1.0 / batch}
        if meaning == "epochs_to_target" and self.size is not None:
            per_step[meaning] = self._positive(i, self.size) / batch
        return StepsToTarget(batch, count * per_step[meaning], not censored)

    def _setting(self, i: int, column: str) -> str:
        cell = self.sheet.cells[column][i]
        if is_blank(cell):
            raise self.sheet.error(i, column, "a value, since it tells configurations apart")
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

    def _meanings(self, rows: Sequence[Row]) -> dict[str, str]:
        """The columns by what they were taken for."""
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


def _rows(numbers: Sequence[int]) -> str:
    """`row 3`, or `rows 3, 5, 9 and 4 more`."""
    if len(numbers) == 1:
        return f"row {numbers[0]}"
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"rows {', '.join(map(str, numbers[:5]))}{more}"
