"""The schedulers that a replay compares, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from study.analysis.replay.curves import Curve
from study.errors import ConfigError, did_you_mean
from study.schedulers.asha import MoAsha, ReplayAsha
from study.schedulers.base import Grid, Policy
from study.schedulers.frontier_asha import PROFILES, FrontierAsha
from study.schedulers.ridge import CARES, Candidate, Ridge

GRACE, ETA = 1.0, 3.0  # epochs; Ray's rungs are at 1, 3, 9, 27, ...
MIN_COMPLETIONS = 2
RANDOM_SHARE = 0.25

# Takes the trials of a draw in the order to run them, and a generator for the random choices of the scheduler.
Make = Callable[[Sequence[Curve], np.random.Generator], Policy]


@dataclass(frozen=True)
class Contender:
    """A scheduler under one of its profiles."""

    scheduler: str
    profile: str  # empty where the scheduler has only one
    unit: Literal["shares", "epochs", "cost_s"]  # in which the policy measures the progress of a trial
    make: Make


def _frontier(profile: str, synchronous: bool, curves: Sequence[Curve], chance: np.random.Generator) -> Policy:
    cells = {curve.trial_id: curve.cell for curve in curves}
    return FrontierAsha(cells, _reports(curves), PROFILES[profile], MIN_COMPLETIONS, synchronous)


def _ridge(profile: str, curves: Sequence[Curve], chance: np.random.Generator) -> Policy:
    reports = _reports(curves)
    candidates = (
        Candidate(curve.trial_id, curve.cell.variant, curve.cell.batch_size, curve.lr, reports[curve.cell])
        for curve in curves
    )
    return Ridge(candidates, CARES[profile])


def _reports(curves: Sequence[Curve]) -> dict[Hashable, tuple[float, ...]]:
    """Return the lengths at which a whole trial of each cell reports: some curves end early."""
    reports: dict[Hashable, tuple[float, ...]] = {}
    for curve in curves:
        reports[curve.cell] = max(reports.get(curve.cell, ()), curve.shares, key=len)
    return reports


def _asha_in_epochs(curves: Sequence[Curve], chance: np.random.Generator) -> Policy:
    return ReplayAsha(_ids(curves), GRACE, ETA, max(curve.epochs[-1] for curve in curves))


def _asha_in_device_seconds(curves: Sequence[Curve], chance: np.random.Generator) -> Policy:
    """Place rungs from the first report of the cheapest trial to the end of the most expensive one."""
    grace = min(curve.cost_s[0] for curve in curves)
    return ReplayAsha(_ids(curves), grace, ETA, max(curve.cost_s[-1] for curve in curves))


def _mo_asha(curves: Sequence[Curve], chance: np.random.Generator) -> Policy:
    return MoAsha(_ids(curves), GRACE, ETA, max(curve.epochs[-1] for curve in curves))


def _grid(curves: Sequence[Curve], chance: np.random.Generator) -> Policy:
    return Grid(_ids(curves))


def _random(curves: Sequence[Curve], chance: np.random.Generator) -> Policy:
    ids = _ids(curves)
    chosen = chance.permutation(len(ids))[: math.ceil(RANDOM_SHARE * len(ids))]
    return Grid(ids[i] for i in chosen)


def _one_seed(curves: Sequence[Curve], chance: np.random.Generator) -> Policy:
    seed = chance.choice(sorted({curve.seed for curve in curves}))
    return Grid(curve.trial_id for curve in curves if curve.seed == seed)


def _ids(curves: Iterable[Curve]) -> list[str]:
    return [curve.trial_id for curve in curves]


CONTENDERS: Mapping[str, Contender] = {
    "frontier_asha": Contender("frontier_asha", "balanced", "shares", partial(_frontier, "balanced", True)),
    "frontier_asha:quick": Contender("frontier_asha", "quick", "shares", partial(_frontier, "quick", True)),
    "frontier_asha:async": Contender("frontier_asha", "async", "shares", partial(_frontier, "balanced", False)),
    "ridge": Contender("ridge", "balanced", "shares", partial(_ridge, "balanced")),
    "ridge:careful": Contender("ridge", "careful", "shares", partial(_ridge, "careful")),
    "asha": Contender("asha", "epochs", "epochs", _asha_in_epochs),
    "asha:device_seconds": Contender("asha", "device_seconds", "cost_s", _asha_in_device_seconds),
    "mo_asha": Contender("mo_asha", "epochs", "epochs", _mo_asha),
    "grid": Contender("grid", "", "shares", _grid),
    "random": Contender("random", "", "shares", _random),
    "one_seed": Contender("one_seed", "", "shares", _one_seed),
}


def contenders(names: str) -> tuple[Contender, ...]:
    """Return the contenders of a comma-separated list, each once. Raises ConfigError for an unknown name."""
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in wanted:
        if name not in CONTENDERS:
            raise ConfigError(
                f"{name}: must be one of {', '.join(CONTENDERS)}{did_you_mean(name, CONTENDERS)}", "--scheduler"
            )
    if not wanted:
        raise ConfigError(f"names none; allowed: {', '.join(CONTENDERS)}", "--scheduler")
    return tuple(CONTENDERS[name] for name in wanted)
