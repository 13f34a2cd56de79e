"""The readiness prober (`proxima readiness`): each target's checks in turn and on request, one report each time.

    health.py    endpoints, each behind its breaker
    checks.py    what was seen beside what was asked for
    readiness.py whom, when, and the report

Each target has a turn of its own in the period, all spread over it, and a little jitter, so that neither targets nor
probers are asked in step. A request (`readiness-requests`: the engine wants to know now) is answered at once; if the
target is being checked already, that check answers it.

A report that could not be sent while Kafka was away is worth little when it is back: reports are dropped oldest first.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from prometheus_client.core import Metric

from producers.checks import Measured, Target, checks_of, targets_of
from producers.health import Health
from producers.privileges import keep_only
from producers.probes import Answer, Endpoint
from producers.probes.bandwidth import Bandwidth
from producers.publisher import Publisher
from producers.signals import told_to_end
from schemas import config
from schemas.breaker import Limits
from schemas.observed import Observed, Pulse, counter, gauge
from schemas.records import FailoverConfiguration, Outcome, ReadinessReport, ReadinessRequest, Region

T = TypeVar("T")
log = logging.getLogger(__name__)

_JITTER_RATIO: Final = 0.1
_BEAT_S: Final = 1.0
_STUCK_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What `failover-config` says: the primary's configuration in force, and the regions of the catalogue."""

    configuration: FailoverConfiguration | None
    regions: Mapping[str, Region]


@dataclass(slots=True)
class _Turn:
    """A target's own loop. `asked`: by a request, since the last check began."""

    target: Target
    wake: asyncio.Event
    task: asyncio.Task[None] | None = None
    measuring: asyncio.Task[None] | None = None
    asked: bool = False
    said: str | None = None
    measured: Measured | None = None


Publish = Callable[[ReadinessReport], None]
Subscribe = Callable[[Callable[[Plan], None], Callable[[ReadinessRequest], None]], Callable[[], None]]


