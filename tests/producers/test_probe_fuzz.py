"""A network that answers anything: a million bytes to each kind of probe, and it goes on measuring.

The far end of a tunnel answers each packet of a probe with noise, with the right answer spoilt somewhere, and with
what a router might have said about it, spoilt too.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import socket
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from producers.probes import Answer, Endpoint, Probe
from producers.probes.bandwidth import Bandwidth
from producers.probes.icmp import IcmpEcho
from producers.probes.stamped import checksum
from producers.probes.tcp_connect import TcpConnect
from producers.probes.tcp_syn import TcpSyn
from producers.probes.trains import ASK, COOKIE, HEADER, MAGIC, REPORT, Kind
from producers.responder import Responder
from schemas.config import Respond
from tests.network import NEEDS_ROOT, Host, hosts

BYTES = 1_000_000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
NEAR, FAR = "10.81.0.1", "10.81.0.2"


@contextmanager
def tunnel(host: Host) -> Iterator[int]:
    """What the host sends to 10.81.0.0/24, to be read and answered."""
    with host.entered():
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", b"tun0", _IFF_TUN | _IFF_NO_PI))
    host.run("ip", "address", "add", f"{NEAR}/24", "dev", "tun0")
    host.run("ip", "link", "set", "tun0", "up")
    try:
        yield tun
    finally:
        os.close(tun)


class Liar:
    """Answers from the far end of the tunnel, by chance of a seed; `honest` makes it tell the truth."""

    def __init__(self, tun: int, seed: int) -> None:
        self._tun, self._chance = tun, random.Random(seed)
        self.honest = False
        self.bytes_sent = 0

    def answer(self) -> None:
        while True:
            try:
                packet = os.read(self._tun, 65535)
            except BlockingIOError:
                return
            if packet[0] >> 4 != 4 or packet[16:20] != socket.inet_aton(FAR) or not _is_question(packet):
                continue
            truth = _truth(packet)
            if self.honest:
                self._write(packet[9], truth)
                continue
            noise = self._chance.randbytes(self._chance.randrange(200))
            about = struct.pack("!BBHI", 3, self._chance.randrange(16), 0, 0) + self._spoilt(packet)
            for protocol, body in (
                (packet[9], noise),
                (packet[9], self._spoilt(truth)),
                (packet[9], self._spoilt(truth)),
                (socket.IPPROTO_ICMP, _summed(about, 2)),
            ):
                self._write(protocol, body)

    def _spoilt(self, right: bytes) -> bytes:
        """With some bytes changed, cut off or added."""
        wrong = bytearray(right)
        for _ in range(self._chance.choice((0, 1, 1, 2, 8))):
            if wrong:
                wrong[self._chance.randrange(len(wrong))] = self._chance.randrange(256)
        if self._chance.random() < 0.3:
            del wrong[self._chance.randrange(len(wrong) + 1) :]
        return bytes(wrong) + self._chance.randbytes(self._chance.choice((0, 0, 0, 1, 50)))

    def _write(self, protocol: int, body: bytes) -> None:
        addresses = socket.inet_aton(FAR) + socket.inet_aton(NEAR)
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0) + addresses
        os.write(self._tun, _summed(header, 10) + body)
        self.bytes_sent += len(body)


def _is_question(packet: bytes) -> bool:
    """No more than that: what the kernel says to our lies is no reason for more of them."""
    if packet[9] == socket.IPPROTO_TCP:
        return packet[20 + 13] == 0x02
    return packet[9] == socket.IPPROTO_UDP or packet[20] == 8


def _truth(packet: bytes) -> bytes:
    """What an honest target answers: an echo, a SYN-ACK, a cookie or a report, behind the IP header."""
    body = packet[20:]
    if packet[9] == socket.IPPROTO_ICMP:
        return _summed(b"\0" + body[1:], 2)
    theirs, ours = body[2:4], body[0:2]
    pseudo = socket.inet_aton(FAR) + socket.inet_aton(NEAR) + b"\0" + packet[9:10]
    if packet[9] == socket.IPPROTO_TCP:
        number = (struct.unpack_from("!I", body, 4)[0] + 1) & 0xFFFFFFFF
        segment = theirs + ours + struct.pack("!IIBBHHH", 7, number, 5 << 4, 0x12, 1000, 0, 0)
        return _summed(pseudo + struct.pack("!H", 20) + segment, 12 + 16)[12:]
    payload = body[8:]
    said = _told(payload)
    return theirs + ours + struct.pack("!HH", 8 + len(said), 0) + said  # a UDP checksum of 0 is none


def _told(payload: bytes) -> bytes:
    if len(payload) < HEADER.size + ASK.size:
        return b""
    _, kind, session = HEADER.unpack_from(payload)
    if kind == Kind.HELLO:
        return HEADER.pack(MAGIC, Kind.COOKIE, session) + bytes(COOKIE.size)
    _, train = ASK.unpack_from(payload, HEADER.size)
    rows = b"".join(struct.pack("!HI", index, index * 1_000_000) for index in range(20))
    return HEADER.pack(MAGIC, Kind.REPORT, session) + REPORT.pack(train, 20) + rows


def _summed(packet: bytes, at: int) -> bytes:
    packet = packet[:at] + b"\0\0" + packet[at + 2 :]
    return packet[:at] + struct.pack("!H", checksum(packet + b"\0" * (len(packet) % 2))) + packet[at + 2 :]


def bandwidth(timeout_s: float) -> Probe:
    return Bandwidth(timeout_s, bytes_per_hour_max=1 << 40)


@NEEDS_ROOT
@pytest.mark.parametrize("make", [IcmpEcho, TcpSyn, TcpConnect, bandwidth])
def test_a_million_bytes_of_lies_kill_no_probe_and_fill_no_memory(make: Callable[[float], Probe]) -> None:
    seed = int(os.environ.get("PROXIMA_SEED", "1"))
    endpoint, ended = Endpoint(FAR, 80), 0

    async def run(tun: int) -> None:
        nonlocal ended
        loop, probe, liar = asyncio.get_running_loop(), make(0.05), Liar(tun, seed)
        loop.add_reader(tun, liar.answer)

        def end(_: Answer) -> None:
            nonlocal ended
            ended += 1

        asked, kept = 0, []
        tracemalloc.start()
        while liar.bytes_sent < BYTES:
            for _ in range(50):
                probe.ask(endpoint, end)
                asked += 1
            while ended < asked:
                await asyncio.sleep(0.005)
            kept.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        middle, last = kept[len(kept) // 2], kept[-1]
        assert last < middle + 200_000, f"seed {seed}: {kept}"
        liar.honest = True
        for _ in range(5):
            answer: asyncio.Future[Answer] = loop.create_future()
            probe.ask(endpoint, answer.set_result)
            outcomes.append((await asyncio.wait_for(answer, 10)).outcome.name)
        assert ended == asked  # nothing ended twice
        probe.close()
        loop.remove_reader(tun)

    outcomes: list[str] = []
    with hosts("10.82.0", "fd82:") as (host, _), tunnel(host) as tun, host.entered():
        asyncio.run(run(tun))
    assert "ANSWERED" in outcomes, outcomes


def test_a_million_bytes_of_noise_to_a_responder_kill_nothing_and_trains_go_on() -> None:
    chance = random.Random(1)

    async def run() -> list[Answer]:
        responder = Responder(Respond(bind="127.0.0.1", port=0))
        probe, answers = bandwidth(2.0), []
        before = psutil.Process().memory_info().rss
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as liar:
            liar.connect(("127.0.0.1", responder.port))
            sent = 0
            while sent < BYTES:
                kind = chance.choice(list(Kind))
                packet = HEADER.pack(MAGIC, kind, chance.randbytes(8)) if chance.random() < 0.7 else b""
                packet = (packet + chance.randbytes(chance.randrange(200)))[: chance.randrange(1, 300)]
                sent += liar.send(packet)
                await asyncio.sleep(0)
        for _ in range(3):
            answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            probe.ask(Endpoint("127.0.0.1", responder.port), answer.set_result)
            answers.append(await asyncio.wait_for(answer, 10))
        assert psutil.Process().memory_info().rss < before + (20 << 20)
        probe.close()
        responder.close()
        return answers

    assert {answer.outcome.name for answer in asyncio.run(run())} == {"ANSWERED"}
