"""Rows of panes, as a record has them: which of them count, which go together, where a record of them is cut,
and what their failures mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Final

import numpy as np

from schemas.records import Array, Outcome, PathPanes

FIRST: Final = -2  # in `before`: no pane of the view stands before it in the record
_FOLDED: Final = ("pane_at_ms", "rtt_sum_us", "rtt_min_us", "buckets", "failed", "own", "heard_ms")


def failures(rows: dict[str, Array], width: int) -> tuple[Array, Array]:
    """(rows,) failed probes, and those that are the path's own; `width`: rows of each of the records, of one or more.

    What an agent lost together with all the rest, in one record, is not.
    """
    outcomes = rows["outcomes"]
    failed = outcomes[:, Outcome.TIMED_OUT] + outcomes[:, Outcome.REFUSED] + outcomes[:, Outcome.UNREACHABLE]
    if not np.count_nonzero(failed):
        return failed, failed
    own = failed.copy()
    for record in np.flatnonzero(failed.reshape(-1, width).any(axis=1)).tolist():
        part = slice(record * width, (record + 1) * width)
        probed = {name: rows[name][part] for name in ("pane_at_ms", "agent_index", "target_index", "outcomes")}
        own[part][_silent_everywhere(probed, failed[part])] = 0
    return failed, own


def pieces(panes: PathPanes, bytes_max: int) -> Iterator[PathPanes]:
    """The panes in records of at most `bytes_max` and a row: an outage's backlog, sent at once, is large.

    Where it is cut follows from the panes alone, so that the same flush has the same parts again.
    """
    buckets = panes.columns()["buckets"].astype(np.int64)
    rows, entries = len(buckets), int(buckets.sum())
    width = {name: len(getattr(panes, name)) // max(rows, 1) for name in PathPanes.ROWS}
    entry_width = {name: len(getattr(panes, name)) // max(entries, 1) for name in PathPanes.ENTRIES}
    end_bytes = np.cumsum(sum(width.values()) + buckets * sum(entry_width.values()))
    piece = end_bytes // bytes_max
    starts = np.flatnonzero(np.diff(piece, prepend=-1))
    entry_at = np.concatenate(([0], np.cumsum(buckets)))
    for start, end in zip(starts, [*starts[1:], rows], strict=True):
        cut = {name: getattr(panes, name)[start * size : end * size] for name, size in width.items()}
        first, last = entry_at[start], entry_at[end]
        cut |= {name: getattr(panes, name)[first * size : last * size] for name, size in entry_width.items()}
        yield replace(panes, **cut)


def stacked(rows: dict[str, Array], records: int) -> dict[str, Array]:
    """(records, rows) of each column that the fold needs, from as many equal parts one after the other."""
    shape = records, -1
    found = rows | {n: rows[n].reshape(shape) for n in _FOLDED}
    found["answered"] = rows["outcomes"][:, Outcome.ANSWERED].reshape(shape)
    return found


def only(rows: dict[str, Array], keep: Array) -> dict[str, Array]:
    """The rows of a mask (rows,)."""
    entries = np.repeat(keep, rows["buckets"])
    return {n: v[entries] if n in PathPanes.ENTRIES else v[keep] for n, v in rows.items()}


def silent_before(rows: dict[str, Array]) -> Array:
    """(rows,) 1: the view's pane before it in the same record was silent; 0: it was not; FIRST: it is the first.

    A pane in which nothing was sent is none.
    """
    view, answered, failed = rows["view"], rows["outcomes"][:, Outcome.ANSWERED], rows["failed"]
    found = np.full(len(view), FIRST)
    order = np.lexsort((rows["pane_at_ms"], view))
    order = order[(answered + failed > 0)[order]]
    same = view[order[1:]] == view[order[:-1]]
    found[order[1:][same]] = answered[order[:-1][same]] == 0
    return found


def rounds(rows: dict[str, Array]) -> Iterator[dict[str, Array]]:
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