class ReadinessProber(Observed):
    """Checks until it is closed. Make it, and call it, where an event loop runs."""

    def __init__(
        self, settings: config.Readiness, publish: Publish, health: Health, bandwidth: Bandwidth | None = None
    ) -> None:
        self._settings, self._publish, self._health, self._bandwidth = settings, publish, health, bandwidth
        self._turns: dict[str, _Turn] = {}
        self._chance = random.SystemRandom()
        self._free = asyncio.Semaphore(settings.in_flight_max)
        loop = asyncio.get_running_loop()
        self._failed: asyncio.Future[None] = loop.create_future()
        self._checks: Counter[tuple[str, str]] = Counter()  # by kind and outcome
        self._reports: Counter[tuple[str]] = Counter({("turn",): 0, ("request",): 0})
        self._is_planned = False
        self._pulse = Pulse("the prober's loop", _STUCK_S)
        self._beating = loop.call_later(_BEAT_S, self._beat)
        self.observe()

    def figures(self) -> Iterator[Metric]:
        """Whom it checks, and how that went."""
        turns = list(self._turns.values())
        ready = sum(turn.said == "" for turn in turns)
        unready = sum(bool(turn.said) for turn in turns)
        standing = {("ready",): ready, ("not_ready",): unready, ("unknown",): len(turns) - ready - unready}
        yield gauge("proxima_readiness_targets", "Targets by what their last checks said.", standing, "standing")
        yield counter("proxima_readiness_reports", "Reports by why they were made.", self._reports, "why")
        about = "Checks by what is checked and how that went."
        yield counter("proxima_readiness_checks", about, self._checks, "check", "outcome")

    def stuck(self) -> str:
        """The loop's."""
        return self._pulse.stuck()

    def unready(self) -> str:
        """Whom to check is not known yet."""
        return "" if self._is_planned else "whom to check is not known yet"

    def _beat(self) -> None:
        self._pulse.beat()
        self._beating = asyncio.get_running_loop().call_later(_BEAT_S, self._beat)

    @property
    def targets(self) -> list[str]:
        """Whom it checks."""
        return sorted(self._turns)

    def plan(self, plan: Plan) -> None:
        """Check these from now on; who is new or held to something else is checked soon."""
        wanted = targets_of(plan.configuration, dict(plan.regions))
        self._is_planned = True
        for region_id, turn in list(self._turns.items()):
            if wanted.get(region_id) != turn.target:
                self._end(self._turns.pop(region_id))
        new = [target for region_id, target in wanted.items() if region_id not in self._turns]
        self._chance.shuffle(new)
        for number, target in enumerate(new):
            turn = self._turns[target.region_id] = _Turn(target, asyncio.Event())
            turn.task = asyncio.create_task(self._keep(turn, number / len(new) * self._settings.period_s))
            turn.task.add_done_callback(self._done)
        self._health.forget({endpoint for target in wanted.values() for endpoint in target.region.health})
        log.info("%d targets are checked every %g s", len(self._turns), self._settings.period_s)

    def request(self, request: ReadinessRequest) -> None:
        """Check the two that it names, now."""
        if request.primary_region != self._settings.primary_region:
            return
        for region_id in {request.candidate_region, request.target_region} & self._turns.keys():
            self._turns[region_id].asked = True
            self._turns[region_id].wake.set()

    async def run(self, stop: asyncio.Future[None]) -> None:
        """Until `stop` is done; raises what stopped a target's turn, which nothing outside can."""
        await asyncio.wait((stop, self._failed), return_when=asyncio.FIRST_COMPLETED)
        if self._failed.done():
            self._failed.result()

    async def close(self) -> None:
        """Check nobody any more."""
        self.unobserve()
        self._beating.cancel()
        tasks = [task for turn in self._turns.values() for task in (turn.task, turn.measuring) if task is not None]
        for turn in self._turns.values():
            self._end(turn)
        self._turns = {}
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._bandwidth is not None:
            self._bandwidth.close()
        await self._health.close()

    async def check(self, target: Target, measured: Measured | None = None, *, requested: bool) -> ReadinessReport:
        """One target's checks, now."""
        async with self._free:
            seen = await asyncio.gather(*map(self._health.ask, target.region.health))
        checks = checks_of(
            target, list(seen), measured, answer_ms_max=self._settings.answer_ms_max, now_s=time.monotonic()
        )
        return ReadinessReport(
            primary_region=self._settings.primary_region,
            target_region=target.region_id,
            agent_id=self._settings.agent_id,
            observed_at_ms=time.time_ns() // 1_000_000,
            checks=checks,
            requested=requested,
            config_version=target.config_version,
        )

    async def _keep(self, turn: _Turn, first_s: float) -> None:
        loop, period_s = asyncio.get_running_loop(), self._settings.period_s
        began_s = loop.time() + first_s
        while True:
            due_s = began_s + self._chance.random() * _JITTER_RATIO * period_s
            await _woken(turn.wake, due_s - loop.time())
            requested, turn.asked = turn.asked, False
            turn.wake.clear()
            if not requested:  # turns that were missed are left out, not caught up with
                began_s += period_s * max(1, int((loop.time() - began_s) / period_s))
            if self._bandwidth is not None and turn.measuring is None and self._is_due(turn.measured):
                turn.measuring = asyncio.create_task(self._measure(turn, self._bandwidth))
                turn.measuring.add_done_callback(self._done)
            report = await self.check(turn.target, turn.measured, requested=requested or turn.asked)
            if turn.asked:  # meanwhile: this answers it
                turn.asked = False
                turn.wake.clear()
            self._tell(turn, report)
            self._reports[("request" if report.requested else "turn",)] += 1
            self._checks.update((check.name, "passed" if check.passed else "failed") for check in report.checks)
            self._publish(report)

    def _is_due(self, last: Measured | None) -> bool:
        every_s = (self._settings.bandwidth or config.Bandwidth()).every_s
        return last is None or time.monotonic() - last.at_s >= every_s

    async def _measure(self, turn: _Turn, bandwidth: Bandwidth) -> None:
        """Measure the bandwidth when its turn comes; what cannot be sent now leaves the last one as it was."""
        port = (self._settings.bandwidth or config.Bandwidth()).port
        health = turn.target.region.health
        address = await self._health.address_of(health[0]) if health else None
        if address is not None:
            ended: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            bandwidth.ask(Endpoint(address, port), functools.partial(_end_with, ended))
            answer = await ended
            if answer.outcome is not Outcome.NOT_SENT:
                where = f"udp://{_bracketed(address)}:{port}"
                answered = answer.outcome is Outcome.ANSWERED
                numbers = (answer.bandwidth_bps, answer.uncertainty_ratio) if answered else ()
                turn.measured = Measured(answer.outcome, time.monotonic(), where, *numbers)
                turn.wake.set()  # a report says it at once
        turn.measuring = None

    def _tell(self, turn: _Turn, report: ReadinessReport) -> None:
        failed = next((f"{c.name}: {c.reason}" for c in report.checks if not c.passed), "")
        if bool(failed) != bool(turn.said) or turn.said is None:
            log.log(
                logging.WARNING if failed else logging.INFO,
                "%s is %s",
                report.target_region,
                f"not ready: {failed}" if failed else "ready",
            )
        turn.said = failed

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None and not self._failed.done():
            self._failed.set_exception(task.exception() or RuntimeError())

    @staticmethod
    def _end(turn: _Turn) -> None:
        for task in (turn.task, turn.measuring):
            if task is not None:
                task.cancel()


