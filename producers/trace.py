"""The trace player: agents that play recorded measurements, as probe agents would have sent them.

    network = RecordedNetwork(primaries=12)
    player = TracePlayer(publisher, network)
    threading.Thread(target=player.run).start()
    player.inject(Fault("eu-west-1", "eu-west-2", "brownout"))

No public data set has RTT and loss over time between many regions, so a path is a join of two real ones: the mean
RTT that was measured between its two AWS regions, times how a recorded series moved at that step: its value over the
10th percentile of its last day. Each pair of regions has a series and a place in it of its own, drawn from the seed;
both ends see the same. Bandwidth is what was measured between the regions, once a minute.

A recorded step (240 s, mostly) is played a tick at speed 1, so an hour of playing is ten days of network: otherwise
next to nothing would happen while anyone looks. A recorded loss is one lost probe: one of those that the agents send
over the path in its step is lost, and not all; between two losses in a row, all are.
"""

from __future__ import annotations

import logging
import threading
import time
import zlib
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final, Literal

import numpy as np

from producers.publisher import Publisher
from producers.traces import STEP_S, Series, all_rtt_ms, cloud_regions, cloud_rtt_ms, cloud_throughput_bps
from schemas.errors import ConfigError
from schemas.records import (
    Array,
    BandwidthMeasurement,
    FailoverConfiguration,
    Outcome,
    ProbeBatch,
    Region,
    RegionCatalog,
)

log = logging.getLogger(__name__)

