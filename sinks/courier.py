"""A courier carries rankings to one destination by HTTP: each primary's one after the other, primaries side by side.

    submit -> [primary's queue] -> permit of the breaker -> POST -> 2xx: delivered
                     ^                                       |
                     +--- pause with full jitter, Retry-After +  410: gone; the last try failed: given up

A ranking leaves its queue only when it was delivered or given up, so no later one of the primary overtakes it. What
happened comes out of `results`. Asyncio in a thread of its own, so that whoever polls Kafka never waits for a receiver.

**Breaker.** What says that the destination as a whole is away (no connection, TLS that fails, 429, 502, 503, 504)
counts always. A 500 or a time-out may be one primary's own misfortune: it counts only while another primary fails too,
so that a single bad one cannot close the door to the rest. A half-open breaker's probe is a try like any other.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Any, Final

import aiohttp

from schemas.breaker import Breaker, Change, Limits, Permit, State
from schemas.errors import ConfigError
from schemas.webhook import Destination
from sinks.signing import signed_headers
from sinks.sink import Meta

log = logging.getLogger(__name__)

# An answer's body is not looked at; reading a short one to its end keeps the connection.
BODY_BYTES_MAX: Final = 16 << 10
BODY_WAIT_S: Final = 1.0
DRAIN_S: Final = 4.0
_LOOK_S: Final = 0.1
_AWAY: Final = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Parcel:
    """A ranking to deliver; `webhook_id` is its decision's, and tells a receiver that it had this before."""

    primary: str
    sequence: int
    webhook_id: str
    body: bytes
    meta: Meta


class Ending(Enum):
    DELIVERED = auto()
    GIVEN_UP = auto()
    GONE = auto()  # not delivered: the destination wants nothing any more
    BROKEN = auto()  # a fault of ours


@dataclass(frozen=True, slots=True)
class Result:
    parcel: Parcel
    ending: Ending
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Failure:
    what: str
    is_away: bool
    """It says something of the destination, and not only of this ranking."""
    retry_after_s: float = 0.0
    is_gone: bool = False


