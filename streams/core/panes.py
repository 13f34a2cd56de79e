"""Probe samples condensed into panes: counts by outcome, exact sums, least values and a histogram.

Samples arrive in columns, hundreds a message. Per message there is only bookkeeping (a few microseconds); all
arithmetic is done once a flush over the joined columns (about 20 to 50 ns a sample). A pane is what one agent saw of
one target by one method in one stretch of `pane_ms` of its own clock.

Sums are exact: each round-trip time is rounded to a whole microsecond, and whole numbers below 2^53 add without error
in a float64. So a pane does not depend on the order of its samples, and a lost or doubled one always shows.

The histogram's bucket is the float32's exponent and 7 leading bits of the mantissa: 0.8 % wide, from 0.016 ms to 65 s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from schemas.records import Array, Outcome, PathPanes, ProbeBatch, Reason
from schemas.validate import AT_MS_MAX, RTT_MS_MAX, SENT_OFFSET_MS_MAX, mistakes

OUTCOMES: Final = len(Outcome)
_BUCKET_BASE: Final = 121 << 7  # 2^-6 ms
BUCKETS: Final = 22 << 7  # up to 2^16 ms


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message of a flush that has no place in any pane."""

    offset: int
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class _Names:
    """What a batch's indices point into: each agent keeps sending the same, so it is resolved once."""

    agent_id: str
    primary_region: str
    targets: tuple[str, ...]
    methods: tuple[str, ...]


