"""What really passed on a device, for tests: `python -m tests.capture DEVICE` until its stdin is closed.

An AF_PACKET socket sees each packet where the driver takes or gives it, stamped by the kernel. It prints one JSON line:
`{"rtts_us": round trips in the order of their requests (null: no reply), "per_ms_max": the most requests that left
within a millisecond}`. Requests are ICMP echoes and SYNs that leave; replies are what answers them.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterator

# Its own code, not that of the probes: a yardstick shares nothing with what it measures.
_ETHERNET, _ALL = 14, 0x0003
_PROTOCOL_AT = _ETHERNET + 9
_SO_TIMESTAMPNS = 35


def key_of(frame: bytes) -> tuple[bool, bytes] | None:
    """Whether an IPv4 frame is a request, and what it shares with its reply; None: neither."""
    if len(frame) < 42 or frame[12:14] != b"\x08\x00":
        return None
    at = _ETHERNET + (frame[_ETHERNET] & 0x0F) * 4
    source, target = frame[26:30], frame[30:34]
    if frame[_PROTOCOL_AT] == socket.IPPROTO_ICMP and frame[at] in (0, 8):
        request = frame[at] == 8
        return request, (target if request else source) + frame[at + 4 : at + 8]
    if frame[_PROTOCOL_AT] == socket.IPPROTO_TCP and frame[at + 13] & 0x17 in (0x02, 0x12, 0x14):
        request = frame[at + 13] & 0x10 == 0
        ports = frame[at : at + 4] if request else frame[at + 2 : at + 4] + frame[at : at + 2]
        number = struct.unpack_from("!I", frame, at + (4 if request else 8))[0]
        return request, (target if request else source) + ports + struct.pack(
            "!I", (number - (not request)) % (1 << 32)
        )
    return None


def frames(opened: socket.socket) -> Iterator[tuple[bytes, int]]:
    """What waits, each with the kernel's time."""
    while True:
        try:
            frame, ancillary, _, _ = opened.recvmsg(2048, 64)
        except BlockingIOError:
            return
        seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2])
        yield frame, seconds * 1_000_000_000 + nanoseconds


def main() -> None:
    device = sys.argv[1]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ALL)) as opened:
        opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        opened.bind((device, _ALL))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        # A row a request; a key comes again, as ICMP's sequence numbers do.
        sent_ns: list[int] = []
        rtts_us: list[float | None] = []
        row_of: dict[bytes, int] = {}
        ended = False
        while not ended:
            ended = sys.stdin in select.select([opened, sys.stdin], [], [], 0.2)[0]
            for packet, at_ns in frames(opened):
                found = key_of(packet)
                if found is None:
                    continue
                request, key = found
                if request and key in row_of and packet[_PROTOCOL_AT] == socket.IPPROTO_TCP:
                    continue  # sent again: the round trip began with the first
                if request:
                    row_of[key] = len(sent_ns)
                    sent_ns.append(at_ns)
                    rtts_us.append(None)
                elif (row := row_of.pop(key, None)) is not None:
                    rtts_us[row] = (at_ns - sent_ns[row]) / 1e3
    per_ms = Counter(at_ns // 1_000_000 for at_ns in sent_ns)
    result = {"rtts_us": rtts_us, "per_ms_max": max(per_ms.values(), default=0)}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