METHOD: Final = "trace"
# Spread over the world, so that the first few already make a sensible network; then the rest by name.
PRIMARIES: Final = (
    "eu-west-1", "us-east-1", "ap-southeast-1", "us-west-2", "eu-central-1", "ap-northeast-1",
    "sa-east-1", "ap-south-1", "ca-central-1", "ap-southeast-2", "eu-north-1", "me-south-1",
)  # fmt: skip
BANDWIDTH_EVERY_S: Final = 60.0
# Three zones are what most regions have, and enough to take over; where the list does not say, caution.
ZONES_FULL: Final = 3
CAPACITY_UNKNOWN_RATIO: Final = 2 / 3
_DAY_STEPS: Final = 24 * 3600 // STEP_S
_BASELINE_EVERY_STEPS: Final = 30
_BASELINE_PERCENTILE: Final = 10


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong on a path besides what was recorded, between two moments (until_ms None: until cleared).

    brownout: round-trip times times `factor`; down: every probe is lost.
    """

    primary: str
    target: str
    kind: Literal["brownout", "down"]
    factor: float = 3.0
    from_ms: int = 0
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Agent:
    """One of the `peers` agents of a primary, the `number`th, from 0."""

    agent_id: str
    primary_region: str
    targets: tuple[str, ...]
    number: int
    peers: int


class RecordedNetwork:
    """Regions, paths and agents; everything that it says is a pure function of its arguments."""

    def __init__(
        self,
        *,
        primaries: int = 12,
        candidates: int = 11,
        agents_per_primary: int = 2,
        probes_per_tick: int = 2,
        tick_ms: int = 1000,
        speed: float = 1.0,
        timeout_ms: float = 2000.0,
        seed: int = 1,
    ) -> None:
        """`speed` is in recorded steps a tick; `timeout_ms` is the recordings' own."""
        known = [*PRIMARIES, *sorted(set(cloud_regions()) - set(PRIMARIES))]
        if not 1 <= primaries <= len(known) or not 1 <= candidates < len(known):
            wrong = f"{primaries} primaries with {candidates} candidates each"
            raise ConfigError([f"{wrong}: there are {len(known)} regions"], where="trace player")
        self.primaries = tuple(known[:primaries])
        self.probes_per_tick, self.tick_ms, self.speed = probes_per_tick, tick_ms, speed
        self._timeout_ms, self._seed = timeout_ms, seed
        rtt_ms = cloud_rtt_ms()
        self._targets = {
            p: tuple(sorted((r for r in known if r != p), key=lambda r, p=p: (rtt_ms[p, r], r)))[:candidates]  # type: ignore[misc]
            for p in self.primaries
        }
        self.agents = tuple(
            Agent(f"{primary}/{chr(ord('a') + number)}", primary, self._targets[primary], number, agents_per_primary)
            for primary in self.primaries
            for number in range(agents_per_primary)
        )
        self._paths = {p: self._places(p, self._targets[p]) for p in self.primaries}

    def catalog(self) -> RegionCatalog:
        """Every region that the recordings know, with coordinates, and capacity by its number of zones."""
        regions = [
            Region(r.region_id, r.latitude, r.longitude, r.name, _capacity_ratio(r.zones))
            for r in cloud_regions().values()
        ]
        return RegionCatalog(version=1, regions=regions)

    def configurations(self) -> list[FailoverConfiguration]:
        """One for each primary; its candidates are the nearest by RTT, nearest first."""
        return [
            FailoverConfiguration(primary, list(targets), version=1, author="trace-player")
            for primary, targets in self._targets.items()
        ]

    def batch(self, agent: Agent, step: float, now_ms: int, faults: tuple[Fault, ...] = ()) -> ProbeBatch:
        """What the agent measured in the tick that began at `now_ms`, when recorded step `step` began with it.

        Its probes are spread over the tick; those of its peers lie evenly between them.
        """
        targets, probes = len(agent.targets), self.probes_per_tick
        within_slot = (np.arange(targets) / targets + agent.number / agent.peers) % 1.0
        sent_ticks = (np.arange(probes)[:, None] + within_slot) / probes  # (probes, targets)
        rtt_ms = self._rtt_ms(agent, step + self.speed * sent_ticks)
        sent_offset_ms = sent_ticks * self.tick_ms  # float64: added to the time of day, a float32 loses minutes
        for fault in faults:
            _overlay(fault, agent, now_ms + sent_offset_ms, rtt_ms)
        rtt_ms[rtt_ms >= self._timeout_ms] = np.nan
        lost = np.isnan(rtt_ms).ravel()
        return ProbeBatch.of(
            agent_id=agent.agent_id,
            primary_region=agent.primary_region,
            started_at_ms=now_ms,
            targets=list(agent.targets),
            methods=[METHOD],
            target_index=np.tile(np.arange(targets), probes),
            method_index=np.zeros(lost.size),
            sent_offset_ms=sent_offset_ms.ravel(),
            rtt_ms=rtt_ms.ravel(),
            outcome=np.where(lost, Outcome.TIMED_OUT, Outcome.ANSWERED),
            code=np.zeros(lost.size),
        )

    def bandwidth(self, agent: Agent, now_ms: int, faults: tuple[Fault, ...] = ()) -> list[BandwidthMeasurement]:
        """The measured throughput of each of the agent's paths; none where the path is down."""
        throughput = cloud_throughput_bps()
        down = {f.target for f in faults if f.kind == "down" and f.primary == agent.primary_region and _acts(f, now_ms)}
        found = []
        for target in agent.targets:
            by_month = throughput.get((agent.primary_region, target))
            if by_month is None or target in down:
                continue
            latest = by_month[max(by_month)]
            # Two measurements ten months apart: half of what lies between them is what is not known.
            uncertainty_ratio = min(1.0, (max(by_month.values()) - min(by_month.values())) / (2 * latest))
            found.append(
                BandwidthMeasurement(
                    agent.agent_id, agent.primary_region, target, now_ms, latest, uncertainty_ratio, bytes_sent=0
                )
            )
        return found

    def _places(self, primary: str, targets: tuple[str, ...]) -> tuple[Array, Array, Array]:
        """(targets,) each: mean RTT between the regions, number of the series, place in it."""
        series, place = zip(*(_draw(self._seed, *sorted((primary, target))) for target in targets), strict=True)
        mean_ms = [cloud_rtt_ms()[primary, target] for target in targets]
        return np.array(mean_ms), np.array(series), np.array(place)

    def _rtt_ms(self, agent: Agent, step: Array) -> Array:
        """RTT of probes sent at `step` (probes, targets), NaN: lost; writable, of the same shape."""
        mean_ms, series, place = self._paths[agent.primary_region]
        ratio, lost, steps = _table()
        at = place + step
        index = np.floor(at).astype(np.int64)
        here, following = index % steps[series], (index + 1) % steps[series]
        # How far apart the probes of all peers are, in steps: just one of them is the recorded one.
        apart = self.speed / (self.probes_per_tick * agent.peers)
        gone = lost[series, here] & ((at - index < apart) | lost[series, following])
        rtt_ms: Array = np.where(gone, np.nan, mean_ms * ratio[series, here])
        return rtt_ms


