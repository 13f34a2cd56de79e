"""Remedies of one primary: which to try when the path to its target is bad, whether it helped, when to take it back.

    configure, see, result      take in what the journal says
    tick(now)                   at most one remedy is changed at a time; returns what to publish, in order
    save / load                 plain data, for snapshots

The least disruptive remedy is tried first that was not tried in vain; each has a circuit breaker. One that helped is
HELD; after its time it is withdrawn to see whether the path has healed, and each time that this was in vain it stays
twice as long. `remedy_states` says what follows what. All times are journal time, milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from schemas.codec import from_plain, to_plain
from schemas.records import (
    ActionOutcome,
    ActionResult,
    FailoverConfiguration,
    Operation,
    PathAction,
    Remedy,
    RemedyEvent,
    RemedyKind,
    RemedyReport,
)
from streams.core import remedy_words as words
from streams.core.degradation import LATENCY, Degradation, Sight
from streams.core.remedy import Treatment
from streams.core.remedy_records import action, action_id, report
from streams.core.remedy_states import BUSY, IN_PLACE, TRANSITIONS, Phase, Signal

# An actuator begins before the action expires; what it began may take so much longer to be told.
RESULT_GRACE_MS: Final = 5_000
# A target that was left because its path was bad is mended for so long after.
LEFT_MS: Final = 600_000
# ... if the path was seen to be bad until so long after it was left.
_BECAUSE_MS: Final = 5_000
_COSTS: Final = {
    RemedyKind.LINK: 10,
    RemedyKind.LOCAL_PREFERENCE: 20,
    RemedyKind.AS_PATH_PREPEND: 30,
    RemedyKind.BANDWIDTH: 40,
}
_SIGNALS: Final = {
    ActionOutcome.APPLIED: Signal.DONE,
    ActionOutcome.ALREADY: Signal.DONE,
    ActionOutcome.DRY_RUN: Signal.ON_PURPOSE,
    ActionOutcome.REFUSED: Signal.NOTHING_DONE,
    ActionOutcome.EXPIRED: Signal.NOTHING_DONE,
    ActionOutcome.FAILED: Signal.UNSURE,
}
Said = PathAction | RemedyReport
# Whether another remedy may be applied to a path into a region now, whoever asks (`mending.Ledger`).
MayEnter = Callable[[str], bool]


class Remedies:
    """Made by a primary's first configuration."""

    def __init__(self, configuration: FailoverConfiguration) -> None:
        self.sequence = 0
        self.configuration = configuration
        self._treatments: dict[str, Treatment] = {}
        self._paths: dict[str, Degradation] = {}
        self._sights: dict[str, Sight] = {}
        self._target: str | None = None
        self._left: dict[str, int] = {}  # targets that were left, and when
        self._applied_at_ms: list[int] = []  # of the window
        self._said: set[str] = set()  # what need not be said twice of the episode under way
        self._due: list[Said] = []
        self.configure(configuration)

    # -- taking records in ------------------------------------------------------------------------------------------

    def configure(self, configuration: FailoverConfiguration) -> None:
        """The configuration in force. A remedy that is in place and configured no more is withdrawn (`tick`)."""
        # Candidates and weights are decide's business: of 500 regions they would be most of the snapshot.
        self.configuration = replace(configuration, potential_failover_regions=[], weights={})
        self._plain = to_plain(self.configuration)
        wanted = {r.remedy_id: r for r in configuration.remedies}
        for remedy_id, treatment in list(self._treatments.items()):
            treatment.is_configured = treatment.remedy == wanted.get(remedy_id)
            if not treatment.is_configured and treatment.phase not in IN_PLACE:
                del self._treatments[remedy_id]
        for remedy_id, remedy in wanted.items():
            self._treatments.setdefault(remedy_id, Treatment(remedy))
        targets = {t.remedy.target_region for t in self._treatments.values()}
        self._paths = {t: self._paths.get(t, Degradation()) for t in sorted(targets)}

    def see(self, sights: Mapping[str, Sight], target: str | None, now_ms: int) -> None:
        """How the paths are and where traffic would go, as decide has just said."""
        if target != self._target:
            if self._target is not None:
                self._left[self._target] = now_ms
            self._target = target
        self._left = {t: at for t, at in self._left.items() if t != target and now_ms - at < LEFT_MS}
        for region, path in self._paths.items():
            sight = sights.get(region)
            if sight is None:
                continue
            self._sights[region] = sight
            treatments = [t for t in self._treatments.values() if t.remedy.target_region == region]
            path.see(sight, self.configuration.policy, now_ms, is_mended=any(t.phase in IN_PLACE for t in treatments))
            for treatment in treatments:
                treatment.see(sight, path, self.configuration.policy)
            if path.well >= self.configuration.policy.disruption_ticks:  # the episode is over
                self._said = {s for s in self._said if not s.startswith(f"{region}/")}
                for treatment in treatments:
                    treatment.spent = False

    def result(self, result: ActionResult) -> str | None:
        """What an actuator says, for the next tick; returns why it counts for nothing, None if it does."""
        t = self._treatments.get(result.remedy_id)
        if t is None:
            return f"{self.configuration.primary_region} has no remedy {result.remedy_id}"
        if result.action_id != t.action_id:
            return f"{result.action_id} is not the last action of {result.remedy_id}"
        if result.actuator != t.remedy.actuator:
            return f"{result.actuator} is not who was asked: {t.remedy.actuator}"
        if result.operation != t.operation:
            return f"{result.action_id} is no {result.operation}"
        if result.outcome == ActionOutcome.STARTED:
            t.is_started = True
            return None
        if t.answer is not None or (t.phase, self._meaning(t, result.outcome)) not in TRANSITIONS:
            return f"{result.action_id} is answered already"
        t.answer = (result.outcome, f"{result.actuator}: {result.detail}")
        return None

    # -- deciding ---------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int, *, stopped: bool = False, may_enter: MayEnter = lambda _: True) -> list[Said]:
        """What to publish now. Stopped by an operator, nobody is asked for anything, and nothing runs out of time."""
        limits = self.configuration.remedy_limits
        self._applied_at_ms = [at for at in self._applied_at_ms if now_ms - at < limits.window_ms]
        if stopped:
            self._say_stopped(now_ms)
        else:
            self._said.discard("stopped")
            for treatment in self._in_order():
                self._pass_time(treatment, now_ms)
            for target in self._watched(now_ms):
                self._treat(target, now_ms, may_enter)
        due, self._due = self._due, []
        return due

    @property
    def targets(self) -> list[str]:
        """Regions whose paths have remedies."""
        return list(self._paths)

    @property
    def treatments(self) -> Mapping[str, Treatment]:
        """By remedy."""
        return self._treatments

    def _watched(self, now_ms: int) -> list[str]:
        """Targets whose path is to be mended: the one in use, then those that were left because of their path."""
        found = [self._target] if self._target in self._paths else []
        for target, left_ms in sorted(self._left.items()):
            path = self._paths.get(target)
            if path is not None and path.bad and path.since_ms <= left_ms + _BECAUSE_MS and now_ms - left_ms < LEFT_MS:
                found.append(target)
        return [t for t in found if t is not None]

    @staticmethod
    def _meaning(t: Treatment, outcome: str) -> Signal:
        """What an outcome says to a remedy where it stands."""
        signal = _SIGNALS[ActionOutcome(outcome)]
        if t.phase is Phase.IDLE and t.operation == Operation.APPLY and signal is Signal.DONE:
            return Signal.DONE_LATE
        if t.phase is Phase.ROLLING_BACK and signal is not Signal.DONE:
            return t.rolling_back_failed()
        return signal

    def _pass_time(self, t: Treatment, now_ms: int) -> None:
        if t.answer is not None:
            (outcome, detail), t.answer = t.answer, None
            self._move(t, self._meaning(t, outcome), now_ms, detail=detail)
        elif not t.is_configured and t.phase in (Phase.PLANNED, Phase.VERIFYING, Phase.HELD):
            self._move(t, Signal.REVERT, now_ms, detail="it is configured no more")
        elif t.phase in (Phase.PLANNED, Phase.ROLLING_BACK) and now_ms >= t.expires_at_ms + RESULT_GRACE_MS:
            signal = Signal.UNSURE if t.is_started else Signal.UNSTARTED
            if t.phase is Phase.ROLLING_BACK:
                signal = t.rolling_back_failed()
            began = "began and did not end" if t.is_started else "never began"
            self._move(t, signal, now_ms, detail=f"{t.remedy.actuator} {began} in time")
        elif t.phase is Phase.VERIFYING:
            verdict = t.verdict(now_ms)
            if verdict is not None:
                self._move(t, verdict, now_ms)
        elif t.phase is Phase.HELD and t.revert_at_ms <= now_ms and not self._is_busy():
            self._move(t, Signal.REVERT, now_ms, detail="its time is over: has the path healed?")
        elif t.phase is Phase.STRANDED and now_ms >= t.breaker.open_until_ms and not self._is_busy():
            self._move(t, Signal.AGAIN, now_ms, detail="once more")

    def _in_order(self) -> list[Treatment]:
        """By name: a snapshot keeps no other order."""
        return [self._treatments[remedy_id] for remedy_id in sorted(self._treatments)]

    def _is_busy(self) -> bool:
        return any(t.phase in BUSY for t in self._treatments.values())

    def _treat(self, target: str, now_ms: int, may_enter: MayEnter) -> None:
        """Plan the next remedy, if the path is bad and nothing is under way."""
        path, sight, policy = self._paths[target], self._sights.get(target), self.configuration.policy
        if sight is None or self._is_busy():
            return
        foretold = not path.bad and sight.is_foretold
        if not path.is_bad(policy) and not foretold:
            return
        there = [t for t in self._in_order() if t.remedy.target_region == target]
        if any(t.is_settling(now_ms) for t in there):
            return
        if foretold:  # what only adds may be done for what may never come; what moves traffic may not
            there = [t for t in there if t.remedy.kind == RemedyKind.LINK]
        able = [
            t for t in there if t.phase is Phase.IDLE and t.is_configured and not t.spent and t.breaker.lets(now_ms)
        ]
        if not able:
            if there and not foretold and not any(t.is_resting(now_ms) for t in there):
                self._say_once(
                    f"{target}/unmended", there[0], RemedyEvent.UNMENDED, words.unmended(there, now_ms), now_ms
                )
            return
        chosen = min(able, key=lambda t: (t.breaker.failures, _cost(t.remedy), t.remedy.remedy_id))
        limits = self.configuration.remedy_limits
        if len(self._applied_at_ms) >= limits.actions_max or not may_enter(target):
            whose = "every primary" if len(self._applied_at_ms) < limits.actions_max else "this primary"
            self._say_once(f"{target}/capped", chosen, RemedyEvent.CAPPED, words.capped(whose, limits, target), now_ms)
            return
        self._applied_at_ms.append(now_ms)
        chosen.aim(LATENCY if foretold else path.metric, sight, path.limit_ms(policy), foretold=foretold)
        self._move(chosen, Signal.CHOSEN, now_ms, detail=words.trouble(target, chosen, path, sight, foretold=foretold))

    # -- saying it --------------------------------------------------------------------------------------------------

    def _move(self, t: Treatment, signal: Signal, now_ms: int, *, detail: str = "") -> None:
        step, before = TRANSITIONS[t.phase, signal], t.phase
        t.enter(step.phase, now_ms)
        limits = self.configuration.remedy_limits
        opened = step.failed and t.breaker.fail(limits, now_ms)
        if step.phase is Phase.STRANDED:
            t.breaker.fail(limits, now_ms, at_once=True)
        if signal is Signal.ON_PURPOSE:
            t.spent = True
        if step.phase is Phase.HELD:
            t.breaker.succeed()
            t.hold(now_ms)
        if step.operation is not None:
            primary = self.configuration.primary_region
            t.ask(
                step.operation,
                action_id(primary, t, step.operation, self.sequence, now_ms),
                now_ms + limits.act_within_ms,
            )
        reason = words.sentence(t, before, signal, detail)
        self._report(t, step.event, reason, now_ms)
        if step.operation is not None:
            self._due.append(action(self.configuration, t, self._number(now_ms), now_ms, reason))
        if opened:
            self._report(t, RemedyEvent.BREAKER_OPENED, words.opened(t, now_ms), now_ms)
        if step.phase is Phase.IDLE and not t.is_configured:
            del self._treatments[t.remedy.remedy_id]
            self.configure(self.configuration)  # what took its place has waited for this

    def _report(self, t: Treatment, event: RemedyEvent, reason: str, now_ms: int) -> None:
        primary = self.configuration.primary_region
        self._due.append(report(primary, t, event, reason, sequence=self._number(now_ms), now_ms=now_ms))

    def _number(self, now_ms: int) -> int:
        """The next sequence. It is a time, the journal's, so that no other engine version repeats it."""
        self.sequence = max(self.sequence + 1, now_ms)
        return self.sequence

    def _say_once(self, key: str, t: Treatment, event: RemedyEvent, reason: str, now_ms: int) -> None:
        if key not in self._said:
            self._said.add(key)
            self._report(t, event, reason, now_ms)

    def _say_stopped(self, now_ms: int) -> None:
        """Somebody who waits for a remedy should know why none comes."""
        policy = self.configuration.policy
        waits = [
            t for t in self._in_order()
            if t.phase in BUSY or (t.remedy.target_region == self._target and self._paths[self._target].is_bad(policy))
        ]  # fmt: skip
        if waits:
            self._say_once("stopped", waits[0], RemedyEvent.STOPPED, words.STOPPED, now_ms)

    # -- state ------------------------------------------------------------------------------------------------------

    def save(self) -> dict[str, Any]:
        """Plain data for a snapshot; a remedy that nothing has happened to follows from the configuration."""
        return {
            "configuration": self._plain,
            "sequence": self.sequence,
            "treatments": [t.save() for t in self._treatments.values() if t != Treatment(t.remedy)],
            "paths": {region: path.save() for region, path in self._paths.items()},
            "sights": {
                region: [None if isinstance(v, float) and math.isnan(v) else v for v in sight]
                for region, sight in self._sights.items()
            },
            "target": self._target,
            "left": self._left,
            "applied_at_ms": self._applied_at_ms,
            "said": sorted(self._said),
            "due": [[type(s).__name__, to_plain(s)] for s in self._due],
        }

    @classmethod
    def load(cls, plain: dict[str, Any]) -> Remedies:
        """The state again."""
        found = cls(from_plain(FailoverConfiguration, plain["configuration"]))
        found.sequence, found._target = plain["sequence"], plain["target"]
        found._treatments |= {t["remedy"]["remedy_id"]: Treatment.load(t) for t in plain["treatments"]}
        found._paths = {region: Degradation.load(path) for region, path in plain["paths"].items()}
        found._sights = {
            region: Sight._make(math.nan if v is None else v for v in sight)
            for region, sight in plain["sights"].items()
        }
        found._left, found._applied_at_ms = plain["left"], plain["applied_at_ms"]
        found._said = set(plain["said"])
        kinds: dict[str, type[Said]] = {"PathAction": PathAction, "RemedyReport": RemedyReport}
        found._due = [from_plain(kinds[name], each) for name, each in plain["due"]]
        return found


def _cost(remedy: Remedy) -> int:
    return remedy.cost if remedy.cost is not None else _COSTS[RemedyKind(remedy.kind)]
