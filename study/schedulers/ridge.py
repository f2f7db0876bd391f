"""Ridge: a search that learns across batch sizes, and buys the report that improves the choices most per second."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.polynomial.hermite_e import hermegauss

from study.schedulers.base import Action
from study.schedulers.bracket import SLACK
from study.schedulers.rate_surface import NO_RUN, Floats, Ints, Known, Sites, fit

SHARES = (1 / 27, 1 / 9, 2 / 9, 4 / 9, 2 / 3, 1.0)  # of a whole trial; a rung is at the first report that is as far
DRAWS = 96
FINE = 41  # rates of a batch size, where its best one is looked for between those tried
ROUNDING = 1e-9  # of the scale of scores
WORTHWHILE = 0.05  # a report must improve the choices by this share of what is still expected to be lost
_EXPONENT = 50.0  # a score so far below the best is as low as any
_NODES, _NODE_WEIGHTS = hermegauss(15)
_NODE_WEIGHTS = _NODE_WEIGHTS / _NODE_WEIGHTS.sum()


@dataclass(frozen=True)
class Care:
    """When a search ends. Lengths are in full runs per batch size: device time over that of one full trial of each."""

    still: float  # the choices have not changed for so long
    loss: float  # and this is expected to be lost by them, in units of the scale of scores
    most: float  # it ends here at the latest, once what runs has come to its next rung
    expected: float  # it spends about so much, by the replays of benchmarks/schedulers.py


CARES: Mapping[str, Care] = {"balanced": Care(0.4, 0.1, 1.5, 1.4), "careful": Care(0.75, 0.1, 2.0, 1.9)}


@dataclass(frozen=True)
class Candidate:
    """A search trial, and where it lies."""

    trial: str
    family: Hashable  # trials of different families, such as variants, say nothing about one another
    batch_size: int
    rate: float
    reports: tuple[float, ...]  # lengths at its reports, as ascending shares; the last is 1

    @property
    def group(self) -> tuple[Hashable, int]:
        """The trials that one rate is chosen from."""
        return self.family, self.batch_size


class Ridge:
    """Trains few rates far, and predicts the others from the surface of scores (`rate_surface.py`, docs/adr/029).

    It begins with the first rung of every second cell of the grid, a cell being a rate of a batch size. After that it
    asks of each trial and rung: by how much does one more report improve the rates that would be chosen, per second of
    device time? A trial pauses at its rungs. The search ends when the choices stand still and little is expected to be
    lost by them. The chosen rate of a batch size need not be one that was trained.

    Scores enter as z = -ln(1 + (best - score) / scale): differences between good rates count, those between bad ones
    hardly do, and neither unit nor origin of the score matters. A non-finite score counts as the worst seen.
    """

    def __init__(self, candidates: Iterable[Candidate], care: Care) -> None:
        """`candidates` come in the order to run those of one cell."""
        self._care = care
        self._of = {candidate.trial: candidate for candidate in candidates}
        self._grid = _Grid(list(self._of.values()))
        self._rungs = {trial: _rungs(candidate.reports) for trial, candidate in self._of.items()}
        self._first = dict.fromkeys(self._grid.chequerboard())
        self._new = dict.fromkeys(self._of)
        self._running: dict[str, None] = {}
        self._left: dict[str, bool] = {}  # trials that have ended: whether they completed
        self._unheard = set(self._first)  # of these, no report has come to a rung, nor have they ended
        self._last: dict[str, float] = {}  # scores
        self._passed = dict.fromkeys(self._of, 0)  # rungs
        self._at = dict.fromkeys(self._of, 0.0)
        self._cost = dict.fromkeys(self._of, 0.0)
        self._scores: dict[tuple[str, int], float] = {}  # by trial and rung
        self._picks: tuple[int | None, ...] = ()
        self._changed_at_cost = 0.0  # of the search, when a choice last changed
        self._over = False
        self._dropped = False
        self._thought: _Thought | None = None  # about the scores as they are
        self._chosen: tuple[str | None] | None = None  # by `_next`, in the state as it is

    def choose(self) -> str | None:
        """Return first what the search begins with, then the trial whose next reports are worth most."""
        if self._over:
            return None
        for trial in self._first:
            if trial in self._new:
                return trial
        return self._next() if self._scores else next(iter(self._open()), None)

    def begin(self, trial: str) -> None:
        """Do what `Policy` says of this method."""
        self._new.pop(trial, None)
        self._running[trial] = None
        self._chosen = None

    def report(self, trial: str, at: float, score: float, cost: float) -> Action:
        """See Policy; `at` is a share of the trial's length. A trial pauses at each rung, whatever else is known then:
        rows give the same state as the driver that wrote them had.
        """
        self._at[trial], self._cost[trial], self._last[trial] = at, cost, score
        rungs, passed = self._rungs[trial], self._passed[trial]
        while passed < len(rungs) and at + SLACK >= rungs[passed]:
            passed += 1
        if passed == self._passed[trial]:
            return "continue"
        self._passed[trial] = passed
        self._scores[trial, passed - 1] = score
        self._unheard.discard(trial)
        whole = passed == len(rungs)
        if not whole:  # else it runs until it leaves
            self._running.pop(trial, None)
        self._look()
        return "continue" if whole else "pause"

    def leave(self, trial: str, completed: bool) -> None:
        """Do what `Policy` says of this method."""
        self._new.pop(trial, None)
        self._running.pop(trial, None)
        self._left[trial] = completed
        self._unheard.discard(trial)
        last = len(self._rungs[trial]) - 1
        if not completed:
            self._scores[trial, last] = -math.inf
        elif trial in self._last:  # its end may have come early, at a target
            self._scores[trial, last] = self._last[trial]
        self._look()

    def dropped(self) -> list[str]:
        """See Policy: once the search has ended, all trials that have not ended, those that never began included."""
        if not self._over or self._running or self._dropped:
            return []
        self._dropped = True
        return [trial for trial in self._of if trial not in self._left]

    def pauses(self, trial: str) -> frozenset[float]:
        """See Policy: the rungs."""
        return frozenset(self._rungs[trial][:-1])

    def decides(self, trial: str, lengths: Sequence[float]) -> frozenset[float]:
        """See Policy; `lengths` are shares."""
        return self.pauses(trial).intersection(lengths)

    def pick(self, trials: Sequence[str]) -> str | None:
        """See Policy: a trial of the rate with the best expected score at the end."""
        wanted = {self._grid.cell_of[trial]: trial for trial in reversed(trials)}
        picked = self._think().picks if self._scores else ()
        return next((wanted[cell] for cell in picked if cell in wanted), None)

    # What the model says.

    def _look(self) -> None:
        """Note whether the choices have changed, and whether the search has ended. A search that has ended stays so."""
        self._thought = self._chosen = None
        if self._over or self._unheard or not self._scores:
            return
        thought, spent, run = self._think(), sum(self._cost.values()), self._full_run()
        if thought.picks != self._picks:
            self._picks, self._changed_at_cost = thought.picks, spent
        still = (spent - self._changed_at_cost) / run
        settled = still >= self._care.still and thought.loss <= self._care.loss * thought.scale
        self._over = settled or spent / run >= self._care.most or not (self._running or self._open())

    def _open(self) -> list[str]:
        """Return the trials that may be trained further: of each cell those that have begun and one that has not."""
        found, fresh, failed = [], set[int](), self._failed
        for trial in self._of:
            cell = self._grid.cell_of[trial]
            if trial in self._left or trial in self._running or cell in failed:
                continue
            if trial in self._new:
                if cell in fresh:
                    continue
                fresh.add(cell)
            found.append(trial)
        return found

    @property
    def _failed(self) -> set[int]:
        """Cells of which a trial diverged or failed: they are not chosen."""
        return {self._grid.cell_of[trial] for trial, completed in self._left.items() if not completed}

    def _full_costs(self) -> dict[tuple[Hashable, int], float]:
        """Return the cost of a whole trial of each group. The minimum, because noise only adds; the highest cost of any
        group for one that has not reported.
        """
        paces: dict[tuple[Hashable, int], list[float]] = defaultdict(list)
        for trial, at in self._at.items():
            if at:
                paces[self._of[trial].group].append(self._cost[trial] / at)
        known = {group: max(min(some), 1e-12) for group, some in paces.items()}
        return {group: known.get(group, max(known.values(), default=1.0)) for group in self._grid.groups}

    def _full_run(self) -> float:
        """Return the cost of one whole trial of every group, at the mean pace of its trials: what was spent is measured
        by it, and that has the noise in it too. By the minimum a search on a busy machine ended after half its runs.
        """
        spent: dict[tuple[Hashable, int], float] = defaultdict(float)
        shares: dict[tuple[Hashable, int], float] = defaultdict(float)
        for trial, at in self._at.items():
            spent[self._of[trial].group] += self._cost[trial]
            shares[self._of[trial].group] += at
        known = {group: max(spent[group] / share, 1e-12) for group, share in shares.items() if share}
        return sum(known.get(group, max(known.values(), default=1.0)) for group in self._grid.groups)

    def _next(self) -> str | None:
        """Return the trial to train on, None if none is left. It is of a group with the fewest running trials."""
        if self._chosen is None:
            open_trials = self._open()
            running = Counter(self._of[trial].group for trial in self._running)
            fewest = min((running[self._of[trial].group] for trial in open_trials), default=0)
            trials = [trial for trial in open_trials if running[self._of[trial].group] == fewest]
            self._chosen = (self._worth_most(trials),)
        return self._chosen[0]

    def _worth_most(self, trials: Sequence[str]) -> str | None:
        if not trials:
            return None
        thought, sites = self._think(), self._grid.site_of
        on_their_way = [sites[trial, rung] for trial in self._running if (trial, rung := self._passed[trial]) in sites]
        known = thought.surface.known(self._grid.sites.take(np.array(on_their_way, dtype=np.int64)))
        costs = self._full_costs()
        steps = [(trial, rung) for trial in trials for rung in range(self._passed[trial], len(self._rungs[trial]))]
        seconds = [(self._rungs[trial][rung] - self._at[trial]) * costs[self._of[trial].group] for trial, rung in steps]
        gains = thought.gains(known, self._grid.sites.take(np.array([sites[step] for step in steps])))
        best = int(np.argmax(gains / np.array(seconds)))
        if gains[best] >= max(WORTHWHILE * thought.loss, ROUNDING * thought.scale):
            return steps[best][0]
        # No single report helps: train to its end the cell that may be much better than the chosen one.
        rest = [(1 - self._at[trial]) * costs[self._of[trial].group] for trial in trials]
        hopes = [
            thought.hopes[self._grid.cell_of[trial]] / seconds for trial, seconds in zip(trials, rest, strict=True)
        ]
        return trials[int(np.argmax(hopes))]

    def _think(self) -> _Thought:
        if self._thought is None:
            self._thought = _Thought(self._grid, self._scores, self._failed)
        return self._thought


def _rungs(reports: Sequence[float]) -> tuple[float, ...]:
    """Return the rungs of a trial, each at one of its reports; the last is 1."""
    return tuple(dict.fromkeys(next(at for at in reports if at + SLACK >= share) for share in SHARES))


def draw_best_rates(candidates: Sequence[Candidate], scores: Mapping[str, Mapping[float, float]]) -> dict[int, Floats]:
    """Return DRAWS draws of log10 of the best rate of each batch size, on a fine grid between those tried.

    `candidates` are of one family; `scores` holds what they scored at the shares of their reports.
    """
    grid = _Grid(candidates)
    seen = {
        (one.trial, rung): scores[one.trial][at]
        for one in candidates
        for rung, at in enumerate(_rungs(one.reports))
        if at in scores[one.trial]
    }
    values = _Values.of(seen)
    surface = fit(
        grid.sites.take(np.array([grid.site_of[step] for step in seen])), values.transformed(list(seen.values()))
    )
    ends = grid.sites.take(grid.ends)
    tried = [ends.x[ends.group == group] for group in range(len(grid.groups))]
    fine = [np.linspace(x.min(), x.max(), FINE) for x in tried]
    n, group_of = FINE * len(fine), np.repeat(np.arange(len(fine)), FINE)
    between = Sites(
        x=np.concatenate(fine), y=np.array([ends.y[ends.group == one][0] for one in group_of]), t=np.zeros(n),
        family=np.zeros(n, dtype=np.int64), group=group_of, cell=-1 - np.arange(n), run=np.full(n, NO_RUN),
    )  # fmt: skip
    known = surface.known(between.take(np.array([], dtype=np.int64)))
    drawn = surface.means(between) + _normal(known.covariance(between, between))
    best = drawn.reshape(DRAWS, len(fine), FINE).argmax(axis=2)
    return {batch_size: grid.x0 + fine[group][best[:, group]] for group, (_, batch_size) in enumerate(grid.groups)}


def _normal(covariance: Floats) -> Floats:
    """Return DRAWS draws around 0, always the same for the same covariance."""
    jitter = 1e-8 * float(np.diag(covariance).max()) * np.eye(len(covariance))
    lower = np.linalg.cholesky(covariance + jitter)
    return np.asarray(np.random.default_rng(0).standard_normal((DRAWS, len(covariance))) @ lower.T)


class _Grid:
    """The places of all trials at all their rungs, and behind them the end of every cell."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.groups = sorted({candidate.group for candidate in candidates}, key=lambda group: (str(group[0]), group[1]))
        self._candidates = candidates
        cells = sorted({(self.groups.index(one.group), one.rate) for one in candidates})
        self.cell_of = {one.trial: cells.index((self.groups.index(one.group), one.rate)) for one in candidates}
        self.group_of_cell = np.array([group for group, _ in cells])
        families = list(dict.fromkeys(family for family, _ in self.groups))
        log_rates = [math.log10(rate) for _, rate in cells]
        log_batches = [math.log2(batch_size) for _, batch_size in self.groups]
        self.x0, y0 = _middle(log_rates), _middle(log_batches)
        self.site_of: dict[tuple[str, int], int] = {}  # by trial and rung
        rows: list[tuple[float, float, float, int, int, int, int]] = []
        for run, one in enumerate(candidates):
            group = self.groups.index(one.group)
            place = math.log10(one.rate) - self.x0, log_batches[group] - y0
            of = families.index(one.family), group, self.cell_of[one.trial], run
            for rung, at in enumerate(_rungs(one.reports)):
                self.site_of[one.trial, rung] = len(rows)
                rows.append((*place, -math.log(at) / math.log(27), *of))
        for cell, (group, rate) in enumerate(cells):
            family = families.index(self.groups[group][0])
            rows.append((math.log10(rate) - self.x0, log_batches[group] - y0, 0.0, family, group, cell, NO_RUN))
        x, y, t, *which = zip(*rows, strict=True)
        self.sites = Sites(*(np.array(part, dtype=float) for part in (x, y, t)), *map(np.array, which))
        self.ends: Ints = np.arange(len(rows) - len(cells), len(rows))

    def chequerboard(self) -> list[str]:
        """Return a trial of every second cell: one of each group, large batches first, then the next of each."""
        columns = []
        of_family = Counter[Hashable]()
        for group in sorted(self.groups, key=lambda group: -group[1]):
            parity = of_family[group[0]]
            of_family[group[0]] += 1
            trials = {one.rate: one.trial for one in reversed(self._candidates) if one.group == group}
            rates = sorted(trials)
            chosen = rates[parity % 2 if len(rates) > 1 else 0 :: 2]
            columns.append([trials[rate] for rate in chosen])
        return [trial for row in zip_longest(*columns) for trial in row if trial is not None]


