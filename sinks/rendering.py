"""A ranking as JSON text, in the names of its schema."""

from __future__ import annotations

import json

from schemas.codec import to_plain
from schemas.errors import CodecError
from schemas.records import FailoverRanking, Reason


def as_json(ranking: FailoverRanking) -> str:
    """One line; primary and sequence come first, so that a reader of many lines need not parse the rest.

    `decided_at_ms` and `stale_after_ms` are in it: a copy that nobody renews says so itself.
    Raises CodecError: a number that JSON does not have (NaN, infinity).
    """
    plain = {"primary_region": ranking.primary_region, "sequence": ranking.sequence, **to_plain(ranking)}
    try:
        return json.dumps(plain, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise CodecError(Reason.OUT_OF_RANGE, f"cannot be written as JSON: {error}") from None