class Courier:
    """To one destination; one other thread calls `submit`, `drain` and `close`. Raises ConfigError: a bad `ca_file`."""

    def __init__(self, destination: Destination, keys: Sequence[bytes]) -> None:
        self.results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._to, self._keys = destination, keys
        self._tls = _tls(destination)
        limits = Limits(
            failures=destination.breaker_failures,
            open_s=destination.breaker_open_ms / 1000,
            open_s_max=destination.breaker_open_ms_max / 1000,
            answer_s=destination.timeout_ms / 1000 + 10,
        )
        self.breaker = Breaker(f"webhook {destination.name}", limits, clock=time.monotonic, on_change=_changed)
        self._queues: dict[str, deque[Parcel]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._posting: set[str] = set()
        self._failing: set[str] = set()  # primaries whose last try failed
        self._not_before_s = 0.0
        self._is_draining = self._is_gone = False
        self._session: aiohttp.ClientSession | None = None
        self._in_flight = asyncio.Semaphore(destination.in_flight_max)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"webhook {destination.name}", daemon=True)
        self._thread.start()

    def submit(self, parcels: Sequence[Parcel]) -> None:
        """Deliver these after what was submitted before."""
        self._loop.call_soon_threadsafe(self._submit, parcels)

    def drain(self) -> None:
        """Finish what is on its way, at most `DRAIN_S` long, and forget what waits; then it takes parcels again."""
        asyncio.run_coroutine_threadsafe(self._drain(), self._loop).result()

    def close(self) -> None:
        """End the thread; closing twice is fine."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- in the loop's thread

    def _submit(self, parcels: Sequence[Parcel]) -> None:
        for parcel in parcels:
            waiting = self._queues.setdefault(parcel.primary, deque())
            waiting.append(parcel)
            if parcel.primary not in self._tasks:
                self._tasks[parcel.primary] = self._loop.create_task(self._carry(parcel.primary, waiting))

    async def _carry(self, primary: str, waiting: deque[Parcel]) -> None:
        """One primary's rankings, in their order."""
        try:
            while waiting and not self._is_draining and not self._is_gone:
                result = await self._deliver(waiting[0])
                if result is None:  # the loop is to end
                    return
                self.results.put(result)
                waiting.popleft()
        except Exception as error:
            log.exception("webhook %s", self._to.name)
            self.results.put(Result(waiting[0], Ending.BROKEN, repr(error)))
        finally:
            self._tasks.pop(primary, None)
            self._queues.pop(primary, None)

    async def _deliver(self, parcel: Parcel) -> Result | None:
        to, number = self._to, 0
        while True:
            number += 1
            failure = await self._try(parcel)
            if failure is None:
                return Result(parcel, Ending.DELIVERED)
            if failure.is_gone:
                self._is_gone = True
                return Result(parcel, Ending.GONE, failure.what)
            if self._is_draining or self._is_gone:
                return None
            log.info("webhook %s: %s %d, try %d of %d: %s",
                     to.name, parcel.primary, parcel.sequence, number, to.tries, failure.what)  # fmt: skip
            if number >= to.tries:
                return Result(parcel, Ending.GIVEN_UP, f"not delivered to {to.name} in {number} tries: {failure.what}")
            # Full jitter: whoever failed together does not come back together.
            longest_ms = min(to.retry_ms * 2.0 ** min(number - 1, 40), to.retry_ms_max)
            await asyncio.sleep(random.uniform(0, longest_ms) / 1000)  # noqa: S311

    async def _try(self, parcel: Parcel) -> _Failure | None:
        async with self._in_flight:
            permit = await self._permit()
            self._posting.add(parcel.primary)
            try:
                failure = await self._post(parcel)
            except BaseException:  # cancelled: says nothing about the destination
                permit.dropped()
                raise
            finally:
                self._posting.discard(parcel.primary)
        self._judge(parcel.primary, permit, failure)
        return failure

    async def _permit(self) -> Permit:
        while True:
            wait_s = self._not_before_s - time.monotonic()
            if wait_s <= 0:
                permit = self.breaker.ask()
                if permit is not None:
                    return permit
                wait_s = max(self.breaker.status().probe_in_s, _LOOK_S)
            await asyncio.sleep(wait_s)

    def _judge(self, primary: str, permit: Permit, failure: _Failure | None) -> None:
        if failure is None:
            self._failing.discard(primary)
            permit.passed()
            return
        self._not_before_s = max(self._not_before_s, time.monotonic() + failure.retry_after_s)
        is_the_destination = failure.is_away or bool(self._failing - {primary})
        self._failing.add(primary)
        if is_the_destination:
            permit.failed(failure.what)
        else:
            permit.dropped()

    async def _post(self, parcel: Parcel) -> _Failure | None:
        to = self._to
        headers = signed_headers(self._keys, parcel.webhook_id, int(time.time()), parcel.body)
        try:
            async with self._client().post(to.url, data=parcel.body, headers=headers, allow_redirects=False) as answer:
                await _read_a_little(answer)
                return _failure_of(answer, to)
        except aiohttp.ClientSSLError as error:  # a ClientConnectorError too, so it comes first
            return _Failure(f"TLS with {to.host} fails: {_said(error)}", is_away=True)
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            return _Failure(f"no connection to {to.host}: {_said(error)}", is_away=True)
        except TimeoutError:
            return _Failure(f"no answer within {to.timeout_ms} ms", is_away=False)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return _Failure(f"no proper answer: {type(error).__name__}", is_away=False)

    def _client(self) -> aiohttp.ClientSession:
        """Made at the first use: it belongs to the loop."""
        if self._session is None:
            to = self._to
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=to.in_flight_max, ssl=self._tls),
                timeout=aiohttp.ClientTimeout(total=to.timeout_ms / 1000, sock_connect=to.connect_timeout_ms / 1000),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,  # a proxy is a decision of the configuration, and of no other
                headers={"Content-Type": "application/json", "User-Agent": "proxima-webhook"},
            )
        return self._session

    async def _drain(self) -> None:
        self._is_draining = True
        tasks = dict(self._tasks)
        for primary, task in tasks.items():
            if primary not in self._posting:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks.values(), timeout=DRAIN_S)
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        self._tasks.clear()  # one that was cancelled before it began has cleared nothing
        self._queues.clear()
        self._is_draining = False

    async def _close(self) -> None:
        await self._drain()
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # the transports say goodbye


async def _read_a_little(answer: aiohttp.ClientResponse) -> None:
    """A short body to its end; a long, slow or broken one costs its connection, and nothing else."""
    try:
        async with asyncio.timeout(BODY_WAIT_S):
            await answer.content.readexactly(BODY_BYTES_MAX)
    except asyncio.IncompleteReadError:
        return
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass
    answer.close()


def _failure_of(answer: aiohttp.ClientResponse, to: Destination) -> _Failure | None:
    status = answer.status
    if status // 100 == 2:
        return None
    if status // 100 == 3:
        return _Failure(f"answers {status}, a redirect, which is not followed: give its true address", is_away=False)
    after_s = min(_seconds(answer.headers.get("Retry-After", "")), to.retry_after_ms_max / 1000)
    return _Failure(f"answers {status}", status in _AWAY, after_s, is_gone=status == 410)


def _seconds(text: str) -> float:
    """A Retry-After: seconds, or a date; 0 when it is neither."""
    text = text[:64].strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _tls(destination: Destination) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=destination.ca_file)
    except OSError as error:
        what = f"ca_file = {destination.ca_file}: {error.strerror or error}"
        raise ConfigError([what], where=f"webhook destination {destination.name}") from None


def _said(error: Any) -> str:
    inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    return getattr(inner, "verify_message", "") or getattr(inner, "strerror", None) or type(inner).__name__


def _changed(change: Change) -> None:
    if State.CLOSED in (change.before, change.after):
        log.warning("%s: its breaker is %s%s", change.name, change.after, change.reason and f": {change.reason}")
