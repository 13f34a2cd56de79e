"""A million and more fuzzed bytes into MRT and BMP: nothing is raised, nothing grows, and who is beside goes on.

Half are good streams with something wrong in them (which get further in), half are noise. PROXIMA_SEED has a run again.
"""

from __future__ import annotations

import gzip
import os
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from producers.routes.following import following
from producers.routes.replay import MrtReplay
from producers.routes.session import BmpSession
from producers.routes.table import RouteTable
from schemas.codec import encode
from schemas.records import Region
from schemas.validate import mistakes
from tests.pipeline import seed_from_environment
from tests.producers.routes import wire

BYTES = 1_200_000 if "PROXIMA_SOAK" not in os.environ else 50_000_000
GROWTH_BYTES_MAX = 2 << 20
PREFIXES = ["203.0.113.0/24", "2001:db8:1::/48", "10.0.0.0/8"]
REGIONS = [Region("eu-west-1", 0, 0, prefixes=PREFIXES)]
FAMILIES = following(REGIONS)


def spoilt(chance: random.Random, good: bytes) -> bytes:
    """Good bytes with something wrong: changed, cut, doubled, or with noise between them."""
    data = bytearray(good)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) or 1)
        match chance.randrange(5):
            case 0:
                data[at : at + 1] = bytes((chance.randrange(256),))
            case 1:
                del data[at : at + chance.randint(1, 40)]
            case 2:
                data[at:at] = chance.randbytes(chance.randint(1, 40))
            case 3:
                data[at:at] = data[at : at + chance.randint(1, 200)]
            case _:
                data[at : at + 4] = chance.choice((b"\xff" * 4, bytes(4), b"\0\0\0\1"))
    return bytes(data)


def bmp_stream(chance: random.Random) -> bytes:
    who: dict[str, Any] = {
        "address": chance.choice(("192.0.2.1", "192.0.2.2", "2001:db8::1")),
        "peer_as": chance.randint(1, (1 << 32) - 1),
    }
    messages = [
        wire.initiation(), wire.peer_up(**who), wire.statistics(**who), wire.peer_down(**who),
        wire.route_monitoring(wire.announce(PREFIXES[0], path=(1, 2, chance.randint(1, 9))), **who),
        wire.route_monitoring(wire.announce6(PREFIXES[1]), **who),
        wire.route_monitoring(wire.withdraw(PREFIXES[2]), **who),
        wire.route_monitoring(wire.END_OF_RIB, flags=chance.choice((0, 0x10, 0x40)), **who),
    ]  # fmt: skip
    return b"".join(chance.choices(messages, k=8))


def mrt_stream(chance: random.Random) -> bytes:
    records = [
        wire.bgp4mp(chance.choice((1, 4, 8, 9)), wire.announce(PREFIXES[0]), peer_as=chance.randint(1, 65535)),
        wire.bgp4mp(4, wire.announce6(PREFIXES[1]), microseconds=chance.randrange(1_000_000)),
        wire.bgp4mp(4, wire.withdraw(PREFIXES[2])),
        wire.state_change(chance.randint(0, 7), chance.randint(0, 7), 5),
    ]
    return b"".join(chance.choices(records, k=6))


def noise(chance: random.Random, good: Callable[[random.Random], bytes]) -> Iterator[bytes]:
    """Fuzzed bytes without end."""
    while True:
        yield spoilt(chance, good(chance))
        yield chance.randbytes(chance.randint(1, 3000))


def fed(feed: Callable[[bytes], None], pieces: Iterator[bytes]) -> int:
    """Feed all bytes; returns by how much memory grew after the first quarter."""
    tracemalloc.start()
    try:
        count, settled = 0, None
        for piece in pieces:
            feed(piece)
            count += len(piece)
            if settled is None and count > BYTES // 4:
                settled = tracemalloc.get_traced_memory()[0]
            if count >= BYTES:
                break
        assert settled is not None
        return tracemalloc.get_traced_memory()[0] - settled
    finally:
        tracemalloc.stop()


def test_bmp_takes_anything_and_a_session_beside_goes_on() -> None:
    chance = random.Random(seed_from_environment("fuzzing BMP"))
    table = RouteTable("eu-west-1/routes", "eu-west-1")
    hostile = BmpSession("192.0.2.66", table, FAMILIES, 50)
    good = BmpSession("192.0.2.77", table, FAMILIES, 50)
    paths = [[65001, 65002], [65001]]
    seen = [False]

    def feed(piece: bytes) -> None:
        for at in range(0, len(piece), 1500):
            hostile.take(piece[at : at + 1500], 1)
        paths.reverse()
        good.take(wire.route_monitoring(wire.announce(PREFIXES[0], path=paths[0])), 1)
        for event in table.tell(10_000):
            assert mistakes(event) == []
            encode(event)
            if event.router == "192.0.2.77" and event.routes:
                seen[0] = event.routes[0].as_path == paths[0]

    assert fed(feed, noise(chance, bmp_stream)) < GROWTH_BYTES_MAX
    assert seen == [True], "the last change of the good session was told"
    assert good.heard.unparsed == good.heard.resyncs == 0
    assert hostile.heard.resyncs > 100
    assert hostile.heard.messages > 1000


def test_mrt_takes_anything(tmp_path: Path) -> None:
    chance = random.Random(seed_from_environment("fuzzing MRT"))
    path = tmp_path / "updates"

    def feed(piece: bytes) -> None:
        path.write_bytes(piece)
        for event in MrtReplay(path, REGIONS):
            assert mistakes(event) == []
            encode(event)

    assert fed(feed, noise(chance, mrt_stream)) < GROWTH_BYTES_MAX


def test_mrt_takes_anything_in_one_large_file(tmp_path: Path) -> None:
    """Records whose headers are good, so that reading goes on to the end."""
    chance = random.Random(seed_from_environment("fuzzing MRT records"))
    path, count = tmp_path / "updates", 0
    with path.open("wb") as file:
        while count < BYTES:
            whole = mrt_stream(chance)
            contents = spoilt(chance, whole[12:]) if chance.random() < 0.7 else chance.randbytes(chance.randint(0, 500))
            kind, subtype = chance.choice((16, 16, 17, 13)), chance.choice((0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 99))
            count += file.write(wire.record(kind, subtype, contents))
    replay = MrtReplay(path, REGIONS)
    for event in replay:
        encode(event)
    assert replay.counts.unparsed > 100


@pytest.mark.parametrize("magic", [b"\x1f\x8b\x08", b"BZh91AY&SY"])
def test_broken_archives_are_files_that_end_early(tmp_path: Path, magic: bytes) -> None:
    chance = random.Random(seed_from_environment("fuzzing archives"))
    path = tmp_path / "updates"
    for _ in range(200):
        path.write_bytes(magic + chance.randbytes(chance.randint(0, 500)))
        assert list(MrtReplay(path, REGIONS)) == []
        path.write_bytes(spoilt(chance, gzip.compress(mrt_stream(chance))))
        list(MrtReplay(path, REGIONS))
