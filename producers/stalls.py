"""When this process was kept from running, by a timer that rings too late.

One event loop asks and listens. While it does not run (another process has the processor, a virtual machine is paused,
somebody sent SIGSTOP) nothing is sent on time, user-space times are wrong, and if it was the machine that stood still
the kernel's stamps are too. Whoever measured meanwhile cannot say whose delay it was.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

# A busy but healthy machine wakes us some milliseconds late now and then; that much error is what an RTT has here.
STALL_MS: Final = 25.0
_WATCH_EVERY_S: Final = 0.01
_KEPT_MAX: Final = 1000


class Stall(NamedTuple):
    """From when a timer should have rung until it did, by the event loop's clock."""

    began_s: float
    ended_s: float


class Stalls:
    """The recent ones. Make it where an event loop runs; it watches until it is closed."""

    def __init__(self) -> None:
        self._recent: deque[Stall] = deque(maxlen=_KEPT_MAX)
        self._longest_ms = 0.0
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(_WATCH_EVERY_S, self._ring, self._loop.time() + _WATCH_EVERY_S)

    def since(self, moment_s: float) -> Iterator[Stall]:
        """Those that ended after a moment."""
        return (stall for stall in self._recent if stall.ended_s > moment_s)

    def take_longest_ms(self) -> float:
        """The longest delay since this was last asked."""
        longest_ms, self._longest_ms = self._longest_ms, 0.0
        return longest_ms

    def close(self) -> None:
        self._handle.cancel()

    def _ring(self, due_s: float) -> None:
        now_s = self._loop.time()
        late_ms = (now_s - due_s) * 1000
        self._longest_ms = max(self._longest_ms, late_ms)
        if late_ms > STALL_MS:
            self._recent.append(Stall(due_s, now_s))
        self._handle = self._loop.call_at(now_s + _WATCH_EVERY_S, self._ring, now_s + _WATCH_EVERY_S)
