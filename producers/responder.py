"""`proxima respond`: takes bandwidth trains, and says when the kernel had each packet.

It speaks only to who can be reached where he says he is (a cookie, kept nowhere: it is the hash of his address), sends
never more than it got, and takes from one address so many bytes an hour. All that it keeps is bounded; what does not
look like a train is dropped without a word (producers/probes/trains.py draws the conversation).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import secrets
import socket
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from producers.probes.budget import HourlyBudget
from producers.probes.stamped import Arrival, arrivals, open_stamped
from producers.probes.trains import (
    ARRIVAL,
    ASK,
    CAR,
    COOKIE,
    HEADER,
    MAGIC,
    REPORT,
    REQUEST_BYTES,
    TRAIN_PACKETS_MAX,
    Kind,
)
from producers.signals import told_to_end
from schemas import config
from schemas.errors import ProbeError

log = logging.getLogger(__name__)

SESSIONS_MAX: Final = 256
_OFFSET_NS_MAX: Final = (1 << 32) - 1


@dataclass(slots=True)
class _Session:
    """One agent's current train: arrivals by index, and when the first came."""

    train: int = -1
    first_ns: int = 0
    arrivals: dict[int, int] = field(default_factory=dict)


class Responder:
    """Answers on one UDP socket; make it where an event loop runs. Raises ProbeError when the address is taken."""

    def __init__(self, settings: config.Respond) -> None:
        family = socket.AF_INET6 if ":" in settings.bind else socket.AF_INET
        self._socket = open_stamped(family, socket.SOCK_DGRAM, departures=False)
        try:
            if family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            self._socket.bind((settings.bind, settings.port))
        except OSError as error:
            self._socket.close()
            where = f"{settings.bind} port {settings.port}"
            raise ProbeError(f"cannot listen: {error.strerror}", where=where, do="see [respond]") from error
        self._secret = secrets.token_bytes(32)
        self._sessions: OrderedDict[tuple[str, bytes], _Session] = OrderedDict()
        self._budget = HourlyBudget(settings.bytes_per_hour_max)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._receive)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _receive(self) -> None:
        for arrival in arrivals(self._socket):
            if len(arrival.packet) >= REQUEST_BYTES and arrival.packet.startswith(MAGIC):
                _, kind, session = HEADER.unpack_from(arrival.packet)
                if kind == Kind.HELLO:
                    self._greet(arrival, session)
                elif kind in (Kind.TRAIN, Kind.ASK):
                    cookie = arrival.packet[HEADER.size : HEADER.size + COOKIE.size]
                    if hmac.compare_digest(cookie, self._cookie(arrival, session)):
                        (self._take if kind == Kind.TRAIN else self._report)(arrival, session)

    def _greet(self, arrival: Arrival, session: bytes) -> None:
        if self._budget.left(arrival.sender) <= 0:
            self._send(arrival, HEADER.pack(MAGIC, Kind.BUSY, session))
        else:
            self._send(arrival, HEADER.pack(MAGIC, Kind.COOKIE, session) + self._cookie(arrival, session))

    def _take(self, arrival: Arrival, session: bytes) -> None:
        _, train, index, count = CAR.unpack_from(arrival.packet, HEADER.size)
        if not index < count <= TRAIN_PACKETS_MAX or self._budget.left(arrival.sender) <= 0:
            return
        self._budget.spend(arrival.sender, len(arrival.packet))
        kept = self._sessions.setdefault((arrival.sender, session), _Session())
        self._sessions.move_to_end((arrival.sender, session))
        if len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        arrived_ns = arrival.kernel_ns or time.time_ns()
        if train > kept.train:
            kept.train, kept.first_ns, kept.arrivals = train, arrived_ns, {}
        offset_ns = arrived_ns - kept.first_ns
        if train == kept.train and 0 <= offset_ns <= _OFFSET_NS_MAX:
            kept.arrivals.setdefault(index, offset_ns)

    def _report(self, arrival: Arrival, session: bytes) -> None:
        _, train = ASK.unpack_from(arrival.packet, HEADER.size)
        kept = self._sessions.get((arrival.sender, session))
        rows = list(kept.arrivals.items()) if kept is not None and kept.train == train else []
        body = b"".join(ARRIVAL.pack(index, offset_ns) for index, offset_ns in rows)
        header = HEADER.pack(MAGIC, Kind.REPORT, session)
        self._send(arrival, header + REPORT.pack(train, len(rows)) + body)

    def _send(self, to: Arrival, packet: bytes) -> None:
        with contextlib.suppress(OSError):  # who asked will ask again
            self._socket.sendto(packet, (to.sender, to.port))

    def _cookie(self, of: Arrival, session: bytes) -> bytes:
        known = f"{of.sender} {of.port} ".encode() + session
        return hmac.new(self._secret, known, hashlib.sha256).digest()[: COOKIE.size]


def run(role: config.RespondConfig) -> None:
    """`proxima respond`: answer until SIGTERM or SIGINT. Raises ProbeError: the address cannot be had."""
    asyncio.run(_until_signalled(role.respond))


async def _until_signalled(settings: config.Respond) -> None:
    stop = told_to_end()
    responder = Responder(settings)
    log.info("answering bandwidth trains at %s port %d", settings.bind, responder.port)
    try:
        await stop
    finally:
        responder.close()
