"""Rankings out: the latest of each primary, and a stream of all that come (server-sent events).

An event's id says what its subscriber has by now, as `PRIMARY:SEQUENCE` of each primary, with commas. A browser sends
it back as Last-Event-ID when it reconnects, and gets what it missed: of each primary the rankings since that are still
remembered. A sequence above the latest is of a topic that is no more, and counts as none. Subscribers drop a `sequence`
at or below the last one that they handled, as always.

Whoever does not take its events in time is dropped, and comes back: no subscriber holds another up, nor our memory.
Whose token is revoked gets nothing more: it is looked up again before each event, and while a stream is silent.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from producers.gateway.gauges import Gauges
from schemas.codec import to_plain
from schemas.config import Gateway
from schemas.records import FailoverRanking
from schemas.validate import REGION_ID

log = logging.getLogger(__name__)

REMEMBERED: Final = 32  # rankings of a primary: minutes of heartbeats, or a bad quarter of an hour
_LOOK_S: Final = 0.5  # how often a silent stream's token is looked up
LAST_EVENT_ID: Final = r"^([a-z0-9][a-z0-9-]{0,62}:[0-9]{1,18})?(,[a-z0-9][a-z0-9-]{0,62}:[0-9]{1,18})*$"
_SEQUENCES: Final = range(10**18)  # as many digits as an id may have
_OVER: Final = None


class _Said:
    """A ranking as it goes out, made text once for all subscribers. Raises ValueError: it cannot be told."""

    __slots__ = ("decided_at_ms", "primary", "sequence", "text")

    def __init__(self, ranking: FailoverRanking) -> None:
        self.primary, self.sequence = ranking.primary_region, ranking.sequence
        if not REGION_ID.fullmatch(self.primary) or self.sequence not in _SEQUENCES:
            raise ValueError("nobody could send its event's id back")
        self.decided_at_ms = ranking.decided_at_ms
        self.text = json.dumps(to_plain(ranking), allow_nan=False)


class Rankings:
    """What was decided of late, and who wants to know. All in one event loop, but `heard`."""

    def __init__(self, settings: Gateway, gauges: Gauges) -> None:
        self._settings, self._gauges = settings, gauges
        self._said: dict[str, deque[_Said]] = {}
        self._newest_ms = 0
        self._subscribers: dict[Subscriber, str] = {}  # each with its token's id
        self._loop = asyncio.get_running_loop()

    def heard(self, rankings: Iterable[FailoverRanking]) -> None:
        """They were published, are of one primary and in their order; from any thread."""
        said = []
        for ranking in rankings:
            try:
                said.append(_Said(ranking))
            except ValueError as error:
                log.warning("ranking %d of %r is left out: %s", ranking.sequence, ranking.primary_region, error)
        if said:
            self._loop.call_soon_threadsafe(self._take, said)

    def latest(self, primary: str) -> str | None:
        """The latest ranking as JSON; None: there is none."""
        said = self._said.get(primary)
        return said[-1].text if said else None

    @property
    def is_full(self) -> bool:
        """Whether as many subscribe as may."""
        return len(self._subscribers) >= self._settings.streams_max

    def has_enough(self, token_id: str) -> bool:
        """Whether as many subscribe with one token as may."""
        return sum(each == token_id for each in self._subscribers.values()) >= self._settings.token_streams_max

    def subscribe(
        self,
        token_id: str,
        may_see: Callable[[str], bool],
        has: Mapping[str, int],
        wanted: Collection[str],
        is_known: Callable[[], bool],
    ) -> Subscriber:
        """A subscriber that has these sequences already; nothing `wanted`: all primaries. It ends when its token is
        not known any more.
        """

        def wants(primary: str) -> bool:
            return may_see(primary) and (not wanted or primary in wanted)

        subscriber = Subscriber(self, self._settings, wants, dict(has), is_known)
        self._subscribers[subscriber] = token_id
        self._gauges.streams.set(len(self._subscribers))
        for primary in sorted(self._said):
            subscriber.offer(self._said[primary], bounded=False)  # by what is remembered
        return subscriber

    def close(self) -> None:
        """All streams end: the gateway does."""
        for subscriber in list(self._subscribers):
            subscriber.end()

    def _left(self, subscriber: Subscriber, *, slow: bool) -> None:
        del self._subscribers[subscriber]
        self._gauges.streams.set(len(self._subscribers))
        self._gauges.dropped_streams.inc(slow)

    def _take(self, heard: Sequence[_Said]) -> None:
        self._gauges.heard.inc(len(heard))
        self._newest_ms = max(self._newest_ms, *(said.decided_at_ms for said in heard))
        self._gauges.newest.set(self._newest_ms / 1000)
        known, new = self._said.setdefault(heard[0].primary, deque(maxlen=REMEMBERED)), []
        for said in heard:
            if not known or said.sequence > known[-1].sequence:
                known.append(said)
                new.append(said)
        if new:
            for subscriber in list(self._subscribers):
                subscriber.offer(new, bounded=len(new) == 1)


class Subscriber(Response):
    """One stream, as the answer to its request."""

    media_type = "text/event-stream"

    def __init__(
        self,
        rankings: Rankings,
        settings: Gateway,
        wants: Callable[[str], bool],
        has: dict[str, int],
        is_known: Callable[[], bool],
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._rankings, self._settings, self._wants, self._has = rankings, settings, wants, has
        self._is_known = is_known
        self._last = dict(has)  # that it has, or that waits for it
        self._waiting: deque[_Said | None] = deque()
        self._news = asyncio.Event()
        self._slow = False

    def offer(self, said: Sequence[_Said], *, bounded: bool = True) -> None:
        """Let it have the rankings of a primary that it has not; too many in waiting, and it is dropped."""
        primary, latest = said[-1].primary, said[-1].sequence
        if not self._wants(primary):
            return
        last = self._last.get(primary)
        if last is not None and last > latest:  # of a topic that is no more
            self._has.pop(primary, None)
            last = None
        # Who comes for the first time wants how things stand, and no history.
        new = [each for each in said if each.sequence > last] if last is not None else [said[-1]]
        if bounded and len(self._waiting) + len(new) > self._settings.stream_lag_max:
            self._slow = True
            self.end()
        elif new:
            self._waiting.extend(new)
            self._last[primary] = latest
            self._news.set()

    def end(self) -> None:
        """Nothing more for this one."""
        self._waiting.clear()
        self._waiting.append(_OVER)
        self._news.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send(send, ": rankings\n\n")
            while not gone.done():
                text = await self._next(gone)
                if text is None:
                    break
                await self._send(send, text)
            if not gone.done() and not self._slow:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            self._slow = True
        except OSError:
            pass  # it hung up
        finally:
            gone.cancel()
            self._rankings._left(self, slow=self._slow)
            if self._slow:
                log.warning("a subscriber did not take its rankings in time, and is dropped")

    async def _send(self, send: Send, text: str) -> None:
        message = {"type": "http.response.body", "body": text.encode(), "more_body": True}
        await asyncio.wait_for(send(message), self._settings.stream_send_s)

    async def _next(self, gone: asyncio.Future[None]) -> str | None:
        """The next event, or a heartbeat; None: it is over."""
        silent_until_s = time.monotonic() + self._settings.heartbeat_s
        while not self._waiting and not gone.done() and self._is_known():
            left_s = silent_until_s - time.monotonic()
            if left_s <= 0:
                return ": still here\n\n"
            await self._wait(gone, min(left_s, _LOOK_S))
        if gone.done() or not self._is_known():
            return None
        said = self._waiting.popleft()
        if said is None:
            return None
        self._has[said.primary] = said.sequence
        has = ",".join(f"{primary}:{sequence}" for primary, sequence in sorted(self._has.items()))
        return f"id: {has}\nevent: ranking\ndata: {said.text}\n\n"

    async def _wait(self, gone: asyncio.Future[None], timeout_s: float) -> None:
        """For something to send, or for its end, so long at most."""
        self._news.clear()
        news = asyncio.ensure_future(self._news.wait())
        either: set[asyncio.Future[Any]] = {news, gone}
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        news.cancel()


def sequences(last_event_id: str) -> dict[str, int]:
    """What a subscriber has, by the id of the last event that it saw; its form has been checked."""
    return {primary: int(number) for primary, _, number in (e.partition(":") for e in last_event_id.split(",") if e)}


async def _disconnected(receive: Receive) -> None:
    while True:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            return
