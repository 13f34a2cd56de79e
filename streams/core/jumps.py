"""What an agent's last two batches prove, before any average can follow: a jump of the latency, a surge of loss.

An average needs its time constant to follow however plain a change is, and the proof of a loss over all of 20 s is
thinned by those before it. So the two latest records about a view are looked at alone. Two, for the probes of one
second may have met the same queue, and what is over in the next is no reason to move: each has to show it.

*Level.* All of seven probes in a row took longer than a value: the median is above it to 99 % (2^-7), whatever the
distribution. The latency then is at least the least of the two batches.

*Surge.* So many of the two batches' probes were lost that the loss is above a good one to 99.9 %. The loss then is what
it was in these panes, and not only what they prove: that it is bad is certain, and how bad best estimated so.

Both need several probes a tick: with one, the averages are as quick.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from schemas.records import Array, Outcome
from streams.core.numbers import proven_share
from streams.core.rolling import before, largest, last

# Of a view, each (views,), and where it starts.
JUMPS: Final[dict[str, tuple[Any, float]]] = {
    "last_least_ms": (np.float64, 0.0),  # of its newest batch: least delay, answers and losses
    "last_answered": (np.int64, 0),
    "last_failed": (np.int64, 0),
    "level_ms": (np.float64, 0.0),  # the latency is at least that, 0: nothing is proven
    "surge_ratio": (np.float64, 0.0),  # the loss is that, 0: nothing is proven
}
FOUND: Final = ("level_ms", "surge_ratio")
_LEVEL_PROBES: Final = 7
_SURGE_Z: Final = 3.1  # 99.9 %: every batch is another chance to be wrong
_SURGE_PROBES: Final = 24  # of fewer, those that were not sent count as answered: two losses are no surge


def jumps(columns: dict[str, Array], rows: dict[str, Array], view: Array, good_ratio: float) -> Array:
    """(2, records, views) level in ms and surge ratio after each record; the columns are brought up to date.

    `rows` (records, views): what records say of the same views, each once a record. `good_ratio`: of loss.
    """
    counts = (rows["answered"] + rows["own"] > 0) & ~_late(columns["newest_pane_at_ms"][view], rows["pane_at_ms"])
    batch = rows["rtt_min_us"] / 1000.0, rows["answered"], rows["own"]
    newest = [columns[name][view] for name in ("last_least_ms", "last_answered", "last_failed")]
    all_count = np.count_nonzero(counts) == counts.size
    after = batch if all_count else tuple(last(f, b, counts) for f, b in zip(newest, batch, strict=True))
    ((least, least_before), (answered, answered_before), (failed, failed_before)) = (
        (now, before(first, each)) for now, first, each in zip(batch, newest, after, strict=True)
    )
    enough = (np.minimum(answered, answered_before) > 0) & (answered + answered_before >= _LEVEL_PROBES)
    found = np.zeros((2, *least.shape))
    np.minimum(least, least_before, out=found[0], where=enough)
    both = np.minimum(failed, failed_before)
    if np.count_nonzero(both):
        lost = failed + failed_before
        sent = np.maximum(lost + answered + answered_before, _SURGE_PROBES)
        proven = (both > 0) & (proven_share(lost, sent, _SURGE_Z) > good_ratio)
        np.divide(lost, sent, out=found[1], where=proven)
    if not all_count:
        first = [columns[name][view] for name in FOUND]
        found = np.array([last(f, values, counts) for f, values in zip(first, found, strict=True)])
    for name, values in zip(JUMPS, (*after, *found), strict=True):
        columns[name][view] = values[-1]
    return found


def _late(newest: Array, at: Array) -> Array:
    """(records, views) bool: older than what was known."""
    return at < largest(newest, at)[1]


def joined(rows: dict[str, Array], pane_ms: int) -> tuple[dict[str, Array], Array]:
    """One record's rows of several panes a view as one row a view, of the newest two panes; and (views,) which view.

    An agent's tick begins anywhere in a pane, so a batch fills parts of two.
    """
    view, of = np.unique(rows["view"], return_inverse=True)
    newest = np.full(len(view), np.iinfo(np.int64).min)
    np.maximum.at(newest, of, rows["pane_at_ms"])
    recent = rows["pane_at_ms"] >= newest[of] - pane_ms
    answered = np.where(recent, rows["outcomes"][:, Outcome.ANSWERED], 0)
    least = np.full(len(view), np.iinfo(np.int64).max)
    np.minimum.at(least, of[answered > 0], rows["rtt_min_us"][answered > 0])
    sums = (np.bincount(of, np.where(recent, part, 0), len(view)).astype(np.int64) for part in (answered, rows["own"]))
    found = dict(zip(("pane_at_ms", "rtt_min_us", "answered", "own"), (newest, least, *sums), strict=True))
    return {name: column[None] for name, column in found.items()}, view
