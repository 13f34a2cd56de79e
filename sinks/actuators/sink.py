"""From an action to its result: may it be done, is it late, is it so already, do it, look, tell.

    seen before      told again if that is not certain, and nothing is done
    begun before     a crash lay between: look, and go on if it is not late
    new              refused, or begun on disk and on Kafka (STARTED), then done

Nothing is begun that could not be told, nothing without the log, and nothing that has expired by the brokers' clock or,
with a margin, by ours. What fails here fails for one action; only the log and the brokers being away keeps all waiting.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client.core import Metric

from schemas.actuators import Actuators
from schemas.breaker import Breaker, Permit
from schemas.errors import CodecError, DeliveryError
from schemas.observed import Observed, counter, gauge
from schemas.records import ActionOutcome, ActionResult, Operation, OperatorDirective, PathAction, Reason
from schemas.remedies import DETAIL_MAX
from schemas.topics import TOPICS
from schemas.validate import mistakes
from sinks.actuators.actuator import Actuator, ActuatorError, Wanted
from sinks.actuators.log import ActionLog
from sinks.actuators.results import Results
from sinks.actuators.stops import Stops
from sinks.sink import Meta, Place, Sink

log = logging.getLogger(__name__)

_HOUR_MS: Final = 3_600_000


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class ActuatorsSink(Sink, Observed):
    """All actuators of one file, in one thread, one action after the other."""

    topics = ("path-actions", "failover-config")
    group = "proxima-"  # and a name that begins with `actuators-`

    def __init__(
        self,
        actuators: Sequence[Actuator],
        *,
        config: Actuators,
        action_log: ActionLog,
        results: Results,
        stops: Stops,
        breakers: Mapping[str, Breaker],
        wall_ms: Callable[[], int] = _wall_ms,
    ) -> None:
        """`breakers`: one of each actuator, by name."""
        self._actuators = {a.name: a for a in actuators}
        self._config, self._log, self._results, self._stops = config, action_log, results, stops
        self._breakers, self._wall_ms = breakers, wall_ms
        self._batch: deque[tuple[PathAction, Meta]] = deque()
        self._is_shared = False
        self._told = Counter[tuple[str, str]](
            {(name, outcome.value.lower()): 0 for name in self._actuators for outcome in ActionOutcome}
        )
        self._log.forget(wall_ms())
        self.observe()

    def figures(self) -> Iterator[Metric]:
        """What became of actions."""
        about = "Results that were told, by actuator and outcome."
        yield counter("proxima_actuator_results", about, self._told, "actuator", "outcome")
        yield gauge("proxima_actuator_waiting_actions", "Actions that wait for their turn.", len(self._batch))
        about = "1 while nothing is done, only said."
        yield gauge("proxima_actuator_dry_run", about, self._config.dry_run)

    def unready(self) -> str:
        """Another process has its name."""
        return f"another process is called {self._config.name} too" if self._is_shared else ""

    def add(self, record: Any, meta: Meta) -> None:
        if isinstance(record, OperatorDirective):
            self._stops.take(record, meta.partition, meta.offset)
        if not isinstance(record, PathAction):
            return
        if meta.key != record.primary_region.encode():
            raise CodecError(Reason.OUT_OF_RANGE, f"the key {meta.key!r} is not the primary {record.primary_region}")
        if wrong := mistakes(record):
            raise CodecError(Reason.OUT_OF_RANGE, "; ".join(wrong[:5]))
        if record.actuator in self._actuators:
            self._batch.append((record, meta))

    def flush(self) -> Collection[Place]:
        while self._batch:
            self._take(*self._batch[0])
            self._batch.popleft()
        return ()

    def assigned(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Part of the partitions means part of the directives: then another process has our name."""
        self._is_shared = 0 < len(places) < sum(TOPICS[t].partitions for t in self.topics)
        if self._is_shared:
            log.error("another process is called %s too: nothing is done by either", self._config.name)
        return {}

    def close(self) -> None:
        self._log.close()
        self.unobserve()

    # -- one action

    def _take(self, action: PathAction, meta: Meta) -> None:
        known = self._log.find(action.action_id)
        if known is not None and known.outcome is not None:
            if not known.is_told:
                self._tell(action, ActionOutcome(known.outcome), known.detail)
            return
        outcome, detail = self._outcome(action, meta, is_begun=known is not None)
        self._log.begin(action, self._wall_ms())
        self._log.end(action.action_id, outcome.value, detail[:DETAIL_MAX])
        self._tell(action, outcome, detail)

    def _outcome(self, action: PathAction, meta: Meta, *, is_begun: bool) -> tuple[ActionOutcome, str]:
        actuator, wanted = self._actuators[action.actuator], Wanted.of(action)
        if is_begun and (found := self._found(actuator, wanted)) is not None:
            return found
        if late := self._is_late(action, meta.appended_at_ms):
            return self._undone(ActionOutcome.EXPIRED, late, is_begun=is_begun)
        why = actuator.refuses(wanted) or self._forbids(action, is_begun=is_begun)
        if why is not None:
            return self._undone(ActionOutcome.REFUSED, why, is_begun=is_begun)
        if self._config.dry_run:
            return self._undone(ActionOutcome.DRY_RUN, f"would be done: {actuator.words(wanted)}", is_begun=is_begun)
        permit = self._breakers[action.actuator].ask()
        if permit is None:
            status = self._breakers[action.actuator].status()
            why = f"its breaker is open for {status.probe_in_s:.0f} s: {status.reason}"
            return self._undone(ActionOutcome.REFUSED, why, is_begun=is_begun)
        with permit:
            return self._begin(actuator, action, wanted, permit, is_begun=is_begun)

    def _begin(
        self, actuator: Actuator, action: PathAction, wanted: Wanted, permit: Permit, *, is_begun: bool
    ) -> tuple[ActionOutcome, str]:
        self._log.begin(action, self._wall_ms())
        try:
            now_ms = self._tell(action, ActionOutcome.STARTED, actuator.words(wanted))
        except DeliveryError:
            permit.dropped()  # that is no fault of the actuator's
            raise
        if late := self._is_late(action, now_ms):
            permit.dropped()
            return self._undone(ActionOutcome.EXPIRED, late, is_begun=is_begun)
        try:
            if actuator.is_so(wanted):
                return ActionOutcome.ALREADY, f"it is so already: {actuator.words(wanted)}"
            self._log.touch(action.action_id)
            log.warning("%s %s of %s: %s", action.operation, action.remedy_id, action.primary_region,
                        actuator.words(wanted))  # fmt: skip
            actuator.do(wanted, action.action_id)
            if actuator.is_so(wanted):
                return ActionOutcome.APPLIED, actuator.words(wanted)
            raise ActuatorError("it said yes, and it is not so")
        except ActuatorError as error:
            permit.failed(str(error))
            return ActionOutcome.FAILED, str(error)

    def _found(self, actuator: Actuator, wanted: Wanted) -> tuple[ActionOutcome, str] | None:
        """What a crash has left: done, if it can be seen to be; None: it cannot."""
        try:
            if actuator.refuses(wanted) is None and actuator.is_so(wanted):
                return ActionOutcome.APPLIED, f"found done after a restart: {actuator.words(wanted)}"
        except ActuatorError as error:
            log.warning("%s: cannot look after a restart: %s", actuator.name, error)
        return None

    @staticmethod
    def _undone(outcome: ActionOutcome, why: str, *, is_begun: bool) -> tuple[ActionOutcome, str]:
        """Nothing is done. What a crash has left may be there in part: that is for whoever planned it to decide."""
        if is_begun:
            return ActionOutcome.FAILED, f"begun before a restart, not seen to be there now, and {why}"
        return outcome, why

    def _forbids(self, action: PathAction, *, is_begun: bool) -> str | None:
        """Who says no: an operator, another process of our name, or the caps."""
        if self._is_shared:
            return f"another process is called {self._config.name} too"
        stopped = self._stops.why(action.primary_region, self._wall_ms())
        if stopped is not None or action.operation == Operation.ROLL_BACK or is_begun:
            return stopped  # what was begun has been counted, and what is taken back is not held up
        since_ms = self._wall_ms() - _HOUR_MS
        if self._log.applied(since_ms) >= self._config.applies_per_hour_max:
            return f"{self._config.applies_per_hour_max} remedies applied in an hour are the most"
        if self._log.applied(since_ms, action.target_region) >= self._config.region_applies_per_hour_max:
            most = self._config.region_applies_per_hour_max
            return f"{most} remedies applied in an hour into {action.target_region} are the most"
        return None

    def _is_late(self, action: PathAction, broker_ms: int) -> str | None:
        """Why it is late: by the brokers' clock, or certainly so by ours; None: it is not."""
        if broker_ms >= action.expires_at_ms - self._config.margin_ms:
            return f"it expired {max(broker_ms - action.expires_at_ms, 0) / 1000:.1f} s ago"
        late_ms = self._wall_ms() - action.expires_at_ms
        if late_ms >= self._config.clock_margin_ms:
            return f"it expired {late_ms / 1000:.1f} s ago by this machine's clock"
        return None

    def _tell(self, action: PathAction, outcome: ActionOutcome, detail: str) -> int:
        result = ActionResult(
            action_id=action.action_id,
            primary_region=action.primary_region,
            remedy_id=action.remedy_id,
            actuator=action.actuator,
            operation=action.operation,
            outcome=outcome.value,
            detail=detail[:DETAIL_MAX],
            breaker=self._breakers[action.actuator].state.value,
            at_ms=self._wall_ms(),
        )
        appended_at_ms = self._results.publish(result)
        self._told[action.actuator, outcome.value.lower()] += 1
        if outcome is not ActionOutcome.STARTED:
            self._log.tell(action.action_id)
            log.warning("%s %s of %s: %s: %s", action.operation, action.remedy_id, action.primary_region, outcome,
                        detail)  # fmt: skip
        return appended_at_ms
