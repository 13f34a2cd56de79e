"""TCP connect: would the target take a connection, and how long does its handshake take?

The kernel's own `connect()`, so no privilege is needed and firewalls see what they see every day. It is timed by the
kernel too: what `TCP_INFO` calls the smoothed round-trip time is, of a new connection, its SYN's. Our own time, from
before `connect()` to the event loop's turn after the answer, would read high whenever the agent is busy.

A lost SYN is sent again by the kernel after a second, and an answer to that one is no round-trip time: it counts as
lost. Connections are reset, not closed: an orderly close would keep the source port for a minute in TIME_WAIT, and
500 probes a second would use all of them up.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import itertools
import socket
import struct
import time
from typing import Final

from producers.probes import Answer, Ended, Endpoint
from producers.probes.flights import Flight, Flights
from schemas.records import Outcome

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_TCP_INFO_BYTES: Final = 104
# In struct tcp_info: tcpi_rtt, microseconds, and tcpi_total_retrans.
_RTT_AT, _TOTAL_RETRANS_AT = 68, 100
# What the network said, as Linux turns ICMP codes into errors (icmp_err_convert): the first code of each.
_UNREACHABLE: Final = {errno.ENETUNREACH: 0, errno.EHOSTUNREACH: 1, errno.ENOPROTOOPT: 2, errno.EHOSTDOWN: 7}


class TcpConnect:
    """The method `tcp-connect`; make it where an event loop runs."""

    method: Final = "tcp-connect"

    def __init__(self, timeout_s: float) -> None:
        self._numbers = itertools.count()
        self._flights: Flights[int] = Flights(timeout_s, _nothing_to_read)
        self._open: set[socket.socket] = set()
        self._loop = asyncio.get_running_loop()

    def ask(self, endpoint: Endpoint, ended: Ended) -> None:
        try:
            connection = socket.socket(endpoint.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:  # no descriptor left
            ended(Answer(Outcome.NOT_SENT))
            return
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._open.add(connection)
        flight = self._flights.begin(next(self._numbers), endpoint, functools.partial(self._close, connection, ended))
        error = connection.connect_ex((endpoint.address, endpoint.port))
        if error == errno.EINPROGRESS:
            self._loop.add_writer(connection, self._writable, connection, flight)
        elif error in (0, errno.ECONNREFUSED):  # the answer of a port on this machine
            self._flights.end(flight, _answer(connection, error, flight))
        else:
            self._flights.end(flight, Answer(Outcome.NOT_SENT))

    def close(self) -> None:
        self._flights.close()
        for connection in self._open:
            self._loop.remove_writer(connection)
            connection.close()

    def _writable(self, connection: socket.socket, flight: Flight[int]) -> None:
        answer = _answer(connection, connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), flight)
        self._flights.end(flight, answer)

    def _close(self, connection: socket.socket, ended: Ended, answer: Answer) -> None:
        self._open.discard(connection)
        self._loop.remove_writer(connection)
        connection.close()
        ended(answer)


def _answer(connection: socket.socket, error: int, flight: Flight[int]) -> Answer:
    seen_ms = (time.perf_counter_ns() - flight.sent_ns) / 1e6
    if error == errno.ECONNREFUSED:
        return Answer(Outcome.REFUSED)
    if error in _UNREACHABLE:
        return Answer(Outcome.UNREACHABLE, code=_UNREACHABLE[error])
    info = b"" if error else connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    if len(info) < _TCP_INFO_BYTES:
        return Answer(Outcome.TIMED_OUT) if error else Answer(Outcome.ANSWERED, seen_ms)
    (rtt_us,), (sent_again,) = (
        struct.unpack_from("=I", info, _RTT_AT),
        struct.unpack_from("=I", info, _TOTAL_RETRANS_AT),
    )
    if sent_again:
        return Answer(Outcome.TIMED_OUT)
    return Answer(Outcome.ANSWERED, rtt_us / 1e3 if 0 < rtt_us / 1e3 <= seen_ms else seen_ms)


def _nothing_to_read() -> None:
    """Each connection is its own socket, and the event loop looks at sockets before it looks at time."""
