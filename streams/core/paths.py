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

from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np

from schemas.records import Array, PathPanes, Policy
from streams.core.jumps import JUMPS, joined, jumps
from streams.core.panes import BUCKETS, bucket_mid_ms
from streams.core.rolling import before, episodes, faded, largest, last, least_of_windows, so_far
from streams.core.rows import failures, only, rounds, silent_before, stacked
from streams.core.stretch import Arrival, Group, Layout, Past, Picture, Place, Stretch, layout_of

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
    **JUMPS,
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
        self._heard_since_ms = -np.inf  # every view was, then or later
        self._taus: tuple[Policy | None, Array] = None, np.empty(0)
        self._index()

    def fold(self, panes: PathPanes, targets: dict[str, int], policy: Policy, now_ms: int, observed_ms: float) -> None:
        """Take panes in. `targets`: number of each configured target; rows about any other are left out."""
        self._forget_silent(policy, observed_ms)
        rows, layout = panes.columns(), layout_of(panes)
        place = self._places.get(layout) or self._placed(layout, rows, targets)
        view = place.view
        if not len(view):
            return
        if place.keep is not None:
            rows = only(rows, place.keep)
        failed, own = failures(rows, len(view))
        heard_ms = observed_ms - np.maximum(0, now_ms - (rows["pane_at_ms"] + panes.pane_ms))
        rows |= {"failed": failed, "own": own, "heard_ms": heard_ms}
        if place.once:  # the usual case: of each view one pane
            once = stacked(rows, 1)
            jumps(self.columns, once, view, policy.loss_good_ratio)
            self._fold_once(once, view, policy)
            return
        rows |= {"view": view, "before": silent_before(rows | {"view": view})}
        jumps(self.columns, *joined(rows, panes.pane_ms), policy.loss_good_ratio)
        for part in rounds(rows):
            self._fold_once(stacked(part, 1), part["view"], policy)

    def stretch(self, arrivals: Sequence[Arrival], policy: Policy) -> Stretch:
        """So many of the first records as may be taken in together."""
        heard, limit_ms = self.columns["heard_at_observed_ms"], _FORGET_TAUS * policy.slow_tau_ms
        if arrivals and np.count_nonzero((arrivals[-1].observed_ms - heard > limit_ms) & ~np.isneginf(heard)):
            arrivals = ()  # on the way a view is forgotten, or heard again just before
        return Stretch(arrivals, self._places)

    def fold_stretch(self, stretch: Stretch, policy: Policy, at: Array) -> Picture:
        """Take in the records of a stretch; returns the views after the first `at` (moments,) of them.

        Raises ValueError when a record's columns do not fit each other.
        """
        picture = Picture(*(np.repeat(column[None], len(at), axis=0) for column in self._now()))
        for group in stretch.groups:
            rows, view = _rows(group), group.place.view
            found = jumps(self.columns, rows, view, policy.loss_good_ratio)
            past = self._fold_once(rows, view, policy)
            picture.put(view, past, found, np.searchsorted(group.numbers, at))
        return picture

    def picture(self) -> Picture:
        """The views as they are now, not a copy."""
        return Picture(*(column[None] for column in self._now()))

    def _now(self) -> tuple[Array, ...]:
        c = self.columns
        runs = c["unanswered_run"], c["shared_run"]
        return c["heard_at_observed_ms"], *runs, self.sums, self.variation, c["level_ms"], c["surge_ratio"]

    def _fold_once(self, rows: dict[str, Array], view: Array, policy: Policy) -> Past:
        """Records about the same views, each once a record, folded one after the other; what the views were meanwhile.

        Shapes: (records, rows), `view` (rows,). Only what really goes from one record to the next goes step by step.
        """
        c, at, answered, failed, own = self.columns, rows["pane_at_ms"], rows["answered"], rows["failed"], rows["own"]
        if self._taus[0] is not policy:
            taus_ms = [policy.fast_tau_ms, LOSS_TAUS * policy.fast_tau_ms, policy.slow_tau_ms]
            self._taus = policy, -np.array(taus_ms)[:, None]
        less_taus_ms = self._taus[1]
        heard = probed = answered > 0
        all_heard = np.count_nonzero(heard) == heard.size
        newest_before, newest = largest(c["newest_pane_at_ms"][view], at)
        c["newest_pane_at_ms"][view] = newest[-1]
        answered_before, answered_at = largest(
            c["answered_pane_at_ms"][view], at if all_heard else np.where(heard, at, _NEVER)
        )
        c["answered_pane_at_ms"][view] = answered_at[-1]
        begun, runs, all_runs = own, (c["unanswered_run"][view], c["shared_run"][view]), None
        if np.count_nonzero(failed) or np.count_nonzero(runs[0]) or np.count_nonzero(runs[1]):
            probed = heard | (failed > 0)
            all_runs, begun = episodes(rows, answered_before, answered_at, np.array(runs))
            c["unanswered_run"][view], c["shared_run"][view] = all_runs[-1]
        heard_ms = rows["heard_ms"]
        if np.count_nonzero(probed) < probed.size:
            heard_ms = np.where(probed, heard_ms, -np.inf)
        heard_ms = so_far(np.maximum, c["heard_at_observed_ms"][view], heard_ms)
        c["heard_at_observed_ms"][view] = heard_ms[-1]

        mean_log = np.log(np.maximum(rows["rtt_sum_us"] / np.maximum(answered, 1) / 1000.0, _LEAST_MS))
        log_before, last_log = c["last_log"][view], mean_log
        if not all_heard:
            last_log = last(log_before, mean_log, heard)
        # The spread of neighbours, after RFC 3550's jitter: unlike a variance it does not grow when a level changes.
        step = np.minimum(np.abs(mean_log - before(log_before, last_log)), _STEP_LOG_MAX)
        stepped = heard & ~np.isnan(step)  # NaN: there was none before
        c["last_log"][view] = last_log[-1]
        log = answered * mean_log
        values = np.array(
            (log, log, np.where(stepped, step, 0.0), own, begun, answered, answered, stepped, answered + own,
             answered + begun, heard)
        ).swapaxes(0, 1)  # fmt: skip
        fade = np.exp((newest - newest_before)[:, None] / less_taus_ms)
        late_ms = newest - at
        if np.count_nonzero(late_ms):
            values *= np.exp(late_ms[:, None] / less_taus_ms)[:, _TAU]
        sums = faded(self.sums[:, view], fade.take(_TAU, axis=1), values)
        self.sums[:, view] = sums[-1]
        variation = self._vary(rows | {"view": view, "newest": newest, "late_ms": late_ms}, policy, fade[:, 2])
        return Past(heard_ms, all_runs, sums, variation)

    def _vary(self, rows: dict[str, Array], policy: Policy, fade: Array) -> Array:
        """Least delay of the current and the last window, and (records, rows, bins) the distribution above it."""
        c, view, late_ms, length_ms = self.columns, rows["view"], rows["late_ms"], int(policy.fast_tau_ms)
        window = rows["newest"] // length_ms
        current = (rows["buckets"] > 0) & (rows["pane_at_ms"] // length_ms >= window - 1)
        seen_ms = np.where(current, rows["rtt_min_us"] / 1000.0, np.inf)
        least, least_before = c["least_ms"][view], c["least_before_ms"][view]
        moved = window - before(c["window"][view], window)
        if np.count_nonzero(moved):
            least, least_before = least_of_windows(least, least_before, moved, seen_ms)
            c["window"][view], c["least_before_ms"][view] = window[-1], least_before[-1]
        else:
            least = so_far(np.minimum, least, seen_ms)
        c["least_ms"][view] = least[-1]

        floor = np.minimum(least, least_before).reshape(-1)
        of_entry = np.repeat(np.arange(floor.size), rows["buckets"].reshape(-1))
        above = _MID_MS[rows["bucket"]] - floor[of_entry]
        counts = rows["bucket_count"]
        none = floor == np.inf  # no delay of it is current
        if np.count_nonzero(late_ms) or np.count_nonzero(none):
            weight = np.exp(late_ms.reshape(-1) / -policy.slow_tau_ms)
            weight[none] = 0.0
            counts = counts * weight[of_entry]
        flat = of_entry * _BINS + EDGES_MS.searchsorted(above)
        counted = np.bincount(flat, counts, floor.size * _BINS).reshape(*late_ms.shape, _BINS)
        variation = faded(self.variation[view], fade[:, :, None], counted)
        self.variation[view] = variation[-1]
        return variation

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
        self._places: dict[Layout, Place] = {}
        self._slots = None

    def _keep(self, keep: Array) -> None:
        self.columns = {name: column[keep] for name, column in self.columns.items()}
        self.sums, self.variation = self.sums[:, keep], self.variation[keep]

    def _forget_silent(self, policy: Policy, observed_ms: float) -> None:
        """Drop views whose agent left so long ago that nothing of them counts any more: agents come and go for ever."""
        limit_ms = _FORGET_TAUS * policy.slow_tau_ms
        if observed_ms - self._heard_since_ms <= limit_ms:
            return
        heard = self.columns["heard_at_observed_ms"]
        self._heard_since_ms = heard.min(initial=observed_ms)
        if observed_ms - self._heard_since_ms <= limit_ms:
            return
        self._only(~(observed_ms - heard > limit_ms) | np.isneginf(heard))

    def only_of(self, agents: Collection[str]) -> None:
        """Forget what any other agent has seen."""
        known = np.array([agent in agents for agent in self.agents], bool)
        self._only(known[self.columns["agent"]])

    def _only(self, keep: Array) -> None:
        """Drop the other views, and the agents that have none then."""
        if keep.all():
            return
        self._keep(keep)
        used = sorted({int(a) for a in self.columns["agent"]})
        self.agents = [self.agents[a] for a in used]
        self.columns["agent"] = np.searchsorted(used, self.columns["agent"])
        self._index()

    def _placed(self, layout: Layout, rows: dict[str, Array], targets: dict[str, int]) -> Place:
        """Which views the rows of such a record are about; new views are added.

        Agents send the same names again and again, so what names mean together is worked out once.
        """
        names = layout[:2]
        table = self._tables.get(names)
        pair = rows["agent_index"].astype(np.int64) * len(names[1]) + rows["target_index"]
        view = None if table is None else table[pair]
        if view is None or np.count_nonzero(view == _UNKNOWN):
            view = self._table(names, np.unique(pair), targets)[pair]
        if len(self._places) >= _TABLES_MAX:
            self._places.clear()
        self._places[layout] = place = Place.of(view)
        return place

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
        self._heard_since_ms = -np.inf
        number = len(self._number)
        self._number[target, agent] = number
        self._slots = None
        first = {"target": target, "agent": self.agents.index(agent)}
        for name, (dtype, start) in _COLUMNS.items():
            self.columns[name] = np.append(self.columns[name], np.array([first.get(name, start)], dtype))
        self.sums = np.hstack((self.sums, np.zeros((len(SUM), 1))))
        self.variation = np.vstack((self.variation, np.zeros((1, _BINS))))
        return number


def _rows(group: Group) -> dict[str, Array]:
    """(records, rows) of each column of a group's records."""
    rows, records = group.columns(), len(group.arrivals)
    if group.place.keep is not None:
        rows = only(rows, np.tile(group.place.keep, records))
    width = len(group.place.view)
    rows["failed"], rows["own"] = failures(rows, width)
    now_ms, observed_ms = (
        np.repeat([getattr(a, name) for a in group.arrivals], width) for name in ("now_ms", "observed_ms")
    )
    ended_ms = rows["pane_at_ms"] + group.arrivals[0].panes.pane_ms
    rows["heard_ms"] = observed_ms - np.maximum(0, now_ms - ended_ms)
    return stacked(rows, records)
