"""Rolling state of a primary's paths: what its agents have seen of each target, fast and slow.

A *view* is one agent's picture of one target. Its averages are exponential in event time: a pane counts with
exp(-age / tau) whenever it arrives, so an outage's backlog changes the past and not the present. Three things depend on
what had arrived: delay variation and the spread are measured from what was known by then, an answer that comes late
forgives the failures after it too, and which silent pane began a loss episode is judged by those known before it.

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

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import numpy as np

from schemas.records import Array, Outcome, PathPanes, Policy
from streams.core.panes import BUCKETS, bucket_mid_ms

EDGES_MS: Final = np.geomspace(0.25, 4000.0, 23)  # upper edges of all bins but the last
_BINS: Final = len(EDGES_MS) + 1
_MID_MS: Final = bucket_mid_ms(np.arange(BUCKETS))
_NEVER: Final = -(1 << 62)
LOSS_TAUS: Final = 3  # fast time constants over which losses are counted
_FORGET_TAUS: Final = 20  # exp(-20): a sample of then counts 2e-9
_UNKNOWN: Final = -2
_TABLES_MAX: Final = 64
_LEAST_MS: Final = 1e-3  # panes count whole microseconds: a shorter one is 0, and has no logarithm
_STEP_LOG_MAX: Final = 0.5  # of ln latency: a change of level is no spread

# What fades, by the time constant that it fades with (fast, loss, slow). The means that are wanted are of each of the
# first five over the one of the next five in the same place: in this order they are one division.
_FADING: Final = {
    "fast_log": 0,  # answered x ln(mean ms of the pane)
    "slow_log": 2,
    "slow_step_log": 2,  # how far apart the logarithms of neighbouring panes were
    "loss_failed": 1,
    "slow_failed": 2,
    "fast_answered": 0,
    "slow_answered": 2,
    "slow_steps": 2,  # pairs of neighbouring panes
    "loss_sent": 1,
    "slow_sent": 2,
    "fast_panes": 0,
}
_TAU: Final = np.array(list(_FADING.values()))
SUM: Final = {name: row for row, name in enumerate(_FADING)}  # a sum's row in `Paths.sums`
MEANS: Final = 5

# What else a view is made of; each column is (views,) and starts at this value.
_COLUMNS: Final[dict[str, tuple[Any, float]]] = {
    "target": (np.int64, 0),
    "agent": (np.int64, 0),
    "newest_pane_at_ms": (np.int64, _NEVER),
    "answered_pane_at_ms": (np.int64, _NEVER),
    "unanswered_run": (np.int64, 0),  # probes unanswered since the last pane with an answer, ...
    "shared_run": (np.int64, 0),  # ... and those unanswered when nobody answered this agent
    "heard_at_observed_ms": (np.float64, -np.inf),
    "last_log": (np.float64, np.nan),
    "window": (np.int64, _NEVER),
    "least_ms": (np.float64, np.inf),
    "least_before_ms": (np.float64, np.inf),
}


class Paths:
    """Views of one primary; targets and agents are numbered by the caller's and our own tables.

    `columns`: (views,) each; `sums` (len(SUM), views); `variation` (views, bins).
    """

    def __init__(self) -> None:
        self.agents: list[str] = []
        self.columns: dict[str, Array] = {name: np.empty(0, dtype) for name, (dtype, _) in _COLUMNS.items()}
        self.sums = np.empty((len(SUM), 0))
        self.variation = np.empty((0, _BINS))
        self._slots: tuple[Array, int] | None = None
        self._index()

    def fold(self, panes: PathPanes, targets: dict[str, int], policy: Policy, now_ms: int, observed_ms: float) -> None:
        """Take panes in. `targets`: number of each configured target; rows about any other are left out."""
        self._forget_silent(policy, observed_ms)
        rows = panes.columns()
        view = self._views(panes, rows, targets)
        if len(view) and view.min() < 0:
            rows, view = _only(rows, view >= 0), view[view >= 0]
        if not len(view):
            return
        outcomes = rows["outcomes"]
        failed = outcomes[:, Outcome.TIMED_OUT] + outcomes[:, Outcome.REFUSED] + outcomes[:, Outcome.UNREACHABLE]
        own = np.where(_silent_everywhere(rows, failed), 0, failed) if np.count_nonzero(failed) else failed
        heard_ms = observed_ms - np.maximum(0, now_ms - (rows["pane_at_ms"] + panes.pane_ms))
        taus_ms = np.array([[policy.fast_tau_ms], [LOSS_TAUS * policy.fast_tau_ms], [policy.slow_tau_ms]])
        rows |= {"view": view, "failed": failed, "own": own, "heard_ms": heard_ms}
        if np.bincount(view).max() == 1:  # the usual case: of each view one pane
            self._fold_once(rows, taus_ms)
            return
        rows["before"] = _silent_before(rows)
        for part in _rounds(rows):
            self._fold_once(part, taus_ms)

    def _fold_once(self, rows: dict[str, Array], taus_ms: Array) -> None:
        """Rows of as many views, so that each is one step of its view. Shapes: (rows,), `taus_ms` (3, 1)."""
        c, view, at, answered = self.columns, rows["view"], rows["pane_at_ms"], rows["outcomes"][:, Outcome.ANSWERED]
        failed, own = rows["failed"], rows["own"]
        heard = probed = answered > 0
        newest_before = c["newest_pane_at_ms"][view]
        c["newest_pane_at_ms"][view] = newest = np.maximum(newest_before, at)
        answered_before = c["answered_pane_at_ms"][view]
        answered_at = np.where(heard, np.maximum(answered_before, at), answered_before)
        c["answered_pane_at_ms"][view] = answered_at
        begun = own
        runs = np.array((c["unanswered_run"][view], c["shared_run"][view]))
        if np.count_nonzero(failed) or np.count_nonzero(runs):
            probed = heard | (failed > 0)
            # A pane without an answer, after another without one, continues an episode.
            silent = (runs.sum(axis=0) > 0) & (at > answered_before)
            if "before" in rows:
                silent = np.where(rows["before"] == _UNKNOWN, silent, rows["before"] == 1)
            continues = ~heard & silent
            begun = np.where(continues, 0, own)
            runs[:, answered_at > answered_before] = 0
            c["unanswered_run"][view], c["shared_run"][view] = runs + (at > answered_at) * np.array((own, failed - own))
        heard_before = c["heard_at_observed_ms"][view]
        heard_ms = np.maximum(heard_before, rows["heard_ms"])
        c["heard_at_observed_ms"][view] = np.where(probed, heard_ms, heard_before)

        mean_log = np.log(np.maximum(rows["rtt_sum_us"] / np.maximum(answered, 1) / 1000.0, _LEAST_MS))
        log_before = c["last_log"][view]
        # The spread of neighbours, after RFC 3550's jitter: unlike a variance it does not grow when a level changes.
        step = np.minimum(np.abs(mean_log - log_before), _STEP_LOG_MAX)
        stepped = heard & ~np.isnan(step)  # NaN: there was none before
        c["last_log"][view] = np.where(heard, mean_log, log_before)
        log = answered * mean_log
        values = np.array(
            (log, log, np.where(stepped, step, 0.0), own, begun, answered, answered, stepped, answered + own,
             answered + begun, heard)
        )  # fmt: skip
        fade = np.exp((newest - newest_before) / -taus_ms)
        late_ms = newest - at
        if np.count_nonzero(late_ms):
            values *= np.exp(late_ms / -taus_ms)[_TAU]
        self.sums[:, view] = self.sums[:, view] * fade[_TAU] + values
        self._vary(rows, newest, late_ms, taus_ms, fade[2])

    def _vary(self, rows: dict[str, Array], newest: Array, late_ms: Array, taus_ms: Array, fade: Array) -> None:
        """Least delay of the current and the last window, and the distribution above it."""
        c, view, length_ms, buckets = self.columns, rows["view"], int(taus_ms[0, 0]), rows["buckets"]
        window = newest // length_ms
        moved = window - c["window"][view]
        least, least_before = c["least_ms"][view], c["least_before_ms"][view]
        if np.count_nonzero(moved):
            least_before = np.where(moved == 1, least, np.where(moved > 1, np.inf, least_before))
            least = np.where(moved > 0, np.inf, least)
            c["window"][view], c["least_before_ms"][view] = window, least_before
        current = (buckets > 0) & (rows["pane_at_ms"] // length_ms >= window - 1)
        c["least_ms"][view] = least = np.where(current, np.minimum(least, rows["rtt_min_us"] / 1000.0), least)

        floor, of_entry = np.minimum(least, least_before), np.repeat(np.arange(len(view)), buckets)
        above = _MID_MS[rows["bucket"]] - floor[of_entry]
        weight = np.exp(late_ms / -taus_ms[2, 0])
        weight[floor == np.inf] = 0.0  # no delay of it is current
        flat = of_entry * _BINS + EDGES_MS.searchsorted(above)
        counted = np.bincount(flat, rows["bucket_count"] * weight[of_entry], len(view) * _BINS)
        self.variation[view] = self.variation[view] * fade[:, None] + counted.reshape(-1, _BINS)

    def renumber(self, place: dict[int, int]) -> None:
        """Targets have new numbers (a configuration was accepted); views of targets that left are dropped."""
        self._keep(np.array([int(t) in place for t in self.columns["target"]], bool))
        self.columns["target"] = np.array([place[int(t)] for t in self.columns["target"]], np.int64)
        self._index()

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Scalars and arrays for a snapshot."""
        sums = dict(zip(SUM, self.sums, strict=True))
        return {"agents": self.agents}, {**self.columns, **sums, "variation": self.variation}

    @classmethod
    def load(cls, scalars: dict[str, Any], arrays: dict[str, Array]) -> Paths:
        """The state again; a column that an older snapshot lacks starts as if new."""
        paths = cls()
        paths.agents = list(scalars["agents"])
        views = len(arrays["target"])
        for name, (dtype, start) in _COLUMNS.items():
            paths.columns[name] = arrays.get(name, np.full(views, start)).astype(dtype)
        paths.sums = np.stack([arrays.get(name, np.zeros(views)) for name in SUM])
        paths.variation = arrays["variation"]
        paths._index()
        return paths

    def slots(self, targets: int) -> tuple[Array, int]:
        """(views,) place of each view in a table of `targets` rows, a column an agent; and how many columns."""
        if self._slots is None:
            target = self.columns["target"]
            order = np.argsort(target, kind="stable")
            views = np.bincount(target, minlength=targets)
            slot = np.empty(len(target), np.int64)
            slot[order] = np.arange(len(target)) - (np.cumsum(views) - views)[target[order]]
            width = max(int(views.max(initial=0)), 1)
            self._slots = target * width + slot, width
        return self._slots

    def _index(self) -> None:
        pairs = zip(self.columns["target"].tolist(), self.columns["agent"].tolist(), strict=True)
        self._number = {(t, self.agents[a]): i for i, (t, a) in enumerate(pairs)}
        self._tables: dict[tuple[tuple[str, ...], tuple[str, ...]], Array] = {}
        self._slots = None

    def _keep(self, keep: Array) -> None:
        self.columns = {name: column[keep] for name, column in self.columns.items()}
        self.sums, self.variation = self.sums[:, keep], self.variation[keep]

    def _forget_silent(self, policy: Policy, observed_ms: float) -> None:
        """Drop views whose agent left so long ago that nothing of them counts any more: agents come and go for ever."""
        heard = self.columns["heard_at_observed_ms"]
        limit_ms = _FORGET_TAUS * policy.slow_tau_ms
        if not len(heard) or observed_ms - heard.min() <= limit_ms:
            return
        keep = ~(observed_ms - heard > limit_ms) | np.isneginf(heard)
        if keep.all():
            return
        self._keep(keep)
        used = sorted({int(a) for a in self.columns["agent"]})
        self.agents = [self.agents[a] for a in used]
        self.columns["agent"] = np.searchsorted(used, self.columns["agent"])
        self._index()

    def _views(self, panes: PathPanes, rows: dict[str, Array], targets: dict[str, int]) -> Array:
        """(rows,) number of each row's view, -1 where the target is not configured; new views are added.

        Agents send the same names again and again, so what names mean together is worked out once.
        """
        names = (tuple(panes.agents), tuple(panes.targets))
        table = self._tables.get(names)
        pair = rows["agent_index"].astype(np.int64) * len(panes.targets) + rows["target_index"]
        view = None if table is None else table[pair]
        if view is None or np.count_nonzero(view == _UNKNOWN):
            view = self._table(names, np.unique(pair), targets)[pair]
        return view

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
        self._slots = None
        first = {"target": target, "agent": self.agents.index(agent)}
        for name, (dtype, start) in _COLUMNS.items():
            self.columns[name] = np.append(self.columns[name], np.array([first.get(name, start)], dtype))
        self.sums = np.hstack((self.sums, np.zeros((len(SUM), 1))))
        self.variation = np.vstack((self.variation, np.zeros((1, _BINS))))
        return number


