"""Whether a sink's store takes what it is given, and when one that does not is asked again.

A circuit breaker is around the store: while it is open nothing is asked of it; half-open, one flush finds out, and each
that fails keeps it open for longer. Its state goes into the log, and as a word about it into the commits' metadata, to
whoever asks the group about its offsets (`proxima doctor`).
"""

from __future__ import annotations

import json
import logging
import time
from typing import Final

from schemas.breaker import Breaker, Change, Limits, Permit, State
from schemas.errors import DeliveryError, StoreUnavailableError

log = logging.getLogger(__name__)

_RETRY_MS_MIN: Final = 50


class Availability:
    """Of the store of one sink, as its answers tell."""

    def __init__(self, name: str, retry_ms_max: int) -> None:
        # One flush that fails is proof enough: it is tried again with the same records, and soon.
        limits = Limits(
            failures=1, open_s=_RETRY_MS_MIN / 1000, growth=2, open_s_max=retry_ms_max / 1000, answer_s=3600
        )
        self.breaker = Breaker(f"the store of sink {name}", limits, clock=time.monotonic, on_change=self._changed)
        self.word = _word(State.CLOSED)
        self._down_since_s: float | None = None

    @property
    def is_down(self) -> bool:
        """It failed, and no flush has passed since."""
        return self._down_since_s is not None

    @property
    def is_up(self) -> bool:
        """It has never failed, or has proven itself since."""
        return not self.is_down and self.breaker.state is State.CLOSED

    @property
    def may_be_asked(self) -> bool:
        """Not while the breaker is open."""
        return self.breaker.state is not State.OPEN

    def failed(self, error: StoreUnavailableError | DeliveryError, permit: Permit | None, waiting: int) -> bool:
        """It did not take `waiting` records; True: an outage begins."""
        if permit is not None:
            permit.failed(str(error))
        if self._down_since_s is not None:
            return False
        self._down_since_s = time.monotonic()
        log.error("%d records wait: %s", waiting, error)
        return True

    def passed(self, permit: Permit | None) -> bool:
        """It took everything, if need be without a permit; True: an outage is over."""
        if permit is not None:
            permit.passed()
        else:
            self.breaker.reset()
        if self._down_since_s is None:
            return False
        log.warning("the store is back after %.1f s", time.monotonic() - self._down_since_s)
        self._down_since_s = None
        return True

    def _changed(self, change: Change) -> None:
        """Of the breaker: said once when it opens and closes, for between it opens with every try."""
        if change.before is State.CLOSED or change.after is State.CLOSED:
            log.warning("%s: its breaker is %s", change.name, change.after)
            self.word = _word(change.after, change.reason)


def _word(state: State, reason: str = "") -> str:
    """A breaker's state, as a commit's metadata (4,096 bytes at most)."""
    said = {"breaker": state.value, "since_ms": time.time_ns() // 1_000_000, "reason": reason[:300]}
    return json.dumps(said)
