"""Several primaries that measure each other, with decide and overview between them: two journals, second by second.

What decide says of its paths is appended to overview's journal, and overview's verdicts to decide's, as intake does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from schemas.codec import decode, encode
from schemas.records import (
    DeadLetter,
    FailoverConfiguration,
    FailoverRanking,
    InjectedMetric,
    NetworkGraphNode,
    NetworkVerdict,
    Observation,
    Outcome,
    Policy,
    Record,
    Region,
    RegionCatalog,
    RouteEvent,
    Source,
    Tick,
)
from streams.fold import JournalFold
from streams.folding import Output
from streams.journal import JournalRecord
from streams.network_fold import NetworkFold
from tests.streams.core.policy import STATED
from tests.streams.core.probing import Sample, panes
from tests.streams.core.story import PHASE_MS, T0, TICK_MS

OVERVIEW_PHASE_MS: Final = 600
PROBES: Final = 4  # a second, to each target, by each agent
Seen = float | Outcome
Network = Callable[[str, str, int], Seen]  # (primary, target, second) -> what each probe of this second sees


def new_network_fold() -> NetworkFold:
    return NetworkFold(
        topic="graph-updates", topic_id="graph-1", partition=0, tick_ms=TICK_MS, phase_ms=OVERVIEW_PHASE_MS
    )


def lost(*paths: tuple[str, str], rtt_ms: float = 20.0) -> Network:
    """Every path takes as long, but for those that answer no more; `*` is any region."""
    gone = set(paths)

    def seen(primary: str, target: str, _: int) -> Seen:
        hit = gone & {(primary, target), ("*", target), (primary, "*")}
        return Outcome.TIMED_OUT if hit else rtt_ms

    return seen


class World:
    """Regions by name, each a primary with all others as candidates unless it is told otherwise."""

    def __init__(
        self,
        regions: Sequence[str | Region],
        *,
        agents: int = 2,
        primaries: Iterable[str] | None = None,
        loads: Mapping[str, float] | None = None,
        policy: Policy = STATED,
    ) -> None:
        known = [r if isinstance(r, Region) else Region(r, 50.0, 8.0 + i) for i, r in enumerate(regions)]
        self.regions = [r.region_id for r in known]
        self.primaries = list(primaries if primaries is not None else self.regions)
        self.agents = {p: [f"{p}/{n}" for n in range(agents)] for p in self.primaries}
        self.decide = JournalFold(topic="observations", topic_id="j", partition=0, tick_ms=TICK_MS, phase_ms=PHASE_MS)
        self.overview = new_network_fold()
        self.second = 0
        self.rankings: dict[str, list[FailoverRanking]] = {p: [] for p in self.primaries}
        self.verdicts: dict[str, list[NetworkVerdict]] = {p: [] for p in self.primaries}
        self.nodes: dict[str, NetworkGraphNode] = {}
        self.letters: list[DeadLetter] = []
        self.graph_journal: list[JournalRecord] = []
        self.graph_outputs: list[list[Output]] = []
        self._offset = self._source_offset = 0
        self.configure(RegionCatalog(1, known), None)
        for primary in self.primaries:
            others = [r for r in self.regions if r != primary]
            load = (loads or {}).get(primary, 0.0)
            configuration = FailoverConfiguration(primary, others, 1, policy=policy, load_ratio=load)
            self.configure(configuration, primary)

    @property
    def now_ms(self) -> int:
        return T0 + self.second * 1000

    def last(self, primary: str) -> FailoverRanking:
        return self.rankings[primary][-1]

    def verdict(self, primary: str) -> NetworkVerdict:
        return self.verdicts[primary][-1]

    def configure(self, record: Record, primary: str | None) -> None:
        """On failover-config: to both journals."""
        observation = self._observation(record, primary)
        self._to_overview(observation, self.now_ms)
        self._to_decide(observation, self.now_ms)

    def route(self, event: RouteEvent) -> None:
        """On bgp-events."""
        self._to_decide(self._observation(event, event.primary_region), self.now_ms)

    def inject(self, metric: InjectedMetric) -> None:
        """On injected-metrics."""
        self._to_decide(self._observation(metric, metric.primary_region), self.now_ms)

    def run(self, seconds: int, network: Network, silent: Iterable[str] = ()) -> None:
        """Seconds in which agents probe, but for those that are silent."""
        for _ in range(seconds):
            second, self.second = self.second, self.second + 1
            for primary in self.primaries:
                samples = [
                    Sample(t, T0 + second * 1000 + 1000 * i // PROBES, network(primary, t, second), agent)
                    for agent in self.agents[primary]
                    if agent not in silent
                    for t in self.regions
                    if t != primary
                    for i in range(PROBES)
                ]
                if samples:
                    self._to_decide(self._observation(panes(samples, primary), primary), self.now_ms + 100)
            self._to_decide(encode(Tick("metronome")), self.now_ms + PHASE_MS + 50)
            self._to_overview(encode(Tick("metronome")), self.now_ms + OVERVIEW_PHASE_MS + 50)

    def seconds_until(self, holds: Callable[[], bool], network: Network, at_most: int = 60) -> int:
        """Journal seconds until something is so; more than `at_most`: it never was."""
        for passed in range(1, at_most + 1):
            self.run(1, network)
            if holds():
                return passed
        return at_most + 1

    def _observation(self, body: Record, primary: str | None) -> bytes:
        self._source_offset += 1
        source = Source("sources", "source-1", 0, self._source_offset, self._source_offset + 1, self.now_ms)
        return encode(Observation(primary, source, encode(body)))

    def _to_decide(self, value: bytes, at_ms: int) -> None:
        record = JournalRecord(0, self._offset, at_ms, b"key", value)
        self._offset += 1
        for output in self.decide.apply(record):
            match output.topic:
                case "failover-rankings":
                    ranking = decode(output.value, FailoverRanking)
                    self.rankings[ranking.primary_region].append(ranking)
                case "graph-updates":
                    self._to_overview(output.value, at_ms + 20, output.key)
                case "dead-letters":
                    self.letters.append(decode(output.value, DeadLetter))

    def _to_overview(self, value: bytes, at_ms: int, key: bytes = b"key") -> None:
        record = JournalRecord(0, len(self.graph_journal), at_ms, key, value)
        self.graph_journal.append(record)
        outputs = self.overview.apply(record)
        self.graph_outputs.append(outputs)
        for output in outputs:
            match output.topic:
                case "network-verdicts":
                    verdict = decode(output.value, NetworkVerdict)
                    self.verdicts[verdict.primary_region].append(verdict)
                    self._to_decide(self._observation(verdict, verdict.primary_region), at_ms + 20)
                case "network-graph":
                    node = decode(output.value, NetworkGraphNode)
                    self.nodes[node.region_id] = node
                case "dead-letters":
                    self.letters.append(decode(output.value, DeadLetter))


def policy(**changes: object) -> Policy:
    """The stated policy with some numbers changed."""
    return replace(STATED, **changes)  # type: ignore[arg-type]
