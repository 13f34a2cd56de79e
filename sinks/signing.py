"""Signatures of webhooks, as the Standard Webhooks specify them (standardwebhooks.com), so that their libraries verify.

    webhook-id           the same at every try
    webhook-timestamp    of this try, in Unix seconds: a receiver refuses what is old
    webhook-signature    "v1," and base64 of HMAC-SHA256 over "ID.TIMESTAMP.BODY"; one for each secret, spaces between

Several secrets are how one is changed: the sink signs with both, receivers go over to the new one, the old one is
taken away.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterable, Sequence
from typing import Final

from schemas.errors import ConfigError
from schemas.webhook import Destination

_PREFIX: Final = "whsec_"
# What the specification asks for.
_BYTES_MIN, _BYTES_MAX = 24, 64


def signed_headers(keys: Sequence[bytes], webhook_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers of one try."""
    content = f"{webhook_id}.{timestamp_s}.".encode() + body
    digests = (hmac.new(key, content, hashlib.sha256).digest() for key in keys)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }


def keys_of(destination: Destination) -> tuple[bytes, ...]:
    """The destination's keys, from its files and variables; raises ConfigError, which never quotes a secret."""
    mistakes: list[str] = []
    keys: list[bytes] = []
    for place, texts in _texts(destination, mistakes):
        if not texts:
            mistakes.append(f"{place} holds no secret")
        for number, text in enumerate(texts, start=1):
            try:
                keys.append(_key(text))
            except ValueError as error:
                mistakes.append(f"{place}, secret {number}: {error}")
    if mistakes:
        do = "a secret is whsec_ and base64 of 24 to 64 random bytes: echo whsec_$(openssl rand -base64 32)"
        raise ConfigError(mistakes, where=f"webhook destination {destination.name}", do=do)
    return tuple(dict.fromkeys(keys))


def _texts(destination: Destination, mistakes: list[str]) -> Iterable[tuple[str, list[str]]]:
    for path in destination.secret_files:
        try:
            yield str(path), path.read_text().split()
        except (OSError, UnicodeDecodeError) as error:
            mistakes.append(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}")
    for name in destination.secret_env:
        yield f"variable {name}", os.environ.get(name, "").split()


def _key(text: str) -> bytes:
    if not text.startswith(_PREFIX):
        raise ValueError(f"does not begin with {_PREFIX}")
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is no base64") from None
    if not _BYTES_MIN <= len(key) <= _BYTES_MAX:
        raise ValueError(f"has {len(key)} bytes, not {_BYTES_MIN} to {_BYTES_MAX}")
    return key
