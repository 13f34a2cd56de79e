"""Rolling state of a primary's paths: what its agents have seen of each target, fast and slow.

A *view* is one agent's picture of one target. Its averages are exponential in event time: a pane counts with
exp(-age / tau) whenever it arrives, so an outage's backlog changes the past and not the present. Three things depend on
what had arrived: delay variation is measured from the least delay known by then, an answer that comes late forgives the
failures after it too, and which silent pane began a loss episode is judged by the panes before it that are known.

*Latency* is a geometric mean (of the panes' means): delay is judged by ratios, and one slow second among good ones
weighs as much as one fast second among bad ones. The fast average decides; the slow one is for what happened before.

*Loss* counts probes: over three times as long as latency, for it takes more of them to tell. The slow average counts a
silent pane only where an episode begins (RFC 6534): an outage of an hour is one episode, and forgiven when it is over,
while a path that drops every tenth probe is not. Panes in which an agent got no answer from any of its targets say
nothing about any one of them, and are no path's loss; whether it was the agent or the world is a question for the
quorum (`views.py`).

Two clocks: agents' clocks only order panes. Staleness is measured in *observed* time, journal time in which records
arrived at all; when nothing reached us, nobody concludes that a path fell silent.

Delay variation follows RFC 5481 (PDV): a high quantile of delay less the least delay. The least is that of the last
one to two windows of `fast_tau_ms`, so that a path that changes its level once is not called unsteady; the distribution
above it is kept in 24 bins and fades with slow_tau.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from schemas.records import Array, Outcome, PathPanes, Policy
from streams.core.panes import bucket_mid_ms

EDGES_MS: Final = np.geomspace(0.25, 4000.0, 23)  # upper edges of all bins but the last
_BINS: Final = len(EDGES_MS) + 1
_NEVER: Final = -(1 << 62)
LOSS_TAUS: Final = 3  # fast time constants over which losses are counted
_FORGET_TAUS: Final = 20  # exp(-20): a sample of then counts 2e-9
_UNKNOWN: Final = -2  # a pair of names that no row had yet
_TABLES_MAX: Final = 64
_LEAST_MS: Final = 1e-3  # panes count whole microseconds: a shorter one is 0, and has no logarithm
_STEP_LOG_MAX: Final = 0.5  # of ln latency: a change of level is no spread

# What a view is made of; each column is (views,) and starts at this value.
_COLUMNS: Final[dict[str, tuple[Any, float]]] = {
    "target": (np.int32, 0),
    "agent": (np.int32, 0),
    "newest_pane_at_ms": (np.int64, _NEVER),
    "answered_pane_at_ms": (np.int64, _NEVER),
    "unanswered_run": (np.int64, 0),  # probes unanswered since the last pane with an answer, ...
    "shared_run": (np.int64, 0),  # ... and those unanswered when nobody answered this agent
    "heard_at_observed_ms": (np.float64, -np.inf),
    "loss_sent": (np.float64, 0),
    "loss_failed": (np.float64, 0),
    "fast_answered": (np.float64, 0),
    "fast_log": (np.float64, 0),  # answered x ln(mean ms of the pane)
    "fast_panes": (np.float64, 0),
    "slow_sent": (np.float64, 0),
    "slow_failed": (np.float64, 0),
    "slow_answered": (np.float64, 0),
    "slow_log": (np.float64, 0),
    "slow_steps": (np.float64, 0),  # pairs of neighbouring panes, and how far apart their logarithms were
    "slow_step_log": (np.float64, 0),
    "last_log": (np.float64, np.nan),
    "window": (np.int64, _NEVER),
    "least_ms": (np.float64, np.inf),
    "least_before_ms": (np.float64, np.inf),
}


class Paths:
    """Views of one primary; targets and agents are numbered by the caller's and our own tables."""

    def __init__(self) -> None:
        self.agents: list[str] = []
        self.columns: dict[str, Array] = {name: np.empty(0, dtype) for name, (dtype, _) in _COLUMNS.items()}
        self.variation = np.empty((0, _BINS))
        self._number: dict[tuple[int, str], int] = {}
        self._tables: dict[tuple[tuple[str, ...], tuple[str, ...]], Array] = {}

    def fold(self, panes: PathPanes, targets: dict[str, int], policy: Policy, now_ms: int, observed_ms: float) -> None:
        """Take panes in. `targets`: number of each configured target; rows about any other are left out."""
        self._forget_silent(policy, observed_ms)
        rows = panes.columns()
        view = self._views(panes, rows, targets)
        if (view < 0).any():
            rows, view = _only(rows, view >= 0), view[view >= 0]
        if not len(view):
            return
        at = rows["pane_at_ms"]
        outcomes = rows["outcomes"].astype(np.float64)
        answered = outcomes[:, Outcome.ANSWERED]
        failed = outcomes[:, [Outcome.TIMED_OUT, Outcome.REFUSED, Outcome.UNREACHABLE]].sum(axis=1)
        shared = _silent_everywhere(rows, answered, failed)
        begins = ~self._continues_silence(view, at, answered, failed)

        newest_before = self.columns["newest_pane_at_ms"].copy()
        np.maximum.at(self.columns["newest_pane_at_ms"], view, at)
        own_failed = np.where(shared, 0.0, failed)
        own_begun = np.where(begins, own_failed, 0.0)
        log = answered * np.log(np.maximum(rows["rtt_sum_us"] / 1000.0 / np.maximum(answered, 1), _LEAST_MS))
        both = {"answered": answered, "log": log}
        counts = {
            "fast": {**both, "panes": (answered > 0).astype(np.float64)},
            "loss": {"sent": answered + own_failed, "failed": own_failed},
            "slow": {**both, "sent": answered + own_begun, "failed": own_begun} | self._steps(view, at, answered, log),
        }
        self._average(view, at, counts, newest_before, policy)
        self._count_unanswered(view, at, answered, own_failed, failed - own_failed)
        self._vary(view, rows, newest_before, policy)
        age_ms = np.maximum(0, now_ms - (at + panes.pane_ms))
        probed = answered + failed > 0
        np.maximum.at(self.columns["heard_at_observed_ms"], view[probed], observed_ms - age_ms[probed])

    def renumber(self, place: dict[int, int]) -> None:
        """Targets have new numbers (a configuration was accepted); views of targets that left are dropped."""
        keep = np.array([int(t) in place for t in self.columns["target"]], bool)
        self.columns = {name: column[keep] for name, column in self.columns.items()}
        self.variation = self.variation[keep]
        self.columns["target"] = np.array([place[int(t)] for t in self.columns["target"]], np.int32)
        self._index()

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Scalars and arrays for a snapshot."""
        return {"agents": self.agents}, {**self.columns, "variation": self.variation}

    @classmethod
    def load(cls, scalars: dict[str, Any], arrays: dict[str, Array]) -> Paths:
        """The state again; a column that an older snapshot lacks starts as if new."""
        paths = cls()
        paths.agents = list(scalars["agents"])
        views = len(arrays["target"])
        for name, (dtype, start) in _COLUMNS.items():
            paths.columns[name] = arrays.get(name, np.full(views, start, dtype))
        paths.variation = arrays["variation"]
        paths._index()
        return paths

    def _index(self) -> None:
        pairs = zip(self.columns["target"], self.columns["agent"], strict=True)
        self._number = {(int(t), self.agents[a]): i for i, (t, a) in enumerate(pairs)}
        self._tables = {}

    def _forget_silent(self, policy: Policy, observed_ms: float) -> None:
        """Drop views whose agent left so long ago that nothing of them counts any more: agents come and go for ever."""
        heard = self.columns["heard_at_observed_ms"]
        keep = ~(observed_ms - heard > _FORGET_TAUS * policy.slow_tau_ms) | np.isneginf(heard)
        if keep.all():
            return
        self.columns = {name: column[keep] for name, column in self.columns.items()}
        self.variation = self.variation[keep]
        used = sorted({int(a) for a in self.columns["agent"]})
        self.agents = [self.agents[a] for a in used]
        self.columns["agent"] = np.searchsorted(used, self.columns["agent"]).astype(np.int32)
        self._index()

    def _views(self, panes: PathPanes, rows: dict[str, Array], targets: dict[str, int]) -> Array:
        """(rows,) number of each row's view, -1 where the target is not configured; new views are added.

        Agents send the same names again and again, so what names mean together is worked out once.
        """
        names = (tuple(panes.agents), tuple(panes.targets))
        table = self._tables.get(names)
        pair = rows["agent_index"].astype(np.int64) * len(panes.targets) + rows["target_index"]
        if table is None or (table[pair] == _UNKNOWN).any():
            table = self._table(names, np.unique(pair), targets)
        return table[pair]

    def _table(self, names: tuple[tuple[str, ...], tuple[str, ...]], used: Array, targets: dict[str, int]) -> Array:
        agents, regions = names
        table = np.full(len(agents) * len(regions), _UNKNOWN)
        for pair in used.tolist():
            agent, region = agents[pair // len(regions)], regions[pair % len(regions)]
            target = targets.get(region, -1)
            number = self._number.get((target, agent))
            table[pair] = -1 if target < 0 else self._add(target, agent) if number is None else number
        if len(self._tables) >= _TABLES_MAX:
            self._tables.clear()
        self._tables[names] = table
        return table

    def _add(self, target: int, agent: str) -> int:
        if agent not in self.agents:
            self.agents.append(agent)
        number = len(self._number)
        self._number[target, agent] = number
        first = {"target": target, "agent": self.agents.index(agent)}
        for name, (dtype, start) in _COLUMNS.items():
            self.columns[name] = np.append(self.columns[name], np.array([first.get(name, start)], dtype))
        self.variation = np.vstack((self.variation, np.zeros((1, _BINS))))
        return number

    def _average(
        self, view: Array, at: Array, counts: dict[str, dict[str, Array]], before: Array, policy: Policy
    ) -> None:
        newest, views = self.columns["newest_pane_at_ms"], len(before)
        passed = np.where(before == _NEVER, 0, newest - np.where(before == _NEVER, newest, before))
        taus = {"fast": policy.fast_tau_ms, "loss": LOSS_TAUS * policy.fast_tau_ms, "slow": policy.slow_tau_ms}
        for speed, tau in taus.items():
            fade, weight = np.exp(-passed / tau), np.exp(-(newest[view] - at) / tau)
            for what, values in counts[speed].items():
                column = self.columns[f"{speed}_{what}"]
                column *= fade
                column += np.bincount(view, weights=values * weight, minlength=views)

    def _continues_silence(self, view: Array, at: Array, answered: Array, failed: Array) -> Array:
        """(rows,) bool: a pane without an answer, after another without one: the same loss episode."""
        c = self.columns
        silent = (answered == 0) & (failed > 0)
        before = (c["unanswered_run"] + c["shared_run"] > 0)[view] & (at > c["answered_pane_at_ms"][view])
        order = np.lexsort((at, view))
        order = order[(answered + failed > 0)[order]]  # a pane in which nothing was sent ends no silence
        same = view[order[1:]] == view[order[:-1]]
        before[order[1:][same]] = silent[order[:-1][same]]
        return silent & before  # type: ignore[no-any-return]

    def _steps(self, view: Array, at: Array, answered: Array, log: Array) -> dict[str, Array]:
        """(rows,) how far each pane's ln latency is from that of the pane before it, where there is one.

        The spread of neighbours, after RFC 3550's jitter: unlike a variance it does not grow when a path changes level.
        """
        heard = answered > 0
        mean = np.divide(log, answered, out=np.full(len(log), np.nan), where=heard)
        order = np.lexsort((at, view))
        order = order[heard[order]]
        before = self.columns["last_log"][view]
        same = view[order[1:]] == view[order[:-1]]
        before[order[1:][same]] = mean[order[:-1][same]]
        step = np.minimum(np.abs(mean - before), _STEP_LOG_MAX)
        last = np.append(~same, True) if len(order) else np.zeros(0, bool)
        self.columns["last_log"][view[order[last]]] = mean[order[last]]
        return {"steps": (~np.isnan(step)).astype(np.float64), "step_log": np.nan_to_num(step)}

    def _count_unanswered(self, view: Array, at: Array, answered: Array, own: Array, shared: Array) -> None:
        last, before = self.columns["answered_pane_at_ms"], self.columns["answered_pane_at_ms"].copy()
        np.maximum.at(last, view[answered > 0], at[answered > 0])
        since = at > last[view]
        for name, failed in (("unanswered_run", own), ("shared_run", shared)):
            run = self.columns[name]
            run[last > before] = 0
            run += np.bincount(view[since], weights=failed[since], minlength=len(run)).astype(np.int64)

    def _vary(self, view: Array, rows: dict[str, Array], before: Array, policy: Policy) -> None:
        """Least delay of the current and the last window, and the distribution above it."""
        c = self.columns
        newest, length_ms = c["newest_pane_at_ms"], int(policy.fast_tau_ms)
        window = newest // length_ms
        moved = window - c["window"]
        c["least_before_ms"] = np.where(moved == 1, c["least_ms"], np.where(moved > 1, np.inf, c["least_before_ms"]))
        c["least_ms"] = np.where(moved > 0, np.inf, c["least_ms"])
        c["window"] = window
        answered = rows["outcomes"][:, Outcome.ANSWERED] > 0
        current = answered & (rows["pane_at_ms"] // length_ms >= window[view] - 1)
        np.minimum.at(c["least_ms"], view[current], rows["rtt_min_us"][current] / 1000.0)

        passed = np.where(before == _NEVER, 0, newest - np.where(before == _NEVER, newest, before))
        self.variation *= np.exp(-passed / policy.slow_tau_ms)[:, None]
        of_entry = np.repeat(np.arange(len(view)), rows["buckets"])
        entry_view = view[of_entry]
        floor = np.minimum(c["least_ms"], c["least_before_ms"])[entry_view]
        above = bucket_mid_ms(rows["bucket"]) - floor
        usable = np.isfinite(floor)
        bins = np.searchsorted(EDGES_MS, above[usable])
        age = (newest[view] - rows["pane_at_ms"])[of_entry][usable]
        weight = rows["bucket_count"][usable] * np.exp(-age / policy.slow_tau_ms)
        flat = np.bincount(entry_view[usable] * _BINS + bins, weights=weight, minlength=self.variation.size)
        self.variation += flat.reshape(self.variation.shape)


def _only(rows: dict[str, Array], keep: Array) -> dict[str, Array]:
    entries = np.repeat(keep, rows["buckets"])
    return {n: v[entries] if n in PathPanes.ENTRIES else v[keep] for n, v in rows.items()}


def _silent_everywhere(rows: dict[str, Array], answered: Array, failed: Array) -> Array:
    """(rows,) bool: in this pane the row's agent probed several targets, and none of them answered."""
    probed = answered + failed > 0
    _, pane = np.unique(rows["pane_at_ms"], return_inverse=True)
    of = rows["agent_index"].astype(np.int64) * (int(pane.max()) + 1) + pane
    groups, target = int(of.max()) + 1, rows["target_index"].astype(np.int64)
    first, last = np.full(groups, 1 << 32), np.full(groups, -1)
    np.minimum.at(first, of[probed], target[probed])
    np.maximum.at(last, of[probed], target[probed])
    any_answer = np.bincount(of, weights=answered, minlength=groups) > 0
    return (~any_answer & (first < last))[of]  # type: ignore[no-any-return]
