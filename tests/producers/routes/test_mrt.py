"""MRT files: counts as other programs give them, every variant of the format, and files that end or begin wrongly."""

from __future__ import annotations

import bz2
import collections
import gzip
import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producers.routes.following import following
from producers.routes.mrt import Entry, MrtReader
from producers.routes.paths import AsPath
from producers.routes.replay import MrtReplay
from schemas.errors import RouteError
from schemas.records import Region
from schemas.validate import mistakes
from tests.producers.routes import wire
from tests.producers.routes.mrt_files import records

DATA = Path(__file__).parent / "data"
OURS, OURS6 = "203.0.113.0/24", "2001:db8:1::/48"
REGIONS = [Region("eu-west-1", 0, 0, prefixes=[OURS, OURS6])]
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def counted(path: Path) -> tuple[int, int, int, int, int]:
    reader = MrtReader(path)
    for _ in reader:
        pass
    c = reader.counts
    return c.announced, c.withdrawn, c.state_changes, c.peers, c.unparsed


def written(folder: Path, *parts: bytes) -> Path:
    path = folder / "updates"
    path.write_bytes(b"".join(parts))
    return path


def only(folder: Path, *parts: bytes) -> Entry:
    [entry] = MrtReader(written(folder, *parts), following(REGIONS))
    return entry


def test_bgpdumps_counts() -> None:
    """bgpdump's own expectations for its test file: 5,067 A, 547 W, 40 STATE lines."""
    assert counted(DATA / "updates.20100722.2015.gz") == (5067, 547, 40, 63, 0)


def test_bgpkits_counts() -> None:
    """bgpkit-parser's test: 5,920 announced, 1,549 withdrawn, 11 peers."""
    assert counted(DATA / "ripe_rrc15_2010.02_updates.20100227.1610.gz") == (5920, 1549, 16, 11, 0)


@pytest.mark.parametrize(
    ("subtype", "width", "ids"),
    [(1, 2, False), (4, 4, False), (6, 2, False), (7, 4, False), (8, 2, True), (9, 4, True), (10, 2, True),
     (11, 4, True)],
)  # fmt: skip
def test_each_kind_of_message_is_read(tmp_path: Path, subtype: int, width: int, ids: bool) -> None:
    there: list[wire.Prefix] = [(OURS, 1), (OURS, 2)] if ids else [OURS, "10.0.0.0/8"]
    path = (65001, 65535) if width == 2 else (65001, 4_200_000_003)
    entry = only(tmp_path, wire.bgp4mp(subtype, wire.announce(*there, path=path, width=width), peer_as=64999))
    assert entry.update is not None
    assert entry.update.announced == 2
    assert (entry.peer.peer_as, entry.peer.peer) == (64999, bytes((192, 0, 2, 1)))
    is_from_peer = subtype not in (6, 7, 10, 11)
    assert {s.path for s in entry.update.followed} == ({AsPath(path, 2)} if is_from_peer else set())


def test_extended_time_has_microseconds(tmp_path: Path) -> None:
    at = only(tmp_path, wire.bgp4mp(4, wire.announce(OURS), at_s=1_700_000_000, microseconds=123_999)).at_ms
    assert at == 1_700_000_000_123


def test_ipv6_peers_and_prefixes(tmp_path: Path) -> None:
    who: dict[str, Any] = {"peer": "2001:db8::7", "local": "2001:db8::fe"}
    path = written(tmp_path, wire.bgp4mp(4, wire.announce6(OURS6), **who), wire.bgp4mp(1, wire.withdraw6(OURS6), **who))
    assert counted(path) == (1, 1, 0, 1, 0)


@pytest.mark.parametrize("subtype", [0, 5])
@pytest.mark.parametrize("peer", ["192.0.2.9", "2001:db8::9"])
def test_state_changes_of_both_widths_and_families(tmp_path: Path, subtype: int, peer: str) -> None:
    local = "192.0.2.254" if "." in peer else "2001:db8::fe"
    entry = only(tmp_path, wire.state_change(6, 1, subtype, peer=peer, local=local, peer_as=65_010))
    assert entry.states == (6, 1)
    assert entry.peer.peer_as == 65_010


