"""Durations and moments, typed and read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.times import clock, duration_ms, lasting, moment_ms

NOW_MS = 1_795_515_300_000


@pytest.mark.parametrize(
    ("text", "ms"), [("90s", 90_000), ("15m", 900_000), ("2h", 7_200_000), ("1d", 86_400_000), ("1.5h", 5_400_000),
                     ("250ms", 250)],
)  # fmt: skip
def test_durations(text: str, ms: int) -> None:
    assert duration_ms(text) == ms
    assert moment_ms(f"-{text}", NOW_MS) == NOW_MS - ms


@pytest.mark.parametrize("text", ["", "2", "h", "0s", "-1h", "2w", "1e3s", "2 hours", "1h30m", "9" * 13 + "s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        duration_ms(text)


@pytest.mark.parametrize("text", ["2026-11-24T10:15:00Z", "2026-11-24T10:15", "2026-11-24 11:15:00+01:00",
                                  "1795515300000", "now"])  # fmt: skip
def test_one_moment_written_in_five_ways(text: str) -> None:
    assert moment_ms(text, NOW_MS) == NOW_MS


@pytest.mark.parametrize("text", ["", "yesterday", "10:15", "-", "-2", "2026-13-01", "9" * 20, "²"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        moment_ms(text, NOW_MS)


def test_what_is_shown_can_be_typed_again() -> None:
    assert clock(NOW_MS) == "2026-11-24 10:15:00 UTC"
    assert moment_ms(clock(NOW_MS).removesuffix(" UTC"), 0) == NOW_MS


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_any_number_can_be_shown(ms: int) -> None:
    assert clock(ms)
    assert lasting(ms)
