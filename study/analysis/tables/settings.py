"""The settings of a run: devices, global batch size (never that of one device or part) and learning rate."""

from __future__ import annotations

from collections.abc import Sequence

from study.analysis.tables.cells import is_missing
from study.analysis.tables.columns import RESULT, SETTING, TRAINING, VALIDATION, Columns, Header, batch_kind, option
from study.errors import DataError

_ALL_DEVICES = (
    *("world_size", "num_processes", "n_ranks", "num_ranks", "total_gpus", "total_devices"),
    "scaling_config_num_workers",  # Ray's; elsewhere num_workers load data
)
_PER_NODE = ("gpus_per_node", "devices_per_node", "nproc_per_node", "n_gpus_per_node", "num_gpus_per_node")
_DEVICES = (
    *("num_gpus", "n_gpus", "n_gpu", "ngpus", "ngpu", "num_devices", "n_devices", "device_count", "gpu_count"),
    *("number_of_gpus", "no_of_gpus", "num_gpu", "num_accelerators", "gpus", "devices", "accelerators"),
)
_SHARDED = {"parallel", "parallelism", "tp", "pp"}  # devices that hold parts of one model
_LIGHTNING = ("gpus", "devices")  # of one node, where there are several
_NODES = ("num_nodes", "n_nodes", "nnodes", "nodes", "num_machines")


def find_devices(columns: Columns) -> str | None:
    """Return the column with the number of devices of each run, computed from nodes where they are several; or None."""
    if "devices" in columns.chosen:
        return columns.chosen["devices"]
    if everywhere := _counts(columns, _ALL_DEVICES):
        return columns.merge(everywhere, "world_size", "devices")
    nodes = _counts(columns, _NODES)
    several = bool(nodes) and any((n or 1) > 1 for n in columns.numbers(nodes[0].name))
    per_node, plainly = _counts(columns, _PER_NODE), _counts(columns, _DEVICES)
    if several and not per_node and plainly and plainly[0].leaf not in _LIGHTNING:
        raise DataError(
            f"{columns.source}: {plainly[0].name} may be of one node or of all {nodes[0].name}; "
            f"name the number of all devices with {option('devices')}"
        )
    if several and (per_node or plainly):
        one = columns.merge(per_node or plainly, "devices per node", "devices")
        name = columns.merge(nodes, "nodes", "devices")
        columns.sheet.note(f"Devices: {one} x {name}.")
        return columns.add(f"{one} x {name}", _product(columns, (one, name)))
    if found := plainly or per_node:
        return columns.merge(found, "world_size", "devices")
    for head in columns.filled:
        if {head.plain, head.leaf} & {*_ALL_DEVICES, *_PER_NODE, *_DEVICES}:
            columns.sheet.note(
                f"{head.name} is not a number of devices in every row, and is not used; {option('devices')} names one, "
                "or none."
            )
    return None


def _counts(columns: Columns, words: Sequence[str]) -> list[Header]:
    """Return columns of these names that hold whole numbers of at least 1, likeliest first."""
    found = []
    for word in words:
        for head in columns.filled:
            if word not in (head.plain, head.leaf) or not columns.is_numeric(head.name):
                continue
            if all(n is None or (n >= 1 and n == int(n)) for n in columns.numbers(head.name)):
                found.append(head)
    return found


def _product(columns: Columns, names: Sequence[str]) -> list[float | None]:
    products: list[float | None] = []
    for row in zip(*(columns.numbers(name) for name in names), strict=True):
        whole = 1.0
        for factor in row:
            whole = whole * factor if factor is not None else float("nan")
        products.append(None if whole != whole else whole)
    return products