def test_other_messages_are_read_and_count_as_nothing(tmp_path: Path) -> None:
    parts = [wire.bgp4mp(4, m) for m in (wire.KEEPALIVE, wire.open_message(65001), wire.message(3, b"\6\2"),
                                         wire.message(5, b"\0\1\0\1"), wire.END_OF_RIB)]  # fmt: skip
    assert counted(written(tmp_path, *parts)) == (0, 0, 0, 1, 0)


def test_what_was_written_before_there_was_a_standard_is_read(tmp_path: Path) -> None:
    """The type BGP of MRTd, and what Zebra wrote of a peer whose address it did not know."""
    peer, local = struct.pack("!H4s", 65001, b"\1\2\3\4"), struct.pack("!H4s", 65000, b"\5\6\7\x08")
    contents = wire.body(wire.nlri(OURS), wire.ORIGIN_IGP + wire.as_path(65001, width=2) + wire.NEXT_HOP,
                         wire.nlri("10.0.0.0/8"))  # fmt: skip
    update = wire.record(5, 1, peer + local + contents)
    [said] = only(tmp_path, update).update.followed  # type: ignore[union-attr]
    assert said.path == AsPath((65001,), 1)
    old = [update, wire.record(5, 3, peer + b"\0\6\0\1"), wire.record(5, 7, peer + local)]
    assert counted(written(tmp_path, *old)) == (1, 1, 1, 1, 0)
    numbers = struct.pack("!HH", 65001, 65000)
    zebra = [wire.record(16, 0, numbers + b"\0\3\0\6"), wire.record(16, 1, numbers + wire.open_message(65001))]
    assert counted(written(tmp_path, *zebra)) == (0, 0, 1, 0, 0)


def test_peers_are_pairs_of_address_and_as_number(tmp_path: Path) -> None:
    parts = [
        wire.bgp4mp(4, wire.KEEPALIVE, peer=f"192.0.2.{n}", peer_as=a) for n, a in ((1, 1), (1, 2), (2, 1), (1, 1))
    ]
    assert counted(written(tmp_path, *parts))[3] == 3


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (wire.record(13, 2, bytes(30)), "a table dump says nothing of changes"),
        (wire.record(99, 0, b""), "an unknown type"),
        (wire.record(16, 3, bytes(30)), "a subtype that nobody writes any more"),
        (wire.bgp4mp(4, b""), "no message"),
        (wire.bgp4mp(4, b"\0" * 16 + wire.KEEPALIVE[16:]), "no marker"),
        (wire.bgp4mp(4, wire.message(9)), "a message of an unknown type"),
        (wire.bgp4mp(0, b"\0\1"), "a state change cut short"),
        (wire.record(16, 4, bytes(8) + b"\0\0\0\3" + bytes(60)), "an address family that there is not"),
        (wire.record(17, 4, b"\0"), "microseconds cut short"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_counted_and_the_rest_goes_on(tmp_path: Path, broken: bytes, why: str) -> None:
    good = wire.bgp4mp(4, wire.announce("10.0.0.0/8"))
    assert counted(written(tmp_path, good, broken, good)) == (2, 0, 0, 1, 1), why


def test_a_message_longer_than_its_record_counts_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = wire.announce("10.0.0.0/8", "11.0.0.0/8", OURS)
    entry = only(tmp_path, wire.bgp4mp(4, whole[:-2]))
    assert entry.update is not None
    assert (entry.update.announced, entry.update.followed) == (2, ())
    assert entry.update.flaw


@pytest.mark.parametrize("cut", [1, 11, 12, 30])
def test_a_file_that_ends_within_a_record_counts_what_stands_before(tmp_path: Path, cut: int) -> None:
    good = wire.bgp4mp(4, wire.announce("10.0.0.0/8"))
    assert counted(written(tmp_path, good, good[:cut])) == (1, 0, 0, 1, 1)


def test_a_length_that_lies_ends_the_file_and_takes_no_memory(tmp_path: Path) -> None:
    good = wire.bgp4mp(4, wire.announce("10.0.0.0/8"))
    assert counted(written(tmp_path, good, struct.pack("!IHHI", 0, 16, 4, 0xFFFFFFFF), good)) == (1, 0, 0, 1, 1)


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    assert counted(written(tmp_path)) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("packed", [gzip.compress, bz2.compress])
def test_compressed_files_are_known_by_their_first_bytes(tmp_path: Path, packed: Any) -> None:
    good = wire.bgp4mp(4, wire.announce("10.0.0.0/8")) * 2000
    assert counted(written(tmp_path, packed(good))) == (2000, 0, 0, 1, 0)
    cut = counted(written(tmp_path, packed(good)[:-20]))
    assert cut[4] >= 1, "said, and no exception"
    assert counted(written(tmp_path, packed(b"")))[:4] == (0, 0, 0, 0)


def test_a_file_of_april_2005_is_no_bzip2(tmp_path: Path) -> None:
    at_s = int.from_bytes(b"BZh9", "big")
    assert counted(written(tmp_path, wire.bgp4mp(1, wire.announce("10.0.0.0/8", width=2), at_s=at_s)))[0] == 1


@pytest.mark.parametrize("missing", ["nowhere", "."])
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path, missing: str) -> None:
    with pytest.raises(RouteError, match=r"cannot be read.*\("):
        MrtReader(tmp_path / missing)


