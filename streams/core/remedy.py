"""One remedy under treatment: where it stands, what was asked of its actuator, what was measured, and its breaker."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from schemas.codec import from_plain, to_plain
from schemas.records import Operation, Policy, Remedy, RemedyLimits
from streams.core.degradation import LATENCY, LOSS, Degradation, Sight
from streams.core.remedy_states import Phase, Signal

HELPED_SIGHTS: Final = 3  # in a row: rolling averages pass a limit by chance once, hardly three times
# What falls by less from sight to sight has arrived: a twentieth of what was won is still to come then.
STILL_SIGHTS: Final = 2  # in a row: where a moment brings no probes, the average stands for one
_STILL_MS_RATIO: Final = 0.02
_STILL_LOSS_RATIO: Final = 0.005
ROLLBACK_TRIES: Final = 3
REST_MS: Final = 15_000  # before the same is tried again: others first, and two averaging times for what was undone
REVERTS_MAX: Final = 6  # doublings of the time that a remedy stays: 64 times


@dataclass(slots=True)
class Breaker:
    """Keeps a remedy that fails from being tried for ever; in journal time, and part of the snapshot.

    CLOSED until it fails so often in a row; OPEN for a time, which doubles; HALF_OPEN then: one more try.
    """

    failures: int = 0
    openings: int = 0
    open_until_ms: int = 0
    rest_until_ms: int = 0

    def state(self, now_ms: int) -> str:
        """CLOSED, OPEN or HALF_OPEN."""
        if not self.openings:
            return "CLOSED"
        return "OPEN" if now_ms < self.open_until_ms else "HALF_OPEN"

    def lets(self, now_ms: int) -> bool:
        return self.state(now_ms) != "OPEN" and now_ms >= self.rest_until_ms

    def fail(self, limits: RemedyLimits, now_ms: int, *, at_once: bool = False) -> bool:
        """One more failure; True if it is open by that."""
        self.failures, self.rest_until_ms = self.failures + 1, now_ms + REST_MS
        if not at_once and not self.openings and self.failures < limits.breaker_failures:
            return False
        open_ms = min(limits.breaker_open_ms << min(self.openings, 20), limits.breaker_open_ms_max)
        self.openings, self.open_until_ms = self.openings + 1, now_ms + open_ms
        return True

    def succeed(self) -> None:
        self.failures = self.openings = self.open_until_ms = self.rest_until_ms = 0


@dataclass(slots=True)
class Treatment:
    """State of one remedy."""

    remedy: Remedy
    phase: Phase = Phase.IDLE
    since_ms: int = 0  # of the phase
    is_configured: bool = True
    spent: bool = False  # not to be tried again before the path was well
    # what was asked for last
    action_id: str = ""
    operation: str = ""
    expires_at_ms: int = 0
    is_started: bool = False
    answer: tuple[str, str] | None = None  # outcome and detail, until the next tick
    rollbacks: int = 0  # tries in a row
    # what it is measured by
    metric: str = LATENCY
    from_value: float = 0.0
    must_reach: float = 0.0
    before: float = 0.0  # the worst since the plan
    after: float = 0.0
    helped: int = 0  # sights in a row
    still: int = 0  # sights in a row in which it got no better
    # how long it stays
    revert_at_ms: float = math.inf
    reverts: int = 0  # of them in a row in vain
    withdrawn_at_ms: int = 0
    breaker: Breaker = field(default_factory=Breaker)

    @property
    def gain(self) -> float:
        """So much lower is its metric than before."""
        return self.before - self.after

    def aim(self, metric: str, sight: Sight, limit_ms: float, *, foretold: bool) -> None:
        """What it is to reach: a gain, or against what is only foretold, that the path stays as it is."""
        value = sight.value(metric)
        gain = self.remedy.gain_ms if metric == LATENCY and self.remedy.gain_ms else self.remedy.gain_ratio * value
        self.metric, self.from_value, self.before, self.after = metric, value, value, value
        self.must_reach = limit_ms if foretold else max(value - gain, 0.0)
        self.helped = self.still = 0

    def see(self, sight: Sight, path: Degradation, policy: Policy) -> None:
        """How the path is; it counts while the remedy is planned or verified, and when somebody looked."""
        if self.phase not in (Phase.PLANNED, Phase.VERIFYING) or not (sight.is_fresh or sight.is_down):
            return
        value = sight.value(self.metric)
        if self.phase is Phase.PLANNED:
            self.before = max(self.before, value)
            return
        least = _STILL_MS_RATIO * value if self.metric == LATENCY else _STILL_LOSS_RATIO
        self.still = self.still + 1 if self.after - value <= least else 0
        self.after = value
        lossless = not sight.is_down and (self.metric == LOSS or sight.loss_now_ratio < policy.disruption_loss_ratio)
        swift = self.metric == LATENCY or not path.bad or path.metric == LOSS
        self.helped = self.helped + 1 if value <= self.must_reach and lossless and swift else 0
        self.before = max(self.before, value)

    def verdict(self, now_ms: int) -> Signal | None:
        """Whether it has helped; None: that is not certain yet. What is won is told when it is all there."""
        is_over = now_ms >= self.since_ms + self.remedy.verify_within_ms
        if self.helped >= HELPED_SIGHTS and (self.still >= STILL_SIGHTS or is_over):
            return Signal.HELPED
        return Signal.NOT_HELPED if is_over else None

    def is_settling(self, now_ms: int) -> bool:
        """It has helped just now: whether that is enough is seen a little later."""
        return self.phase is Phase.HELD and now_ms < self.since_ms + self.remedy.verify_within_ms

    def enter(self, phase: Phase, now_ms: int) -> None:
        """Take the next phase."""
        if phase is Phase.ROLLING_BACK and self.phase is Phase.HELD:
            self.withdrawn_at_ms = now_ms
        if phase is not Phase.ROLLING_BACK:
            self.rollbacks = 0
        self.phase, self.since_ms, self.helped, self.still = phase, now_ms, 0, 0

    def may_be_tried(self, now_ms: int) -> bool:
        """It is configured, at rest, and has not failed too often."""
        return self.phase is Phase.IDLE and self.is_configured and not self.spent and self.breaker.lets(now_ms)

    def is_resting(self, now_ms: int) -> bool:
        """It will be tried again soon."""
        return self.phase is Phase.IDLE and now_ms < self.breaker.rest_until_ms and self.breaker.state(now_ms) != "OPEN"

    def ask(self, operation: Operation, action_id: str, expires_at_ms: int) -> None:
        """Note what is asked of the actuator."""
        self.operation, self.action_id, self.is_started = operation.value, action_id, False
        self.expires_at_ms, self.answer = expires_at_ms, None
        if operation is Operation.ROLL_BACK:
            self.rollbacks += 1

    def rolling_back_failed(self) -> Signal:
        return Signal.AGAIN if self.rollbacks < ROLLBACK_TRIES else Signal.GIVEN_UP

    def hold(self, now_ms: int) -> None:
        """It has helped: how long it stays. It was withdrawn in vain if it is needed again within the same time."""
        stays_ms = self.remedy.revert_after_ms << self.reverts
        again = self.withdrawn_at_ms and now_ms - self.withdrawn_at_ms < stays_ms
        self.reverts = min(self.reverts + 1, REVERTS_MAX) if again else 0
        stays_ms = self.remedy.revert_after_ms << self.reverts
        self.revert_at_ms = now_ms + stays_ms if stays_ms else math.inf

    def save(self) -> dict[str, Any]:
        """Plain data."""
        plain = asdict(self) | {"remedy": to_plain(self.remedy)}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in plain.items()}

    @classmethod
    def load(cls, plain: dict[str, Any]) -> Treatment:
        """The state again."""
        return cls(
            **plain
            | {
                "remedy": from_plain(Remedy, plain["remedy"]),
                "phase": Phase(plain["phase"]),
                "answer": tuple(plain["answer"]) if plain["answer"] is not None else None,
                "breaker": Breaker(**plain["breaker"]),
                "revert_at_ms": math.inf if plain["revert_at_ms"] is None else plain["revert_at_ms"],
                **{n: math.nan if plain[n] is None else plain[n] for n in _MEASURED},
            }
        )


_MEASURED: Final = ("from_value", "must_reach", "before", "after")
