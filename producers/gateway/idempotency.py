"""Whether it was asked before: a key of a token is remembered for a while, with what was asked and what was answered.

The same key with the same body gives the same answer and no second record, also while the first is still on its way:
the second waits for it. With another body it is a mistake. What failed is forgotten, so that it can be tried again.

At least once, still: a broker that confirmed into a connection that broke has the record, and a retry makes a second.
The fold does not mind (same source, same moment, same value); whoever counts records drops what is equal.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class OtherBodyError(Exception):
    """The key was used with another body."""


@dataclass(slots=True)
class _Asked(Generic[T]):
    digest: bytes
    until_s: float
    answer: asyncio.Future[T]


class Idempotency(Generic[T]):
    """Answers of type T by (token, key). Bounded in time and, for each token, in number; `clock` counts seconds."""

    def __init__(self, keep_s: float, keys_max: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep_s, self._keys_max, self._clock = keep_s, keys_max, clock
        self._known: dict[str, OrderedDict[str, _Asked[T]]] = {}

    async def once(self, token_id: str, key: str, body: bytes, do: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """What `do` answers, or answered when it was asked first; and whether it is the latter.

        Raises OtherBodyError, and whatever `do` raises.
        """
        known, now_s = self._known.setdefault(token_id, OrderedDict()), self._clock()
        while known and next(iter(known.values())).until_s <= now_s:
            known.popitem(last=False)
        digest = hashlib.blake2b(body, digest_size=16).digest()
        asked = known.get(key)
        if asked is not None:
            if asked.digest != digest:
                raise OtherBodyError
            return await asyncio.shield(asked.answer), True
        # A task of its own: whoever asked first may hang up, and others wait for the same.
        answer = asyncio.ensure_future(do())
        known[key] = asked = _Asked(digest, now_s + self._keep_s, answer)
        answer.add_done_callback(lambda done: self._forget_failure(known, key, asked, done))
        if len(known) > self._keys_max:
            known.popitem(last=False)
        return await asyncio.shield(answer), False

    @staticmethod
    def _forget_failure(
        known: OrderedDict[str, _Asked[T]], key: str, asked: _Asked[T], done: asyncio.Future[T]
    ) -> None:
        failed = done.cancelled() or done.exception() is not None  # asking also marks it as seen
        if failed and known.get(key) is asked:
            del known[key]
