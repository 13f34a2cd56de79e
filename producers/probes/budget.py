"""Bytes that may be spent an hour, for each of many: of paths by the agent, of agents by the responder."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Final

HOUR_S: Final = 3600.0
_SPENDERS_MAX: Final = 4096
# Small spendings within so long are kept as one, so that a spender has a hundred of them at most.
_TOGETHER_S: Final = HOUR_S / 100


class HourlyBudget:
    """At most `bytes_max` by each spender within any hour; the longest silent spender is forgotten of too many."""

    def __init__(self, bytes_max: int, now_s: Callable[[], float] = time.monotonic) -> None:
        self._bytes_max, self._now_s = bytes_max, now_s
        self._spent: OrderedDict[Hashable, deque[tuple[float, int]]] = OrderedDict()

    def left(self, spender: Hashable) -> int:
        """Bytes that it may still spend; below 0 when it has spent more."""
        spendings = self._spent.get(spender, deque())
        while spendings and spendings[0][0] <= self._now_s() - HOUR_S - _TOGETHER_S:
            spendings.popleft()
        return self._bytes_max - sum(spent for _, spent in spendings)

    def spend(self, spender: Hashable, spent: int) -> None:
        spendings = self._spent.setdefault(spender, deque())
        self._spent.move_to_end(spender)
        now_s = self._now_s()
        if spendings and now_s - spendings[-1][0] < _TOGETHER_S:
            began_s, before = spendings.pop()
            spendings.append((began_s, before + spent))
        else:
            spendings.append((now_s, spent))
        if len(self._spent) > _SPENDERS_MAX:
            self._spent.popitem(last=False)