def find_batch(columns: Columns, devices: str | None) -> str:
    """Return the column with the global batch size. Raises DataError where none surely is that."""
    if "batch" in columns.chosen:
        chosen = columns.chosen["batch"]
        if chosen is None:
            raise DataError(f"{columns.source}: {option('batch')} none: a table is analysed by its batch sizes")
        return chosen
    kinds: dict[str, list[Header]] = {"global": [], "bare": [], "part": []}
    for head in columns.filled:
        if kind := batch_kind(head):
            kinds[kind].append(head)
    accumulation = columns.find("accumulation")
    whole, bare, part = (_likeliest(kinds[kind]) for kind in ("global", "bare", "part"))
    if whole:
        name = columns.merge(whole, "batch_size", "batch")
        for other in bare:
            if (row := columns.first_difference(name, other.name)) is not None:
                columns.sheet.note(
                    f"{other.name} is not {name} (row {columns.sheet.row_numbers[row]}): the global batch size is "
                    f"{name}."
                )
        return name
    if bare and part:
        return _bare_beside_part(columns, bare, part[0].name, devices, accumulation)
    if bare:
        name = columns.merge(bare, "batch_size", "batch")
        _doubt_bare(columns, name, devices, accumulation)
        return name
    if part:
        return _multiplied(columns, columns.merge(part, "batch size of a part", "batch"), devices, accumulation)
    raise columns.missing_column("batch_size", remedy=f"; {option('batch')} names it")


def _likeliest(heads: Sequence[Header]) -> list[Header]:
    """Return the likeliest: settings before logged values, then the least nested."""
    heads = [h for h in heads if h.kind == SETTING] or [h for h in heads if h.kind != RESULT] or list(heads)
    exact = [h for h in heads if h.plain == "batch_size"]
    return exact + [h for h in sorted(heads, key=lambda h: len(h.parts)) if h not in exact]


def _more_than_one(columns: Columns, name: str | None) -> bool:
    return name is not None and any((n or 1) > 1 for n in columns.numbers(name))


def _doubt_bare(columns: Columns, name: str, devices: str | None, accumulation: str | None) -> None:
    """Note that a batch size that does not say its kind is read as the global one. Raises DataError if in doubt."""
    if accumulation is not None and _more_than_one(columns, accumulation):
        raise DataError(
            f"{columns.source}: {name} may be the batch of one part, since {accumulation} is above 1; "
            f"{option('batch')} {name} says that it is the global one, else add a column global_batch_size"
        )
    if devices is not None and _more_than_one(columns, devices):
        columns.sheet.note(
            f"{name} is taken for the global batch size, of all {devices} together; {option('batch')} {name} says so."
        )


def _bare_beside_part(
    columns: Columns, bare: Sequence[Header], part: str, devices: str | None, accumulation: str | None
) -> str:
    """Return the global batch size where batch_size is beside micro_batch_size, decided by their values."""
    name = columns.merge(bare, "batch_size", "batch")
    if devices is not None:
        product = _product(columns, [part, devices, *([accumulation] if accumulation else [])])
        pairs = list(zip(columns.numbers(name), product, columns.numbers(part), strict=True))
        pairs = [row for row in pairs if None not in row]
        if all(a == b for a, b, _ in pairs):
            return name
        if all(a == c for a, _, c in pairs):
            return _multiplied(columns, part, devices, accumulation)
        if all(a % b == 0 for a, b, _ in pairs if a and b):
            columns.sheet.note(f"{name} is a multiple of {part} x {devices}: it is taken for the global batch size.")
            return name
    else:
        both = [(a, b) for a, b in zip(columns.numbers(name), columns.numbers(part), strict=True) if a and b]
        if any(a != b for a, b in both) and all(a % b == 0 for a, b in both):
            columns.sheet.note(f"{name} is a multiple of {part}: it is taken for the global batch size.")
            return name
    raise DataError(
        f"{columns.source}: neither {name} nor {part} is certain to be the global batch size; name it with "
        f"{option('batch')}"
    )


