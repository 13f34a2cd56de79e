"""One BGP UPDATE: how many routes it announces and withdraws, and what it says of the followed prefixes.

What is counted is what the message says, as `bgpdump -m` prints it: one for each NLRI of IPv4 and IPv6, unicast and
multicast (SAFI 1 to 3), within and outside of MP_REACH_NLRI and MP_UNREACH_NLRI. An end-of-RIB marker announces and
withdraws nothing.

Errors are counted and followed differently, because a file's contents are a fact and a route is to be used:

    the attributes are wrong (RFC 7606)     announced in the counts; the followed routes count as withdrawn
    an attribute or a field overruns        what can be read counts, `flaw` is set; the followed routes that can be
                                            read count as withdrawn
    the NLRI cannot be read                 prefixes up to there count, `flaw` is set; nothing is followed: nobody knows
                                            what was meant, and a BGP speaker would have ended the session
    a prefix longer than its family's       counts, as bgpdump has it, and is an NLRI that cannot be read
"""

from __future__ import annotations

from typing import Final, NamedTuple

from producers.routes.following import AFI_IPV4, NOTHING, Families, Followed, Following
from producers.routes.paths import EXTENDED_LENGTH, MP_REACH_NLRI, MP_UNREACH_NLRI, AsPath, judge

MARKER: Final = b"\xff" * 16
HEADER_BYTES: Final = 19
OPEN: Final = 1
UPDATE: Final = 2
MESSAGE_TYPES: Final = range(1, 6)  # OPEN, UPDATE, NOTIFICATION, KEEPALIVE, ROUTE-REFRESH

_UNICAST: Final = 1
_SAFIS: Final = range(1, 4)  # unicast, multicast, and both, which RFC 2858 had
_PATH_ID_BYTES: Final = 4


class Encoding(NamedTuple):
    """What of an UPDATE's form its session has agreed on, and the bytes do not say."""

    as_width: int = 4  # octets of an AS number in AS_PATH, 2 or 4 (RFC 6793)
    add_path: frozenset[int] = frozenset()  # address families whose prefixes have a path identifier (RFC 7911)


class Said(NamedTuple):
    """What an UPDATE says of one followed prefix: its path, or None for withdrawn."""

    to: Followed
    path_id: int  # of ADD-PATH, else 0
    path: AsPath | None


class Update(NamedTuple):
    """Routes to any prefix, by number; the followed ones, in the order in which they count; what cannot be read."""

    announced: int
    withdrawn: int
    followed: tuple[Said, ...] | list[Said] = ()
    flaw: str = ""


class _Nlri(NamedTuple):
    """The prefixes of one field: how many, which are followed (with path identifier), whether all could be read."""

    number: int
    followed: list[tuple[Followed, int]]
    is_whole: bool


class _Field(NamedTuple):
    """A field of prefixes: announced or withdrawn, and whether NEXT_HOP is about them."""

    is_reach: bool
    has_next_hop: bool
    nlri: _Nlri


def decode(data: bytes, at: int, end: int, families: Families, encoding: Encoding) -> Update:
    """The UPDATE whose body (behind the 19 octets of BGP's header) is `data[at:end]`; raises nothing, whatever it is.

    Source: RFC 4271, 4.3; RFC 4760, 3 and 4; RFC 7606.
    """
    if end - at < 4:
        return Update(0, 0, (), "an UPDATE shorter than its two lengths")
    ipv4, has_ids = families[AFI_IPV4], AFI_IPV4 in encoding.add_path
    flaw = ""
    fields: list[_Field] = []
    stop = at + 2 + (data[at] << 8 | data[at + 1])
    if stop + 2 > end:
        stop, flaw = min(stop, end), "the withdrawn routes overrun the message"
    if stop > at + 2:
        fields.append(_Field(False, False, _prefixes(data, at + 2, stop, ipv4, has_ids)))
    first = last = stop + 2
    if first <= end:
        last = first + (data[stop] << 8 | data[stop + 1])
        if last > end:
            last, flaw = end, "the path attributes overrun the message"
        if last > first:
            found, overrun = _mp_fields(data, first, last, families, encoding)
            fields += found
            flaw = flaw or overrun
        if last < end:
            fields.append(_Field(True, True, _prefixes(data, last, end, ipv4, has_ids)))
    announced = withdrawn = 0
    is_whole, is_followed = True, False
    for is_reach, _, nlri in fields:
        if is_reach:
            announced += nlri.number
        else:
            withdrawn += nlri.number
        is_whole = is_whole and nlri.is_whole
        is_followed = is_followed or bool(nlri.followed)
    if not is_whole:
        return Update(announced, withdrawn, (), flaw or "a prefix is cut off, or longer than its family's")
    if not is_followed:
        return Update(announced, withdrawn, (), flaw)
    return Update(announced, withdrawn, _followed(fields, data[first:last], encoding, flaw), flaw)


