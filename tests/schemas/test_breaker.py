"""Circuit breakers: the table is all that can happen, and what does not answer is not asked more than is allowed."""

from __future__ import annotations

import asyncio
import itertools
import threading
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.breaker import TRANSITIONS, Breaker, BreakerOpenError, Change, Limits, Permit, Signal, State

LIMITS = Limits(failures=3, open_s=5, growth=2, open_s_max=15, probes=1, passes=1, answer_s=10)


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Bench:
    """A breaker with a clock of its own, and all that it told."""

    limits: Limits = LIMITS
    clock: Clock = field(default_factory=Clock)
    told: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.breaker = Breaker("target", self.limits, clock=self.clock, on_change=self.told.append)

    def state(self) -> State:
        return self.breaker.state

    def permit(self) -> Permit:
        permit = self.breaker.ask()
        assert permit is not None
        return permit

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.permit().failed("refused")

    def open_s(self) -> float:
        """How long it is open from now, seen by asking every half second."""
        start = self.clock.now_s
        while self.state() is State.OPEN:
            assert self.breaker.ask() is None
            self.clock.now_s += 0.5
        return self.clock.now_s - start


def test_it_opens_after_so_many_failures_in_a_row_and_not_before() -> None:
    bench = Bench()
    bench.fail(2)
    bench.permit().passed()
    bench.fail(2)
    assert bench.state() is State.CLOSED
    bench.fail()
    assert bench.state() is State.OPEN
    assert bench.breaker.ask() is None
    status = bench.breaker.status()
    assert (status.passed, status.failed, status.refused, status.opened, status.reason) == (1, 5, 1, 1, "refused")
    assert status.probe_in_s == 5


def test_it_opens_when_too_large_a_part_of_the_last_calls_failed() -> None:
    bench = Bench(replace(LIMITS, ratio=0.5, window=10))
    for failed in (True, False) * 4:
        bench.permit().failed("500") if failed else bench.permit().passed()
    bench.permit().passed()
    assert bench.state() is State.CLOSED, "nine calls are no window yet"
    bench.fail()
    assert bench.state() is State.OPEN


def test_it_stays_open_longer_each_time_a_probe_fails_and_forgets_that_when_closed() -> None:
    bench = Bench()
    bench.fail(3)
    lengths = []
    for _ in range(4):
        lengths.append(bench.open_s())
        bench.fail()
    assert lengths == [5, 10, 15, 15]
    bench.open_s()
    bench.permit().passed()
    assert bench.state() is State.CLOSED
    bench.fail(3)
    assert bench.open_s() == 5


def test_half_open_lets_only_so_many_probes_through_at_a_time() -> None:
    bench = Bench(replace(LIMITS, probes=2, passes=3))
    bench.fail(3)
    bench.open_s()
    first, second = bench.permit(), bench.permit()
    assert first.is_probe
    assert bench.breaker.ask() is None
    first.passed()
    third = bench.permit()
    second.dropped()
    third.passed()
    assert bench.state() is State.HALF_OPEN, "two passed, three are wanted"
    bench.permit().passed()
    assert bench.state() is State.CLOSED


def test_a_probe_that_is_never_answered_has_failed() -> None:
    bench = Bench()
    bench.fail(3)
    bench.open_s()
    lost = bench.permit()
    bench.clock.now_s += 9.9
    assert bench.state() is State.HALF_OPEN
    bench.clock.now_s += 0.1
    assert bench.state() is State.OPEN
    assert bench.breaker.status().reason == "no answer within 10 s"
    lost.passed()
    assert bench.state() is State.OPEN, "too late"


def test_an_answer_from_before_it_opened_moves_nothing() -> None:
    bench = Bench()
    slow, slower = bench.permit(), bench.permit()
    bench.fail(3)
    slow.passed()
    assert bench.state() is State.OPEN
    bench.open_s()
    slower.failed("late")
    assert bench.state() is State.HALF_OPEN
    bench.permit().passed()
    assert bench.state() is State.CLOSED


def test_a_permit_answers_once() -> None:
    bench = Bench()
    permit = bench.permit()
    for _ in range(5):
        permit.failed("again")
    assert bench.breaker.status().failed == 1


def test_as_a_context_an_exception_is_a_failure_and_a_cancellation_is_neither() -> None:
    bench = Bench()
    with bench.permit():
        pass
    with pytest.raises(ConnectionError), bench.permit():
        raise ConnectionError("no route")
    assert bench.breaker.status().reason == "no route"
    with pytest.raises(asyncio.CancelledError), bench.permit():
        raise asyncio.CancelledError
    status = bench.breaker.status()
    assert (status.passed, status.failed) == (1, 1)


def test_who_would_rather_have_an_error_gets_one_that_says_when() -> None:
    bench = Bench()
    bench.fail(3)
    with pytest.raises(BreakerOpenError, match=r"not called: refused \(target\): asked again in 5\.0 s"):
        bench.breaker.permit()


def test_people_may_open_and_close_it() -> None:
    bench = Bench()
    bench.breaker.reset()
    assert not bench.told
    bench.breaker.trip("stopped by an operator")
    assert bench.breaker.status().reason == "stopped by an operator"
    bench.breaker.reset()
    assert [c.signal for c in bench.told] == [Signal.FORCED_OPEN, Signal.RESET]
    assert bench.breaker.status().reason == ""


def test_limits_that_make_no_sense_are_refused() -> None:
    for wrong in ({"failures": 0}, {"open_s": 0}, {"growth": 0.5}, {"ratio": 1.5}, {"ratio": 0}, {"passes": 0}):
        with pytest.raises(ValueError, match=r"at least 1|at most 1"):
            Limits(**wrong)


_STEPS = st.lists(st.sampled_from(["ask", "pass", "fail", "drop", "wait", "trip", "reset"]), max_size=80)


@given(_STEPS, st.sampled_from([LIMITS, replace(LIMITS, probes=3, passes=2, ratio=0.4, window=5)]))
@settings(max_examples=200, deadline=None)
def test_whatever_happens_only_the_table_does_and_open_means_not_called(steps: list[str], limits: Limits) -> None:
    bench = Bench(limits)
    out: list[Permit] = []
    for step in steps:
        if step == "ask":
            state = bench.state()
            permit = bench.breaker.ask()
            assert (permit is None) == (state is State.OPEN) or state is State.HALF_OPEN
            out += [permit] if permit else []
        elif step == "wait":
            bench.clock.now_s += 3
        elif step == "trip":
            bench.breaker.trip("x")
        elif step == "reset":
            bench.breaker.reset()
        elif out:
            answered = out.pop(0)
            if step == "fail":
                answered.failed("x")
            else:
                (answered.passed if step == "pass" else answered.dropped)()
        assert len(bench.breaker._phase.probes) <= limits.probes
    assert all(TRANSITIONS[c.before, c.signal] is c.after for c in bench.told)
    assert all(a.after is b.before for a, b in itertools.pairwise(bench.told))
    bench.clock.now_s += 1000
    assert bench.state() is not State.OPEN, "no breaker is open for ever"


def test_threads_together_never_get_more_probes_than_allowed() -> None:
    bench = Bench(replace(LIMITS, probes=2))
    bench.fail(3)
    bench.open_s()
    given_out: list[Permit | None] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait(10)
        given_out.extend(bench.breaker.ask() for _ in range(100))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sum(p is not None for p in given_out) == 2
    assert bench.breaker.status().refused >= 798