def _multiplied(columns: Columns, part: str, devices: str | None, accumulation: str | None) -> str:
    if "node" in columns.headers[part].tokens:
        raise DataError(
            f"{columns.source}: {part} is the batch size of one node; name the global batch size with {option('batch')}"
        )
    if devices is None:
        raise DataError(
            f"{columns.source}: {part} is the batch size of one device or part, and no column has the number of "
            f"devices; name the global batch size with {option('batch')}, or the devices with {option('devices')}"
        )
    for head in columns.filled:
        if _SHARDED & set(head.tokens) and "data" not in head.tokens and _more_than_one(columns, head.name):
            raise DataError(
                f"{columns.source}: {part} is the batch size of one device or part, and {head.name} devices share one; "
                f"name the global batch size with {option('batch')}"
            )
    factors = [part, devices, *([accumulation] if accumulation else [])]
    known = "." if accumulation else "; no column has an accumulation."
    columns.sheet.note(f"The global batch size is {' x '.join(factors)}{known}")
    return columns.add("global_batch_size", _product(columns, factors))


_CONFIGURED = (
    *("learning_rate", "base_lr", "initial_lr", "init_lr", "peak_lr", "max_lr", "lr0", "eta"),
    *("initial_learning_rate", "base_learning_rate", "peak_learning_rate", "max_learning_rate"),
)


def logged_rates(columns: Columns) -> list[str]:
    """Return columns with a learning rate that no tracker calls a setting: they may hold a schedule's last value."""
    names = ("lr", *_CONFIGURED)
    return [h.name for h in columns.filled if h.kind != SETTING and (h.plain in names or h.leaf in names)]


def find_rate(columns: Columns) -> str | None:
    """Return the column with the configured learning rate, None if there is none."""
    if "lr" in columns.chosen:
        return columns.chosen["lr"]
    ranked: dict[int, list[Header]] = {}
    logged = []
    for head in columns.filled:
        if head.leaf not in ("lr", *_CONFIGURED) and head.plain not in ("lr", *_CONFIGURED):
            continue
        of_figures = head.kind != SETTING and set(head.tokens[:-1]) & (TRAINING | VALIDATION)
        if head.kind == RESULT or of_figures:
            logged.append(head.name)
            continue
        configured = head.kind == SETTING or len(head.parts) > 1
        ranked.setdefault(0 if configured else 1 if head.leaf in _CONFIGURED else 2, []).append(head)
    if not ranked:
        if logged:
            columns.sheet.note(
                f"{logged[0]} was logged and may be the last of a schedule: the learning rate is unknown; "
                f"{option('lr')} names one."
            )
        return None
    best, *others = (ranked[rank] for rank in sorted(ranked))
    name = columns.merge(sorted(best, key=lambda head: len(head.parts)), "lr", "lr")
    for head in (head for same in others for head in same):
        if columns.first_difference(name, head.name) is not None:
            columns.sheet.note(f"{head.name} is not {name}: the configured rate is {name}.")
    return name


def learning_rates(columns: Columns, name: str | None, final: Sequence[int]) -> list[float | None]:
    """Return the learning rate of each row, None where it is unknown: 0, empty, or without a column.

    Unknown rates of `final` rows (from 0) are noted. Raises DataError for a cell that is not a number of at least 0.
    """
    sheet = columns.sheet
    rates: list[float | None] = [None] * len(sheet.row_numbers)
    if name is None:
        return rates
    for i, cell in enumerate(sheet.cells[name]):
        if is_missing(cell) or str(cell).strip().lower() == "nan":
            continue
        try:
            rate = columns.number(cell)
        except ValueError:
            raise sheet.error(i, name, "a number above 0") from None
        if rate < 0:
            raise sheet.error(i, name, "a number above 0")
        rates[i] = rate or None
    unknown = [i for i in final if rates[i] is None]
    if unknown:
        sheet.note(f"{name} is 0 or empty in {sheet.rows_text(unknown)}: the learning rate is unknown there.")
    return rates
