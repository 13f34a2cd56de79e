"""What goes from one record of panes to the next, for many records about the same views.

Arrays are (records, views) unless they say otherwise; `first` (views,) is what was before all of them. One record costs
no more than it would without the axis of records.
"""

from __future__ import annotations

import numpy as np

from schemas.records import Array
from streams.core.rows import FIRST


def before(first: Array, after: Array) -> Array:
    """(records, rows) what was before each record, from `first` (rows,) and what was after each."""
    return first[None] if len(after) == 1 else np.concatenate((first[None], after[:-1]))


def largest(first: Array, values: Array) -> tuple[Array, Array]:
    """(records, rows) the largest so far, of `first` (rows,) and then of the values, before each record and after."""
    after = so_far(np.maximum, first, values)
    return before(first, after), after


def so_far(which: np.ufunc, first: Array, values: Array) -> Array:
    """(records, rows) the largest or least so far, of `first` (rows,) and then of the values, after each record."""
    return which(first, values if len(values) == 1 else which.accumulate(values, axis=0))  # type: ignore[no-any-return]


def last(first: Array, values: Array, known: Array) -> Array:
    """(records, rows) the last value so far that is known, of `first` (rows,) and then of the values."""
    latest = np.maximum.accumulate(np.where(known, np.arange(1, len(values) + 1)[:, None], 0), axis=0)
    return np.take_along_axis(np.concatenate((first[None], values)), latest, axis=0)


def faded(first: Array, fade: Array, added: Array) -> Array:
    """(records, ...) a sum that begins with `first`, fades and is added to, after each record."""
    found = np.empty((len(added), *first.shape))
    before = first
    for after, factor, more in zip(found, fade, added, strict=True):
        before = np.multiply(before, factor, out=after)
        before += more
    return found


def episodes(rows: dict[str, Array], before: Array, after: Array, runs: Array) -> tuple[Array, Array]:
    """(records, 2, rows) unanswered runs, and (records, rows) of the failures those that begin a loss episode.

    `before` and `after` (records, rows): the newest pane that was answered, each record not known yet or known.
    """
    at, failed, own, heard = rows["pane_at_ms"], rows["failed"], rows["own"], rows["answered"] > 0
    found, begun = np.empty((len(at), *runs.shape), np.int64), own.copy()
    fails: list[bool] = np.any(failed, axis=1).tolist()
    for number in range(len(at)):
        if fails[number] or np.count_nonzero(runs):
            # A pane without an answer, after another without one, continues an episode.
            silent = (runs.sum(axis=0) > 0) & (at[number] > before[number])
            if "before" in rows:
                silent = np.where(rows["before"] == FIRST, silent, rows["before"] == 1)
            begun[number][~heard[number] & silent] = 0
            lost = np.array((own[number], failed[number] - own[number]))
            forgiven = np.where(after[number] > before[number], 0, runs)
            runs = forgiven + (at[number] > after[number]) * lost
        found[number] = runs
    return found, begun


def least_of_windows(least: Array, before: Array, moved: Array, seen_ms: Array) -> tuple[Array, Array]:
    """(records, rows) least delay of the window and of the one before; `moved` (records, rows): by so many windows."""
    found = np.empty((2, *seen_ms.shape))
    moves: list[bool] = np.any(moved, axis=1).tolist()
    for number, seen in enumerate(seen_ms):
        if moves[number]:
            by = moved[number]
            before = np.where(by == 1, least, np.where(by > 1, np.inf, before))
            least = np.where(by > 0, np.inf, least)
        least = np.minimum(least, seen, out=found[0, number])
        found[1, number] = before
    return found[0], found[1]
