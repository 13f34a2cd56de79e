"""Health endpoints: does it answer, with what, and how fast. Each is asked through a breaker of its own.

    https://, http://   one GET over a connection of its own; the status that was declared is a yes, any other a no
    tcp://              a connection that is accepted

and some connections besides, whose middle round trip is the latency of the path.

What is asked was written by operators, and what answers may be anybody: redirects are not followed, no proxy of the
environment is used, no cookie is kept, nothing is decompressed, a body is read up to `BODY_BYTES_MAX` and no further,
and certificates are verified against the name that was declared. Everything together ends with the time-out.

A breaker counts only that no answer came. Whoever says no at once costs nothing, and is asked again at the next turn.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import socket
import ssl
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from schemas.breaker import Breaker, Change, Limits, State
from schemas.errors import ConfigError
from schemas.readiness import Place, place_of
from schemas.records import HealthEndpoint

log = logging.getLogger(__name__)

BODY_BYTES_MAX: Final = 64 << 10
_ADDRESS_S: Final = 30.0  # a name's addresses are looked up again after so long
_HEADERS: Final = {"User-Agent": "proxima-readiness", "Accept": "*/*", "Connection": "close"}
_REASON_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Seen:
    """What an endpoint answered; None: that could not be measured. `breaker`: its state afterwards."""

    endpoint: HealthEndpoint
    scheme: str
    answered: bool
    reason: str
    status: int | None = None
    answer_ms: float | None = None
    latency_ms: float | None = None
    took_ms: float = 0.0
    breaker: State = State.CLOSED


class _NoAnswerError(Exception):
    """Why, in words."""


class Health:
    """Asks endpoints. Make it, and close it, where an event loop runs. Raises ConfigError: no such certificates."""

    def __init__(
        self,
        *,
        timeout_s: float,
        connects: int,
        limits: Limits,
        ca_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout_s, self._connects, self._limits, self._clock = timeout_s, connects, limits, clock
        self._breakers: dict[HealthEndpoint, Breaker] = {}
        self._resolver = _Resolver(clock)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, force_close=True, ssl=_context(ca_file), use_dns_cache=False, resolver=self._resolver
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            headers=_HEADERS,
            trust_env=False,
            auto_decompress=False,
        )

    async def ask(self, endpoint: HealthEndpoint) -> Seen:
        """One answer; never raises for what an endpoint does."""
        place, breaker = place_of(endpoint), self._breaker(endpoint)
        permit = breaker.ask()
        if permit is None:
            status = breaker.status()
            wait = f"not asked for another {status.probe_in_s:.0f} s" if status.probe_in_s else "another asks it now"
            return Seen(endpoint, place.scheme, False, f"{status.reason} ({wait})", breaker=status.state)
        began_s = time.perf_counter()
        try:
            seen = await self._seen(endpoint, place)
        except _NoAnswerError as error:
            seen = Seen(endpoint, place.scheme, False, str(error)[:_REASON_MAX])
            permit.failed(seen.reason)
        except BaseException:  # cancelled, or a bug of ours: it says nothing about the endpoint
            permit.dropped()
            raise
        else:
            permit.passed()
        return replace(seen, took_ms=(time.perf_counter() - began_s) * 1000, breaker=breaker.state)

    async def address_of(self, endpoint: HealthEndpoint) -> str | None:
        """Where it is; None: nobody knows now."""
        place = place_of(endpoint)
        try:
            async with asyncio.timeout(self._timeout_s):
                return (await self._resolver.first(place.host, place.port))[1]
        except (OSError, UnicodeError):  # TimeoutError is an OSError
            return None

    def forget(self, kept: set[HealthEndpoint]) -> None:
        """Nobody asks the others any more."""
        self._breakers = {endpoint: breaker for endpoint, breaker in self._breakers.items() if endpoint in kept}

    async def close(self) -> None:
        await self._session.close()

    def _breaker(self, endpoint: HealthEndpoint) -> Breaker:
        known = self._breakers.get(endpoint)
        if known is None:
            # A query may be a secret, and a breaker's name is shown.
            known = Breaker(endpoint.url.partition("?")[0], self._limits, clock=self._clock, on_change=_tell)
            self._breakers[endpoint] = known
        return known

    async def _seen(self, endpoint: HealthEndpoint, place: Place) -> Seen:
        try:
            async with asyncio.timeout(self._timeout_s):
                address = await self._resolver.first(place.host, place.port)
        except TimeoutError:
            raise _NoAnswerError(f"no name server answered for {place.host} within {self._timeout_s:g} s") from None
        except (OSError, UnicodeError) as error:
            raise _NoAnswerError(f"{place.host} has no address: {error}") from None
        if place.scheme == "tcp":
            return await self._connected(Seen(endpoint, place.scheme, True, "it accepts connections"), address)
        seen = await self._got(endpoint, place)
        return await self._connected(seen, address)

    async def _got(self, endpoint: HealthEndpoint, place: Place) -> Seen:
        name = endpoint.tls_name or None
        began_s = time.perf_counter()
        try:
            async with self._session.get(endpoint.url, allow_redirects=False, server_hostname=name) as response:
                await _read(response.content)
        except TimeoutError:
            raise _NoAnswerError(f"no whole answer within {self._timeout_s:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            what = getattr(error.certificate_error, "verify_message", "") or error.certificate_error
            raise _NoAnswerError(f"its certificate does not prove that it is {place.tls_name}: {what}") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _NoAnswerError(_words(error)) from None
        answer_ms = (time.perf_counter() - began_s) * 1000
        said = f"answered {response.status}"
        wanted = "" if response.status == endpoint.expected_status else f", and {endpoint.expected_status} was to come"
        return Seen(endpoint, place.scheme, True, said + wanted, status=response.status, answer_ms=answer_ms)

    async def _connected(self, seen: Seen, address: tuple[socket.AddressFamily, str, int]) -> Seen:
        """With the latency of the path by some connections, one after the other, and all within the time-out."""
        taken_ms: list[float] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                for _ in range(self._connects):
                    taken_ms.append(await _connect_ms(*address))
        except TimeoutError:
            if not taken_ms:
                raise _NoAnswerError(f"no connection within {self._timeout_s:g} s") from None
        except OSError as error:
            raise _NoAnswerError(_words(error)) from None
        return replace(seen, latency_ms=statistics.median(taken_ms))


class _Resolver(AbstractResolver):
    """Looks names up once in a while, for the requests and for the connections besides: both go to the same address."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[tuple[str, int], tuple[float, list[tuple[socket.AddressFamily, str, int]]]] = {}

    async def first(self, host: str, port: int) -> tuple[socket.AddressFamily, str, int]:
        """Raises OSError, UnicodeError: it has none."""
        return (await self._all(host, port))[0]

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=of, proto=0, flags=socket.AI_NUMERICHOST)
            for of, address, _ in await self._all(host, port)
            if family in (socket.AF_UNSPEC, of)
        ]

    async def close(self) -> None:
        self._known = {}

    async def _all(self, host: str, port: int) -> list[tuple[socket.AddressFamily, str, int]]:
        try:
            literal = ipaddress.ip_address(host)
        except ValueError:
            pass
        else:
            return [(socket.AF_INET6 if literal.version == 6 else socket.AF_INET, host, port)]
        until_s, known = self._known.get((host, port), (0.0, []))
        if not known or self._clock() >= until_s:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            known = [(socket.AddressFamily(family), str(where[0]), port) for family, _, _, _, where in found]
            self._known[host, port] = self._clock() + _ADDRESS_S, known
        return known


