"""Circuit breakers: whatever does not answer is left alone for a while, and asked carefully before it is trusted again.

    CLOSED --too many failures--> OPEN --its time is over--> HALF_OPEN --enough probes passed--> CLOSED
                                   ^                             |
                                   +------- a probe failed ------+   (open for longer each time)

Whoever wants to call asks for a permit, and says with it how the call went:

    permit = breaker.ask()
    if permit is None:                 # OPEN, or HALF_OPEN with all probes out
        ...
    with permit:                       # an Exception is a failure, a cancellation is neither
        call()

A permit counts only in the phase in which it was given: a call that began before the breaker opened, and answers
after, neither closes nor opens it. A half-open probe whose caller never says how it went counts as failed after
`answer_s`. `TRANSITIONS` is all that can happen; code and tests read the same table.

The clock is given, so tests and folds bring their own; only differences of it are used. Thread-safe; nothing waits,
so it serves asyncio as well.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Final, Self
from weakref import WeakSet

from schemas.errors import ProximaError


class State(StrEnum):
    """Where a breaker stands."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


class Signal(StrEnum):
    """What makes it move."""

    TOO_MANY_FAILED = "TOO_MANY_FAILED"
    TIME_IS_OVER = "TIME_IS_OVER"
    PROBE_FAILED = "PROBE_FAILED"
    PROBES_PASSED = "PROBES_PASSED"
    FORCED_OPEN = "FORCED_OPEN"
    RESET = "RESET"


TRANSITIONS: Final[Mapping[tuple[State, Signal], State]] = {
    (State.CLOSED, Signal.TOO_MANY_FAILED): State.OPEN,
    (State.CLOSED, Signal.FORCED_OPEN): State.OPEN,
    (State.OPEN, Signal.TIME_IS_OVER): State.HALF_OPEN,
    (State.OPEN, Signal.FORCED_OPEN): State.OPEN,
    (State.OPEN, Signal.RESET): State.CLOSED,
    (State.HALF_OPEN, Signal.PROBE_FAILED): State.OPEN,
    (State.HALF_OPEN, Signal.PROBES_PASSED): State.CLOSED,
    (State.HALF_OPEN, Signal.FORCED_OPEN): State.OPEN,
    (State.HALF_OPEN, Signal.RESET): State.CLOSED,
}


@dataclass(frozen=True, slots=True)
class Limits:
    """When a breaker opens and closes. Times in seconds of the breaker's clock."""

    failures: int = 5
    """Opens after so many failures one after the other."""
    ratio: float | None = None
    """Opens too when so large a part of the last `window` calls failed; None: only failures in a row count."""
    window: int = 20
    open_s: float = 5.0
    """How long it stays open the first time; by `growth` longer each time a probe fails, up to `open_s_max`."""
    growth: float = 2.0
    open_s_max: float = 60.0
    probes: int = 1
    """So many calls at a time while HALF_OPEN."""
    passes: int = 1
    """It closes after so many of them passed."""
    answer_s: float = 30.0
    """A probe that says nothing for so long has failed."""

    def __post_init__(self) -> None:
        counts = min(self.failures, self.window, self.probes, self.passes)
        if counts < 1 or min(self.open_s, self.open_s_max, self.answer_s) <= 0 or self.growth < 1:
            raise ValueError("counts are at least 1, times above 0, growth at least 1")
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise ValueError("ratio is above 0 and at most 1")


class BreakerOpenError(ProximaError):
    """Not called at all: it failed too often, and its time is not over."""


@dataclass(frozen=True, slots=True)
class Change:
    """A transition, for logs and metrics; `reason` is the failure behind it, or empty."""

    name: str
    before: State
    after: State
    signal: Signal
    at_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Status:
    """What can be shown of a breaker. Counts are since it was made."""

    name: str
    state: State
    passed: int
    failed: int
    refused: int
    opened: int
    failures_in_a_row: int
    probe_in_s: float
    """Until it may be asked again; 0 unless OPEN."""
    reason: str
    """Of the last failure, until a call passes."""


