"""An engine's state as columns and scalars: what a snapshot holds, and no pickle.

Arrays go as their bytes with type and shape, everything else as one JSON object with sorted keys. Floats survive JSON
exactly (Python writes the shortest text that reads back the same); NaN and infinities are written by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from schemas.records import Array, Column


def to_columns(arrays: Mapping[str, Array]) -> list[Column]:
    """Arrays of numbers, in order of name."""
    return [
        Column(name, array.dtype.str, list(array.shape), np.ascontiguousarray(array).tobytes())
        for name, array in sorted(arrays.items())
    ]


def from_columns(columns: list[Column]) -> dict[str, Array]:
    """The arrays again, writable; raises ValueError for a type that is no plain number, or bytes that do not fit."""
    found = {}
    for column in columns:
        dtype = np.dtype(column.dtype)
        if dtype.kind not in "biuf":
            raise ValueError(f"column {column.name} has type {column.dtype}, which is no plain number")
        found[column.name] = np.frombuffer(column.data, dtype).reshape(column.shape).copy()
    return found


def part(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Those of one part of an engine, whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def to_scalars(scalars: Mapping[str, Any]) -> str:
    """One JSON object, the same text for the same content."""
    return json.dumps(scalars, sort_keys=True, separators=(",", ":"))


def from_scalars(text: str) -> dict[str, Any]:
    """The object again."""
    return json.loads(text)  # type: ignore[no-any-return]
