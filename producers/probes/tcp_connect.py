"""TCP connect: would the target take a connection, and how long does its handshake take?

The kernel's own `connect()`, so no privilege is needed and firewalls see what they see every day. It is timed in user
space: from just before `connect()` to the event loop's turn after the answer, so a busy agent reads high (64 µs against
45 at the median, 357 against 93 at the 99th percentile, beside kernel timestamps).

A lost SYN is sent again by the kernel after a second, and an answer to that one is no round-trip time: it counts as
lost. Connections are reset, not closed: an orderly close would keep the source port for a minute in TIME_WAIT, and
500 probes a second would use all of them up.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import time
from typing import Final

from producers.probes import Answer, Endpoint
from schemas.records import Outcome

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_TCP_INFO_BYTES: Final = 104
_TOTAL_RETRANS_AT: Final = 100  # tcpi_total_retrans in struct tcp_info
# What the network said, as Linux turns ICMP codes into errors (icmp_err_convert): the first code of each.
_UNREACHABLE: Final = {errno.ENETUNREACH: 0, errno.EHOSTUNREACH: 1, errno.ENOPROTOOPT: 2, errno.EHOSTDOWN: 7}


class TcpConnect:
    """The method `tcp-connect`."""

    method: Final = "tcp-connect"

    async def ask(self, endpoint: Endpoint, timeout_s: float) -> Answer:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                return await _connect(connection, endpoint, timeout_s)
        except OSError:  # no descriptor left
            return Answer(Outcome.NOT_SENT)

    def close(self) -> None:
        """Nothing outlives a probe."""


async def _connect(connection: socket.socket, endpoint: Endpoint, timeout_s: float) -> Answer:
    sent_ns = time.perf_counter_ns()
    error = connection.connect_ex((endpoint.address, endpoint.port))
    answered_ns = time.perf_counter_ns()
    if error == errno.EINPROGRESS:
        try:
            async with asyncio.timeout(timeout_s):
                answered_ns = await _writable(connection)
        except TimeoutError:
            return Answer(Outcome.TIMED_OUT)
        error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    elif error not in (0, errno.ECONNREFUSED):  # these two are the answer of a port on this machine
        return Answer(Outcome.NOT_SENT)
    if error == errno.ECONNREFUSED:
        return Answer(Outcome.REFUSED)
    if error in _UNREACHABLE:
        return Answer(Outcome.UNREACHABLE, code=_UNREACHABLE[error])
    if error or _was_sent_again(connection):
        return Answer(Outcome.TIMED_OUT)
    return Answer(Outcome.ANSWERED, (answered_ns - sent_ns) / 1e6)


async def _writable(connection: socket.socket) -> int:
    """When the connection was made or failed, as the event loop saw it (perf_counter_ns)."""
    loop = asyncio.get_running_loop()
    seen: asyncio.Future[int] = loop.create_future()

    def stamp() -> None:
        loop.remove_writer(connection)
        if not seen.done():
            seen.set_result(time.perf_counter_ns())

    loop.add_writer(connection, stamp)
    try:
        return await seen
    finally:
        loop.remove_writer(connection)


def _was_sent_again(connection: socket.socket) -> bool:
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return len(info) == _TCP_INFO_BYTES and bool(struct.unpack_from("I", info, _TOTAL_RETRANS_AT)[0])
