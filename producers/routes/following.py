"""Which prefixes are followed, and for which region: exactly those that the regions say they announce.

A decoder has to ask of each prefix that goes by, hundreds of thousands a second, whether it is one of them. So they are
kept as BGP writes them (RFC 4271, 4.3: length in bits, then as few octets as hold it), and a slice of the message is
the key. Octets behind the last bit are zero in a key; RFC 4271 calls them irrelevant, so a message's are made zero.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from schemas.records import Region

AFI_IPV4: Final = 1
AFI_IPV6: Final = 2
BITS_MAX: Final = {AFI_IPV4: 32, AFI_IPV6: 128}


class Followed(NamedTuple):
    """A prefix and the region that announces it."""

    prefix: str
    region_id: str


@dataclass(frozen=True, slots=True)
class Following:
    """The followed prefixes of one address family, by their NLRI encoding; `lengths` are those that occur, in bits."""

    afi: int
    bits_max: int
    prefixes: Mapping[bytes, Followed] = field(default_factory=dict)
    lengths: frozenset[int] = frozenset()

    def find(self, encoded: bytes) -> Followed | None:
        """The followed prefix that this NLRI is; None if it is another."""
        return self.prefixes.get(canonical(encoded))


Families = Mapping[int, Following]
NOTHING: Final[Families] = {afi: Following(afi, bits) for afi, bits in BITS_MAX.items()}


def following(regions: Iterable[Region]) -> Families:
    """What to follow for these regions, by address family (1 is IPv4, 2 is IPv6).

    Raises ValueError: a prefix is none (a validated RegionCatalog has none such).
    """
    found: dict[int, dict[bytes, Followed]] = {afi: {} for afi in BITS_MAX}
    for region in regions:
        for text in region.prefixes:
            network = ipaddress.ip_network(text)
            afi = AFI_IPV4 if network.version == 4 else AFI_IPV6
            found[afi][nlri(network)] = Followed(text, region.region_id)
    return {
        afi: Following(afi, bits, found[afi], frozenset(key[0] for key in found[afi])) for afi, bits in BITS_MAX.items()
    }


def nlri(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bytes:
    """A prefix as NLRI has it (RFC 4271, 4.3)."""
    bits = network.prefixlen
    return bytes((bits,)) + network.network_address.packed[: (bits + 7) >> 3]


def canonical(encoded: bytes) -> bytes:
    """An NLRI with its irrelevant bits made zero."""
    unused = -encoded[0] & 7
    return encoded[:-1] + bytes((encoded[-1] >> unused << unused,)) if unused else encoded
