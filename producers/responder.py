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
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import Metric

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
from schemas.observed import Observed, Pulse, counter, gauge

log = logging.getLogger(__name__)

SESSIONS_MAX: Final = 256
_BEAT_S: Final = 1.0
_STUCK_S: Final = 30.0
_OFFSET_NS_MAX: Final = (1 << 32) - 1


@dataclass(slots=True)
class _Session:
    """One agent's current train: arrivals by index, and when the first came."""

    train: int = -1
    first_ns: int = 0
    arrivals: dict[int, int] = field(default_factory=dict)


class Responder(Observed):
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
        self._counts: Counter[str] = Counter()
        self._bytes = 0
        self._pulse = Pulse("the responder's loop", _STUCK_S)
        self._beating = self._loop.call_later(_BEAT_S, self._beat)
        self.observe()

    def figures(self) -> Iterator[Metric]:
        """What it was sent, and what it did with that."""
        packets = {(kind,): self._counts[kind] for kind in ("greeted", "train", "report", "ignored")}
        yield counter("proxima_responder_packets", "Packets by what they were to us.", packets, "kind")
        yield counter("proxima_responder_train_bytes", "Bytes of trains that were taken.", self._bytes)
        about = "Packets that were sent away because their sender has spent its hour's bytes."
        yield counter("proxima_responder_refused_packets", about, self._counts["refused"])
        yield gauge("proxima_responder_sessions", "Agents whose last train is kept.", len(self._sessions))

    def stuck(self) -> str:
        """The loop's."""
        return self._pulse.stuck()

    def _beat(self) -> None:
        self._pulse.beat()
        self._beating = self._loop.call_later(_BEAT_S, self._beat)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        self.unobserve()
        self._beating.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _receive(self) -> None:
        for arrival in arrivals(self._socket):
            self._counts[self._handle(arrival)] += 1

    def _handle(self, arrival: Arrival) -> str:
        """What the packet was to us."""
        if len(arrival.packet) < REQUEST_BYTES or not arrival.packet.startswith(MAGIC):
            return "ignored"
        _, kind, session = HEADER.unpack_from(arrival.packet)
        if kind == Kind.HELLO:
            return self._greet(arrival, session)
        if kind not in (Kind.TRAIN, Kind.ASK):
            return "ignored"
        cookie = arrival.packet[HEADER.size : HEADER.size + COOKIE.size]
        if not hmac.compare_digest(cookie, self._cookie(arrival, session)):
            return "ignored"
        return (self._take if kind == Kind.TRAIN else self._report)(arrival, session)

    def _greet(self, arrival: Arrival, session: bytes) -> str:
        if self._budget.left(arrival.sender) <= 0:
            self._send(arrival, HEADER.pack(MAGIC, Kind.BUSY, session))
            return "refused"
        self._send(arrival, HEADER.pack(MAGIC, Kind.COOKIE, session) + self._cookie(arrival, session))
        return "greeted"

    def _take(self, arrival: Arrival, session: bytes) -> str:
        _, train, index, count = CAR.unpack_from(arrival.packet, HEADER.size)
        if not index < count <= TRAIN_PACKETS_MAX:
            return "ignored"
        if self._budget.left(arrival.sender) <= 0:
            return "refused"
        self._bytes += len(arrival.packet)
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
        return "train"

    def _report(self, arrival: Arrival, session: bytes) -> str:
        _, train = ASK.unpack_from(arrival.packet, HEADER.size)
        kept = self._sessions.get((arrival.sender, session))
        rows = list(kept.arrivals.items()) if kept is not None and kept.train == train else []
        body = b"".join(ARRIVAL.pack(index, offset_ns) for index, offset_ns in rows)
        header = HEADER.pack(MAGIC, Kind.REPORT, session)
        self._send(arrival, header + REPORT.pack(train, len(rows)) + body)
        return "report"

    def _send(self, to: Arrival, packet: bytes) -> None:
        with contextlib.suppress(OSError):  # who asked will ask again
            self._socket.sendto(packet, (to.sender, to.port))

    def _cookie(self, of: Arrival, session: bytes) -> bytes:
        known = f"{of.sender} {of.port} ".encode() + session
        return hmac.new(self._secret, known, hashlib.sha256).digest()[: COOKIE.size]


def run(role: config.RespondConfig, opened: Callable[[], None] = lambda: None) -> None:
    """`proxima respond`: answer until SIGTERM or SIGINT; `opened` is called when it does.

    Raises ProbeError: the address cannot be had.
    """
    asyncio.run(_until_signalled(role.respond, opened))


async def _until_signalled(settings: config.Respond, opened: Callable[[], None]) -> None:
    stop = told_to_end()
    responder = Responder(settings)
    log.info("answering bandwidth trains at %s port %d", settings.bind, responder.port)
    opened()
    try:
        await stop
    finally:
        responder.close()
