"""Ways between regions as arrays, for snapshots: as text they would be larger than everything else together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from schemas.records import Array


def packed(routes: Mapping[str, Mapping[str, Sequence[int]]], numbers: Mapping[str, int]) -> dict[str, Array]:
    """Begin, end and length (ways,), and all networks one after the other (networks,); every region has a number."""
    ways = [(numbers[begin], numbers[end], way) for begin, each in routes.items() for end, way in each.items()]
    return {
        "begin": np.array([begin for begin, _, _ in ways], np.int32),
        "end": np.array([end for _, end, _ in ways], np.int32),
        "length": np.array([len(way) for _, _, way in ways], np.uint8),
        "networks": np.array([number for _, _, way in ways for number in way], np.int64),
    }


def unpacked(arrays: Mapping[str, Array], regions: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    """The ways again."""
    found: dict[str, dict[str, list[int]]] = {}
    ends = np.cumsum(arrays["length"], dtype=np.int64).tolist()
    networks = arrays["networks"].tolist()
    rows = zip(arrays["begin"].tolist(), arrays["end"].tolist(), arrays["length"].tolist(), ends, strict=True)
    for begin, end, length, until in rows:
        found.setdefault(regions[begin], {})[regions[end]] = networks[until - length : until]
    return found
