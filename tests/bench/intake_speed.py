"""Samples a second that one intake worker drains from a backlog, beside the same core code without Faust.

A backlog of `SAMPLES` samples (24 agents, 20 targets each, a batch a second of theirs) is put on `probe-samples`. The
yardstick is a bare confluent-kafka consumer that decodes, gathers and condenses by the same rule, and sends nothing.
The worker is `proxima worker --stages intake`: it also sends every flush, has it confirmed, and commits. Its rate is
read from the journal itself: append times of its first and last whole flush, and the samples in between.

Everything is done `ROUNDS` times on one broker, on new topics, and every round is printed. The last one is the figure:
until the third, the broker takes the cores for compiling itself (0.07, 0.05, 0.03 CPU seconds a million samples).
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from infra.kafka.admin import create_topics
from infra.kafka.cluster import KafkaCluster
from infra.processes import ChildProcess, wait_until
from schemas.codec import decode, encode
from schemas.config import Intake
from schemas.records import EngineChanged, Observation, PathPanes, ProbeBatch, Tick
from schemas.topics import PARTITIONS
from streams.core.panes import Flush

SAMPLES = int(os.environ.get("PROXIMA_BENCH_SAMPLES", "20000000"))
ROUNDS = int(os.environ.get("PROXIMA_BENCH_ROUNDS", "3"))
_AGENTS = 24
_FILL_SAMPLES_A_SECOND = 1_500_000
_TARGETS = [f"region-{i}" for i in range(20)]


def run() -> Iterator[dict[str, Any]]:
    logs = Path(tempfile.mkdtemp(prefix="proxima-bench-"))
    with KafkaCluster.start(nodes=1, log_dir=logs, java_options=("-Xmx1g", "-XX:+UseSerialGC")) as cluster:
        for number, probes in ((n, probes) for n in range(1, ROUNDS + 1) for probes in (600, 4000)):
            prefix = f"round-{number}-{probes}-"
            create_topics(cluster.bootstrap, prefix=prefix)
            sent = _fill(cluster.bootstrap, prefix, probes)
            yardstick = _bare(cluster.bootstrap, prefix, sent)
            worker = _worker(cluster, prefix, logs)
            assert worker["samples"] == sent, f"{worker['samples']} of {sent} samples are in the journal"
            yield {
                "round": number,
                "samples_a_message": probes,
                "samples": sent,
                "worker_samples_a_second": round(worker["rate"]),
                "yardstick_samples_a_second": round(yardstick),
                "ratio": round(worker["rate"] / yardstick, 3),
                "worker_cpu_s_a_million": round(worker["worker_cpu"], 4),
                "broker_cpu_s_a_million": round(worker["broker_cpu"], 4),
                "flushes": worker["flushes"],
            }


def _fill(bootstrap: str, prefix: str, probes: int) -> int:
    """A backlog as agents leave it behind after an outage; returns how many samples."""
    random = np.random.default_rng(1)
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 20,
            "batch.size": 1_000_000,
            "queue.buffering.max.kbytes": 512_000,
        }
    )
    batches = -(-SAMPLES // probes // _AGENTS)
    now_ms = time.time_ns() // 1_000_000
    target = np.arange(probes) % len(_TARGETS)
    base_ms = random.uniform(10, 250, len(_TARGETS))
    offset_ms = np.linspace(0, 990, probes)
    rtts = []
    for _ in range(32):
        rtt = base_ms[target] * random.lognormal(0, 0.02, probes)
        rtts.append(np.where(random.random(probes) < 0.005, np.nan, rtt))
    started_s = time.monotonic()
    for batch in range(batches):
        for agent in range(_AGENTS):
            rtt = rtts[(batch + agent) % len(rtts)]
            record = ProbeBatch.of(
                agent_id=f"agent-{agent}",
                primary_region=f"primary-{agent // 2}",
                started_at_ms=now_ms - (batches - batch) * 1000,
                targets=_TARGETS,
                methods=["icmp"],
                target_index=target,
                method_index=np.zeros(probes),
                sent_offset_ms=offset_ms,
                rtt_ms=rtt,
                outcome=np.isnan(rtt),
                code=np.zeros(probes),
            )
            while True:
                try:
                    producer.produce(f"{prefix}probe-samples", key=f"agent-{agent}", value=encode(record))
                    break
                except BufferError:
                    producer.poll(0.05)
        producer.poll(0)
        # Spread over ticks, as a backlog is: a flush ends where a tick does.
        ahead_s = (batch + 1) * _AGENTS * probes / _FILL_SAMPLES_A_SECOND - (time.monotonic() - started_s)
        if ahead_s > 0:
            producer.flush(ahead_s)
            time.sleep(
                max(0.0, (batch + 1) * _AGENTS * probes / _FILL_SAMPLES_A_SECOND - (time.monotonic() - started_s))
            )
    producer.flush()
    return batches * _AGENTS * probes


def _bare(bootstrap: str, prefix: str, samples: int) -> float:
    """Samples a second of the core code fed by confluent-kafka: flushes by the same rule, nothing sent."""
    config = Intake()
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench-yardstick",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 5,
            "queued.max.messages.kbytes": 262_144,
            "fetch.message.max.bytes": 8_000_000,
        }
    )
    consumer.assign([TopicPartition(f"{prefix}probe-samples", p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
    flushes: dict[int, tuple[Flush, int]] = {}
    taken, started_s = 0, None
    while taken < samples:
        for message in consumer.consume(500, timeout=0.02):
            if started_s is None:
                started_s = time.perf_counter()
            partition, at_ms = message.partition(), message.timestamp()[1]
            tick = at_ms // config.tick_ms
            flush, first = flushes.get(partition, (None, 0))
            if flush is not None and (tick > first or flush.samples >= config.flush_samples_max):
                flush.condense()
                flush = None
            if flush is None:
                flush = Flush(
                    pane_ms=config.tick_ms, ahead_ms_max=config.ahead_ms_max, lateness_ms_max=config.lateness_ms_max
                )
                flushes[partition] = (flush, tick)
            batch = decode(message.value(), ProbeBatch)
            assert flush.add(batch, message.offset(), at_ms) is None
            taken += len(batch.outcome)
    for flush, _ in flushes.values():
        flush.condense()
    assert started_s is not None
    rate = taken / (time.perf_counter() - started_s)
    consumer.close()
    return rate


def _worker(cluster: KafkaCluster, prefix: str, logs: Path) -> dict[str, float]:
    env = {"PROXIMA_KAFKA__BOOTSTRAP": cluster.bootstrap, "PROXIMA_KAFKA__TOPIC_PREFIX": prefix}
    command = [sys.executable, "-m", "infra.cli", "worker", "--stages", "intake"]
    committed = _Committed(cluster.bootstrap, prefix)
    broker = psutil.Process(next(iter(cluster.pids.values())))
    with ChildProcess.start(command, name="intake", log_path=logs / "intake.log", env=env) as child:
        process = psutil.Process(child.pid)
        wait_until(lambda: committed.share() > 0, 120, "the first commit", children=[child], poll_s=0.002)
        share = committed.share()
        before, broker_before = process.cpu_times(), broker.cpu_times()
        wait_until(lambda: committed.share() >= 1, 300, "the whole backlog", children=[child], poll_s=0.05)
        after, broker_after = process.cpu_times(), broker.cpu_times()
    journal = _Journal(cluster.bootstrap, prefix)  # read only now: it would compete for the cores
    millions = journal.samples * (1 - share) / 1e6
    return {
        "rate": journal.rate(),
        "samples": journal.samples,
        "flushes": len(journal.flushes),
        "worker_cpu": (after.user + after.system - before.user - before.system) / millions,
        "broker_cpu": (broker_after.user + broker_after.system - broker_before.user - broker_before.system) / millions,
    }


class _Committed:
    """How much of `probe-samples` the worker has committed."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"{prefix}proxima-intake"})
        self._places = [TopicPartition(f"{prefix}probe-samples", p) for p in range(PARTITIONS)]
        # Taken before the worker's metronome adds Ticks.
        self._end = {p.partition: self._consumer.get_watermark_offsets(p, timeout=10)[1] for p in self._places}

    def share(self) -> float:
        found = self._consumer.committed(self._places, timeout=10)
        done = sum(min(max(p.offset, 0), self._end[p.partition]) for p in found)
        return float(done / sum(self._end.values()))


