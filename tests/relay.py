"""A link in user space, for tests: `python -m tests.relay END END RATE_BPS QUEUE_MS LOSS BUCKET_BYTES JITTER_MS`.

An END is `namespace,IPv4/len,IPv6/len`; it gets a TUN device `tun0`. Each way has a FIFO queue before a limit of rate
(0: none) with a bucket of tokens that lets a burst through at once, and delays each packet by up to JITTER_MS more, by
chance. The first way also drops packets by chance. It prints `ready`.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time
from dataclasses import dataclass

from tests.network import Host

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_PR_SET_TIMERSLACK = 29


@dataclass
class Way:
    """One direction; times in seconds of the monotonic clock."""

    out: int
    rate_bps: float
    queue_s: float
    loss: float
    bucket_bytes: float
    jitter_s: float
    free_s: float = 0.0

    def due_s(self, size: int, now_s: float, chance: random.Random) -> float | None:
        """When a packet that comes now leaves; None: never."""
        if self.loss and chance.random() < self.loss:
            return None
        jitter_s = chance.random() * self.jitter_s
        if not self.rate_bps:
            return now_s + jitter_s
        # An idle link saves up to a bucket's worth of time.
        free_s = max(self.free_s, now_s - self.bucket_bytes * 8 / self.rate_bps) + size * 8 / self.rate_bps
        if free_s - now_s > self.queue_s:
            return None
        self.free_s = free_s
        return max(free_s, now_s) + jitter_s


def main() -> None:
    ends, (rate_bps, queue_ms, loss, bucket_bytes, jitter_ms) = sys.argv[1:3], map(float, sys.argv[3:8])
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    there, back = (_tun(*end.split(",")) for end in ends)
    ways = {
        there: Way(back, rate_bps, queue_ms / 1000, loss, bucket_bytes, jitter_ms / 1000),
        back: Way(there, rate_bps, queue_ms / 1000, 0, bucket_bytes, jitter_ms / 1000),
    }
    chance = random.Random(1)
    waiting: list[tuple[float, int, int, bytes]] = []
    number = 0
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        left_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for tun in select.select(ways, (), (), left_s)[0]:
            for _ in range(64):
                try:
                    packet = os.read(tun, 65535)
                except BlockingIOError:
                    break
                number += 1
                due_s = ways[tun].due_s(len(packet), time.monotonic(), chance)
                if due_s is not None:
                    heapq.heappush(waiting, (due_s, number, ways[tun].out, packet))
        now_s = time.monotonic()
        while waiting and waiting[0][0] <= now_s:
            _, _, out, packet = heapq.heappop(waiting)
            os.write(out, packet)


def _tun(namespace: str, address: str, address6: str) -> int:
    with Host(namespace, address, address6).entered():
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", b"tun0", _IFF_TUN | _IFF_NO_PI))
    for command in (
        f"address add {address} dev tun0",
        f"address add {address6} dev tun0 nodad",
        "link set tun0 txqueuelen 2000 up",
    ):
        subprocess.run(["ip", "-n", namespace, *command.split()], check=True)
    return tun


if __name__ == "__main__":
    main()