class Flush:
    """Samples of one source partition between two flush boundaries."""

    def __init__(self, *, pane_ms: int, ahead_ms_max: int, lateness_ms_max: int) -> None:
        self._pane_ms, self._ahead_ms, self._lateness_ms = pane_ms, ahead_ms_max, lateness_ms_max
        self._names: dict[_Names, int] = {}
        self._batches: list[ProbeBatch] = []
        # A row a message: source offset, number of its names, probes, start, append time.
        self._messages: list[tuple[int, int, int, int, int]] = []
        self.samples = 0

    def add(self, batch: ProbeBatch, offset: int, appended_at_ms: int) -> Rejected | None:
        """Take one message in; returns why not, when that can be told without looking at its samples."""
        names = _Names(batch.agent_id, batch.primary_region, tuple(batch.targets), tuple(batch.methods))
        probes = len(batch.outcome)
        if (
            not probes
            or not len(batch.target_index) // 2 == len(batch.method_index) == len(batch.code) == probes
            or not len(batch.sent_offset_ms) == len(batch.rtt_ms) == 4 * probes
            or len(batch.target_index) != 2 * probes
            or not 0 <= batch.started_at_ms <= AT_MS_MAX
            or (names not in self._names and not _well_named(names))
        ):
            return self._examine(batch, offset, appended_at_ms)
        number = self._names.setdefault(names, len(self._names))
        self._batches.append(batch)
        self._messages.append((offset, number, probes, batch.started_at_ms, appended_at_ms))
        self.samples += probes
        return None

    def condense(self) -> tuple[dict[str, PathPanes], list[Rejected]]:
        """The panes of each primary, primaries in the order of their first message, and the messages left out."""
        if not self._messages:
            return {}, []
        columns = self._joined()
        rejected = self._reject(columns)
        if rejected:
            columns = self._joined()
        return (self._panes(columns) if self._messages else {}), rejected

    def _joined(self) -> dict[str, Array]:
        """The columns of all messages, which may be written to."""
        return {
            name: np.frombuffer(bytearray().join([getattr(batch, name) for batch in self._batches]), dtype)
            for name, dtype in ProbeBatch.COLUMNS.items()
            if name != "code"
        }

    def _rows_of_messages(self) -> Array:
        """(5, messages): the fields of `_messages`."""
        return np.array(self._messages, np.int64).T

    def _reject(self, columns: dict[str, Array]) -> list[Rejected]:
        """Drop messages with a bad sample: whole, for an agent that sends one cannot be believed about the rest."""
        _, number, probes, started, appended = self._rows_of_messages()
        starts = np.cumsum(probes) - probes
        names = list(self._names)
        offset, rtt, outcome = columns["sent_offset_ms"], columns["rtt_ms"], columns["outcome"]
        # NaN compares false: an answered probe needs a time, any other may have none.
        answered = outcome == Outcome.ANSWERED
        sensible = ((rtt > 0) & (rtt < RTT_MS_MAX)) == answered
        sensible &= np.isnan(rtt) != answered
        latest = np.minimum(appended + self._ahead_ms - started, SENT_OFFSET_MS_MAX)
        good = np.maximum.reduceat(columns["target_index"], starts) < _lengths(n.targets for n in names)[number]
        good &= np.maximum.reduceat(columns["method_index"], starts) < _lengths(n.methods for n in names)[number]
        good &= np.maximum.reduceat(outcome, starts) < OUTCOMES
        good &= (np.minimum.reduceat(offset, starts) >= 0) & (np.maximum.reduceat(offset, starts) <= latest)
        good &= np.logical_and.reduceat(sensible, starts)
        good &= started >= appended - self._lateness_ms
        if good.all():
            return []
        bad = [
            self._examine(batch, message[0], message[4])
            for batch, message, ok in zip(self._batches, self._messages, good, strict=True)
            if not ok
        ]
        self._batches = [b for b, ok in zip(self._batches, good, strict=True) if ok]
        self._messages = [m for m, ok in zip(self._messages, good, strict=True) if ok]
        return bad

    def _examine(self, batch: ProbeBatch, offset: int, appended_at_ms: int) -> Rejected:
        """Why one message is bad, in a sentence; slow and exact."""
        found = mistakes(batch)
        if found:
            return Rejected(offset, Reason.OUT_OF_RANGE, "; ".join(found[:5]))
        if batch.started_at_ms < appended_at_ms - self._lateness_ms:
            late_ms = appended_at_ms - batch.started_at_ms
            return Rejected(offset, Reason.TOO_LATE, f"started {late_ms} ms before the broker appended it")
        columns = batch.columns()
        ahead_ms = batch.started_at_ms + float(columns["sent_offset_ms"].max()) - appended_at_ms
        # Compared as when judging: added to an epoch, an offset loses its last digits.
        if float(columns["sent_offset_ms"].max()) > appended_at_ms + self._ahead_ms - batch.started_at_ms:
            detail = f"agent {batch.agent_id} is {ahead_ms:.0f} ms ahead of the broker: check its clock"
            return Rejected(offset, Reason.FROM_THE_FUTURE, detail)
        detail = "rtt_ms must be above 0 and below 65536 where a probe was answered, and NaN where it was not"
        return Rejected(offset, Reason.OUT_OF_RANGE, detail)

    def _panes(self, columns: dict[str, Array]) -> dict[str, PathPanes]:
        paths = _PathTable(list(self._names))
        _, number, probes, started, _ = self._rows_of_messages()
        path = np.repeat(paths.first[number], probes)
        if paths.methods.max() > 1:
            path += np.repeat(paths.methods[number], probes) * columns["target_index"]
            path += columns["method_index"]
        else:
            path += columns["target_index"]
        if len(paths.keys) < len(paths.unique):
            path = paths.unique[path]
        pane, pane_first = self._pane_numbers(started, probes, columns["sent_offset_ms"])
        row, row_path, row_pane, sent = _rows(path, pane, len(paths.keys))
        rows = len(sent)

        outcome, rtt = columns["outcome"], columns["rtt_ms"]
        outcomes = np.zeros((rows, OUTCOMES), np.int64)
        failed = np.flatnonzero(outcome != Outcome.ANSWERED)
        if len(failed):
            failures = row[failed] * OUTCOMES + outcome[failed]
            outcomes = np.bincount(failures, minlength=rows * OUTCOMES).reshape(-1, OUTCOMES)
            # Cheaper than to leave them out: a row behind all others, which is cut off.
            row[failed], rtt[failed] = rows, 1.0
        outcomes[:, Outcome.ANSWERED] = sent - outcomes.sum(axis=1)
        least = np.full(rows + 1, np.float32(RTT_MS_MAX))
        np.minimum.at(least, row, rtt)
        condensed = {
            "pane_at_ms": (row_pane + pane_first) * self._pane_ms,
            "outcomes": outcomes,
            "rtt_sum_us": np.bincount(row, weights=_whole_us(rtt), minlength=rows + 1)[:rows],
            "rtt_min_us": np.where(outcomes[:, Outcome.ANSWERED] > 0, _whole_us(least[:rows]), 0),
            **_histogram(row, rtt, least),
        }
        return paths.by_primary(row_path, condensed, self._pane_ms)

    def _pane_numbers(self, started: Array, probes: Array, sent_offset_ms: Array) -> tuple[Array, int]:
        """(samples,) number of each sample's pane, from 0, and the absolute number of pane 0."""
        start_pane = started // self._pane_ms
        first = int(start_pane.min())
        into_pane = np.repeat((started - start_pane * self._pane_ms).astype(np.float64), probes)
        into_pane += sent_offset_ms
        into_pane /= self._pane_ms
        pane = into_pane.astype(np.int64)
        pane += np.repeat(start_pane - first, probes)
        return pane, first


