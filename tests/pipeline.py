"""Stages as real processes on topics of their own, fed with samples that can be told apart, and held to account.

Pipeline    topics under a prefix; stages that are started, killed and started again
Feed        probe batches in which every sample has a value of its own, and what must come of them
judge       the journal folded again without any kill, beside what was published; and every sample in one pane
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import numpy as np
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from infra.kafka.admin import create_topics, topic_ids
from infra.kafka.reader import BEGINNING, TopicReader
from infra.processes import ChildProcess, stop_all, wait_until
from schemas.codec import decode, encode
from schemas.errors import CodecError
from schemas.records import (
    AgentHealth,
    BandwidthMeasurement,
    DeadLetter,
    FailoverConfiguration,
    FailoverRanking,
    InjectedMetric,
    Observation,
    Outcome,
    PathPanes,
    ProbeBatch,
    Region,
    RegionCatalog,
)
from schemas.topics import PARTITIONS
from streams.core.engine import FailoverEngine
from streams.intake import Intake
from streams.journal import JournalRecord
from streams.replay import Replay

T = TypeVar("T")
SETTLED_S: Final = 90.0
# The last two share a partition of the journal.
PRIMARIES: Final = ("alpha", "beta", "eu-west-1", "ap-south-1")
TARGETS: Final = ("near", "middle", "far")
_BASE_US: Final = {"near": 20_000, "middle": 60_000, "far": 100_000}
_STAGES: Final = ("intake", "decide")
Stage = tuple[str, str]  # (stage, worker)
Key = tuple[str, str, str, str, int]  # (primary, agent, target, method, pane)


def seed_from_environment(what: str) -> int:
    """PROXIMA_SEED, or one that is printed, so that a failure can be had again."""
    seed = int(os.environ.get("PROXIMA_SEED", str(time.time_ns() % 1_000_000)))
    say(f"{what}: PROXIMA_SEED={seed}")
    return seed


def say(text: str) -> None:
    """A figure for whoever reads the run (pytest -s, or after a failure)."""
    sys.stderr.write(f"\n{text}")


class Pipeline:
    """Topics of one test, and the stages that run on them; all processes end with the context."""

    def __init__(self, bootstrap: str, logs: Path, *, session_s: float = 3.0, **settings: object) -> None:
        self.bootstrap, self.prefix = bootstrap, f"t{uuid.uuid4().hex[:10]}-"
        self._logs = logs
        self._settings = {"DECIDE__SNAPSHOT_EVERY_MS": 1000, "WORKER__SESSION_TIMEOUT_S": session_s, **settings}
        self.running: dict[Stage, ChildProcess] = {}
        self._consumers: dict[str, Any] = {}
        self._programs: dict[Stage, Sequence[str]] = {}
        self.deaths: list[str] = []  # of stages that nobody killed
        create_topics(bootstrap, prefix=self.prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for child in self.running.values():
            child.kill()
        for consumer in self._consumers.values():
            consumer.close()

    # -- processes --------------------------------------------------------------------------------------------------

    def start(self, *stages: str, worker: str = "worker-1", program: Sequence[str] = ()) -> None:
        """Start stages of a worker (default: both); `program` is run instead of `proxima worker`."""
        for stage in stages or _STAGES:
            name = (stage, worker)
            self._programs[name] = program or ("-m", "infra.cli", "worker", "--stages", stage)
            self.running[name] = ChildProcess.start(
                [sys.executable, *self._programs[name]],
                name=f"{stage} of {worker}",
                log_path=self._logs / f"{self.prefix}{stage}-{worker}.log",
                env={
                    "PROXIMA_KAFKA__BOOTSTRAP": self.bootstrap,
                    "PROXIMA_KAFKA__TOPIC_PREFIX": self.prefix,
                    "PROXIMA_WORKER__NAME": worker,
                    **{f"PROXIMA_{name}": str(value) for name, value in self._settings.items()},
                },
            )

    def kill(self, stage: str, worker: str = "worker-1") -> None:
        """`kill -9`."""
        self.running.pop((stage, worker)).kill()

    def tend(self) -> None:
        """Start again what ended by itself, as `proxima worker` does, and remember that it did."""
        for name, child in list(self.running.items()):
            if not child.alive:
                self.deaths.append(f"{child.name} ended with {child.returncode}:\n{child.log_tail(30)}")
                self.start(name[0], worker=name[1], program=self._programs[name])

    def stop(self) -> None:
        """SIGTERM to all stages: the last round is written."""
        stop_all(self.running.values(), 30)
        codes = {name: child.returncode for name, child in self.running.items()}
        # The last two: it was just being started again.
        assert set(codes.values()) <= {0, 128 + signal.SIGTERM, -signal.SIGTERM}, f"{codes}\n" + "\n".join(
            c.log_tail(30) for c in self.running.values()
        )
        self.running.clear()

    def wait(self, predicate: Callable[[], T], timeout_s: float, what: str) -> T:
        """`wait_until` with stages that are started again when they end."""

        def tended() -> T:
            self.tend()
            return predicate()

        try:
            return wait_until(tended, timeout_s, what, poll_s=0.25)
        except Exception as error:
            tails = [f"{child.name}:\n{child.log_tail(30)}" for child in self.running.values()]
            raise AssertionError("\n".join([str(error), *self.deaths, *tails])) from error

    # -- topics -----------------------------------------------------------------------------------------------------

    def producer(self) -> Any:
        """Confirmed, in order, no doubles: what it was given is on the topic once."""
        return Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.max.bytes": 10_000_000,
                "log_level": 0,
                "error_cb": lambda _: None,
            }
        )

    def read(self, topic: str) -> list[JournalRecord]:
        """A topic from its beginning to its end now."""
        found = []
        with TopicReader(self.bootstrap, {self.prefix + topic: BEGINNING}) as reader:
            while not reader.at_end:
                r = reader.poll(1.0)
                if r is not None:
                    found.append(JournalRecord(r.partition, r.offset, r.appended_at_ms, r.key, r.value or b""))
        return found

    def topic_id(self, topic: str) -> str:
        return topic_ids(self.bootstrap, [self.prefix + topic])[self.prefix + topic]

    def committed(self, stage: str, topic: str) -> dict[int, int]:
        """Next offset of each partition by the stage's commits; 0 where there is none."""
        places = [TopicPartition(self.prefix + topic, p) for p in range(PARTITIONS)]
        consumer, deadline_s = self._consumer(f"{self.prefix}proxima-{stage}"), time.monotonic() + 30
        while True:
            try:
                return {tp.partition: max(0, tp.offset) for tp in consumer.committed(places, timeout=30)}
            except KafkaException:  # a broker that has just come back coordinates nothing for a moment
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.1)

    def ends(self, topic: str) -> dict[int, int]:
        """Next offset that each partition of a topic will give."""
        consumer = self._consumer("ends")
        places = [TopicPartition(self.prefix + topic, p) for p in range(PARTITIONS)]
        deadline_s = time.monotonic() + 30
        while True:
            try:
                return {tp.partition: consumer.get_watermark_offsets(tp, timeout=30)[1] for tp in places}
            except KafkaException:  # a broker that has just come back leads nothing for a moment
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.1)

    def _consumer(self, group: str) -> Any:
        """A client that asks on a group's behalf and never joins it."""
        if group not in self._consumers:
            settings = {"bootstrap.servers": self.bootstrap, "group.id": group, "log_level": 0}
            self._consumers[group] = Consumer({**settings, "error_cb": lambda _: None})
        return self._consumers[group]

    def settle(self) -> None:
        """Wait until all that is on the sources now is in the journal, and that journal folded, both committed."""
        for stage, topics in (("intake", Intake.topics), ("decide", ("observations",))):
            for topic in topics:
                ends = self.ends(topic)
                self.wait(
                    lambda stage=stage, topic=topic, ends=ends: all(  # type: ignore[misc]
                        self.committed(stage, topic)[p] >= end for p, end in ends.items()
                    ),
                    SETTLED_S,
                    f"{stage} to take all of {topic}",
                )

    def configure(self, primaries: Sequence[str] = PRIMARIES, agents: Mapping[str, list[str]] | None = None) -> None:
        """Catalogue and configurations, and wait until each primary is decided about. `agents`: who speaks for some."""
        producer, topic = self.producer(), f"{self.prefix}failover-config"
        places = {**dict.fromkeys(primaries, (0.0, 0.0)), "near": (5, 5), "middle": (15, 15), "far": (-20, 40)}
        may = agents or {}
        catalog = RegionCatalog(1, [Region(name, *at, agents=may.get(name, [])) for name, at in places.items()])
        producer.produce(topic, key="regions", value=encode(catalog))
        for primary in primaries:
            producer.produce(topic, key=primary, value=encode(FailoverConfiguration(primary, list(TARGETS), 1)))
        assert producer.flush(30) == 0
        self.wait(
            lambda: (
                {decode(r.value, FailoverRanking).primary_region for r in self.read("failover-rankings")}
                >= set(primaries)
            ),
            SETTLED_S,
            "a first ranking of every primary",
        )


