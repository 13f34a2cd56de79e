"""Path attributes of a followed route: its AS path, or why the route has to count as withdrawn.

A route whose attributes are broken must not be used, and its session must not end for it: RFC 7606 has it treated as
withdrawn. Checked here is what RFC 7606 says so of, as far as a monitor can know it: LOCAL_PREF, ORIGINATOR_ID and
CLUSTER_LIST depend on whether the peer is internal, and are let pass. Of an attribute that comes twice the first counts
(section 3 g).
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, NamedTuple

ORIGIN: Final = 1
AS_PATH: Final = 2
NEXT_HOP: Final = 3
MULTI_EXIT_DISC: Final = 4
COMMUNITIES: Final = 8
MP_REACH_NLRI: Final = 14
MP_UNREACH_NLRI: Final = 15
EXTENDED_COMMUNITIES: Final = 16
AS4_PATH: Final = 17
LARGE_COMMUNITIES: Final = 32

EXTENDED_LENGTH: Final = 0x10
_OPTIONAL: Final = 0x80
_TRANSITIVE: Final = 0x40
# Optional and transitive, as each must have them (RFC 7606, 3 c).
_FLAGS: Final = {
    ORIGIN: _TRANSITIVE, AS_PATH: _TRANSITIVE, NEXT_HOP: _TRANSITIVE, MULTI_EXIT_DISC: _OPTIONAL,
    COMMUNITIES: _OPTIONAL | _TRANSITIVE, EXTENDED_COMMUNITIES: _OPTIONAL | _TRANSITIVE,
    LARGE_COMMUNITIES: _OPTIONAL | _TRANSITIVE,
}  # fmt: skip
_LENGTHS: Final = {ORIGIN: 1, NEXT_HOP: 4, MULTI_EXIT_DISC: 4}
_MULTIPLES: Final = {COMMUNITIES: 4, EXTENDED_COMMUNITIES: 8, LARGE_COMMUNITIES: 12}

_AS_SET: Final = 1
_AS_SEQUENCE: Final = 2
_CONFED_SEQUENCE: Final = 3
_CONFED_SET: Final = 4


class AsPath(NamedTuple):
    """AS numbers in order, a set's one after the other; `length` as the decision process counts it."""

    ases: tuple[int, ...]
    length: int


class Judged(NamedTuple):
    """The path, or None and why the route counts as withdrawn."""

    path: AsPath | None
    why: str = ""


class _Segment(NamedTuple):
    kind: int
    ases: tuple[int, ...]


# A peer announces thousands of prefixes with the same attributes; bounded, at some hundred bytes an entry.
@lru_cache(maxsize=4096)
def judge(attributes: bytes, as_width: int, needs_next_hop: bool) -> Judged:
    """What these path attributes make of the routes that came with them; whatever the bytes, it raises nothing.

    `as_width` is 2 or 4, octets of an AS number in AS_PATH (RFC 6793); `needs_next_hop` for routes outside of
    MP_REACH_NLRI, which has its own.
    """
    found: dict[int, bytes] = {}
    at, end = 0, len(attributes)
    while at < end:
        header = 4 if attributes[at] & EXTENDED_LENGTH else 3
        if at + header > end:
            return Judged(None, "an attribute's header is cut off")
        flags, kind = attributes[at], attributes[at + 1]
        length = int.from_bytes(attributes[at + 2 : at + header], "big")
        at += header
        if at + length > end:
            return Judged(None, f"attribute {kind} is longer than what is there")
        if kind in _FLAGS and flags & (_OPTIONAL | _TRANSITIVE) != _FLAGS[kind]:
            return Judged(None, f"attribute {kind} has flags {flags:#04x}")
        if kind in _LENGTHS and length != _LENGTHS[kind]:
            return Judged(None, f"attribute {kind} has {length} octets, not {_LENGTHS[kind]}")
        if kind in _MULTIPLES and (length == 0 or length % _MULTIPLES[kind]):
            return Judged(None, f"attribute {kind} has {length} octets, no multiple of {_MULTIPLES[kind]}")
        found.setdefault(kind, attributes[at : at + length])
        at += length
    missing = [n for n in (ORIGIN, AS_PATH) if n not in found]
    if needs_next_hop and NEXT_HOP not in found:
        missing.append(NEXT_HOP)
    if missing:
        return Judged(None, f"mandatory attribute {missing[0]} is missing")
    if found[ORIGIN][0] > 2:
        return Judged(None, f"ORIGIN is {found[ORIGIN][0]}")
    path = as_path(found[AS_PATH], as_width, found.get(AS4_PATH))
    return Judged(path) if path is not None else Judged(None, "AS_PATH is malformed")


def as_path(value: bytes, as_width: int, as4: bytes | None = None) -> AsPath | None:
    """The value of an AS_PATH, with that of AS4_PATH beside it when a speaker of 2-octet numbers has one.

    None: it is malformed (RFC 7606, 7.2). `length` counts a set once (RFC 4271, 9.1.2.2) and confederation segments
    not at all (RFC 5065, 5.3).
    """
    segments = _segments(value, as_width)
    if segments is None:
        return None
    if as4 is not None and as_width == 2:
        segments = _merged(segments, _segments(as4, 4))
    return AsPath(tuple(number for s in segments for number in s.ases), _length(segments))


def _segments(value: bytes, as_width: int) -> list[_Segment] | None:
    found: list[_Segment] = []
    at, end = 0, len(value)
    while at < end:
        if at + 2 > end:
            return None
        kind, count = value[at], value[at + 1]
        at += 2
        if not _AS_SET <= kind <= _CONFED_SET or count == 0 or at + count * as_width > end:
            return None
        found.append(_Segment(kind, struct.unpack_from(f"!{count}{'H' if as_width == 2 else 'I'}", value, at)))
        at += count * as_width
    return found


def _merged(old: list[_Segment], new: list[_Segment] | None) -> list[_Segment]:
    """AS_PATH's head before AS4_PATH (RFC 6793, 4.2.3); AS_PATH alone when AS4_PATH is malformed or the longer one.

    Confederation segments do not belong in AS4_PATH, and are left out of it (RFC 6793, 6).
    """
    if new is None:
        return old
    new = [s for s in new if s.kind in (_AS_SET, _AS_SEQUENCE)]
    lead = _length(old) - _length(new)
    if lead < 0 or not new:
        return old
    head: list[_Segment] = []
    for segment in old:
        counted = _length([segment])
        if counted > lead:
            if segment.kind == _AS_SEQUENCE and lead:
                head.append(_Segment(segment.kind, segment.ases[:lead]))
            break
        head.append(segment)
        lead -= counted
    return head + new


def _length(segments: list[_Segment]) -> int:
    return sum(len(s.ases) if s.kind == _AS_SEQUENCE else s.kind == _AS_SET for s in segments)