class Permit:
    """The right to one call. Say `passed`, `failed` or `dropped` once; what comes later is ignored."""

    __slots__ = ("_answered", "_breaker", "_phase", "is_probe")

    def __init__(self, breaker: Breaker, phase: int, *, is_probe: bool) -> None:
        self._breaker, self._phase, self.is_probe = breaker, phase, is_probe
        self._answered = False

    def passed(self) -> None:
        """The call did what it should."""
        self._answer(failed=False, reason="")

    def failed(self, reason: str) -> None:
        """It did not; `reason` in words, for whoever looks at the breaker."""
        self._answer(failed=True, reason=reason)

    def dropped(self) -> None:
        """It was not made, or given up for reasons of ours: says nothing about the other side."""
        self._answer(failed=None, reason="")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is None:
            self.passed()
        elif isinstance(error, Exception):
            self.failed(str(error) or type(error).__name__)
        else:  # cancelled, or the process ends
            self.dropped()

    def _answer(self, *, failed: bool | None, reason: str) -> None:
        if not self._answered:
            self._answered = True
            self._breaker._answer(self, self._phase, failed=failed, reason=reason)


@dataclass(slots=True)
class _Counts:
    passed: int = 0
    failed: int = 0
    refused: int = 0
    opened: int = 0


@dataclass(slots=True)
class _Phase:
    """What is forgotten when the state changes."""

    failures: int = 0  # in a row
    passes: int = 0
    probes: dict[int, float] = field(default_factory=dict)  # permits out, and since when


_LIVING: Final[WeakSet[Breaker]] = WeakSet()


def living() -> list[Status]:
    """Every breaker of this process, by name."""
    return sorted((breaker.status() for breaker in list(_LIVING)), key=lambda status: status.name)