def _middle(values: Sequence[float]) -> float:
    return (min(values) + max(values)) / 2


class _Thought:
    """What follows from the scores so far."""

    def __init__(self, grid: _Grid, scores: Mapping[tuple[str, int], float], failed: Iterable[int]) -> None:
        self._grid = grid
        values = _Values.of(scores)
        self.scale = values.scale
        sites = np.array([grid.site_of[step] for step in scores])
        self.surface = surface = fit(grid.sites.take(sites), values.transformed(list(scores.values())))
        ends = grid.sites.take(grid.ends)
        nothing = grid.sites.take(np.array([], dtype=np.int64))
        self._values, self._means, self.shape = values, surface.means(ends), surface.shape
        self._chosen_from = [
            np.setdiff1d(np.flatnonzero(grid.group_of_cell == group), list(failed)) for group in range(len(grid.groups))
        ]
        self._draw(surface.known(nothing), ends)

    def _draw(self, known: Known, ends: Sites) -> None:
        """Draw the final scores of all cells, and choose the best expected one of each group."""
        covariance = known.covariance(ends, ends)
        self.draws = self._values.back(self._means + _normal(covariance))
        expected = self.draws.mean(axis=0)
        self.hopes, losses = np.zeros(len(expected)), []
        picks: list[int | None] = []
        for cells in self._chosen_from:
            picked = int(cells[np.argmax(expected[cells])]) if len(cells) else None
            picks.append(picked)
            if picked is None:
                continue
            ahead = self.draws[:, cells] - self.draws[:, [picked]]
            losses.append(float(ahead.max(axis=1).mean()))
            self.hopes[cells] = np.maximum(ahead, 0).mean(axis=0)
        self.picks = tuple(picks)
        self.loss = sum(losses) / len(self._chosen_from)

    def gains(self, known: Known, sites: Sites) -> Floats:
        """Return by how much one more report, at each of some places, is expected to improve the chosen scores, per
        group: the knowledge gradient (Frazier, Powell and Dayanik 2009), by Gauss-Hermite quadrature over the report.
        `known` counts the reports that are on their way.
        """
        ends = self._grid.sites.take(self._grid.ends)
        left = np.asarray(np.diag(known.covariance(ends, ends)))
        explained = known.covariance(ends, sites) / np.sqrt(known.variances(sites))
        gains = np.zeros(len(sites.x))
        for cells in self._chosen_from:
            if not len(cells):
                continue
            shift, means = explained[cells], self._means[cells]
            rest = np.maximum(left[cells][:, None] - shift**2, 0.0)
            after = self._values.mean_back(means[:, None, None] + shift[:, :, None] * _NODES, rest[:, :, None])
            now = self._values.mean_back(means, left[cells])
            gains += after.max(axis=0) @ _NODE_WEIGHTS - now.max()
        return np.asarray(gains / len(self._chosen_from))