def _only(rows: dict[str, Array], keep: Array) -> dict[str, Array]:
    """The rows of a mask (rows,)."""
    entries = np.repeat(keep, rows["buckets"])
    return {n: v[entries] if n in PathPanes.ENTRIES else v[keep] for n, v in rows.items()}


def _silent_before(rows: dict[str, Array]) -> Array:
    """(rows,) 1: the view's pane before it in the same record was silent; 0: it was not; _UNKNOWN: it is the first.

    A pane in which nothing was sent is none.
    """
    view, answered, failed = rows["view"], rows["outcomes"][:, Outcome.ANSWERED], rows["failed"]
    found = np.full(len(view), _UNKNOWN)
    order = np.lexsort((rows["pane_at_ms"], view))
    order = order[(answered + failed > 0)[order]]
    same = view[order[1:]] == view[order[:-1]]
    found[order[1:][same]] = answered[order[:-1][same]] == 0
    return found


def _rounds(rows: dict[str, Array]) -> Iterator[dict[str, Array]]:
    """The rows in rounds that each hold a view once, earlier panes first."""
    view = rows["view"]
    order = np.lexsort((rows["pane_at_ms"], view))
    starts = np.flatnonzero(np.diff(view[order], prepend=-1))
    turn = np.empty(len(view), np.int64)
    turn[order] = np.arange(len(view)) - np.repeat(starts, np.diff(starts, append=len(view)))
    # Put in order once, so that a round is a slice: an outage's backlog has thousands of them.
    order = np.argsort(turn, kind="stable")
    first_entry = np.cumsum(rows["buckets"], dtype=np.int64) - rows["buckets"]
    buckets = rows["buckets"][order].astype(np.int64)
    last_entry = np.cumsum(buckets)
    entry = np.repeat(first_entry[order] - (last_entry - buckets), buckets) + np.arange(buckets.sum())
    rows = {n: v[entry] if n in PathPanes.ENTRIES else v[order] for n, v in rows.items()}
    ends = np.cumsum(np.bincount(turn)).tolist()
    entry_ends = [0, *last_entry.tolist()]
    for begin, end in pairwise([0, *ends]):
        inside = slice(entry_ends[begin], entry_ends[end])
        yield {n: v[inside] if n in PathPanes.ENTRIES else v[begin:end] for n, v in rows.items()}


def _silent_everywhere(rows: dict[str, Array], failed: Array) -> Array:
    """(rows,) bool: in this pane the row's agent probed several targets, and none of them answered."""
    answered, target = rows["outcomes"][:, Outcome.ANSWERED], rows["target_index"].astype(np.int64)
    probed = answered + failed > 0
    _, pane = np.unique(rows["pane_at_ms"], return_inverse=True)
    of = rows["agent_index"].astype(np.int64) * (int(pane.max()) + 1) + pane
    groups = int(of.max()) + 1
    first, last = np.full(groups, 1 << 32), np.full(groups, -1)
    np.minimum.at(first, of[probed], target[probed])
    np.maximum.at(last, of[probed], target[probed])
    any_answer = np.bincount(of, weights=answered, minlength=groups) > 0
    return (~any_answer & (first < last))[of]  # type: ignore[no-any-return]
