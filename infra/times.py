"""Durations and moments as people type them, and as they read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_UNITS_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d)")
_AT_MS_MAX: Final = 253_402_300_799_999  # the end of the year 9999, the last that a date can be written of


def duration_ms(text: str) -> int:
    """Milliseconds of `90s`, `15m`, `2h`, `1d` or `1.5h`; raises ValueError for anything else, and for nothing."""
    found = _DURATION.fullmatch(text.strip())
    length_ms = round(float(found[1]) * _UNITS_MS[found[2]]) if found else 0
    if length_ms <= 0:
        raise ValueError(f"{text!r} is no duration such as 90s, 15m, 2h or 1d")
    return length_ms


def moment_ms(text: str, now_ms: int) -> int:
    """Unix time in milliseconds of `2026-11-24T10:15:00Z` (without a zone: UTC), `1795515300000`, `-2h` or `now`.

    Raises ValueError for anything else.
    """
    stated = text.strip()
    if stated == "now":
        return now_ms
    if stated[:1] == "-":
        return now_ms - duration_ms(stated[1:])
    try:
        if stated.isdecimal():
            if int(stated) > _AT_MS_MAX:
                raise ValueError(stated)
            return int(stated)
        at = datetime.fromisoformat(stated)
        return round((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is no time: ISO 8601 (2026-11-24T10:15:00Z), Unix milliseconds, or back from now (-2h)"
        ) from None


def clock(at_ms: int) -> str:
    """A moment in UTC to the second, `2026-11-24 10:15:00 UTC`; what no calendar has is given in milliseconds."""
    if not 0 <= at_ms <= _AT_MS_MAX:
        return f"{at_ms} ms"
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def lasting(ms: float) -> str:
    """A length of time in one unit, rounded: `400 ms`, `31 s`, `5 min`, `3 h`, `2 d`."""
    seconds = max(ms, 0) / 1000
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
