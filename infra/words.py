"""Numbers, lists and strangers' texts as they stand in a sentence."""

from __future__ import annotations

import math


def percent(ratio: float) -> str:
    """`34 %` of a ratio of 0 to 1, `0.4 %` below one."""
    return f"{number(ratio * 100, 0 if abs(ratio) >= 0.01 else 1)} %"


def number(value: float, decimals: int | None = None) -> str:
    """So many decimals (None: as many as its size is worth), without zeros at the end; any float."""
    if not math.isfinite(value) or abs(value) >= 1e12:
        return f"{value:.3g}"
    if decimals is None:
        decimals = 0 if abs(value) >= 20 else 1 if abs(value) >= 1 else 3
    said = f"{value:.{decimals}f}"
    said = said.rstrip("0").rstrip(".") if "." in said else said
    return "0" if said in ("-0", "") else said


def two_numbers(first: float, second: float) -> tuple[str, str]:
    """Both with as few decimals as tell them apart."""
    for decimals in (None, 1, 2, 4, 6):
        said = number(first, decimals), number(second, decimals)
        if said[0] != said[1]:
            return said
    return f"{first:g}", f"{second:g}"


def listed(said: list[str]) -> str:
    """`a, b and c`; of at least one."""
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


def clean(said: str) -> str:
    """On one line, and without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(said.split()))
