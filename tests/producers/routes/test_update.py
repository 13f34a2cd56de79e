"""One UPDATE: all is counted, what is followed is told, and what is broken counts as RFC 7606 says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.routes.following import NOTHING, canonical, following
from producers.routes.paths import AsPath, as_path, judge
from producers.routes.update import Encoding, Update, decode
from schemas.records import Region
from tests.producers.routes import wire
from tests.producers.routes.mrt_files import ipv4, ipv6, prefixes, updates

OURS, OURS6 = "203.0.112.0/22", "2001:db8:1::/48"
FAMILIES = following([Region("eu-west-1", 0, 0, prefixes=[OURS, OURS6])])
MANDATORY = wire.ORIGIN_IGP + wire.as_path(65001, 65002) + wire.NEXT_HOP


def decoded(message: bytes, encoding: Encoding = Encoding(), families=FAMILIES) -> Update:  # type: ignore[no-untyped-def]  # noqa: B008
    assert message[:16] == wire.MARKER
    return decode(message, 19, len(message), families, encoding)


def said(update: Update) -> list[tuple[str, AsPath | None]]:
    return [(s.to.prefix, s.path) for s in update.followed]


def test_a_followed_prefix_comes_with_its_path_and_the_others_are_only_counted() -> None:
    update = decoded(wire.announce("10.0.0.0/8", OURS, "192.0.2.0/24", path=(65001, 4_200_000_003)))
    assert (update.announced, update.withdrawn, update.flaw) == (3, 0, "")
    assert said(update) == [(OURS, AsPath((65001, 4_200_000_003), 2))]
    assert update.followed[0].to.region_id == "eu-west-1"


def test_a_withdrawal_has_no_path() -> None:
    assert said(decoded(wire.withdraw(OURS, "10.0.0.0/8"))) == [(OURS, None)]
    assert decoded(wire.withdraw(OURS, "10.0.0.0/8")).withdrawn == 2
    assert said(decoded(wire.withdraw6(OURS6))) == [(OURS6, None)]


def test_ipv6_comes_in_mp_reach_and_ipv4_may() -> None:
    assert said(decoded(wire.announce6(OURS6))) == [(OURS6, AsPath((65001,), 1))]
    over_ipv6 = wire.mp_reach(OURS, afi=1, next_hop=bytes(16))  # RFC 8950
    update = decoded(wire.message(2, wire.body(b"", over_ipv6 + wire.ORIGIN_IGP + wire.as_path(65001))))
    assert said(update) == [(OURS, AsPath((65001,), 1))]


def test_more_and_less_specific_prefixes_are_others() -> None:
    update = decoded(wire.announce("203.0.112.0/21", "203.0.112.0/23", "203.0.112.0/24", "0.0.0.0/0"))
    assert (update.announced, said(update)) == (4, [])


def test_bits_behind_a_prefix_are_irrelevant() -> None:
    exact = wire.nlri(OURS)
    loose = exact[:-1] + bytes((exact[-1] | 3,))
    update = decoded(wire.message(2, wire.body(loose, MANDATORY)))
    assert [p for p, _ in said(update)] == [OURS]
    assert canonical(loose) == exact


def test_a_prefix_that_is_withdrawn_and_announced_in_one_message_is_announced() -> None:
    both = wire.message(2, wire.body(wire.nlri(OURS), MANDATORY, wire.nlri(OURS)))
    assert [path is None for _, path in said(decoded(both))] == [True, False]


def test_end_of_rib_announces_and_withdraws_nothing() -> None:
    assert decoded(wire.END_OF_RIB) == Update(0, 0)
    assert decoded(wire.message(2, wire.body(attributes=wire.mp_unreach()))) == Update(0, 0)


def test_multicast_is_counted_and_not_followed_and_other_families_are_neither() -> None:
    def of(safi: int, afi: int = 2) -> Update:
        attributes = wire.mp_reach(OURS6, afi=afi, safi=safi) + wire.ORIGIN_IGP + wire.as_path(65001)
        return decoded(wire.message(2, wire.body(b"", attributes)))

    assert [(u.announced, said(u)) for u in map(of, (2, 3))] == [(1, []), (1, [])]
    assert [(u.announced, u.flaw) for u in (of(4), of(128), of(1, 25))] == [(0, "")] * 3


def test_path_identifiers_tell_paths_apart() -> None:
    encoding = Encoding(4, frozenset((1, 2)))
    update = decoded(wire.announce((OURS, 7), (OURS, 8), ("10.0.0.0/8", 7)), encoding)
    assert update.announced == 3
    assert [s.path_id for s in update.followed] == [7, 8]
    only_ipv6 = Encoding(4, frozenset((2,)))
    assert [s.path_id for s in decoded(wire.announce(OURS), only_ipv6).followed] == [0]


def test_attributes_of_extended_length_are_read() -> None:
    attributes = (
        wire.attribute(1, b"\0", extended=True)
        + wire.attribute(2, wire.segment(wire.SEQUENCE, 65001), extended=True)
        + wire.NEXT_HOP
        + wire.attribute(8, bytes(400), 0xC0)
    )
    assert said(decoded(wire.message(2, wire.body(wire.nlri(OURS), attributes)))) == [(OURS, AsPath((65001,), 1))]


# -- AS paths


def test_a_set_counts_once_and_confederations_do_not_count() -> None:
    value = (
        wire.segment(wire.CONFED_SEQUENCE, 64512, 64513)
        + wire.segment(wire.CONFED_SET, 64514)
        + wire.segment(wire.SEQUENCE, 65001, 65002)
        + wire.segment(wire.SET, 65003, 65004, 65005)
    )
    assert as_path(value, 4) == AsPath((64512, 64513, 64514, 65001, 65002, 65003, 65004, 65005), 3)


def test_speakers_of_two_octets_have_the_rest_in_as4_path() -> None:
    """RFC 6793, 4.2.3: as many leading numbers of AS_PATH as it is longer by, then AS4_PATH."""
    old = wire.segment(wire.SEQUENCE, 65001, 23456, 23456, width=2)
    new = wire.segment(wire.SEQUENCE, 4_200_000_001, 4_200_000_002)
    assert as_path(old, 2, new) == AsPath((65001, 4_200_000_001, 4_200_000_002), 3)
    assert as_path(old, 2) == AsPath((65001, 23456, 23456), 3)
    longer = wire.segment(wire.SEQUENCE, 1, 2, 3, 4)
    assert as_path(old, 2, longer) == AsPath((65001, 23456, 23456), 3)
    with_confederation = wire.segment(wire.CONFED_SEQUENCE, 9) + new
    assert as_path(old, 2, with_confederation) == AsPath((65001, 4_200_000_001, 4_200_000_002), 3)
    assert as_path(old, 2, b"\2\7") == AsPath((65001, 23456, 23456), 3)


def test_as4_path_of_a_speaker_of_four_octets_is_left_out() -> None:
    attributes = MANDATORY + wire.attribute(17, wire.segment(wire.SEQUENCE, 1), 0xC0)
    assert judge(attributes, 4, True).path == AsPath((65001, 65002), 2)


@given(st.lists(st.tuples(st.sampled_from((1, 2, 3, 4)), st.lists(st.integers(0, 65_535), min_size=1, max_size=255)),
                max_size=5), st.sampled_from((2, 4)))  # fmt: skip
def test_a_path_comes_back_as_it_was_written(segments: list[tuple[int, list[int]]], width: int) -> None:
    value = b"".join(wire.segment(kind, *ases, width=width) for kind, ases in segments)
    length = sum(len(ases) if kind == wire.SEQUENCE else kind == wire.SET for kind, ases in segments)
    assert as_path(value, width) == AsPath(tuple(n for _, ases in segments for n in ases), length)


# -- RFC 7606


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        (wire.as_path(65001) + wire.NEXT_HOP, "mandatory attribute 1 is missing"),
        (wire.ORIGIN_IGP + wire.NEXT_HOP, "mandatory attribute 2 is missing"),
        (wire.ORIGIN_IGP + wire.as_path(65001), "mandatory attribute 3 is missing"),
        (wire.attribute(1, b"\3") + wire.as_path(65001) + wire.NEXT_HOP, "ORIGIN is 3"),
        (wire.attribute(1, b"\0\0") + wire.as_path(65001) + wire.NEXT_HOP, "attribute 1 has 2 octets, not 1"),
        (wire.attribute(1, b"\0", 0xC0) + wire.as_path(65001) + wire.NEXT_HOP, "attribute 1 has flags 0xc0"),
        (wire.ORIGIN_IGP + wire.attribute(2, b"\2\5\0\0") + wire.NEXT_HOP, "AS_PATH is malformed"),
        (wire.ORIGIN_IGP + wire.attribute(2, b"\2\0") + wire.NEXT_HOP, "AS_PATH is malformed"),
        (wire.ORIGIN_IGP + wire.attribute(2, b"\5\1\0\0\0\1") + wire.NEXT_HOP, "AS_PATH is malformed"),
        (wire.ORIGIN_IGP + wire.as_path(65001) + wire.attribute(3, bytes(16)), "attribute 3 has 16 octets, not 4"),
        (MANDATORY + wire.attribute(4, bytes(3), 0x80), "attribute 4 has 3 octets, not 4"),
        (MANDATORY + wire.attribute(8, bytes(5), 0xC0), "attribute 8 has 5 octets, no multiple of 4"),
        (MANDATORY + wire.attribute(16, bytes(7), 0xC0), "attribute 16 has 7 octets, no multiple of 8"),
        (MANDATORY + wire.attribute(32, bytes(8), 0xC0), "attribute 32 has 8 octets, no multiple of 12"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_routes_with_broken_attributes_are_announced_and_count_as_withdrawn(attributes: bytes, why: str) -> None:
    update = decoded(wire.message(2, wire.body(wire.nlri(OURS, "10.0.0.0/8"), attributes)))
    assert (update.announced, update.withdrawn, update.flaw) == (2, 0, "")
    assert said(update) == [(OURS, None)]
    assert judge(attributes, 4, True).why == why


@pytest.mark.parametrize("attributes", [
    MANDATORY + wire.attribute(6, b"\1"),                   # ATOMIC_AGGREGATE: discard the attribute
    MANDATORY + wire.attribute(7, bytes(3), 0xC0),          # AGGREGATOR: discard
    MANDATORY + wire.attribute(5, bytes(3)),                # LOCAL_PREF: of an external peer, discard
    MANDATORY + wire.attribute(99, b"what", 0xC0),          # unknown
    MANDATORY + wire.as_path(),                             # twice: the first counts
])  # fmt: skip
def test_what_may_be_discarded_harms_no_route(attributes: bytes) -> None:
    assert judge(attributes, 4, True).path == AsPath((65001, 65002), 2)


def test_an_attribute_that_overruns_is_said_and_its_routes_count_as_withdrawn() -> None:
    overrun = wire.ORIGIN_IGP + bytes((0x40, 2, 200, 2, 1))
    update = decoded(wire.message(2, wire.body(wire.nlri(OURS, "10.0.0.0/8"), overrun)))
    assert update.announced == 2
    assert said(update) == [(OURS, None)]
    assert "attribute 2 overruns" in update.flaw


def test_of_prefixes_that_cannot_be_read_nothing_is_followed() -> None:
    for broken in (wire.nlri(OURS) + b"\x18\1", wire.nlri(OURS) + b"\x21" + bytes(5)):
        update = decoded(wire.message(2, wire.body(broken, MANDATORY)))
        assert update.flaw
        assert update.followed == ()
        assert update.announced == (2 if broken[4] == 0x21 else 1)


def test_the_same_family_twice_counts_once() -> None:
    attributes = wire.mp_reach(OURS6) + wire.mp_reach("2001:db8:2::/48") + wire.ORIGIN_IGP + wire.as_path(65001)
    assert decoded(wire.message(2, wire.body(b"", attributes))).announced == 1


# -- properties


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from((2, 4)), st.booleans())
def test_what_is_written_is_counted(data: st.DataObject, width: int, with_ids: bool) -> None:
    message, announced, withdrawn = data.draw(updates(width=width, with_ids=with_ids))
    encoding = Encoding(width, frozenset((1, 2)) if with_ids else frozenset())
    assert decoded(message, encoding)[:2] == (announced, withdrawn)
    assert decoded(message, encoding, NOTHING)[:2] == (announced, withdrawn)
    assert decoded(message, encoding).flaw == ""


@settings(max_examples=200, deadline=None)
@given(st.data(), st.booleans(), st.sampled_from((ipv4, ipv6)))
def test_whoever_follows_all_is_told_all_in_order(
    data: st.DataObject, with_ids: bool, family: st.SearchStrategy[str]
) -> None:
    there = data.draw(prefixes(family, with_ids=with_ids))
    texts = [p if isinstance(p, str) else p[0] for p in there]
    follow = following([Region("a", 0, 0, prefixes=sorted(set(texts)))])
    message = wire.announce(*there) if family is ipv4 else wire.announce6(*there)
    update = decoded(message, Encoding(4, frozenset((1, 2)) if with_ids else frozenset()), follow)
    assert [s.to.prefix for s in update.followed] == texts
    assert [s.path_id for s in update.followed] == [0 if isinstance(p, str) else p[1] for p in there]
    assert all(s.path == AsPath((65001,), 1) for s in update.followed)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=120), st.sampled_from((2, 4)), st.sampled_from((frozenset(), frozenset((1, 2)))))
def test_any_bytes_are_an_update_of_some_kind(contents: bytes, width: int, add_path: frozenset[int]) -> None:
    update = decode(contents, 0, len(contents), FAMILIES, Encoding(width, add_path))
    assert 0 <= update.announced + update.withdrawn <= len(contents)
    judge(contents, width, True)
    as_path(contents, width, contents)