def _lengths(lists: Iterable[tuple[str, ...]]) -> Array:
    return np.array([len(names) for names in lists])


def _whole_us(rtt_ms: Array) -> Array:
    """Milliseconds in float32 to whole microseconds in float64: exact to add up."""
    us = rtt_ms.astype(np.float64)
    us *= 1000.0
    return np.rint(us, out=us)


def _rows(path: Array, pane: Array, paths: int) -> tuple[Array, Array, Array, Array]:
    """Row of each sample, and path, pane and number of samples of each row; rows in order of pane, then path.

    In this order the samples of a message lie in neighbouring rows, which the caches like.
    """
    panes = int(pane.max()) + 1
    key = pane * paths
    key += path
    if paths * panes <= 4 * len(key) + 65_536:
        sent = np.bincount(key, minlength=paths * panes)
        found = np.flatnonzero(sent)
        row = key if len(found) == len(sent) else (np.cumsum(sent > 0) - 1)[key]
        sent = sent[found]
    else:  # a long backlog, or clocks apart: few of the possible rows exist
        found, row, sent = np.unique(key, return_inverse=True, return_counts=True)
    return row, found % paths, found // paths, sent


def _histogram(row: Array, rtt_ms: Array, least_ms: Array) -> dict[str, Array]:
    """`buckets` (rows,), and `bucket`, `bucket_count` (entries,) in order of row, then bucket; without the last row.

    Counted in a table of each row's buckets, from its least to its greatest or as far as the samples pay for it; what
    lies beyond (a path's outliers) is sorted, which costs ten times as much a sample.
    """
    rows = len(least_ms)
    most_ms = np.zeros(rows, np.float32)
    np.maximum.at(most_ms, row, rtt_ms)
    lowest = _bucket(least_ms)
    buckets = np.maximum(_bucket(most_ms) + 1 - lowest, 0)  # none where nothing was answered
    width = np.minimum(buckets, max(32, 4 * len(row) // rows))
    ends = np.cumsum(width)
    shift = ends - width - lowest
    place = shift[row]
    place += _bucket(rtt_ms)
    far_key = far_count = np.empty(0, np.int64)
    if (width < buckets).any():
        far = place >= ends[row]
        far_key, far_count = np.unique(row[far] * BUCKETS + _bucket(rtt_ms[far]), return_counts=True)
        place = place[~far]
    table = np.bincount(place, minlength=ends[-1])[: ends[-2]]
    near = np.flatnonzero(table)
    entry_row = np.repeat(np.arange(rows), width)[near]
    bucket, count = near - shift[entry_row], table[near]
    if len(far_key):
        key = np.concatenate((entry_row * BUCKETS + bucket, far_key))
        order = np.argsort(key)
        entry_row, bucket = np.divmod(key[order], BUCKETS)
        count = np.concatenate((count, far_count))[order]
    return {
        "buckets": np.bincount(entry_row, minlength=rows - 1),
        "bucket": bucket,
        "bucket_count": count,
    }


def _bucket(rtt_ms: Array) -> Array:
    """Histogram bucket of each float32 value."""
    return ((rtt_ms.view(np.int32) >> 16) - _BUCKET_BASE).clip(0, BUCKETS - 1)


def bucket_mid_ms(bucket: Array) -> Array:
    """Middle of each histogram bucket, milliseconds; shape as given."""
    bits = ((bucket.astype(np.int32) + _BUCKET_BASE) << 16) | (1 << 15)
    return bits.view(np.float32).astype(np.float64)


class _PathTable:
    """Paths (agent, primary, target, method) of a flush: what agents' own indices mean together."""

    def __init__(self, names: list[_Names]) -> None:
        self.keys: dict[tuple[str, str, str, str], int] = {}
        unique: list[int] = []
        first: list[int] = []
        for n in names:
            first.append(len(unique))
            for target in n.targets:
                for method in n.methods:
                    unique.append(self.keys.setdefault((n.primary_region, n.agent_id, target, method), len(self.keys)))
        self.first = np.array(first)
        self.methods = np.array([len(n.methods) for n in names])
        self.unique = np.array(unique)

    def by_primary(self, row_path: Array, condensed: dict[str, Array], pane_ms: int) -> dict[str, PathPanes]:
        """Each primary's rows and entries, with tables of the names that they use; `row_path` (rows,) their paths."""
        keys = list(self.keys)
        primaries = list(dict.fromkeys(k[0] for k in keys))
        path_primary = np.array([primaries.index(k[0]) for k in keys])
        entry_primary = np.repeat(path_primary[row_path], condensed["buckets"])
        found: dict[str, PathPanes] = {}
        for index, primary in enumerate(primaries):
            rows, entries = path_primary[row_path] == index, entry_primary == index
            if not rows.any():
                continue
            used = np.unique(row_path[rows])
            mine = [keys[p] for p in used]
            place_of_path = np.searchsorted(used, row_path[rows])
            tables, indices = [], {}
            for at, column in enumerate(("agent_index", "target_index", "method_index"), start=1):
                table = list(dict.fromkeys(k[at] for k in mine))
                place = {name: i for i, name in enumerate(table)}
                indices[column] = np.array([place[k[at]] for k in mine])[place_of_path]
                tables.append(table)
            mine_only = {name: condensed[name][rows] for name in PathPanes.ROWS if name in condensed} | indices
            mine_only |= {name: condensed[name][entries] for name in PathPanes.ENTRIES}
            packed = {
                name: np.ascontiguousarray(mine_only[name], dtype).tobytes()
                for name, dtype in (PathPanes.ROWS | PathPanes.ENTRIES).items()
            }
            found[primary] = PathPanes(pane_ms, tables[0], tables[1], tables[2], **packed)
        return found


@lru_cache(maxsize=4096)
def _well_named(names: _Names) -> bool:
    """Whether the names alone are good; a batch of one harmless probe asks the one place that knows."""
    if not names.targets or not names.methods:
        return False
    return not mistakes(
        ProbeBatch.of(
            agent_id=names.agent_id,
            primary_region=names.primary_region,
            started_at_ms=0,
            targets=list(names.targets),
            methods=list(names.methods),
            target_index=[0],
            method_index=[0],
            sent_offset_ms=[0],
            rtt_ms=[1],
            outcome=[0],
            code=[0],
        )
    )
