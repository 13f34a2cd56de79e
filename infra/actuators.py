"""The actuators of a file, put together with their log, breakers and topics."""

from __future__ import annotations

import logging
import time

from schemas.actuators import ActuatorsConfig
from schemas.breaker import Breaker, Change, Limits
from schemas.errors import ConfigError
from sinks.actuators.actuator import Actuator
from sinks.actuators.frr import FrrActuator
from sinks.actuators.link import LinkActuator
from sinks.actuators.log import ActionLog
from sinks.actuators.provider import ProviderActuator
from sinks.actuators.results import Results
from sinks.actuators.sink import ActuatorsSink
from sinks.actuators.stops import Stops
from sinks.runner import SinkRunner

log = logging.getLogger(__name__)


def runner_of(config: ActuatorsConfig) -> SinkRunner:
    """Ready to run. Raises ConfigError, KafkaUnavailableError, StoreUnavailableError."""
    actuators: list[Actuator] = [
        *map(FrrActuator, config.frr),
        *map(LinkActuator, config.links),
        *map(ProviderActuator, config.providers),
    ]
    if not actuators:
        raise ConfigError(["there is no [[frr]], [[links]] or [[providers]]"], do="see infra/examples/actuators.toml")
    its = config.breaker
    limits = Limits(failures=its.failures, open_s=its.open_s, open_s_max=max(its.open_s_max, its.open_s))
    kafka, settings = config.kafka, config.actuators
    stops = Stops()
    stops.read(kafka.bootstrap, kafka.topic_prefix)
    sink = ActuatorsSink(
        actuators,
        config=settings,
        action_log=ActionLog(settings.log),
        results=Results(kafka.bootstrap, kafka.topic_prefix),
        stops=stops,
        breakers={a.name: Breaker(a.name, limits, clock=time.monotonic, on_change=_say) for a in actuators},
    )
    if settings.dry_run:
        log.warning("a dry run: nothing is done; `dry_run = false` in [actuators] changes that")
    return SinkRunner(
        sink, bootstrap=kafka.bootstrap, name=f"actuators-{settings.name}", prefix=kafka.topic_prefix, linger_ms=0
    )


def _say(change: Change) -> None:
    log.warning("breaker of %s: %s, was %s%s", change.name, change.after, change.before,
                f": {change.reason}" if change.reason else "")  # fmt: skip
