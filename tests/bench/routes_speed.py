"""BGP messages a second, decoded and followed, beside a bare walk over the same bytes' framing.

The yardstick only finds where each message begins and ends: what any reader of the format has to do. MRT is a real
collector's file, again and again from memory; BMP is what FRR sends when 100 peers with 3,000 routes each come up. Ten
prefixes are followed; then, for BMP, all of them. Times are CPU time of this process.
"""

from __future__ import annotations

import gzip
import ipaddress
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from producers.routes import bmp, mrt
from producers.routes.following import following
from producers.routes.mrt import MrtReader
from producers.routes.replay import MrtReplay
from producers.routes.session import BmpSession
from producers.routes.table import RouteTable
from schemas.records import Region
from tests.producers.routes import wire
from tests.producers.routes.test_listener import table_of

FILE = Path(__file__).parents[1] / "producers/routes/data/updates.20100722.2015.gz"
_TIMES = 30  # the file has 2,193 records
_READ_BYTES = 1 << 18  # what a socket gives at once


def run() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="proxima-bench-") as folder:
        path = Path(folder) / "updates"
        path.write_bytes(gzip.decompress(FILE.read_bytes()) * _TIMES)
        records = _timed(lambda: _walked_mrt(path.read_bytes()))
        yield _result("MRT, counted", records, _timed(lambda: sum(1 for _ in MrtReader(path))))
        regions = [Region("here", 0, 0, prefixes=_often(path))]
        yield _result("MRT, ten prefixes followed", records, _timed(lambda: _replayed(path, regions)))
    prefixes = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(3000)]
    updates = [wire.announce(prefix, path=(65000, 65001, 64999)) for prefix in prefixes]
    stream = b"".join(table_of(f"192.0.2.{n + 1}", 65001 + n, updates) for n in range(100))
    messages = _timed(lambda: _walked_bmp(stream))
    for what, followed in (("ten", prefixes[::300]), ("all", prefixes)):
        regions = [Region("here", 0, 0, prefixes=followed)]
        yield _result(f"BMP, {what} prefixes followed", messages, _timed(lambda r=regions: _heard(stream, r)))  # type: ignore[misc]


def _result(what: str, bare: tuple[int, float], ours: tuple[int, float]) -> dict[str, Any]:
    count, bare_s = bare
    return {
        "what": what,
        "messages": count,
        "messages_a_second": round(count / ours[1]),
        "bare_walk_messages_a_second": round(count / bare_s),
        "ratio": round(bare_s / ours[1], 4),
    }


def _timed(work: Callable[[], int]) -> tuple[int, float]:
    """What it counted, and CPU seconds: the best of three."""
    found: list[tuple[float, int]] = []
    for _ in range(3):
        started = time.process_time()
        count = work()
        found.append((time.process_time() - started, count))
    best_s, count = min(found)
    return count, best_s


def _walked_mrt(data: bytes) -> int:
    at = count = 0
    while at < len(data):
        at += mrt.HEADER.size + int(mrt.HEADER.unpack_from(data, at)[3])
        count += 1
    return count


def _walked_bmp(data: bytes) -> int:
    at = count = 0
    while at < len(data):
        at += int(bmp.HEADER.unpack_from(data, at)[1])
        count += 1
    return count


def _replayed(path: Path, regions: list[Region]) -> int:
    return sum(1 for _ in MrtReplay(path, regions))


def _heard(stream: bytes, regions: list[Region]) -> int:
    table = RouteTable("bench", "here")
    session = BmpSession("192.0.2.0", table, following(regions), 1000)
    for at in range(0, len(stream), _READ_BYTES):
        session.take(stream[at : at + _READ_BYTES], 1)
        table.tell(500)
    return session.heard.messages


def _often(path: Path) -> list[str]:
    """The prefixes that a walk over the file's plain NLRI meets most often."""
    seen: Counter[str] = Counter()
    data, at = path.read_bytes()[: path.stat().st_size // _TIMES], 0
    while (at := data.find(b"\xff" * 16, at)) >= 0:
        end = at + int.from_bytes(data[at + 16 : at + 18], "big")
        if data[at + 18] == 2:
            withdrawn = int.from_bytes(data[at + 19 : at + 21], "big")
            attributes = int.from_bytes(data[at + 21 + withdrawn : at + 23 + withdrawn], "big")
            nlri = at + 23 + withdrawn + attributes
            while nlri < end and data[nlri] <= 32:
                octets = (data[nlri] + 7) // 8
                address = data[nlri + 1 : nlri + 1 + octets].ljust(4, b"\0")
                seen[str(ipaddress.ip_network((address, data[nlri]), strict=False))] += 1
                nlri += 1 + octets
        at = end
    return [prefix for prefix, _ in seen.most_common(10)]
