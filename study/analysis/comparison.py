"""Several studies compared: their fronts on one cost axis, and the differences of their configs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import ValidationError

from study.analysis.records import TIME_AXES, Summary
from study.analysis.statistics import Floats
from study.analysis.statistics.samples import Sample
from study.analysis.statistics.uncertainty import MIN_SEEDS, FrontPoint, draw_places, frontier, hypervolumes
from study.analysis.summary.points import point_samples
from study.config.objective import Objective
from study.config.schema import StudyConfig
from study.config.sections import CostAxis
from study.errors import ConfigError

N_DRAWS = 2000
_NOT_COMPARED = ("name",)  # keys without influence on the result


@dataclass(frozen=True)
class Compared:
    """One of the studies compared. Ratios are to the hypervolume of the first study, and None for the first itself."""

    name: str
    points: tuple[FrontPoint, ...]  # on_front and p_on_front refer to the front of this study alone
    on_joint_front: tuple[bool, ...]  # the front of the points of all studies together
    hypervolume: float  # against the reference that all studies share
    ratio: float | None
    ratio_ci: tuple[float, float] | None  # 95%; None if a point of either study has under 3 seeds


@dataclass(frozen=True)
class Change:
    """A key of the config whose value differs between studies."""

    key: str  # path, joined by dots
    values: tuple[object, ...]  # one for each study; None where it lacks the key


@dataclass(frozen=True)
class Comparison:
    """Studies side by side, in the order given."""

    cost_axis: CostAxis
    leaves_out_setup: bool  # the cost axis leaves out the billed setup of cold groups
    objective: Objective
    reference: tuple[float, float]  # of the hypervolumes: the highest cost of all points, and a least quality
    studies: tuple[Compared, ...]
    changes: tuple[Change, ...]


def compare(names: Sequence[str], summaries: Sequence[Summary], cost: CostAxis | None = None) -> Comparison:
    """Compare studies on a cost axis, that of the first when left out; the first also decides whether costs include
    setup of cold groups.

    Raises ConfigError for a study without points, without that cost, or of another protocol major than the first.
    """
    axis = cost or summaries[0].cost_axis
    groups = [_samples(name, summary, axis, summaries[0]) for name, summary in zip(names, summaries, strict=True)]
    objective = summaries[0].objective
    everywhere = [sample for samples in groups for sample in samples]
    reference = (
        max(sample.mean_cost for sample in everywhere),
        objective.reference(sample.mean_quality for sample in everywhere),
    )
    joint = frontier([s for samples in groups for s in samples], reference, n_draws=1).points
    draws = [_hypervolume_draws(samples, reference, seed) for seed, samples in enumerate(groups)]
    studies: list[Compared] = []
    taken = 0
    for name, summary, samples, drawn in zip(names, summaries, groups, draws, strict=True):
        front = frontier(samples, reference, summary.cost_tolerance)
        of_all = joint[taken : taken + len(samples)]
        taken += len(samples)
        study = Compared(name, front.points, tuple(p.on_front for p in of_all), front.hypervolume, None, None)
        if studies and studies[0].hypervolume > 0:
            first = draws[0]
            study = replace(
                study,
                ratio=study.hypervolume / studies[0].hypervolume,
                ratio_ci=None if drawn is None or first is None else _interval(drawn / first),
            )
        studies.append(study)
    return Comparison(
        cost_axis=axis,
        leaves_out_setup=axis in TIME_AXES
        and not summaries[0].include_setup
        and any(summary.group_setups for summary in summaries),
        objective=objective,
        reference=reference,
        studies=tuple(studies),
        changes=changes_of([summary.study.config for summary in summaries]),
    )


def changes_of(configs: Sequence[Mapping[str, object]]) -> tuple[Change, ...]:
    """Return the keys that differ between configs, in their order. Keys that an old study lacks had their defaults."""
    flat = [_flat(_completed(config)) for config in configs]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = (Change(key, tuple(one.get(key) for one in flat)) for key in keys if key not in _NOT_COMPARED)
    return tuple(row for row in rows if any(value != row.values[0] for value in row.values[1:]))


def _completed(config: Mapping[str, object]) -> Mapping[str, object]:
    try:
        return StudyConfig.model_validate_json(json.dumps(config)).model_dump(mode="json")
    except ValidationError:
        return config


def _samples(name: str, summary: Summary, axis: CostAxis, first: Summary) -> tuple[Sample, ...]:
    major, wanted = (s.protocol_version.partition(".")[0] for s in (summary, first))
    if major != wanted:
        raise ConfigError(
            f"{name}: protocol {summary.protocol_version} cannot be compared with {first.protocol_version}"
        )
    if (summary.objective.metric, summary.objective.mode) != (first.objective.metric, first.objective.mode):
        raise ConfigError(
            f"{name}: is judged by {summary.objective.metric} ({summary.objective.mode}), the first study by "
            f"{first.objective.metric} ({first.objective.mode})"
        )
    if not summary.points:
        raise ConfigError(f"{name}: no confirm trial has completed, so it has no frontier")
    samples = point_samples(summary.points, summary.trials, axis, first.include_setup)
    if samples is None:
        raise ConfigError(f"{name}: has no {axis}, which the first study's frontier is drawn over")
    return samples


def _hypervolume_draws(samples: Sequence[Sample], reference: tuple[float, float], seed: int) -> Floats | None:
    if min(sample.n_seeds for sample in samples) < MIN_SEEDS:
        return None
    return hypervolumes(*draw_places(samples, N_DRAWS, np.random.default_rng(seed)), reference)


def _interval(ratios: Floats) -> tuple[float, float]:
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def _flat(config: Mapping[str, object], at: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{at}{key}.")
        else:
            flat[f"{at}{key}"] = value
    return flat
