"""The links of a lab: packets read from one TUN device and written to another, later, or never.

    python -m infra.lab.relay SOCKET LINKS.json [PRIORITY]        says "ready" on standard output

Each link is a pair of TUN devices, one in each of two namespaces. What a link does is changed at any moment through a
Unix datagram socket, one JSON object a change (`links.py` writes them). One thread, `select` and a heap: measured, 0.15
ms of its own at a delay of 0, and 20,000 packets a second.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

from infra.lab.namespaces import run, within

_TUNSETIFF: Final = 0x400454CA
_TUNSETCARRIER: Final = 0x400454E2
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_PR_SET_TIMERSLACK: Final = 29
_BURST: Final = 64  # packets of one device in a row
_PACKET_BYTES_MAX: Final = 65_535
_MTU: Final = 1500
# Without it a busy machine adds 10 to 30 ms. With it a burst is not sent at once: each packet wakes the relay up, which
# goes before its sender. So who measures bursts asks for 0.
_PRIORITY: Final = 50
NAMES: Final = ("delay_ms", "jitter_ms", "loss_ratio", "rate_mbit", "queue_ms", "bucket_bytes")


class Direction:
    """One way over a link."""

    def __init__(self, source: int, target: int, chance: random.Random) -> None:
        self.source, self.target = source, target
        self.delay_ms = self.jitter_ms = self.loss_ratio = self.rate_mbit = 0.0
        self.queue_ms = 100.0  # packets wait so long at most for their turn at `rate_mbit`
        self.bucket_bytes = 0.0  # after a rest, so much goes through at once in spite of it
        self.taken = self.lost = self.overflowed = self.sent = 0
        self._chance = chance
        self._free_s = self._last_s = 0.0
        self._trace: list[float | None] = []  # ms each way, None: nothing gets through
        self._trace_step_s, self._trace_began_s = 1.0, 0.0

    def change(self, change: dict[str, Any], now_s: float) -> None:
        """Set what the change names; `trace` with `step_ms` replays delays from now on, until `delay_ms` is set."""
        for name in NAMES:
            if name in change:
                setattr(self, name, float(change[name]))
        if "delay_ms" in change:
            self._trace = []
        if "trace" in change:
            self._trace = list(change["trace"])
            self._trace_step_s, self._trace_began_s = change["step_ms"] / 1000, now_s
        if "delay_ms" in change or "trace" in change:
            self._last_s = 0.0  # a shorter delay counts at once

    def due_s(self, size: int, now_s: float) -> float | None:
        """When a packet of so many bytes that comes now has to leave; None: never. Packets never overtake."""
        self.taken += 1
        delay_ms: float | None = self.delay_ms
        if self._trace:
            step = int((now_s - self._trace_began_s) / self._trace_step_s)
            delay_ms = self._trace[min(step, len(self._trace) - 1)]
        if delay_ms is None or (self.loss_ratio and self._chance.random() < self.loss_ratio):
            self.lost += 1
            return None
        due_s = now_s
        if self.rate_mbit:
            byte_s = 8 / (self.rate_mbit * 1e6)
            free_s = max(self._free_s, now_s - self.bucket_bytes * byte_s) + size * byte_s
            if free_s - now_s > self.queue_ms / 1000:
                self.overflowed += 1
                return None
            self._free_s, due_s = free_s, max(free_s, now_s)
        due_s += delay_ms / 1000
        if self.jitter_ms:
            due_s += self._chance.expovariate(1000 / self.jitter_ms)
        self._last_s = due_s = max(self._last_s, due_s)
        return due_s

    def send(self, packet: bytes) -> None:
        """Hand it over; a device without carrier loses it."""
        try:
            os.write(self.target, packet)
            self.sent += 1
        except OSError:
            self.lost += 1

    @property
    def counters(self) -> dict[str, int]:
        return {"taken": self.taken, "lost": self.lost, "overflowed": self.overflowed, "sent": self.sent}


class Relay:
    """All links, until the process is ended."""

    def __init__(self, control: socket.socket, links: list[dict[str, Any]]) -> None:
        self._control = control
        self._links: dict[str, tuple[Direction, Direction]] = {}
        chance = random.Random(1)  # noqa: S311 - which packets are lost is no secret
        for link in links:
            one, other = (_tun(**end) for end in link["ends"])
            self._links[link["name"]] = Direction(one, other, chance), Direction(other, one, chance)
        self._of = {d.source: d for pair in self._links.values() for d in pair}
        self._waiting: list[tuple[float, int, Direction, bytes]] = []
        self._number = count()

    def run(self) -> None:
        """Carry packets."""
        listened = [*self._of, self._control.fileno()]
        while True:
            wait_s = max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None
            for ready in select.select(listened, (), (), wait_s)[0]:
                if ready == self._control.fileno():
                    self._obey()
                else:
                    self._take(self._of[ready])
            now_s = time.monotonic()
            while self._waiting and self._waiting[0][0] <= now_s:
                _, _, direction, packet = heapq.heappop(self._waiting)
                direction.send(packet)

    def _take(self, direction: Direction) -> None:
        for packet in _packets(direction.source):
            now_s = time.monotonic()
            due_s = direction.due_s(len(packet), now_s)
            if due_s is None:
                continue
            if due_s <= now_s and not self._waiting:
                direction.send(packet)
            else:
                heapq.heappush(self._waiting, (due_s, next(self._number), direction, packet))

    def _obey(self) -> None:
        data, sender = self._control.recvfrom(1 << 20)
        change = json.loads(data)
        pair = self._links[change["link"]]
        ways = pair if change.get("way") is None else (pair[change["way"]],)
        for direction in ways:
            direction.change(change, time.monotonic())
        if "carrier" in change:
            for direction in pair:
                fcntl.ioctl(direction.source, _TUNSETCARRIER, struct.pack("i", change["carrier"]))
        if sender:
            with suppress(OSError):  # whoever asked is gone
                self._control.sendto(json.dumps([d.counters for d in pair]).encode(), sender)


def _packets(device: int) -> Iterator[bytes]:
    for _ in range(_BURST):
        try:
            yield os.read(device, _PACKET_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:  # no carrier: nothing to read, and select says so again and again
            return


def _tun(namespace: str, device: str, addresses: list[str]) -> int:
    """A TUN device in a namespace, up, with these addresses (CIDR); its file descriptor."""

    def make() -> int:
        opened = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(opened, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TUN | _IFF_NO_PI))
        return opened

    opened = within(namespace, make)
    for address in addresses:
        nodad = ["nodad"] if ":" in address else []
        run("ip", "-n", namespace, "addr", "add", address, "dev", device, *nodad)
    run("ip", "-n", namespace, "link", "set", device, "mtu", str(_MTU), "txqueuelen", "1000", "up")
    return opened


def main() -> None:
    """The program."""
    path = Path(sys.argv[1])
    path.unlink(missing_ok=True)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    control.bind(str(path))
    relay = Relay(control, json.loads(Path(sys.argv[2]).read_text()))
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # 1 ns instead of 50 us
    priority = int(sys.argv[3]) if len(sys.argv) > 3 else _PRIORITY
    if priority:
        with suppress(PermissionError):  # slower to wake up, and still right
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    print("ready", flush=True)  # noqa: T201 - whoever started us waits for it
    relay.run()


if __name__ == "__main__":
    main()
