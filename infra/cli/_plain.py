"""Any bytes of any topic as plain JSON values, for `proxima tail`: never an exception, whatever the bytes are.

Packed columns become arrays of numbers (NaN, a lost probe, is null), a record within a record is shown as one, and
what cannot be read is shown in hexadecimal with the reason.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

import numpy as np

from schemas.codec import read, to_plain
from schemas.errors import CodecError
from schemas.records import RECORDS, DeadLetter, GraphUpdate, Observation, Outcome, PathPanes, ProbeBatch, Snapshot

# A record in a record in a record is a dead letter about an observation; deeper is somebody's joke.
_DEPTH_MAX: Final = 4
_NUMBERS: Final = re.compile(r"[<>|=]?(b1|\?|[iu][1248]|f[248])")


def shown(value: bytes | None, depth: int = 0) -> dict[str, Any]:
    """`{"type", "record"}` of a value that can be read, else `{"undecodable": {"reason", "what", "hex"}}`."""
    if value is None:
        return {"type": None, "record": None}  # a tombstone
    if depth >= _DEPTH_MAX:
        return _undecodable(value, "TOO_DEEP", f"a record within {depth} others")
    try:
        record = read(value, *RECORDS.values())
    except CodecError as error:
        return _undecodable(value, str(error.reason), error.what)
    return {"type": type(record).__name__, "record": _record(record, depth)}


def text_of(key: bytes | None) -> str | None:
    """A key as text; one that is none as `hex:...`."""
    if key is None:
        return None
    try:
        return key.decode()
    except UnicodeDecodeError:
        return f"hex:{key.hex()}"


def _undecodable(value: bytes, reason: str, what: str) -> dict[str, Any]:
    return {"undecodable": {"reason": reason, "what": what, "hex": value.hex()}}


def _record(record: Any, depth: int) -> Any:
    plain = to_plain(record)
    if isinstance(record, Observation):
        plain["body"] = shown(record.body, depth + 1)
    elif isinstance(record, DeadLetter):
        plain["original"] = shown(record.original, depth + 1)
        plain["original_key"] = text_of(record.original_key)
    elif isinstance(record, ProbeBatch | GraphUpdate):
        plain |= {name: _array(plain[name], dtype) for name, dtype in record.COLUMNS.items()}
    elif isinstance(record, PathPanes):
        rows = len(record.outcomes) // (np.dtype(record.ROWS["outcomes"]).itemsize * len(Outcome))
        shapes = {"outcomes": [rows, len(Outcome)]}
        columns = {**record.ROWS, **record.ENTRIES}
        plain |= {name: _array(plain[name], dtype, shapes.get(name)) for name, dtype in columns.items()}
    elif isinstance(record, Snapshot):
        for column in plain["columns"]:
            column["data"] = _array(column["data"], column["dtype"], column["shape"])
    return finite(plain)


def _array(data: bytes, dtype: str, shape: list[int] | None = None) -> Any:
    """A packed column as numbers; as hexadecimal when it is no whole number of them."""
    try:
        if not _NUMBERS.fullmatch(dtype):
            raise ValueError(dtype)
        array = np.frombuffer(data, dtype)
        if array.dtype.kind == "f" and array.dtype.itemsize < 8:
            # The shortest decimal that is this number: 12.3, and not 12.300000190734863.
            array = array.astype(str).astype("f8")
        if shape is None:
            return array.tolist()
        if not array.size:
            return []  # whatever the shape: [1000000000, 0] would be a billion empty lists
        return array.reshape(shape).tolist()
    except (ValueError, TypeError, OverflowError):
        return {"undecodable": {"reason": "MALFORMED", "what": f"not a whole number of {dtype}", "hex": data.hex()}}


def finite(value: Any) -> Any:
    """Plain values as JSON knows them: no bytes, and null for a number that is none."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