class _Journal:
    """What the worker has put into `observations`: (append time, samples) a flush."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench-journal", "enable.auto.commit": False})
        places = [TopicPartition(f"{prefix}observations", p, OFFSET_BEGINNING) for p in range(PARTITIONS)]
        left = sum(consumer.get_watermark_offsets(p, timeout=10)[1] for p in places)
        consumer.assign(places)
        self.flushes: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])
        self.samples = 0
        while left > 0:
            for message in consumer.consume(200, timeout=0.1):
                left -= 1
                found = decode(message.value(), Observation, Tick, EngineChanged)
                if isinstance(found, Observation):
                    count = int(decode(found.body, PathPanes).columns()["outcomes"].sum())
                    flush = self.flushes[found.source.partition, found.source.first_offset]
                    flush[0] = max(flush[0], message.timestamp()[1])
                    flush[1] += count
                    self.samples += count
        consumer.close()

    def rate(self) -> float:
        """Samples a second between the first flush and the last but one of each partition.

        The last of a partition ends with a metronome's Tick, up to a tick later: waiting, not work.
        """
        last = {partition: max(f for p, f in self.flushes if p == partition) for partition, _ in self.flushes}
        whole = sorted(v for (p, f), v in self.flushes.items() if f != last[p])
        return sum(count for _, count in whole[1:]) / ((whole[-1][0] - whole[0][0]) / 1000)