# -- samples ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Pane:
    """What a pane must hold. Values are the sender's own, so a lost and a doubled sample cannot cancel."""

    outcomes: Counter[int] = field(default_factory=Counter)
    rtts_us: list[int] = field(default_factory=list)

    @property
    def figures(self) -> tuple[tuple[int, ...], int, int]:
        """Counts by outcome, exact sum, least."""
        counts = tuple(self.outcomes[o] for o in Outcome)
        return counts, sum(self.rtts_us), min(self.rtts_us, default=0)


class Feed:
    """A thread of agents, one a primary: a batch each `every_s`, metrics injected now and then."""

    def __init__(self, pipeline: Pipeline, seed: int, *, every_s: float = 0.2, primaries: Sequence[str] = PRIMARIES):
        self._pipeline, self._random, self._every_s, self._primaries = pipeline, random.Random(seed), every_s, primaries
        self._producer = pipeline.producer()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._value = 0
        self.samples = 0
        self.panes: dict[Key, Pane] = defaultdict(Pane)
        self.metrics: list[bytes] = []
        self._started_s = time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def stop(self) -> None:
        """No more; everything is on its topic afterwards."""
        self.__exit__()
        assert self._producer.flush(60) == 0, "the feed's own records could not be delivered"

    def _run(self) -> None:
        turn = 0
        while not self._over.wait(self._every_s):
            now_ms = time.time_ns() // 1_000_000
            for primary in self._primaries:
                self.batch(primary, now_ms)
            if turn % 5 == 0:
                self._inject(self._primaries[turn // 5 % len(self._primaries)], now_ms)
            turn += 1
            self._producer.poll(0)

    def batch(self, primary: str, now_ms: int, samples: int = 9) -> None:
        """One batch of the last two seconds, so that panes get samples of several batches and flushes."""
        started = now_ms - 2000
        target = [self._random.randrange(len(TARGETS)) for _ in range(samples)]
        offset = [self._random.randrange(2000) for _ in range(samples)]
        # "near" fails for ten seconds out of thirty, so that there is something to decide.
        fails = (time.monotonic() - self._started_s) % 30 > 12
        outcome, rtt_us = [], []
        for t in target:
            self._value += 1 + self._random.randrange(3)
            lost = (fails and t == 0) or self._random.random() < 0.02
            outcome.append(Outcome.TIMED_OUT if lost else Outcome.ANSWERED)
            rtt_us.append(_BASE_US[TARGETS[t]] + self._value)
        agent = f"agent-{primary}"
        record = ProbeBatch.of(
            agent_id=agent,
            primary_region=primary,
            started_at_ms=started,
            targets=list(TARGETS),
            methods=["icmp"],
            target_index=target,
            method_index=[0] * samples,
            sent_offset_ms=offset,
            rtt_ms=[np.nan if o else us / 1000 for o, us in zip(outcome, rtt_us, strict=True)],
            outcome=outcome,
            code=[0] * samples,
        )
        note_samples(self.panes, record)
        self.samples += samples
        self._producer.produce(f"{self._pipeline.prefix}probe-samples", key=agent, value=encode(record))

    def _inject(self, primary: str, now_ms: int) -> None:
        self._value += 1
        latency_ms = 50 + self._value / 1000
        metric = encode(InjectedMetric(primary, "far", "latency_ms", latency_ms, "feed", now_ms, 60_000))
        self.metrics.append(metric)
        self._producer.produce(f"{self._pipeline.prefix}injected-metrics", key=primary, value=metric)


def note_samples(panes: dict[Key, Pane], batch: ProbeBatch) -> None:
    """The panes that a batch's samples belong into, one sample at a time."""
    c = {name: column.tolist() for name, column in batch.columns().items()}
    for t, m, at_ms, rtt_ms, outcome in zip(
        c["target_index"], c["method_index"], c["sent_offset_ms"], c["rtt_ms"], c["outcome"], strict=True
    ):
        pane_at_ms = int(batch.started_at_ms + at_ms) // 1000 * 1000
        key = (batch.primary_region, batch.agent_id, batch.targets[t], batch.methods[m], pane_at_ms)
        pane = panes.setdefault(key, Pane())
        pane.outcomes[outcome] += 1
        if outcome == Outcome.ANSWERED:
            pane.rtts_us.append(round(rtt_ms * 1000))


# -- judgement --------------------------------------------------------------------------------------------------------


class Witness(FailoverEngine):
    """The engine, and a note of what the fold let through to it."""

    folded: dict[Key, Pane] = {}  # noqa: RUF012 - one note of all engines of a run, emptied by `judge`
    metrics: list[bytes] = []  # noqa: RUF012

    def panes(self, panes: PathPanes, now_ms: int, observed_ms: float, appended_at_ms: int) -> None:
        add_panes(self.folded, self.primary, panes)
        super().panes(panes, now_ms, observed_ms, appended_at_ms)

    def inject(self, metric: InjectedMetric, now_ms: int) -> bool:
        self.metrics.append(encode(metric))
        return super().inject(metric, now_ms)


def add_panes(into: dict[Key, Pane], primary: str, panes: PathPanes) -> None:
    """Add rows up; `rtts_us` gets each row's sum, with its least beside it as a sum of nothing."""
    c = panes.columns()
    for row in range(len(c["pane_at_ms"])):
        key = (
            primary,
            panes.agents[c["agent_index"][row]],
            panes.targets[c["target_index"][row]],
            panes.methods[c["method_index"][row]],
            int(c["pane_at_ms"][row]),
        )
        pane = into.setdefault(key, Pane())
        pane.outcomes.update({o: int(c["outcomes"][row, o]) for o in Outcome})
        answered, total, least = (
            int(c["outcomes"][row, Outcome.ANSWERED]), int(c["rtt_sum_us"][row]), int(c["rtt_min_us"][row])
        )  # fmt: skip
        if answered:
            pane.rtts_us += [least, total - least] if answered > 1 else [total]


@dataclass(slots=True)
class Verdict:
    """What a run came to."""

    rankings: int
    repeated: int  # rankings published more than once, all copies alike
    weights: int
    samples: int
    journal: int
    repeated_observations: int
    dead_letters: list[DeadLetter]
    decided_at: list[tuple[int, str]]  # (append time, primary) of each PathWeights published first

    def next_decision_s(self, at_ms: int, primaries: Sequence[str] = PRIMARIES) -> float:
        """Seconds from a moment until every primary was decided about again."""
        nexts = [
            min((at for at, p in self.decided_at if p == primary and at > at_ms), default=0) for primary in primaries
        ]
        assert all(nexts), "a primary was never decided about again"
        return (max(nexts) - at_ms) / 1000


def judge(
    pipeline: Pipeline, feed: Feed | None = None, engine: type[Witness] = Witness, *, letters: bool = True
) -> Verdict:
    """Hold everything published against the journal folded without any kill; raises AssertionError.

    To be called when the stages were stopped: what lies behind decide's last commit may have been published or not.
    `letters`: whether `engine` makes the very dead letters that decide made.
    """
    committed = pipeline.committed("decide", "observations")
    journal = pipeline.read("observations")
    engine.folded, engine.metrics = {}, []
    replay = Replay(topic_id=pipeline.topic_id("observations"), engine=engine)
    due: dict[str, dict[bytes, bool]] = defaultdict(dict)  # topic -> value -> whether it must be there
    for made in replay.run(journal):
        due[made.output.topic].setdefault(made.output.value, made.offset < committed[made.partition])

    rankings, repeated = _rankings(pipeline, due["failover-rankings"])
    decided_at = _exactly(pipeline.read("path-weights"), due["path-weights"], "path-weights")
    for topic in ("disruption-predictions", "prediction-scorecards"):
        _exactly(pipeline.read(topic), due[topic], topic)
    # Configurations and ticks stand there too.
    headers = {value[:10] for value in due["graph-updates"]}
    updates = [r for r in pipeline.read("graph-updates") if r.value[:10] in headers]
    _exactly(updates, due["graph-updates"], "graph-updates")
    found = {(_place(d), d.found_by): d for d in _decoded(pipeline.read("dead-letters"), DeadLetter)}
    if letters:
        folded = {encode(d) for d in found.values() if d.found_by == "decide"}
        assert folded >= {v for v, must in due["dead-letters"].items() if must}, "dead letters were never published"
        assert folded <= due["dead-letters"].keys(), "dead letters that no fold makes"

    repeats = _observations_alike(journal)
    if feed is not None:
        same_panes(feed.panes, engine.folded)
        missing = Counter(feed.metrics) - Counter(engine.metrics)
        twice = Counter(engine.metrics) - Counter(feed.metrics)
        assert missing == twice == Counter(), f"injected metrics: {len(missing)} lost, {len(twice)} twice"
    return Verdict(
        rankings, repeated, len(decided_at), feed.samples if feed else 0, len(journal), repeats,
        list(found.values()),
        [(at, key.decode()) for at, key in decided_at],
    )  # fmt: skip


def _rankings(pipeline: Pipeline, due: dict[bytes, bool]) -> tuple[int, int]:
    """Drop by `sequence` as a subscriber does, and compare byte by byte, primary by primary."""
    expected: dict[str, list[bytes]] = defaultdict(list)
    must: Counter[str] = Counter()
    for value, needed in due.items():
        primary = decode(value, FailoverRanking).primary_region
        expected[primary].append(value)
        must[primary] += needed
    handled: dict[str, list[bytes]] = defaultdict(list)
    repeated = 0
    for record in pipeline.read("failover-rankings"):
        ranking = decode(record.value, FailoverRanking)
        kept = handled[ranking.primary_region]
        if ranking.sequence <= len(kept):
            assert record.value == kept[ranking.sequence - 1], f"a second content for {ranking}"
            repeated += 1
        else:
            assert ranking.sequence == len(kept) + 1, f"a gap before {ranking.primary_region} {ranking.sequence}"
            kept.append(record.value)
    assert handled.keys() == expected.keys()
    for primary, values in handled.items():
        assert values == expected[primary][: len(values)], f"{primary}: other bytes than without a kill"
        assert len(values) >= must[primary], f"{primary}: {must[primary] - len(values)} rankings were never published"
    return sum(map(len, handled.values())), repeated


def _exactly(records: Sequence[JournalRecord], due: dict[bytes, bool], what: str) -> list[tuple[int, bytes]]:
    published: dict[bytes, tuple[int, bytes]] = {}
    for record in records:
        published.setdefault(record.value, (record.appended_at_ms, record.key or b""))
    strange = published.keys() - due.keys()
    lost = {v for v, must in due.items() if must} - published.keys()
    assert strange == lost == set(), f"{what}: {len(strange)} that no fold makes, {len(lost)} never published"
    return sorted(published.values())


def panes_of(journal: Sequence[JournalRecord], topic_id: str) -> dict[Key, Pane]:
    """Panes in the journal from one source topic, whoever they are about, each flush's parts counted once."""
    found: dict[Key, Pane] = {}
    counted = set()
    for record in journal:
        try:
            content = decode(record.value, Observation)
        except CodecError:
            continue
        s = content.source
        identity = (record.partition, s.partition, s.first_offset, s.part)
        if s.topic_id != topic_id or s.topic != "probe-samples" or identity in counted:
            continue
        counted.add(identity)
        body = decode(content.body, PathPanes, BandwidthMeasurement, AgentHealth)
        if isinstance(body, PathPanes):
            add_panes(found, content.primary_region or "", body)
    return found


def _observations_alike(journal: Sequence[JournalRecord]) -> int:
    """Whatever was put into the journal again is the same again; returns how many were."""
    first: dict[tuple[Any, ...], bytes] = {}
    repeats = 0
    for record in journal:
        try:
            content = decode(record.value, Observation)
        except CodecError:  # a Tick, or a dead letter, which the fold judges
            continue
        s = content.source
        identity = (record.partition, s.topic_id, s.partition, s.first_offset, s.part)
        known = first.setdefault(identity, record.value)
        assert known == record.value, f"two contents of one source: {s}"
        repeats += known is not record.value
    return repeats


def same_panes(sent: dict[Key, Pane], folded: dict[Key, Pane]) -> None:
    lost = sent.keys() - folded.keys()
    strange = folded.keys() - sent.keys()
    assert lost == strange == set(), f"{len(lost)} panes never came, {len(strange)} are of nobody"
    wrong = {k: (sent[k].figures, folded[k].figures) for k in sent if sent[k].figures != folded[k].figures}
    assert not wrong, f"{len(wrong)} panes hold other samples than were sent, for instance {next(iter(wrong.items()))}"


def _decoded(records: Sequence[JournalRecord], cls: type[T]) -> Iterator[T]:
    for record in records:
        yield decode(record.value, cls)


def _place(letter: DeadLetter) -> tuple[str, int, int, str]:
    return letter.source_topic, letter.source_partition, letter.source_offset, letter.reason
