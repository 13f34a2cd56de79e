"""Each probe of a tick at its own moment, and never many at once.

A tick of n probes has n slots of equal length, and each probe leaves at a moment of its slot that chance chooses: the
spacing is even (RFC 3432), and no two agents, and nothing periodic in the network, keep in step with us.

What is overdue, because we were kept from running, is caught up with at twice the plan's rate at most, and within the
configured one: a burst of our own making would measure itself. What is a whole tick late has had its turn: it is not
sent any more, and that is our failure.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

CATCH_UP: Final = 2.0
# The event loop's clock is good for a millisecond: so much of the rate may leave in one turn.
_TURN_S: Final = 0.001


def moments(began_s: float, tick_s: float, probes: int, chance: random.Random) -> list[float]:
    """When each of a tick's probes is due: one somewhere in each of as many equal slots, ascending."""
    slot_s = tick_s / probes
    return [began_s + (slot + chance.random()) * slot_s for slot in range(probes)]


class Pacer:
    """Sends a tick's probes; make it where an event loop runs, and run one tick at a time."""

    def __init__(self, tick_s: float, rate_max_per_s: float) -> None:
        self._tick_s, self._rate_max_per_s = tick_s, rate_max_per_s
        self._loop = asyncio.get_running_loop()
        self._free_s = 0.0  # when the rate lets the next one go
        self._handle: asyncio.TimerHandle | None = None

    async def run(
        self,
        due_s: Sequence[float],
        send: Callable[[int], None],
        skip: Callable[[int], None],
        stop: asyncio.Future[None],
    ) -> int:
        """Call `send` with each index at its moment, or `skip` when that was a tick ago, until `stop` is done.

        Returns how many had their turn. Raises what the two do.
        """
        gap_s = 1 / min(self._rate_max_per_s, CATCH_UP * len(due_s) / self._tick_s)
        done: asyncio.Future[None] = self._loop.create_future()
        turns = 0

        def go_on() -> None:
            nonlocal turns
            now_s = self._loop.time()
            self._free_s = max(self._free_s, now_s - _TURN_S)
            while turns < len(due_s):
                row = turns
                if due_s[row] < now_s - self._tick_s:
                    turns += 1
                    skip(row)
                elif max(due_s[row], self._free_s) > now_s:
                    self._handle = self._loop.call_at(max(due_s[row], self._free_s), ring)
                    return
                else:
                    self._free_s += gap_s
                    turns += 1
                    send(row)
            done.set_result(None)

        def ring() -> None:
            try:
                go_on()
            except Exception as error:  # else the event loop would only log it, and we would wait for ever
                done.set_exception(error)

        if not stop.done():
            ring()
        try:
            await asyncio.wait((done, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self._handle is not None:
                self._handle.cancel()
        if done.done():
            done.result()
        return turns
