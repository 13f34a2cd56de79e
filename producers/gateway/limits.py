"""How much a token may ask: a bucket that holds `burst` records and fills at its rate.

A request larger than what is left is refused whole, unless the bucket is full: a batch above the burst passes then, and
the bucket owes the rest. So no size of batch is refused for ever, and none makes the rate larger.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from producers.gateway.tokens import Token


class _Bucket:
    __slots__ = ("at_s", "level", "row")

    def __init__(self, row: Token, at_s: float) -> None:
        self.row, self.at_s, self.level = row, at_s, float(row.burst)


class Limits:
    """The buckets of all tokens; `clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, row: Token, records: int) -> float:
        """Take so many records; 0, or the seconds to wait because they are too many now."""
        now_s = self._clock()
        bucket = self._buckets.get(row.token_id)
        if bucket is None or bucket.row != row:  # its rate may be another now
            bucket = self._buckets[row.token_id] = _Bucket(row, now_s)
        bucket.level = min(row.burst, bucket.level + (now_s - bucket.at_s) * row.records_per_s)
        bucket.at_s = now_s
        lacks = min(records, row.burst) - bucket.level
        if lacks > 0:
            return lacks / row.records_per_s
        bucket.level -= records
        return 0.0

    def give_back(self, row: Token, records: int) -> None:
        """They came to nothing, and not by the sender's fault."""
        bucket = self._buckets.get(row.token_id)
        if bucket is not None and bucket.row == row:
            bucket.level = min(row.burst, bucket.level + records)


def retry_after(seconds: float) -> str:
    """As the header wants it: whole seconds, 1 at least."""
    return str(max(1, math.ceil(seconds)))