def _followed(fields: list[_Field], attributes: bytes, encoding: Encoding, flaw: str) -> list[Said]:
    """What is said of followed prefixes. Withdrawals come first: who is in both is announced (RFC 4271, 4.3)."""
    said = [Said(to, path_id, None) for f in fields if not f.is_reach for to, path_id in f.nlri.followed]
    for _, has_next_hop, nlri in (f for f in fields if f.is_reach and f.nlri.followed):
        path = None if flaw else judge(attributes, encoding.as_width, has_next_hop).path
        said += [Said(to, path_id, path) for to, path_id in nlri.followed]
    return said


def _prefixes(data: bytes, at: int, end: int, following: Following, has_ids: bool) -> _Nlri:
    """The prefixes in `data[at:end]`: this runs for each prefix there is, so it does little."""
    lengths, bits_max = following.lengths, following.bits_max
    count, is_whole = 0, True
    followed: list[tuple[Followed, int]] = []
    while at < end:
        start = at
        if has_ids:
            at += _PATH_ID_BYTES
            if at >= end:
                return _Nlri(count, followed, False)
        bits = data[at]
        stop = at + 1 + ((bits + 7) >> 3)
        if stop > end:
            return _Nlri(count, followed, False)
        if bits > bits_max:
            is_whole = False
        elif bits in lengths and (found := following.find(data[at:stop])) is not None:
            followed.append((found, int.from_bytes(data[start:at], "big")))
        count += 1
        at = stop
    return _Nlri(count, followed, is_whole)


def _mp_fields(
    data: bytes, at: int, end: int, families: Families, encoding: Encoding
) -> tuple[list[_Field], str]:  # fmt: skip
    """The fields of prefixes in the attributes `data[at:end]`, and what overruns."""
    fields: list[_Field] = []
    seen: set[bytes] = set()
    while at < end:
        start, header = at, 4 if data[at] & EXTENDED_LENGTH else 3
        at += header
        if at > end:
            return fields, "an attribute's header is cut off"
        kind = data[start + 1]
        stop = at + (data[at - 1] if header == 3 else data[at - 2] << 8 | data[at - 1])
        if stop > end:
            return fields, f"attribute {kind} overruns the attributes"
        if kind in (MP_REACH_NLRI, MP_UNREACH_NLRI):
            family = data[start + 1 : start + 2] + data[at : at + 3]
            # Twice the same family is an error, and the first one counts, as it does for bgpdump.
            if family not in seen:
                seen.add(family)
                is_reach = kind == MP_REACH_NLRI
                begin = _nlri_begin(data, at, stop, is_reach)
                if begin is None:
                    return fields, f"attribute {kind} is shorter than its own fields"
                following = _multiprotocol(data[at] << 8 | data[at + 1], data[at + 2], families)
                if following is not None:
                    has_ids = following.afi in encoding.add_path
                    fields.append(_Field(is_reach, False, _prefixes(data, begin, stop, following, has_ids)))
        at = stop
    return fields, ""


def _nlri_begin(data: bytes, at: int, end: int, is_reach: bool) -> int | None:
    """Where the prefixes begin in MP_REACH_NLRI or MP_UNREACH_NLRI (RFC 4760, 3 and 4); None if it is too short."""
    begin = at + 3
    if is_reach and begin < end:
        begin += 2 + data[begin]  # the next hop, whatever its length (RFC 8950), and a reserved octet
    elif is_reach:
        return None
    return begin if begin <= end else None


def _multiprotocol(afi: int, safi: int, families: Families) -> Following | None:
    """What to follow of a family; nothing of multicast, None for families that are not counted."""
    following = families.get(afi)
    if following is None or safi == _UNICAST:
        return following
    return NOTHING[afi] if safi in _SAFIS else None