class TracePlayer:
    """Plays a recorded network in real time: one batch an agent and tick. Threads may inject faults meanwhile."""

    def __init__(self, publisher: Publisher, network: RecordedNetwork | None = None) -> None:
        self.network = network or RecordedNetwork()
        self._publisher = publisher
        self.faults: tuple[Fault, ...] = ()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.samples_sent = 0
        self.ticks_skipped = 0

    def catalog(self) -> RegionCatalog:
        return self.network.catalog()

    def configurations(self) -> list[FailoverConfiguration]:
        return self.network.configurations()

    def inject(self, fault: Fault) -> None:
        """From now on (or its from_ms) the path has this fault, instead of any that it had."""
        with self._lock:
            others = [f for f in self.faults if (f.primary, f.target) != (fault.primary, fault.target)]
            self.faults = (*others, fault)

    def clear(self) -> None:
        """All faults are over."""
        with self._lock:
            self.faults = ()

    def stop(self) -> None:
        """Let `run` return before its next batch."""
        self._stopped.set()

    def run(self, until: float | None = None) -> None:
        """Play until `until` (monotonic seconds; None: until `stop`).

        A batch leaves when its tick is over, as a probe agent's does. Primaries take turns within the tick, so that
        there are no bursts; deadlines are absolute, so that pauses do not add up; and ticks that were missed (the
        machine slept) are left out, not caught up with in a burst.
        """
        tick_s, agents = self.network.tick_ms / 1000, self.network.agents
        bandwidth_ticks = max(1, round(BANDWIDTH_EVERY_S / tick_s))
        phases = [self.network.primaries.index(agent.primary_region) / len(self.network.primaries) for agent in agents]
        began, tick = time.monotonic(), 0
        while True:
            for turn, (agent, phase) in enumerate(zip(agents, phases, strict=True)):
                due = began + (tick + 1 + phase) * tick_s
                if until is not None and due > until:
                    self._stopped.wait(max(0.0, until - time.monotonic()))
                    return
                if self._stopped.wait(max(0.0, due - time.monotonic())):
                    return
                self._send(agent, (tick + phase) * self.network.speed)
                # Agents take turns here too, after the first tick; one of a primary's is enough.
                if agent.number == 0 and (tick == 0 or tick % bandwidth_ticks == turn % bandwidth_ticks):
                    self._send_bandwidth(agent)
            tick += 1
            behind = int((time.monotonic() - began) / tick_s) - tick - 1
            if behind > 0:
                self.ticks_skipped += behind
                tick += behind

    def _send(self, agent: Agent, step: float) -> None:
        began_ms = time.time_ns() // 1_000_000 - self.network.tick_ms
        batch = self.network.batch(agent, step, began_ms, self.faults)
        self._publisher.publish("probe-samples", agent.agent_id, batch)
        self.samples_sent += len(batch.outcome)

    def _send_bandwidth(self, agent: Agent) -> None:
        now_ms = time.time_ns() // 1_000_000
        for measurement in self.network.bandwidth(agent, now_ms, self.faults):
            self._publisher.publish("probe-samples", agent.agent_id, measurement)


def _capacity_ratio(zones: int | None) -> float:
    return CAPACITY_UNKNOWN_RATIO if zones is None else min(1.0, zones / ZONES_FULL)


def _acts(fault: Fault, at_ms: float) -> bool:
    return at_ms >= fault.from_ms and (fault.until_ms is None or at_ms < fault.until_ms)


def _overlay(fault: Fault, agent: Agent, sent_at_ms: Array, rtt_ms: Array) -> None:
    """The fault's effect on a batch's (probes, targets), in place."""
    if fault.primary != agent.primary_region or fault.target not in agent.targets:
        return
    target = agent.targets.index(fault.target)
    hit = [_acts(fault, at_ms) for at_ms in sent_at_ms[:, target].tolist()]
    rtt_ms[hit, target] *= fault.factor if fault.kind == "brownout" else np.nan


@lru_cache(maxsize=4096)
def _draw(seed: int, one: str, other: str) -> tuple[int, float]:
    """A series and a place in it for a pair of regions: the same on every machine, whatever other pairs there are."""
    _ratio, _lost, steps = _table()
    chance = np.random.default_rng([seed, zlib.crc32(f"{one} {other}".encode())])
    series = int(chance.integers(len(steps)))
    return series, float(chance.uniform(0, steps[series]))


@cache
def _table() -> tuple[Array, Array, Array]:
    """All series: ratio to their baseline (series, steps), last answered where lost; lost; (series,) steps."""
    recorded = list(all_rtt_ms().values())
    steps = np.array([len(series) for series in recorded])
    ratio = np.ones((len(recorded), steps.max()))
    lost = np.zeros(ratio.shape, bool)
    for row, series in enumerate(recorded):
        answered = last_answered(series)
        ratio[row, : len(series)] = answered / baseline_ms(answered)
        lost[row, : len(series)] = np.isnan(series)
    return ratio, lost, steps


def last_answered(series: Series) -> Array:
    """(steps,) the series with each loss replaced by the answer before it (before the first: the first)."""
    known = np.flatnonzero(~np.isnan(series))
    before = np.searchsorted(known, np.arange(len(series)), side="right") - 1
    held: Array = series[known[before.clip(0)]].astype(np.float64)
    return held


def baseline_ms(answered: Array) -> Array:
    """(steps,) 10th percentile of the day that ends within the next two hours of each step; of the first day at first.

    A low percentile, not the median: a path that is bad for half a day is then bad, and a path that stays so for a
    day has become that path. It is moved every two hours only, for it is slow.
    """
    baseline = np.empty(len(answered))
    for start in range(0, len(answered), _BASELINE_EVERY_STEPS):
        end = max(start + _BASELINE_EVERY_STEPS, _DAY_STEPS)
        window = answered[max(0, end - _DAY_STEPS) : end]
        baseline[start : start + _BASELINE_EVERY_STEPS] = np.percentile(window, _BASELINE_PERCENTILE)
    return baseline
