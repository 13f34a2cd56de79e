"""Each probe at its own moment: evenly, never in a burst, and not a tick too late."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.pacer import CATCH_UP, Pacer, moments

TICK_S = 0.2


@given(st.floats(0, 1e6), st.floats(0.1, 60), st.integers(1, 2000), st.integers())
@settings(deadline=None)
def test_each_slot_of_a_tick_has_one_moment(began_s: float, tick_s: float, probes: int, seed: int) -> None:
    at_s = np.array(moments(began_s, tick_s, probes, random.Random(seed)))
    slots = (at_s - began_s) / tick_s * probes
    assert (np.abs(slots - np.arange(probes) - 0.5) <= 0.5 + 1e-3).all()


def paced(due_in_s: list[float], send: Callable[[int], None], stop_after_s: float = 60.0) -> tuple[int, list[int]]:
    """How many had their turn, and which were skipped."""
    skipped: list[int] = []

    async def run() -> int:
        loop = asyncio.get_running_loop()
        stop: asyncio.Future[None] = loop.create_future()
        loop.call_later(stop_after_s, stop.set_result, None)
        pacer, now_s = Pacer(TICK_S, 1e6), loop.time()
        return await pacer.run([now_s + due_s for due_s in due_in_s], send, skipped.append, stop)

    return asyncio.run(run()), skipped


def test_nothing_is_sent_before_its_moment_and_everything_once() -> None:
    due_in_s = [index * TICK_S / 100 for index in range(100)]
    sent: list[tuple[int, float]] = []
    began_s = time.monotonic()
    turns, skipped = paced(due_in_s, lambda row: sent.append((row, time.monotonic() - began_s)))
    assert turns == 100
    assert [row for row, _ in sent] + skipped == list(range(100))
    assert all(at_s >= due_s - 1e-3 for (_, at_s), due_s in zip(sent, due_in_s, strict=False))


def test_what_is_overdue_is_caught_up_with_at_twice_the_plans_rate() -> None:
    sent_s: list[float] = []
    # All were due before: as after a stall of half a tick.
    turns, skipped = paced([-TICK_S / 2] * 100, lambda _: sent_s.append(time.monotonic()))
    assert turns == 100
    plan_per_s = 100 / TICK_S
    # Only what is a tick late is left out; here that may be, for this machine may be slow.
    assert sent_s[-1] - sent_s[0] >= (len(sent_s) - 2) / (CATCH_UP * plan_per_s) - 0.002
    assert len(sent_s) + len(skipped) == 100


def test_what_is_a_tick_late_has_had_its_turn() -> None:
    sent: list[int] = []
    turns, skipped = paced([-5 * TICK_S] * 7 + [0.0], sent.append)
    assert (turns, skipped, sent) == (8, list(range(7)), [7])


def test_a_stop_ends_it_at_once() -> None:
    sent: list[int] = []
    turns, skipped = paced([0.0, 3600.0], sent.append, stop_after_s=0.05)
    assert (turns, skipped, sent) == (1, [], [0])


def test_a_failure_of_a_probe_is_not_swallowed() -> None:
    def fail(_: int) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        paced([0.0, 0.01], fail)