def health_of(settings: config.Readiness) -> Health:
    """Endpoints asked as the settings say."""
    return Health(
        timeout_s=settings.timeout_ms / 1000,
        connects=settings.connects,
        ca_file=settings.ca_file,
        limits=Limits(
            failures=settings.breaker_failures,
            open_s=settings.breaker_open_s,
            open_s_max=settings.breaker_open_s_max,
            answer_s=5 * settings.timeout_ms / 1000,  # a name, a request and connections, each within the time-out
        ),
    )


def run(role: config.ReadinessConfig, subscribe: Subscribe, opened: Callable[[], None] = lambda: None) -> None:
    """`proxima readiness`: check until SIGTERM or SIGINT, then flush; `opened` is called once privileges are given up.

    `subscribe` is given what takes plans and requests, in a thread of its own, and returns how to end that.
    Raises ConfigError, KafkaUnavailableError: before the first check.
    """
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
    keep_only(())
    opened()
    asyncio.run(_until_signalled(role, subscribe))


async def _until_signalled(role: config.ReadinessConfig, subscribe: Subscribe) -> None:
    settings, kafka, loop = role.readiness, role.kafka, asyncio.get_running_loop()
    health = health_of(settings)
    bandwidth = None
    if (wanted := settings.bandwidth) is not None:
        timeout_s = settings.timeout_ms / 1000
        bandwidth = Bandwidth(timeout_s, bytes_max=wanted.bytes_max, bytes_per_hour_max=wanted.bytes_per_hour_max)
    stop = told_to_end()
    client_id = f"readiness-{settings.agent_id}"
    with Publisher(kafka.bootstrap, client_id=client_id, topic_prefix=kafka.topic_prefix) as publisher:

        def publish(report: ReadinessReport) -> None:
            publisher.publish("readiness-reports", settings.primary_region, report, droppable=True)

        prober = ReadinessProber(settings, publish, health, bandwidth)
        try:
            unsubscribe = subscribe(
                lambda plan: _call(loop, prober.plan, plan), lambda request: _call(loop, prober.request, request)
            )
            try:
                await prober.run(stop)
            finally:
                await asyncio.to_thread(unsubscribe)
        finally:
            await prober.close()


def _call(loop: asyncio.AbstractEventLoop, taken: Callable[[T], None], what: T) -> None:
    loop.call_soon_threadsafe(taken, what)


async def _woken(wake: asyncio.Event, timeout_s: float) -> None:
    if timeout_s <= 0:
        await asyncio.sleep(0)
        return
    try:
        async with asyncio.timeout(timeout_s):
            await wake.wait()
    except TimeoutError:
        return


def _end_with(ended: asyncio.Future[Answer], answer: Answer) -> None:
    if not ended.done():
        ended.set_result(answer)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