async def _connect_ms(family: socket.AddressFamily, address: str, port: int) -> float:
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_STREAM) as opened:
        opened.setblocking(False)
        began_s = time.perf_counter()
        await loop.sock_connect(opened, (address, port))
        return (time.perf_counter() - began_s) * 1000


async def _read(content: aiohttp.StreamReader) -> None:
    """To its end or to the bound; what is behind that is nobody's business."""
    left = BODY_BYTES_MAX
    while left > 0 and (part := await content.read(left)):
        left -= len(part)


def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([f"readiness.ca_file: {error}"], where=str(ca_file), do="give a file in PEM format") from None


def _words(error: Exception) -> str:
    """What a socket or the HTTP parser says of it, short and on one line."""
    inner = getattr(error, "os_error", None)
    if isinstance(inner, ssl.SSLError) or isinstance(error, ssl.SSLError):
        return f"no TLS: {getattr(inner or error, 'reason', None) or inner or error}"
    failed = inner if isinstance(inner, OSError) else error
    if isinstance(failed, OSError) and failed.errno is not None and failed.errno in errno.errorcode:
        return os.strerror(failed.errno).lower()
    return " ".join((str(error) or type(error).__name__).split())


def _tell(change: Change) -> None:
    why = f": {change.reason}" if change.reason else ""
    log.log(
        logging.INFO if change.after is State.HALF_OPEN else logging.WARNING,
        "%s: its breaker is %s%s",
        change.name,
        change.after,
        why,
    )
