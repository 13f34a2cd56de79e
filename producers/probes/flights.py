"""What was asked and has not ended: by a key that its answer brings back, until a time-out that all share.

Because all have the same time-out, those that are due stand at the front of a queue: no timer a probe. The queue is
looked through every `_SWEEP_S` at most, so a probe may time out so much late. It is looked through only after the
sockets were read to their end: what had arrived in time is no loss because we were late to look. And where the kernel
says that it threw arrivals away because nobody read them, whatever was under way by then and stays without an answer
is SUSPECT.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from producers.probes import Answer, Ended, Endpoint
from schemas.records import Outcome

_SWEEP_S: Final = 0.01
Key = TypeVar("Key", bound=Hashable)


@dataclass(slots=True, eq=False)
class Flight(Generic[Key]):
    """One probe under way; moments in nanoseconds: of the wall clock, of the performance counter, and the kernel's."""

    key: Key
    endpoint: Endpoint
    ended: Ended
    sent_wall_ns: int = 0
    sent_ns: int = 0
    kernel_sent_ns: int = 0
    over: bool = False


class Flights(Generic[Key]):
    """The table of one probe; `read` reads its sockets to their end."""

    def __init__(self, timeout_s: float, read: Callable[[], None]) -> None:
        self._timeout_s, self._read = timeout_s, read
        self._by_key: dict[Key, Flight[Key]] = {}
        self._by_age: deque[Flight[Key]] = deque()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._overflown, self._doubted_ns = 0, 0

    def __contains__(self, key: Key) -> bool:
        return key in self._by_key

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: Key) -> Flight[Key] | None:
        return self._by_key.get(key)

    def begin(self, key: Key, endpoint: Endpoint, ended: Ended) -> Flight[Key]:
        """A probe that is about to be sent; its moments are set to now."""
        flight = Flight(key, endpoint, ended, time.time_ns(), time.perf_counter_ns())
        self._by_key[key] = flight
        self._by_age.append(flight)
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s, self._sweep)
        return flight

    def end(self, flight: Flight[Key], answer: Answer) -> None:
        """Say how a probe ended; one that had ended before stays as it was."""
        if flight.over:
            return
        flight.over = True
        del self._by_key[flight.key]
        self._forget()
        flight.ended(answer)

    def overflown(self, arrivals: int) -> None:
        """So many were thrown away unread since the socket was opened."""
        if arrivals > self._overflown:
            self._overflown, self._doubted_ns = arrivals, time.perf_counter_ns()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._by_key.clear()
        self._by_age.clear()

    def _sweep(self) -> None:
        self._timer = None
        self._read()
        now_ns, timeout_ns = time.perf_counter_ns(), round(self._timeout_s * 1e9)
        while self._by_age and self._by_age[0].sent_ns + timeout_ns <= now_ns:
            doubted = self._by_age[0].sent_ns <= self._doubted_ns
            self.end(self._by_age[0], Answer(Outcome.SUSPECT if doubted else Outcome.TIMED_OUT))
        if self._by_age and self._timer is None:
            left_s = (self._by_age[0].sent_ns + timeout_ns - now_ns) / 1e9
            self._timer = self._loop.call_later(max(left_s, _SWEEP_S), self._sweep)

    def _forget(self) -> None:
        """The oldest, as far as they have ended; at once, for a second's worth of them would hold the loop up."""
        while self._by_age and self._by_age[0].over:
            self._by_age.popleft()
