"""The loop of `proxima probe`: asks every target by every method, paced, and publishes one ProbeBatch a tick.

A tick's probes are spread evenly over it by absolute deadlines. Its batch leaves when the last of them has ended: a
lost one at the end of the tick is only known after the time-out, and ticks overlap meanwhile. Nothing in the loop
waits for Kafka.

One event loop asks and listens, so when this process is kept from running, everybody's round trip seems long. A
timer that should have rung tells: probes that were under way during such a stall are SUSPECT, neither latency nor
loss, and AgentHealth says how long the longest was.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from producers.probes import Answer, Endpoint, Probe
from producers.probes.icmp import IcmpEcho
from producers.probes.tcp_connect import TcpConnect
from producers.publisher import Publisher
from schemas import config
from schemas.errors import ConfigError
from schemas.records import AgentHealth, Outcome, ProbeBatch

log = logging.getLogger(__name__)

METHODS: Final[Mapping[str, Callable[[], Probe]]] = {"tcp-connect": TcpConnect, "icmp": IcmpEcho}
HEALTH_EVERY_S: Final = 10.0
RESOLVE_EVERY_S: Final = 60.0
# A busy but healthy machine wakes us some milliseconds late now and then; that much error is what an RTT has here.
STALL_MS: Final = 25.0
_WATCH_EVERY_S: Final = 0.01


@dataclass(slots=True)
class _Asked:
    """One probe of a tick: a row of its batch."""

    target_index: int
    method_index: int
    sent_s: float
    ended_s: float
    answer: Answer


class ProbeAgent:
    """Asks until told to stop. Make it, and run it, where an event loop runs."""

    def __init__(self, settings: config.Probe, publisher: Publisher) -> None:
        """Raises ConfigError for a method that there is not, ProbeError for one that this process may not use."""
        unknown = [m for m in settings.methods if m not in METHODS]
        if unknown:
            known = ", ".join(METHODS)
            raise ConfigError([f"probe.methods: {m!r} is none of {known}" for m in unknown], where="[probe]")
        self._settings, self._publisher = settings, publisher
        self._probes = [METHODS[method]() for method in settings.methods]
        self._addresses: dict[str, str] = {}
        self._stalls = _Stalls()
        self._not_sent = 0

    async def run(self, stop: asyncio.Future[None]) -> None:
        """Ask until `stop` is done; returns when what was asked has ended and is handed to the publisher."""
        loop, tick_s = asyncio.get_running_loop(), self._settings.tick_ms / 1000
        await self._resolve()
        self._stalls.watch(loop)
        every = [
            asyncio.create_task(_repeat(HEALTH_EVERY_S, self._publish_health)),
            asyncio.create_task(_repeat(RESOLVE_EVERY_S, self._resolve)),
        ]
        ending: list[asyncio.Task[None]] = []
        began_s = loop.time()
        try:
            while not stop.done():
                flights = await self._ask_all(began_s, stop)
                ending = [
                    *(task for task in ending if not _over(task)),
                    asyncio.create_task(self._publish(began_s, flights)),
                ]
                # Ticks that were missed (the machine slept) are left out, not caught up with in a burst.
                began_s += tick_s * max(1, int((loop.time() - began_s) / tick_s))
            await asyncio.gather(*ending)
            await self._publish_health()
        finally:
            for task in every:
                task.cancel()
            self._stalls.close()
            for probe in self._probes:
                probe.close()

    async def _ask_all(self, began_s: float, stop: asyncio.Future[None]) -> list[asyncio.Task[_Asked]]:
        """Start a tick's probes, each at its moment; returns at the tick's end, or at once when told to stop."""
        tick_s, rounds = self._settings.tick_ms / 1000, self._settings.probes_per_tick
        pairs = [(t, m) for t in range(len(self._settings.targets)) for m in range(len(self._probes))]
        flights: list[asyncio.Task[_Asked]] = []
        for turn in range(rounds * len(pairs)):
            if await _stopped(stop, began_s + turn * tick_s / (rounds * len(pairs))):
                return flights
            flights.append(asyncio.create_task(self._ask(*pairs[turn % len(pairs)])))
        await _stopped(stop, began_s + tick_s)
        return flights

    async def _ask(self, target_index: int, method_index: int) -> _Asked:
        loop, target = asyncio.get_running_loop(), self._settings.targets[target_index]
        address = self._addresses.get(target.address)
        sent_s = loop.time()
        if address is None:
            answer = Answer(Outcome.NOT_SENT)
        else:
            endpoint = Endpoint(address, target.port)
            answer = await self._probes[method_index].ask(endpoint, self._settings.timeout_ms / 1000)
        return _Asked(target_index, method_index, sent_s, loop.time(), answer)

    async def _publish(self, began_s: float, flights: Iterable[asyncio.Task[_Asked]]) -> None:
        asked = await asyncio.gather(*flights)
        if not asked:
            return
        rows = [(a, self._judge(a)) for a in asked]
        self._not_sent += sum(answer.outcome == Outcome.NOT_SENT for _, answer in rows)
        ago_s = asyncio.get_running_loop().time() - began_s
        batch = ProbeBatch.of(
            agent_id=self._settings.agent_id,
            primary_region=self._settings.primary_region,
            started_at_ms=time.time_ns() // 1_000_000 - round(ago_s * 1000),
            targets=[target.region for target in self._settings.targets],
            methods=list(self._settings.methods),
            target_index=[a.target_index for a, _ in rows],
            method_index=[a.method_index for a, _ in rows],
            sent_offset_ms=[(a.sent_s - began_s) * 1000 for a, _ in rows],
            rtt_ms=[answer.rtt_ms for _, answer in rows],
            outcome=[answer.outcome for _, answer in rows],
            code=[answer.code for _, answer in rows],
        )
        self._publisher.publish("probe-samples", self._settings.agent_id, batch)

    def _judge(self, asked: _Asked) -> Answer:
        """What came of a probe, SUSPECT where our own stall may have made it."""
        made_by_stall = asked.answer.outcome in (Outcome.ANSWERED, Outcome.TIMED_OUT)
        if made_by_stall and self._stalls.during(asked.sent_s, asked.ended_s):
            return Answer(Outcome.SUSPECT)
        return asked.answer

    async def _publish_health(self) -> None:
        health = AgentHealth(
            self._settings.agent_id,
            self._settings.primary_region,
            time.time_ns() // 1_000_000,
            self._stalls.longest_ms(),
            self._not_sent,
            self._publisher.stats.dropped,
        )
        self._not_sent = 0
        self._publisher.publish("probe-samples", self._settings.agent_id, health)

    async def _resolve(self) -> None:
        """Look every address up; one that cannot be found now keeps what it had."""
        loop = asyncio.get_running_loop()
        for name in {target.address for target in self._settings.targets}:
            try:
                found = await loop.getaddrinfo(name, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:  # the latter: no name can look like that
                log.warning("%s has no IPv4 address: %s", name, error)
            else:
                self._addresses[name] = str(found[0][4][0])


class _Stalls:
    """When this process was kept from running, by a timer that rings too late."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque(maxlen=1000)
        self._longest_ms = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        due_s = loop.time() + _WATCH_EVERY_S

        def ring() -> None:
            now_s = loop.time()
            late_ms = (now_s - due_s) * 1000
            self._longest_ms = max(self._longest_ms, late_ms)
            if late_ms > STALL_MS:
                self._recent.append((due_s, now_s))
            self.watch(loop)

        # A plain callback: it runs in the same turn of the loop as what arrived meanwhile, before any task goes on.
        self._handle = loop.call_at(due_s, ring)

    def during(self, from_s: float, until_s: float) -> bool:
        return any(began_s < until_s and ended_s > from_s for began_s, ended_s in self._recent)

    def longest_ms(self) -> float:
        """The longest delay since this was last asked."""
        longest_ms, self._longest_ms = self._longest_ms, 0.0
        return longest_ms

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


def run(role: config.ProbeConfig) -> None:
    """`proxima probe`: ask until SIGTERM or SIGINT, then flush.

    Raises ConfigError, ProbeError: before the first probe; DeliveryError: measurements were left at the end.
    """
    with Publisher(
        role.kafka.bootstrap, client_id=f"probe-{role.probe.agent_id}", topic_prefix=role.kafka.topic_prefix
    ) as publisher:
        asyncio.run(_until_signalled(role.probe, publisher))


async def _until_signalled(settings: config.Probe, publisher: Publisher) -> None:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not stop.done():
            stop.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    await ProbeAgent(settings, publisher).run(stop)


async def _stopped(stop: asyncio.Future[None], due_s: float) -> bool:
    """Wait until the loop's clock says `due_s`, or `stop` is done; whether it is."""
    left_s = due_s - asyncio.get_running_loop().time()
    if left_s > 0 and not stop.done():
        await asyncio.wait((stop,), timeout=left_s)
    return stop.done()


def _over(task: asyncio.Task[None]) -> bool:
    """Whether the task is; raises what it raised."""
    if task.done():
        task.result()
    return task.done()


async def _repeat(every_s: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(every_s)
        await work()
