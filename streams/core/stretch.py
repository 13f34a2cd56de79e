"""Several records of panes that may be taken in together, and what the views were at moments between them.

A record joins a stretch if all its views are known and stand in it once, and if records that name agents or targets
differently are about other views: then each view's steps follow each other in the order of the records, and views have
nothing to do with each other. Anything else, an outage's backlog or a new agent, ends the stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from schemas.records import Array, Outcome, PathPanes


class Arrival(NamedTuple):
    """A record of panes, and when it reached the engine."""

    panes: PathPanes
    now_ms: int
    observed_ms: float
    appended_at_ms: int


class Edge(NamedTuple):
    """A tick: when it is, in journal time and in observed time."""

    now_ms: int
    observed_ms: float


Step = Arrival | Edge


def together(steps: Sequence[Step], arrivals: int, until_ms: Callable[[int], float]) -> Sequence[Step]:
    """The first steps: of so many arrivals at most, and up to the time that follows from the first edge's."""
    end_ms: float | None = None
    for number, step in enumerate(steps):
        if isinstance(step, Arrival):
            if not arrivals:
                return steps[:number]
            arrivals -= 1
        elif end_ms is None:
            end_ms = until_ms(step.now_ms)
        elif step.now_ms >= end_ms:
            return steps[:number]
    return steps


@dataclass(frozen=True, slots=True)
class Past:
    """Some views after each of some records."""

    heard_at: Array  # (records, views)
    runs: Array | None  # (records, 2, views); None: as before
    sums: Array  # (records, sums, views)
    variation: Array  # (records, views, bins)


@dataclass(frozen=True, slots=True)
class Picture:
    """All views at some moments; (moments, views) but `sums` (moments, sums, views), `variation` (.., views, bins)."""

    heard_at: Array
    unanswered_run: Array
    shared_run: Array
    sums: Array
    variation: Array
    level_ms: Array
    surge_ratio: Array

    def put(self, view: Array, past: Past, found: Array, after: Array) -> None:
        """Put in the views (rows,) as they were after so many records (moments,); `found` by `jumps`."""
        moment = np.flatnonzero(after)  # at the others none of the records was there yet
        record, cell = after[moment] - 1, np.ix_(moment, view)
        self.heard_at[cell] = past.heard_at[record]
        if past.runs is not None:
            runs = past.runs[record]
            self.unanswered_run[cell], self.shared_run[cell] = runs[:, 0], runs[:, 1]
        self.sums[moment[:, None, None], np.arange(self.sums.shape[1])[:, None], view] = past.sums[record]
        self.variation[cell] = past.variation[record]
        self.level_ms[cell], self.surge_ratio[cell] = found[:, record]


class Place(NamedTuple):
    """Which views the rows of a record are about."""

    view: Array  # (rows kept,) its number
    keep: Array | None  # (rows,) bool: those about configured targets; None: all
    once: bool  # no view has several rows

    @classmethod
    def of(cls, view: Array) -> Place:
        """From (rows,) numbers of views, negative where the target is not configured."""
        keep = None if view.min(initial=0) >= 0 else view >= 0
        view = view if keep is None else view[keep]
        return cls(view, keep, np.bincount(view).max(initial=0) <= 1)


Layout = tuple[tuple[str, ...], tuple[str, ...], bytes, bytes]


def layout_of(panes: PathPanes) -> Layout:
    """What tells which views its rows are about: names of agents and targets, and the rows' indices of them."""
    return tuple(panes.agents), tuple(panes.targets), panes.agent_index, panes.target_index


@dataclass(slots=True)
class Group:
    """Records of a stretch with the same layout."""

    place: Place
    numbers: list[int] = field(default_factory=list)  # of the records, in the stretch
    arrivals: list[Arrival] = field(default_factory=list)

    def columns(self) -> dict[str, Array]:
        """The records' columns, one record after the other; raises ValueError when lengths do not fit."""
        found = {}
        rows = len(self.arrivals[0].panes.agent_index) // 2
        for name, dtype in _TYPES.items():
            parts = [getattr(a.panes, name) for a in self.arrivals]
            if name in _ROW_BYTES and any(len(part) != rows * _ROW_BYTES[name] for part in parts):
                raise ValueError(f"{name} does not fit {rows} rows")
            found[name] = np.frombuffer(b"".join(parts), dtype)
        found["outcomes"] = found["outcomes"].reshape(-1, len(Outcome))
        entries = found["buckets"].reshape(-1, rows).sum(axis=1)
        for name, width in (("bucket", 2), ("bucket_count", 4)):
            if [len(getattr(a.panes, name)) for a in self.arrivals] != (width * entries).tolist():
                raise ValueError(f"{name} does not fit the rows' numbers of buckets")
        return found


_TYPES: Final = {**PathPanes.ROWS, **PathPanes.ENTRIES}
_ROW_BYTES: Final = {
    n: np.dtype(d).itemsize * (len(Outcome) if n == "outcomes" else 1) for n, d in PathPanes.ROWS.items()
}


class Stretch:
    """The first of some records that may be taken in together: `count` of them, in `groups`."""

    def __init__(self, arrivals: Sequence[Arrival], places: Mapping[Layout, Place]) -> None:
        """`places`: of the layouts whose views are known."""
        self.count = 0
        groups: dict[tuple[Layout, int], Group] = {}
        taken: set[int] = set()
        for arrival in arrivals:
            layout = layout_of(arrival.panes)
            group = groups.get((layout, arrival.panes.pane_ms))
            if group is None:
                place = places.get(layout)
                if place is None or not place.once or not len(place.view) or not taken.isdisjoint(place.view.tolist()):
                    break
                taken.update(place.view.tolist())
                group = groups[layout, arrival.panes.pane_ms] = Group(place)
            group.numbers.append(self.count)
            group.arrivals.append(arrival)
            self.count += 1
        self.groups = list(groups.values())
