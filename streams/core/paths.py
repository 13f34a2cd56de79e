"""Rolling state of a primary's paths: what its agents have seen of each target, fast and slow.

A *view* is one agent's picture of one target. Its averages are exponential in event time: a pane counts with
exp(-age / tau) whenever it arrives, so an outage's backlog changes the past and not the present, and the order in
which panes arrive changes no average. Two things depend on what had arrived: delay variation is measured from the least
delay known by then, and an answer that comes late forgives the failures after it too.

Two clocks: agents' clocks only order panes. Staleness is measured in *observed* time, journal time in which records
arrived at all; when nothing reached us, nobody concludes that a path fell silent.

Delay variation follows RFC 5481 (PDV): a high quantile of delay less the least delay. The least is that of the last
one to two windows of `slow_tau_ms`; the distribution above it is kept in 24 bins and fades with slow_tau.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from schemas.records import Array, Outcome, PathPanes, Policy
from streams.core.numbers import proven_share
from streams.core.panes import bucket_mid_ms

_EDGES_MS: Final = np.geomspace(0.25, 4000.0, 23)  # upper edges of all bins but the last
_BINS: Final = len(_EDGES_MS) + 1
_QUANTILE: Final = 0.95
_NEVER: Final = -(1 << 62)
_FORGET_TAUS: Final = 20  # exp(-20): a sample of then counts 2e-9

# What a view is made of; each column is (views,) and starts at this value.
_COLUMNS: Final[dict[str, tuple[Any, float]]] = {
    "target": (np.int32, 0),
    "agent": (np.int32, 0),
    "newest_pane_at_ms": (np.int64, _NEVER),
    "answered_pane_at_ms": (np.int64, _NEVER),
    "unanswered_run": (np.int64, 0),  # probes unanswered since the last pane with an answer
    "heard_at_observed_ms": (np.float64, -np.inf),
    "fast_sent": (np.float64, 0),
    "fast_failed": (np.float64, 0),
    "fast_answered": (np.float64, 0),
    "fast_latency": (np.float64, 0),
    "slow_sent": (np.float64, 0),
    "slow_failed": (np.float64, 0),
    "slow_answered": (np.float64, 0),
    "slow_latency": (np.float64, 0),
    "window": (np.int64, _NEVER),
    "least_ms": (np.float64, np.inf),
    "least_before_ms": (np.float64, np.inf),
}


@dataclass(frozen=True, slots=True)
class PathMetrics:
    """What is known of each target at a moment; every array is (targets,), NaN where nothing is."""

    latency_ms: Array  # worse of fast and slow: bad news travels fast, good news slowly
    fast_latency_ms: Array
    slow_latency_ms: Array
    loss_ratio: Array  # worse of fast and slow, each as far as the probes prove it
    fast_loss_ratio: Array
    delay_variation_ms: Array
    samples: Array  # decayed count in the slow window
    confidence: Array  # 0 to 1
    age_ms: Array  # observed time since the last samples
    down: Array  # bool: most of the agents that still report get no answer at all


class Paths:
    """Views of one primary; targets and agents are numbered by the caller's and our own tables."""

    def __init__(self) -> None:
        self.agents: list[str] = []
        self.columns: dict[str, Array] = {name: np.empty(0, dtype) for name, (dtype, _) in _COLUMNS.items()}
        self.variation = np.empty((0, _BINS))
        self._number: dict[tuple[int, str], int] = {}

    def fold(self, panes: PathPanes, targets: dict[str, int], policy: Policy, now_ms: int, observed_ms: float) -> None:
        """Take panes in. `targets`: number of each configured target; rows about any other are left out."""
        rows = panes.columns()
        place = np.array([targets.get(t, -1) for t in panes.targets], np.int64)[rows["target_index"]]
        if (place < 0).any():
            rows = _only(rows, place >= 0)
        if not len(rows["pane_at_ms"]):
            return
        self._forget_silent(policy, observed_ms)
        view = self._views(panes, rows, targets)
        at = rows["pane_at_ms"]
        outcomes = rows["outcomes"].astype(np.float64)
        answered = outcomes[:, Outcome.ANSWERED]
        failed = outcomes[:, [Outcome.TIMED_OUT, Outcome.REFUSED, Outcome.UNREACHABLE]].sum(axis=1)

        newest_before = self.columns["newest_pane_at_ms"].copy()
        np.maximum.at(self.columns["newest_pane_at_ms"], view, at)
        counts = {
            "sent": answered + failed, "failed": failed, "answered": answered, "latency": rows["rtt_sum_us"] / 1000.0
        }  # fmt: skip
        self._average(view, at, counts, newest_before, policy)
        self._count_unanswered(view, at, answered, failed)
        self._vary(view, rows, newest_before, policy)
        age_ms = np.maximum(0, now_ms - (at + panes.pane_ms))
        probed = answered + failed > 0
        np.maximum.at(self.columns["heard_at_observed_ms"], view[probed], observed_ms - age_ms[probed])

    def metrics(self, targets: int, policy: Policy, observed_ms: float) -> PathMetrics:
        """Views joined by target: an agent that fell silent fades beside those that report."""
        c, target = self.columns, self.columns["target"]
        heard = np.full(targets, -np.inf)
        np.maximum.at(heard, target, c["heard_at_observed_ms"])
        with np.errstate(invalid="ignore"):
            behind = np.where(np.isfinite(c["heard_at_observed_ms"]), heard[target] - c["heard_at_observed_ms"], np.inf)
        sums: dict[str, Array] = {}
        for speed, tau in (("fast", policy.fast_tau_ms), ("slow", policy.slow_tau_ms)):
            weight = np.exp(-behind / tau)
            for what in ("sent", "failed", "answered", "latency"):
                name = f"{speed}_{what}"
                sums[name] = np.bincount(target, weights=c[name] * weight, minlength=targets)
        variation = np.zeros((targets, _BINS))
        np.add.at(variation, target, self.variation * np.exp(-behind / policy.slow_tau_ms)[:, None])

        with np.errstate(divide="ignore", invalid="ignore"):
            fast = sums["fast_latency"] / sums["fast_answered"]
            slow = sums["slow_latency"] / sums["slow_answered"]
            # A long row of losses leaves next to no answers in the fast window: a mean of nearly nothing.
            fast = np.where(sums["fast_answered"] > 1e-3, fast, np.nan)
            slow = np.where(sums["slow_answered"] > 1e-6, slow, np.nan)
            fast_loss = proven_share(sums["fast_failed"], sums["fast_sent"])
            slow_loss = proven_share(sums["slow_failed"], sums["slow_sent"])
            age = np.where(np.isfinite(heard), observed_ms - heard, np.nan)
            samples = sums["slow_sent"] * np.exp(-np.nan_to_num(age) / policy.slow_tau_ms)
        return PathMetrics(
            latency_ms=np.fmax(fast, slow),
            fast_latency_ms=fast,
            slow_latency_ms=slow,
            loss_ratio=np.fmax(fast_loss, slow_loss),
            fast_loss_ratio=fast_loss,
            delay_variation_ms=_quantile_ms(variation),
            samples=samples,
            confidence=samples / (samples + policy.confidence_samples),
            age_ms=age,
            down=self._down(targets, policy, observed_ms),
        )

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
        """(rows,) number of each row's view; views not seen before are added."""
        pair = rows["agent_index"].astype(np.int64) * len(panes.targets) + rows["target_index"]
        pairs, inverse = np.unique(pair, return_inverse=True)
        numbers = np.empty(len(pairs), np.int64)
        for i, p in enumerate(pairs):
            agent, target = panes.agents[p // len(panes.targets)], targets[panes.targets[p % len(panes.targets)]]
            number = self._number.get((target, agent))
            numbers[i] = self._add(target, agent) if number is None else number
        return numbers[inverse]

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

    def _average(self, view: Array, at: Array, counts: dict[str, Array], before: Array, policy: Policy) -> None:
        newest, views = self.columns["newest_pane_at_ms"], len(before)
        passed = np.where(before == _NEVER, 0, newest - np.where(before == _NEVER, newest, before))
        for speed, tau in (("fast", policy.fast_tau_ms), ("slow", policy.slow_tau_ms)):
            fade, weight = np.exp(-passed / tau), np.exp(-(newest[view] - at) / tau)
            for what, values in counts.items():
                column = self.columns[f"{speed}_{what}"]
                column *= fade
                column += np.bincount(view, weights=values * weight, minlength=views)

    def _count_unanswered(self, view: Array, at: Array, answered: Array, failed: Array) -> None:
        last, run = self.columns["answered_pane_at_ms"], self.columns["unanswered_run"]
        before = last.copy()
        np.maximum.at(last, view[answered > 0], at[answered > 0])
        run[last > before] = 0
        since = at > last[view]
        run += np.bincount(view[since], weights=failed[since], minlength=len(run)).astype(np.int64)

    def _vary(self, view: Array, rows: dict[str, Array], before: Array, policy: Policy) -> None:
        """Least delay of the current and the last window, and the distribution above it."""
        c = self.columns
        newest = c["newest_pane_at_ms"]
        window = newest // int(policy.slow_tau_ms)
        moved = window - c["window"]
        c["least_before_ms"] = np.where(moved == 1, c["least_ms"], np.where(moved > 1, np.inf, c["least_before_ms"]))
        c["least_ms"] = np.where(moved > 0, np.inf, c["least_ms"])
        c["window"] = window
        answered = rows["outcomes"][:, Outcome.ANSWERED] > 0
        current = answered & (rows["pane_at_ms"] // int(policy.slow_tau_ms) >= window[view] - 1)
        np.minimum.at(c["least_ms"], view[current], rows["rtt_min_us"][current] / 1000.0)

        passed = np.where(before == _NEVER, 0, newest - np.where(before == _NEVER, newest, before))
        self.variation *= np.exp(-passed / policy.slow_tau_ms)[:, None]
        of_entry = np.repeat(np.arange(len(view)), rows["buckets"])
        entry_view = view[of_entry]
        floor = np.minimum(c["least_ms"], c["least_before_ms"])[entry_view]
        above = bucket_mid_ms(rows["bucket"]) - floor
        usable = np.isfinite(floor)
        bins = np.searchsorted(_EDGES_MS, above[usable])
        age = (newest[view] - rows["pane_at_ms"])[of_entry][usable]
        weight = rows["bucket_count"][usable] * np.exp(-age / policy.slow_tau_ms)
        flat = np.bincount(entry_view[usable] * _BINS + bins, weights=weight, minlength=self.variation.size)
        self.variation += flat.reshape(self.variation.shape)

    def _down(self, targets: int, policy: Policy, observed_ms: float) -> Array:
        c = self.columns
        reports = observed_ms - c["heard_at_observed_ms"] <= policy.stale_after_ms
        silent = reports & (c["unanswered_run"] >= policy.down_after_probes)
        reporting = np.bincount(c["target"], weights=reports, minlength=targets)
        unanswered = np.bincount(c["target"], weights=silent, minlength=targets)
        return (reporting > 0) & (2 * unanswered > reporting)


def _only(rows: dict[str, Array], keep: Array) -> dict[str, Array]:
    entries = np.repeat(keep, rows["buckets"])
    return {n: v[entries] if n in PathPanes.ENTRIES else v[keep] for n, v in rows.items()}


def _quantile_ms(counts: Array) -> Array:
    """(targets,) the 95th percentile of each row of bins, interpolated within its bin; NaN for an empty row."""
    total = counts.sum(axis=1)
    reached = np.cumsum(counts, axis=1)
    wanted = _QUANTILE * total
    at = (reached < wanted[:, None]).sum(axis=1).clip(0, _BINS - 1)
    rows = np.arange(len(counts))
    edges = np.concatenate(([0.0], _EDGES_MS, [2 * _EDGES_MS[-1]]))
    below = reached[rows, at] - counts[rows, at]
    with np.errstate(divide="ignore", invalid="ignore"):
        into = np.clip((wanted - below) / counts[rows, at], 0, 1)
        value = edges[at] + into * (edges[at + 1] - edges[at])
    return np.where(total > 1e-6, value, np.nan)