@quick
@given(st.lists(records((1, 4, 6, 7, 8, 9, 10, 11)), min_size=1, max_size=12))
def test_whatever_is_written_is_counted(tmp_path: Path, there: list[tuple[bytes, int, int, int]]) -> None:
    announced, withdrawn, changes = (sum(each) for each in zip(*[r[1:] for r in there], strict=True))
    assert counted(written(tmp_path, *(r[0] for r in there)))[:3] == (announced, withdrawn, changes)
    assert counted(tmp_path / "updates")[4] == 0


@pytest.mark.skipif(shutil.which("bgpdump") is None, reason="bgpdump is not installed: NOT COMPARED with it")
@quick
@given(st.lists(records((1, 4, 8, 9)), min_size=1, max_size=12))
def test_bgpdump_counts_the_same(tmp_path: Path, there: list[tuple[bytes, int, int, int]]) -> None:
    path = written(tmp_path, *(r[0] for r in there))
    said = subprocess.run(["bgpdump", "-m", path], capture_output=True, text=True, errors="replace", check=True).stdout
    kinds = collections.Counter(line.split("|")[2] for line in said.splitlines())
    assert counted(path)[:3] == (kinds["A"], kinds["W"], kinds["STATE"])


# -- as events


def replayed(path: Path, regions: Iterable[Region] = tuple(REGIONS)) -> list[tuple[str, str, list[str]]]:
    events = list(MrtReplay(path, regions))
    assert [m for e in events for m in mistakes(e)] == []
    return [(e.kind, e.peer, [r.prefix for r in e.routes]) for e in events]


def test_a_file_is_told_as_a_monitor_would_have_told_it(tmp_path: Path) -> None:
    peer = "192.0.2.1"
    path = written(
        tmp_path,
        wire.state_change(5, 6, 5, at_s=1000),
        wire.bgp4mp(4, wire.announce(OURS, "10.0.0.0/8"), at_s=1000),
        wire.bgp4mp(4, wire.announce(OURS, path=(65001, 65002)), at_s=1001),
        wire.bgp4mp(4, wire.withdraw(OURS), at_s=1002),
        wire.bgp4mp(4, wire.announce(OURS), at_s=1003),
        wire.state_change(6, 1, 5, at_s=1004),
    )
    told = replayed(path)
    assert [t for t in told if t[0] != "CHURN"] == [
        ("PEER_UP", peer, []), ("REACHABLE", peer, [OURS]), ("PATH_CHANGED", peer, [OURS]),
        ("WITHDRAWN", peer, [OURS]), ("REACHABLE", peer, [OURS]), ("PEER_DOWN", peer, []),
    ]  # fmt: skip


def test_churn_is_told_once_a_minute(tmp_path: Path) -> None:
    path = written(tmp_path, *(wire.bgp4mp(4, wire.announce("10.0.0.0/8"), at_s=s) for s in range(600, 781, 10)))
    events = [e for e in MrtReplay(path, REGIONS) if e.kind == "CHURN"]
    assert [(e.announced, e.withdrawn, e.over_ms) for e in events] == [(6, 0, 60_000)] * 3
