"""The loop of `proxima probe`: asks every target by every method, paced, and publishes one ProbeBatch a tick.

    pacer.py       each probe at its own moment of the tick
    tick.py        a tick's probes as rows, and then a ProbeBatch
    stalls.py      when this process was kept from running
    capacity.py    bandwidth in turns
    privileges.py  what it may do, given up once sockets are open

A tick's batch leaves when the last of its probes has ended: a lost one at the end of the tick is only known after the
time-out, and ticks overlap meanwhile. Nothing in the loop waits for Kafka.

Everything is one thread and one event loop: a probe that has to wait for another thread would measure that.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import random
import resource
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import numpy as np
from prometheus_client.core import Metric

from producers.capacity import CapacityRounds
from producers.pacer import Pacer, moments
from producers.privileges import CAP_NET_RAW, keep_only
from producers.probes import Answer, Endpoint, Probe
from producers.probes.bandwidth import Bandwidth
from producers.probes.methods import open_probes
from producers.publisher import Publisher
from producers.signals import told_to_end
from producers.stalls import Stalls
from producers.tick import Disturbance, Tick
from schemas import config
from schemas.observed import Observed, Pulse, counter, gauge
from schemas.records import AgentHealth, BandwidthMeasurement, Outcome, ProbeBatch

log = logging.getLogger(__name__)

HEALTH_EVERY_S: Final = 10.0
RESOLVE_EVERY_S: Final = 60.0
_LOOKUPS_MAX: Final = 32  # at once
_FAMILIES: Final = {"any": socket.AF_UNSPEC, "v4": socket.AF_INET, "v6": socket.AF_INET6}


class ProbeAgent(Observed):
    """Asks until told to stop. Make it, and run it, where an event loop runs; `probes` are its own then."""

    def __init__(
        self, settings: config.Probe, publisher: Publisher, probes: Sequence[Probe], bandwidth: Probe | None = None
    ) -> None:
        self._settings, self._publisher = settings, publisher
        self._probes, self._bandwidth = probes, bandwidth
        self._tick_s = settings.tick_ms / 1000
        self._endpoints = [_literal(target) for target in settings.targets]
        self._named = [index for index, endpoint in enumerate(self._endpoints) if endpoint is None]
        self._regions = [target.region for target in settings.targets]
        self._methods = [probe.method for probe in probes]
        self._chance = random.SystemRandom()
        # The same order every tick, so that each target is asked at equal intervals; by chance, so that neighbours in
        # the file are not neighbours in time.
        pairs = [(t, m) for t in range(len(settings.targets)) for m in range(len(probes))]
        order = np.array(self._chance.sample(pairs, len(pairs)) * settings.probes_per_tick)
        self._target_index, self._method_index = order[:, 0].astype(np.uint16), order[:, 1].astype(np.uint8)
        self._asking = [(int(t), probes[m]) for t, m in order]
        self._pacer = Pacer(self._tick_s, settings.rate_max_per_s)
        self._stalls = Stalls()
        self._capacity = None if bandwidth is None else self._rounds(bandwidth)
        self._not_sent = 0
        self._counts = np.zeros((len(probes), len(Outcome)), dtype=np.int64)  # probes by method and outcome
        self._stalled_ms = 0.0  # the longest stall, as health said it last
        self._ticked_at_s = 0.0  # Unix time of the last tick that was published
        self._pulse = Pulse("the loop that asks", 60 + 5 * self._tick_s)
        self.observe()

    def figures(self) -> Iterator[Metric]:
        """Probes by how they ended, and what the agent knows of its own troubles."""
        counts = {
            (method, outcome.name.lower()): int(self._counts[m, outcome])
            for m, method in enumerate(self._methods)
            for outcome in Outcome
        }
        yield counter("proxima_probe_probes", "Probes by how they ended.", counts, "method", "outcome")
        yield gauge("proxima_probe_targets", "Targets that are asked.", len(self._endpoints))
        unknown = sum(endpoint is None for endpoint in self._endpoints)
        yield gauge("proxima_probe_targets_without_address", "Targets whose name leads nowhere.", unknown)
        about = "The longest time in the last ten seconds of health in which this process did not run."
        yield gauge("proxima_probe_stall_seconds", about, self._stalled_ms / 1000)
        about = "When a tick's measurements were last handed over."
        yield gauge("proxima_probe_last_tick_timestamp_seconds", about, self._ticked_at_s)
        if self._capacity is not None:
            trains = {(outcome.name.lower(),): self._capacity.counts[outcome] for outcome in Outcome}
            yield counter("proxima_probe_trains", "Bandwidth measurements by how they ended.", trains, "outcome")

    def stuck(self) -> str:
        """The loop's."""
        return self._pulse.stuck()

    def unready(self) -> str:
        """Nothing measured goes out."""
        silent_s = time.time() - self._ticked_at_s
        if not self._ticked_at_s:
            return "nothing has been measured yet"
        return f"nothing was measured for {silent_s:.0f} s" if silent_s > 10 + 5 * self._tick_s else ""

    async def run(self, stop: asyncio.Future[None]) -> None:
        """Ask until `stop` is done; returns when what was asked has ended and is handed to the publisher."""
        loop = asyncio.get_running_loop()
        await self._resolve()
        every = [
            asyncio.create_task(_repeat(HEALTH_EVERY_S, self._publish_health)),
            asyncio.create_task(_repeat(RESOLVE_EVERY_S, self._resolve)),
            *([] if self._capacity is None else [asyncio.create_task(self._capacity.run())]),
        ]
        ending: list[asyncio.Task[None]] = []
        began_s = loop.time()
        try:
            while not stop.done():
                self._pulse.beat()
                tick = self._tick(began_s)
                send, skip = functools.partial(self._ask, tick), functools.partial(self._skip, tick)
                tick.close(await self._pacer.run(tick.due_s, send, skip, stop))
                await _stopped(stop, began_s + self._tick_s)
                _raise_from(every)
                ending = [*(task for task in ending if not _over(task)), asyncio.create_task(self._publish(tick))]
                # Ticks that were missed (the machine slept) are left out, not caught up with in a burst.
                began_s += self._tick_s * max(1, int((loop.time() - began_s) / self._tick_s))
            await asyncio.gather(*ending)
            await self._publish_health()
        finally:
            for task in every:
                task.cancel()
            self._stalls.close()
            for probe in (*self._probes, *([] if self._bandwidth is None else [self._bandwidth])):
                probe.close()

    def _tick(self, began_s: float) -> Tick:
        due_s = moments(began_s, self._tick_s, len(self._asking), self._chance)
        return Tick(began_s, due_s, self._target_index, self._method_index)

    def _ask(self, tick: Tick, row: int) -> None:
        target_index, probe = self._asking[row]
        endpoint = self._endpoints[target_index]
        tick.sent(row)
        if endpoint is None:
            self._skip(tick, row)
        else:
            probe.ask(endpoint, functools.partial(tick.ended, row))

    def _skip(self, tick: Tick, row: int) -> None:
        tick.ended(row, Answer(Outcome.NOT_SENT))

    async def _publish(self, tick: Tick) -> None:
        # It goes on in a later turn of the loop than the last end, so a stall that this turn began with is known.
        await tick.over
        loop_s = asyncio.get_running_loop().time()
        wall_ms = time.time_ns() / 1e6 - loop_s * 1000
        batch = tick.batch(
            agent_id=self._settings.agent_id,
            primary_region=self._settings.primary_region,
            wall_ms=wall_ms,
            targets=self._regions,
            methods=self._methods,
            disturbances=self._disturbances(tick, loop_s),
        )
        if batch is not None:
            self._not_sent += batch.outcome.count(int(Outcome.NOT_SENT))
            self._count(batch)
            self._publisher.publish("probe-samples", self._settings.agent_id, batch)

    def _count(self, batch: ProbeBatch) -> None:
        columns, shape = batch.columns(), self._counts.shape
        places = columns["method_index"].astype(np.int64) * shape[1] + columns["outcome"]
        self._counts += np.bincount(places, minlength=self._counts.size).reshape(shape)
        self._ticked_at_s = time.time()

    def _disturbances(self, tick: Tick, now_s: float) -> Iterator[Disturbance]:
        for stall in self._stalls.since(tick.began_s):
            yield Disturbance(stall.began_s, stall.ended_s)
        if self._capacity is not None:
            yield from self._capacity.disturbances(now_s)

    async def _publish_health(self) -> None:
        self._stalled_ms = self._stalls.take_longest_ms()
        health = AgentHealth(
            self._settings.agent_id,
            self._settings.primary_region,
            time.time_ns() // 1_000_000,
            self._stalled_ms,
            self._not_sent,
            self._publisher.stats.dropped,
        )
        self._not_sent = 0
        self._publisher.publish("probe-samples", self._settings.agent_id, health)

    def _rounds(self, bandwidth: Probe) -> CapacityRounds:
        settings = self._settings.bandwidth or config.Bandwidth()

        def endpoint_of(target_index: int) -> Endpoint | None:
            endpoint = self._endpoints[target_index]
            return None if endpoint is None else Endpoint(endpoint.address, settings.port)

        def publish(measurement: BandwidthMeasurement) -> None:
            self._publisher.publish("probe-samples", self._settings.agent_id, measurement)

        return CapacityRounds(
            bandwidth,
            agent_id=self._settings.agent_id,
            primary_region=self._settings.primary_region,
            targets=self._regions,
            endpoint_of=endpoint_of,
            publish=publish,
            every_s=settings.every_s,
        )

    async def _resolve(self) -> None:
        """Look every name up; one that cannot be found now keeps the address that it had."""
        for first in range(0, len(self._named), _LOOKUPS_MAX):
            await asyncio.gather(*map(self._find, self._named[first : first + _LOOKUPS_MAX]))

    async def _find(self, target_index: int) -> None:
        target, loop = self._settings.targets[target_index], asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(target.address, None, family=_FAMILIES[target.ip], type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # the latter: no name can look like that
            log.warning("%s has no address: %s", target.address, error)
        else:
            self._endpoints[target_index] = Endpoint(str(found[0][4][0]), target.port)


def _literal(target: config.Target) -> Endpoint | None:
    """The endpoint of a target whose address needs no looking up."""
    try:
        return Endpoint(str(ipaddress.ip_address(target.address)), target.port)
    except ValueError:
        return None


def run(role: config.ProbeConfig, opened: Callable[[], None] = lambda: None) -> None:
    """`proxima probe`: ask until SIGTERM or SIGINT, then flush. `opened` is called once privileges are given up.

    Raises ConfigError, ProbeError: before the first probe; DeliveryError: measurements were left at the end.
    """
    # connect() takes a descriptor a probe under way: thousands of silent targets take thousands.
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
    keep_only((CAP_NET_RAW,))
    asyncio.run(_until_signalled(role, opened))


async def _until_signalled(role: config.ProbeConfig, opened: Callable[[], None]) -> None:
    settings = role.probe
    timeout_s = settings.timeout_ms / 1000
    probes = open_probes(settings.methods, timeout_s)
    bandwidth: Probe | None = None
    if (wanted := settings.bandwidth) is not None:
        bandwidth = Bandwidth(timeout_s, bytes_max=wanted.bytes_max, bytes_per_hour_max=wanted.bytes_per_hour_max)
    # Before the publisher: its threads inherit what this one may do.
    keep_only(())
    opened()
    stop = told_to_end()
    client_id, kafka = f"probe-{settings.agent_id}", role.kafka
    with Publisher(kafka.bootstrap, client_id=client_id, topic_prefix=kafka.topic_prefix) as publisher:
        await ProbeAgent(settings, publisher, probes, bandwidth).run(stop)


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


def _raise_from(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        _over(task)


async def _repeat(every_s: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(every_s)
        await work()