@dataclass(frozen=True)
class _Values:
    """The transform of scores. It is monotone, and neither unit nor origin of the scores matters to it."""

    best: float
    worst: float
    scale: float

    @staticmethod
    def of(scores: Mapping[tuple[str, int], float]) -> _Values:
        """Return the transform for these scores; the scale is of how far behind the best the better trials are."""
        latest = dict[str, tuple[int, float]]()
        for (trial, rung), score in scores.items():
            if trial not in latest or rung >= latest[trial][0]:
                latest[trial] = rung, score
        finite = [score for score in scores.values() if math.isfinite(score)] or [0.0]
        best, worst = max(finite), min(finite)
        behind = [best - (score if math.isfinite(score) else worst) for _, score in latest.values()]
        scale = 0.3 * float(np.quantile(behind, 0.4)) or 0.3 * (best - worst) or 1.0
        return _Values(best, worst, scale)

    def transformed(self, scores: Sequence[float]) -> Floats:
        """Return z of each score; 0 is the best seen."""
        known = np.array([score if math.isfinite(score) else self.worst for score in scores])
        return np.asarray(-np.log1p((self.best - known) / self.scale))

    def back(self, z: Floats) -> Floats:
        """Return the scores of some z."""
        return np.asarray(self.best + self.scale - self.scale * np.exp(np.minimum(-z, _EXPONENT)))

    def mean_back(self, z: Floats, variance: Floats) -> Floats:
        """Return the expected scores of normal z."""
        return self.back(z - variance / 2)