class Breaker:
    """One, around one thing that is called. `on_change` is called outside the lock, by whoever caused the change."""

    def __init__(
        self,
        name: str,
        limits: Limits | None = None,
        *,
        clock: Callable[[], float],
        on_change: Callable[[Change], None] | None = None,
    ) -> None:
        self.name, self.limits = name, limits or Limits()
        self._clock, self._on_change = clock, on_change
        self._lock = threading.Lock()
        self._state = State.CLOSED
        self._number = 0  # of the phase: a permit of an earlier one does not count
        self._phase = _Phase()
        self._recent: deque[bool] = deque(maxlen=self.limits.window)  # whether it failed
        self._counts = _Counts()
        self._times_open = 0  # without having been closed between
        self._open_until_s = 0.0
        self._reason = ""
        _LIVING.add(self)

    @property
    def state(self) -> State:
        """As of now: an OPEN one whose time is over is HALF_OPEN."""
        return self.status().state

    def ask(self) -> Permit | None:
        """A permit for one call, or None: leave it alone now."""
        with self._lock:
            now_s = self._clock()
            changes = self._look(now_s)
            permit = self._permit(now_s)
        self._tell(changes)
        return permit

    def permit(self) -> Permit:
        """As `ask`, for who would rather have an error. Raises BreakerOpenError."""
        permit = self.ask()
        if permit is None:
            status = self.status()
            raise BreakerOpenError(
                f"not called: {status.reason}", where=self.name, do=f"asked again in {status.probe_in_s:.1f} s"
            )
        return permit

    def status(self) -> Status:
        """How it stands now, and its counts."""
        with self._lock:
            now_s = self._clock()
            changes = self._look(now_s)
            c = self._counts
            left_s = max(self._open_until_s - now_s, 0.0) if self._state is State.OPEN else 0.0
            status = Status(
                self.name, self._state, c.passed, c.failed, c.refused, c.opened, self._phase.failures, left_s,
                self._reason,
            )  # fmt: skip
        self._tell(changes)
        return status

    def trip(self, reason: str) -> None:
        """Open it now, whatever was counted: somebody knows better."""
        self._signal(Signal.FORCED_OPEN, reason)

    def reset(self) -> None:
        """Close it and forget its failures: somebody has repaired the other side. Closed already: nothing changes."""
        self._signal(Signal.RESET, "")

    def _signal(self, signal: Signal, reason: str) -> None:
        with self._lock:
            now_s = self._clock()
            changes = self._look(now_s)
            if (self._state, signal) in TRANSITIONS:
                self._reason = reason
                changes.append(self._move(signal, now_s))
        self._tell(changes)

    # -- under the lock

    def _look(self, now_s: float) -> list[Change]:
        """What has happened by the passing of time alone."""
        changes = []
        if self._state is State.HALF_OPEN and self._phase.probes:
            late_s = min(self._phase.probes.values()) + self.limits.answer_s
            if now_s >= late_s:
                self._counts.failed += 1
                self._reason = f"no answer within {self.limits.answer_s:g} s"
                changes.append(self._move(Signal.PROBE_FAILED, late_s))
        if self._state is State.OPEN and now_s >= self._open_until_s:
            changes.append(self._move(Signal.TIME_IS_OVER, now_s))
        return changes

    def _permit(self, now_s: float) -> Permit | None:
        is_probe = self._state is State.HALF_OPEN
        if self._state is State.OPEN or (is_probe and len(self._phase.probes) >= self.limits.probes):
            self._counts.refused += 1
            return None
        permit = Permit(self, self._number, is_probe=is_probe)
        if is_probe:
            self._phase.probes[id(permit)] = now_s
        return permit

    def _answer(self, permit: Permit, number: int, *, failed: bool | None, reason: str) -> None:
        changes: list[Change] = []
        with self._lock:
            now_s = self._clock()
            self._count(failed)
            changes = self._look(now_s)
            if number == self._number:
                self._phase.probes.pop(id(permit), None)
                if failed is not None:
                    self._reason = reason
                    signal = self._judge(failed=failed)
                    changes += [self._move(signal, now_s)] if signal else []
        self._tell(changes)

    def _count(self, failed: bool | None) -> None:
        if failed is not None:
            self._counts.failed += failed
            self._counts.passed += not failed

    def _judge(self, *, failed: bool) -> Signal | None:
        """What an answer of this phase means; only CLOSED and HALF_OPEN give permits."""
        phase, limits = self._phase, self.limits
        phase.failures = phase.failures + 1 if failed else 0
        phase.passes += not failed
        if self._state is State.HALF_OPEN:
            if failed:
                return Signal.PROBE_FAILED
            return Signal.PROBES_PASSED if phase.passes >= limits.passes else None
        self._recent.append(failed)
        is_full = len(self._recent) == limits.window
        is_ratio = limits.ratio is not None and is_full and sum(self._recent) >= limits.ratio * limits.window
        return Signal.TOO_MANY_FAILED if failed and (phase.failures >= limits.failures or is_ratio) else None

    def _move(self, signal: Signal, now_s: float) -> Change:
        before, self._state = self._state, TRANSITIONS[self._state, signal]
        self._number += 1
        self._phase = _Phase()
        if self._state is State.OPEN:
            limits = self.limits
            # An exponent that cannot overflow: what grows for ever is at its most long before.
            growth = limits.growth ** min(self._times_open, 64)
            self._open_until_s = now_s + min(limits.open_s * growth, limits.open_s_max)
            self._times_open += 1
            self._counts.opened += 1
        elif self._state is State.CLOSED:
            self._times_open = 0
            self._recent.clear()
        return Change(self.name, before, self._state, signal, now_s, self._reason)

    # -- outside of it

    def _tell(self, changes: list[Change]) -> None:
        if self._on_change is not None:
            for change in changes:
                self._on_change(change)
