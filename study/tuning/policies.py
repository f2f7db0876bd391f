"""Makes the search policy of a config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from study.config.schema import AshaConfig, GridConfig, RidgeConfig
from study.planning.trials import Plan, TrialSpec, whole_in_unit
from study.schedulers.asha import Asha, MoAsha
from study.schedulers.base import Action, Grid, Policy
from study.schedulers.frontier_asha import PROFILES, FrontierAsha
from study.schedulers.ridge import CARES, Candidate, Ridge


def make_policy(plan: Plan, specs: Sequence[TrialSpec]) -> Policy:
    """Return the policy for some search trials, in the order in which they run."""
    scheduler = plan.config.scheduler
    trials = [spec.trial_id for spec in specs]
    if isinstance(scheduler, GridConfig) or not specs:
        return Grid(trials)
    if isinstance(scheduler, AshaConfig):
        end = max(whole_in_unit(scheduler, spec) for spec in specs)
        kind = TuneAsha if scheduler.kind == "asha" else MoAsha
        return kind(trials, scheduler.grace, scheduler.eta, end)
    if isinstance(scheduler, RidgeConfig):
        candidates = [
            Candidate(spec.trial_id, spec.cell.variant, spec.cell.batch_size, spec.lr, spec.report_shares)
            for spec in specs
        ]
        return Ridge(candidates, CARES[scheduler.profile])
    return FrontierAsha(
        cells={spec.trial_id: spec.cell for spec in specs},
        reports={spec.cell: spec.report_shares for spec in specs},
        profiles=PROFILES[scheduler.profile],
        min_completions=scheduler.min_completions,
        synchronous=scheduler.synchronous,
    )


@dataclass(frozen=True)
class _TuneTrial:
    """The part of a Tune trial that Ray's scheduler reads."""

    trial_id: str


class TuneAsha(Asha):
    """Ray's ASHAScheduler itself as a Policy. It does not stop a trial at its end."""

    def __init__(self, trials: Sequence[str], grace: float, eta: float, end: float) -> None:
        super().__init__(trials, grace, eta, end)
        self._asha = ASHAScheduler("at", "score", "max", max_t=end, grace_period=grace, reduction_factor=eta)
        for trial in trials:
            self._asha.on_trial_add(None, _TuneTrial(trial))

    def report(self, trial: str, at: float, score: float, cost: float) -> Action:
        """Do what `Policy` says of this method."""
        decision = self._asha.on_trial_result(None, _TuneTrial(trial), {"at": at, "score": score})
        return "stop" if decision == TrialScheduler.STOP else "continue"
