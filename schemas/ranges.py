"""How ids look and how far numbers go, and the sentences that say what does not fit: for `validate` and its parts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

REGION_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
AGENT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
SOURCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")
METHOD: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")

RTT_MS_MAX: Final = 65_536.0
TTL_MS_MAX: Final = 24 * 3600 * 1000
AT_MS_MAX: Final = 1 << 53  # what a float64 still holds exactly


def region(value: str, what: str) -> Iterable[str]:
    """A sentence, if the value is no region id."""
    if not REGION_ID.fullmatch(value):
        yield f"{what} {value[:80]!r} is no region id ([a-z0-9][a-z0-9-]{{0,62}})"


def matching(pattern: re.Pattern[str], value: str, what: str) -> Iterable[str]:
    """A sentence, if the value does not match."""
    if not pattern.fullmatch(value):
        yield f"{what} {value[:80]!r} does not match {pattern.pattern}"


def within(value: float, low: float, high: float, what: str) -> Iterable[str]:
    """A sentence, if the value is outside, or no number."""
    if not low <= value <= high:  # false for NaN too
        yield f"{what} is {value:g}, not within {low:g} to {high:g}"
