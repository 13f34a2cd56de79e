"""Hypothesis strategies for MRT records: good ones of every variant, and ones with something wrong in them."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import strategies as st

from tests.producers.routes import wire

ases = st.integers(1, 65_535)
as_paths = st.lists(ases, min_size=1, max_size=6)


def _network(text: bytes, bits: int, cls: type[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> str:
    return str(cls((int.from_bytes(text, "big"), bits), strict=False))


ipv4 = st.builds(
    lambda o, b: _network(o, b, ipaddress.IPv4Network), st.binary(min_size=4, max_size=4), st.integers(0, 32)
)
ipv6 = st.builds(
    lambda o, b: _network(o, b, ipaddress.IPv6Network), st.binary(min_size=16, max_size=16), st.integers(0, 128)
)


def prefixes(of: st.SearchStrategy[str], *, with_ids: bool) -> st.SearchStrategy[list[wire.Prefix]]:
    each: st.SearchStrategy[wire.Prefix] = st.tuples(of, st.integers(0, (1 << 32) - 1)) if with_ids else of
    return st.lists(each, max_size=8)


@st.composite
def updates(draw: st.DrawFn, *, width: int, with_ids: bool) -> tuple[bytes, int, int]:
    """An UPDATE, and how many routes it announces and withdraws."""
    announced = draw(prefixes(ipv4, with_ids=with_ids))
    withdrawn = draw(prefixes(ipv4, with_ids=with_ids))
    announced6 = draw(prefixes(ipv6, with_ids=with_ids))
    withdrawn6 = draw(prefixes(ipv6, with_ids=with_ids))
    attributes = b""
    if announced or announced6:
        attributes = wire.ORIGIN_IGP + wire.as_path(*draw(as_paths), width=width) + wire.NEXT_HOP
    if withdrawn6:
        attributes += wire.mp_unreach(*withdrawn6)
    if announced6:
        attributes += wire.mp_reach(*announced6, safi=draw(st.sampled_from((1, 2))), extended=draw(st.booleans()))
    contents = wire.body(wire.nlri(*announced), attributes, wire.nlri(*withdrawn))
    return wire.message(2, contents), len(announced) + len(announced6), len(withdrawn) + len(withdrawn6)


@st.composite
def records(draw: st.DrawFn, subtypes: tuple[int, ...] = (1, 4, 8, 9)) -> tuple[bytes, int, int, int]:
    """A record, and the routes that it announces and withdraws, and whether it is a state change (0 or 1)."""
    peer, local = draw(st.sampled_from((("192.0.2.7", "192.0.2.254"), ("2001:db8::7", "2001:db8::fe"))))
    who: dict[str, Any] = {
        "peer": peer,
        "local": local,
        "peer_as": draw(ases),
        "at_s": draw(st.integers(1_200_000_000, 1_300_000_000)),
    }
    if draw(st.booleans()):
        who["microseconds"] = draw(st.integers(0, 999_999))
    if draw(st.integers(0, 5)) == 0:
        states = draw(st.integers(1, 6)), draw(st.integers(1, 6))
        return wire.state_change(*states, subtype=draw(st.sampled_from((0, 5))), **who), 0, 0, 1
    subtype = draw(st.sampled_from(subtypes))
    if draw(st.integers(0, 7)) == 0:
        return wire.bgp4mp(subtype, wire.KEEPALIVE, **who), 0, 0, 0
    width = 4 if subtype in (4, 7, 9, 11) else 2
    update, announced, withdrawn = draw(updates(width=width, with_ids=subtype >= 8))
    return wire.bgp4mp(subtype, update, **who), announced, withdrawn, 0
