"""Packet trains: what they are on the wire, and what their arrivals say about the path's capacity.

Many packets that leave at once queue up before the narrowest link of the path and come out of it as fast as it can
carry them (packet dispersion, RFC 3148's predecessor of bulk transfer, without a transfer). So the slope of their
arrivals, in IP bits a second (RFC 5136: IP-layer capacity), is its capacity: not what cross-traffic leaves over, for
of a FIFO queue the train has the whole link until it has passed.

    agent                       responder
      ── HELLO ────────────────►           64 bytes, for 24: nobody is flooded by a forged sender
      ◄──────────────── COOKIE ──           the sender's address is true now
      ── TRAIN × n ────────────►           stamped by the kernel as they arrive
      ── ASK ──────────────────►           again until the report is whole
      ◄──────────────── REPORT ──           which arrived, and when

What begins with a bucket of tokens passes its first packets at line rate. Of a train that was longer than the bucket
the tail tells, and of one that was shorter nothing does but the next, which is longer: see `judge`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

MAGIC: Final = b"PXT1"
PACKET_BYTES: Final = 1400  # of UDP payload: it fits through every tunnel that carries Ethernet's 1,500
REQUEST_BYTES: Final = 64
IP_UDP_BYTES: Final = {4: 28, 6: 48}
TRAIN_PACKETS_MAX: Final = 200  # a report of so many fits into a packet
ARRIVALS_MIN: Final = 8  # fewer have no slope worth the name

HEADER: Final = struct.Struct("!4sB3x8s")  # magic, kind, session
COOKIE: Final = struct.Struct("!8s")
CAR: Final = struct.Struct("!8sHHH")  # cookie, train, index, count
ASK: Final = struct.Struct("!8sH")  # cookie, train
REPORT: Final = struct.Struct("!HH")  # train, arrivals
ARRIVAL: Final = struct.Struct("!HI")  # index, nanoseconds after the first

_TAIL_STARTS: Final = (0.125, 0.25, 0.5)
_SAME_RATIO: Final = 0.05
_SETTLED_RATIO: Final = 0.1
_AS_SENT_RATIO: Final = 0.8
# Two trains that agree perfectly may both be off by what a relay's or a shaper's clock is.
_UNCERTAINTY_MIN: Final = 0.01
# Noise of a relay or a queue comes in clumps: neighbouring arrivals are late together.
_CLUMPS: Final = 2.0


class Kind(IntEnum):
    """What a packet is; the second word of the header."""

    HELLO = 1
    COOKIE = 2
    TRAIN = 3
    ASK = 4
    REPORT = 5
    BUSY = 6


class Slope(NamedTuple):
    """Of a train's tail: bits a second, and half the width of its 95 % interval over it."""

    bps: float
    uncertainty_ratio: float


@dataclass(frozen=True, slots=True)
class Train:
    """What became of a train: of `packets` of `packet_bits` (IP) each, sent at `sent_bps`, these arrived.

    `index` and `arrived_ns` have the shape (arrivals,); the latter counts from the first arrival.
    """

    packets: int
    packet_bits: int
    sent_bps: float
    index: Array
    arrived_ns: Array


def report_of(packet: bytes) -> tuple[int, Array, Array] | None:
    """A report's train, indices and arrivals, each once and in the order of arrival; None when it is no report."""
    if len(packet) < HEADER.size + REPORT.size:
        return None
    train, count = REPORT.unpack_from(packet, HEADER.size)
    body = packet[HEADER.size + REPORT.size :]
    if count > TRAIN_PACKETS_MAX or len(body) != count * ARRIVAL.size:
        return None
    rows = sorted(dict(ARRIVAL.iter_unpack(body)).items(), key=lambda row: (row[1], row[0]))
    table = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return train, table[:, 0], table[:, 1]


def slope(train: Train) -> Slope | None:
    """The tail's slope; None when too few arrived, or all at the same moment.

    The tail begins as early as agrees with the last half. Its slope is the median of all pairs' (Theil and Sen), which
    a relay's single hiccup does not move. Packets that a full queue dropped leave no gap in time, and those that were
    lost behind it do: whether arrivals or indices are counted is what fits the better line.
    """
    if len(train.index) < ARRIVALS_MIN:
        return None
    last = _fit(train, _TAIL_STARTS[-1])
    if last is None:
        return None
    for start in _TAIL_STARTS:
        tail = _fit(train, start)
        if tail is not None and abs(tail.bps / last.bps - 1) <= _SAME_RATIO:
            return tail
    return last


def judge(trains: Sequence[Train]) -> tuple[Slope | None, bool]:
    """The capacity by trains of growing length, and whether it has settled.

    It has when two trains agree that met a narrow link: the last one's slope counts, and half of what the other is off
    is its uncertainty at least. If no two agree, the middle one of three counts, else the last, with at least half of
    what all, or its tail's halves, differ by. A train that came as fast as it was sent met none, or a bucket that was
    larger, or somebody who held all of it up: if all did, the capacity is at least that, and the uncertainty 1.
    """
    found = [(train, tail) for train in trains if (tail := slope(train)) is not None]
    if not found:
        return None, False
    narrow = [tail for train, tail in found if tail.bps < _AS_SENT_RATIO * train.sent_bps]
    for later in range(len(narrow) - 1, 0, -1):
        last = narrow[later]
        off = min(abs(before.bps / last.bps - 1) for before in narrow[:later])
        if off <= _SETTLED_RATIO:
            return Slope(last.bps, max(last.uncertainty_ratio, off / 2, _UNCERTAINTY_MIN)), True
    if not narrow:
        return Slope(found[-1][1].bps, 1.0), False
    chosen = sorted(narrow)[1] if len(narrow) > 2 else narrow[-1]
    spread = max(tail.bps for tail in narrow) - min(tail.bps for tail in narrow)
    train = next(train for train, tail in found if tail is chosen)
    off = max(chosen.uncertainty_ratio, _halves_ratio(train) / 2, spread / chosen.bps / 2, _SETTLED_RATIO / 2)
    return Slope(chosen.bps, min(off, 1.0)), False


def _fit(train: Train, start: float, until: float = 1.0) -> Slope | None:
    first, last = round(len(train.index) * start), round(len(train.index) * until)
    at_s = train.arrived_ns[first:last] / 1e9
    if len(at_s) < ARRIVALS_MIN // 2:
        return None
    lines = [_line(np.arange(len(at_s), dtype=np.float64), at_s), _line(np.sort(train.index[first:last]), at_s)]
    seconds, spread_s = min(lines, key=lambda line: line[1])
    if not seconds > 0:
        return None
    half_width = 1.96 * _CLUMPS * spread_s * math.sqrt(12 / len(at_s) ** 3) / seconds
    return Slope(train.packet_bits / seconds, min(half_width, 1.0))


def _line(x: Array, y: Array) -> tuple[float, float]:
    """Theil and Sen's slope of y over x, and the residuals' spread (1.48 times their median distance)."""
    i, j = np.triu_indices(len(x), 1)
    steps = x[j] - x[i]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = float(np.median(((y[j] - y[i]) / steps)[steps > 0])) if (steps > 0).any() else math.nan
    residuals = y - found * x
    return found, 1.4826 * float(np.median(np.abs(residuals - np.median(residuals))))


def _halves_ratio(train: Train) -> float:
    """By how much the third and the last quarter of a train differ; 1 when that cannot be said."""
    third, last = _fit(train, 0.5, 0.75), _fit(train, 0.75)
    if third is None or last is None:
        return 1.0
    return min(1.0, 2 * abs(third.bps - last.bps) / (third.bps + last.bps))
