"""What of a record a dead letter keeps: its bytes, up to a bound that the topic takes.

A broker bounds a compressed batch, and what it unpacks to may be any size: kept whole, a letter about it could not be
sent, and whoever found it would find it again for ever. So of what is larger the beginning is kept, with its length and
hash: the record itself stands where the letter says.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from schemas.topics import JOURNAL_BYTES_MAX

ORIGINAL_BYTES_MAX: Final = JOURNAL_BYTES_MAX
KEY_BYTES_MAX: Final = 4096
_BEGINNING_BYTES: Final = 64 << 10


def kept(value: bytes, key: bytes | None, detail: str) -> tuple[bytes, bytes | None, str]:
    """Value, key and detail as a letter can carry them: whole, or the beginning, and the detail says so."""
    if len(value) > ORIGINAL_BYTES_MAX:
        detail = f"{detail} (the first {_BEGINNING_BYTES} of {len(value)} bytes are kept, SHA-256 {_hash(value)})"
        value = value[:_BEGINNING_BYTES]
    if key is not None and len(key) > KEY_BYTES_MAX:
        detail = f"{detail} (of the key the first {KEY_BYTES_MAX} of {len(key)} bytes, SHA-256 {_hash(key)})"
        key = key[:KEY_BYTES_MAX]
    return value, key, detail


def _hash(value: bytes) -> str:
    return sha256(value).hexdigest()
