"""Bad input through real Kafka and a real worker: a dead letter each, and the good records around it processed.

Every record that must fail stands between two that must not. Whether all good ones came through is told by the panes:
each sample has a value of its own. The long form of the fuzzing runs with PROXIMA_SOAK=1.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import struct
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from confluent_kafka import Producer

from infra.kafka.cluster import Broker
from schemas.codec import MAGIC, decode, encode, fingerprint_of, schema_of, to_plain
from schemas.errors import CodecError
from schemas.records import (
    AgentHealth,
    BandwidthMeasurement,
    DeadLetter,
    FailoverConfiguration,
    InjectedMetric,
    Observation,
    PathPanes,
    ProbeBatch,
    ReadinessCheck,
    ReadinessReport,
    Reason,
    Region,
    RegionCatalog,
    Source,
    Tick,
)
from schemas.topics import JOURNAL_BYTES_MAX, MESSAGE_BYTES_MAX
from streams.core.panes import Flush
from streams.journal import JournalRecord
from streams.replay import Replay
from tests.pipeline import (
    Feed,
    Key,
    Pane,
    Pipeline,
    judge,
    note_samples,
    panes_of,
    same_panes,
    say,
    seed_from_environment,
)

pytestmark = pytest.mark.kafka

PRIMARY = "alpha"
_HOUR_MS = 3600 * 1000
_BATCH_OVERHEAD_BYTES = 100  # of Kafka's record batch, so that the broker takes a message of the largest size
_RSS_STEADY_BYTES = 48 << 20  # a process's growth after warm-up; the allocator's own swings are half of it


def batch(now_ms: int, **changes: Any) -> ProbeBatch:
    """A good batch, but for what is changed."""
    columns: dict[str, Any] = {
        "target_index": [0, 1, 2],
        "method_index": [0, 0, 0],
        "sent_offset_ms": [0, 10, 20],
        "rtt_ms": [20, 60, np.nan],
        "outcome": [0, 0, 1],
        "code": [0, 0, 0],
    }
    fields: dict[str, Any] = {
        "agent_id": "bad-agent",
        "primary_region": PRIMARY,
        "started_at_ms": now_ms - 1000,
        "targets": ["near", "middle", "far"],
        "methods": ["icmp"],
    }
    for name, value in changes.items():
        (columns if name in columns else fields)[name] = value
    return ProbeBatch.of(**fields, **columns)


def metric(now_ms: int, **changes: Any) -> bytes:
    """An injected metric in JSON, good but for what is changed; a value of bytes stands there as it is."""
    good = to_plain(InjectedMetric(PRIMARY, "far", "latency_ms", 50.0, "bad-source", now_ms, 60_000))
    raw = {name: value for name, value in changes.items() if isinstance(value, bytes)}
    text = json.dumps({**good, **{k: v for k, v in changes.items() if k not in raw}})
    for name, value in raw.items():
        text = text.replace(f'"{name}": {json.dumps(good[name])}', f'"{name}": {value.decode()}')
    return text.encode()


def report(now_ms: int, checks: list[ReadinessCheck] | None = None) -> ReadinessReport:
    """A good readiness report, but for its checks."""
    well = [ReadinessCheck("http", True, "answered 200")]
    return ReadinessReport(PRIMARY, "far", "bad-prober", now_ms, well if checks is None else checks)


def configuration(**changes: Any) -> bytes:
    """A FailoverConfiguration in JSON that would be the primary's second."""
    return json.dumps(
        {"primary_region": PRIMARY, "potential_failover_regions": ["near"], "version": 2, "based_on": 1, **changes}
    ).encode()


def _observation(body: bytes) -> bytes:
    return encode(Observation(PRIMARY, Source("injected-metrics", f"forged-{body.hex()}", 0, 1, 2), body))


_LARGEST_BYTES = MESSAGE_BYTES_MAX - _BATCH_OVERHEAD_BYTES
_LARGEST_JOURNAL_BYTES = JOURNAL_BYTES_MAX - _BATCH_OVERHEAD_BYTES
Make = Callable[[int], bytes | None]

# (topic, the dead letter's reason): what it is, and its bytes at a moment
BAD: dict[tuple[str, Reason], dict[str, Make]] = {
    ("probe-samples", Reason.MALFORMED): {
        "random bytes": lambda _: random.Random(1).randbytes(300),
        "nothing": lambda _: b"",
        "a tombstone": lambda _: None,
        "truncated Avro": lambda now: encode(batch(now))[:-7],
        "bytes behind the record": lambda now: encode(batch(now)) + b"\0",
        "random bytes as large as the broker takes": lambda _: random.Random(2).randbytes(_LARGEST_BYTES),
    },
    ("probe-samples", Reason.UNKNOWN_SCHEMA): {
        "an unknown schema": lambda now: MAGIC + b"\x01" * 8 + encode(batch(now))[10:],
    },
    ("probe-samples", Reason.REGISTRY_NOT_CONFIGURED): {"a registry's wire format": lambda _: b"\0\0\0\0\1abc"},
    ("probe-samples", Reason.WRONG_RECORD): {"another topic's record": lambda _: _observation(b"")},
    ("probe-samples", Reason.OUT_OF_RANGE): {
        "NaN where a probe was answered": lambda now: encode(batch(now, outcome=[0, 0, 0])),
        "an infinite time": lambda now: encode(batch(now, rtt_ms=[np.inf, 1, np.nan])),
        "a negative time": lambda now: encode(batch(now, rtt_ms=[-1, 1, np.nan])),
        "a send offset of NaN": lambda now: encode(batch(now, sent_offset_ms=[0, np.nan, 0])),
        "an unknown outcome": lambda now: encode(batch(now, outcome=[0, 0, 77])),
        "an index beyond the targets": lambda now: encode(batch(now, target_index=[0, 1, 3])),
        "a time before the epoch": lambda now: encode(batch(now, started_at_ms=-now)),
        "an empty batch": lambda now: encode(batch(now, **dict.fromkeys(ProbeBatch.COLUMNS, ()))),
        "columns of unequal length": lambda now: encode(replace(batch(now), rtt_ms=b"1234")),
        "a region that is no region id": lambda now: encode(batch(now, primary_region="Ä b")),
        "names that multiply beyond any memory": lambda now: encode(
            batch(now, targets=["a"] * 260_000, methods=["b"] * 260_000)
        ),
        "bandwidth of NaN": lambda now: encode(BandwidthMeasurement("a", PRIMARY, "far", now, math.nan, 0.1, 1)),
    },
    ("probe-samples", Reason.FROM_THE_FUTURE): {
        "samples an hour ahead": lambda now: encode(batch(now, started_at_ms=now + _HOUR_MS)),
        "an agent's health an hour ahead": lambda now: encode(AgentHealth("a", PRIMARY, now + _HOUR_MS, 0.0, 0, 0)),
    },
    ("probe-samples", Reason.TOO_LATE): {
        "samples seven hours late": lambda now: encode(batch(now, started_at_ms=now - 7 * _HOUR_MS)),
    },
    ("injected-metrics", Reason.OUT_OF_RANGE): {
        "a wrong unit": lambda now: metric(now, metric="latency_s"),
        "a latency of the primary itself": lambda now: metric(now, target_region=None),
        "a path that ends where it begins": lambda now: metric(now, target_region=PRIMARY),
        "a unit in the value": lambda now: metric(now, value="50 ms"),
        "NaN in JSON": lambda now: metric(now, value=b"NaN"),
        "an integer beyond any float": lambda now: metric(now, value=b"1" + b"0" * 400),
        "a time beyond any float": lambda now: metric(now, observed_at_ms=b"1" + b"0" * 400),
        "a key that is no text": lambda _: b'{"\\ud800": 1}',
        "a source that is no text": lambda now: metric(now, source="\ud800"),
        "a metric as large as the broker takes": lambda now: metric(now, source="x" * (_LARGEST_BYTES - 200)),
    },
    ("injected-metrics", Reason.MALFORMED): {
        "JSON nested without end": lambda _: b'{"a":' * 100_000,
        "JSON cut off": lambda now: metric(now)[:-5],
        "a metric's tombstone": lambda _: None,
    },
    ("injected-metrics", Reason.FROM_THE_FUTURE): {
        "a metric observed an hour ahead": lambda now: metric(now, observed_at_ms=now + _HOUR_MS),
    },
    ("injected-metrics", Reason.TOO_LATE): {
        "a metric that ended before it came": lambda now: metric(now, observed_at_ms=now - 60_000, ttl_ms=60_000),
    },
    ("readiness-reports", Reason.OUT_OF_RANGE): {
        "a report without a check": lambda now: encode(report(now, [])),
        "a check of NaN": lambda now: encode(report(now, [ReadinessCheck("http", True, "well", observed=math.nan)])),
    },
    ("readiness-reports", Reason.FROM_THE_FUTURE): {
        "a report an hour ahead": lambda now: encode(report(now + _HOUR_MS)),
    },
    ("failover-config", Reason.OUT_OF_RANGE): {
        "a version beyond 64 bits": lambda _: configuration(version=1 << 70),
        "an author that is no text": lambda _: configuration(author="\ud800"),
        "a policy of NaN": lambda _: configuration(policy={"margin_ratio": math.nan}),
        "a primary that fails over to itself": lambda _: configuration(potential_failover_regions=[PRIMARY]),
        "a catalogue beyond the poles": lambda _: encode(RegionCatalog(2, [Region("far", 91.0, 0.0)])),
    },
    ("observations", Reason.MALFORMED): {
        "random bytes in the journal": lambda _: random.Random(3).randbytes(100),
        "a tombstone in the journal": lambda _: None,
        "an observation of random bytes": lambda _: _observation(b"\1\2\3"),
        "a journal record as large as the broker takes": lambda _: random.Random(4).randbytes(_LARGEST_JOURNAL_BYTES),
    },
    ("observations", Reason.OUT_OF_RANGE): {
        "an observation that intake would have refused": lambda now: _observation(
            encode(InjectedMetric(PRIMARY, "far", "latency_s", math.nan, "x", now))
        ),
    },
}

# These are found by the fold, which sees the record that intake made of them.
UNKNOWN: dict[tuple[str, Reason], dict[str, Make]] = {
    ("probe-samples", Reason.UNKNOWN_REGION): {
        "samples for a primary nobody configured": lambda now: encode(batch(now, primary_region="nobodys")),
        "samples against a region nobody configured": lambda now: encode(
            batch(now, targets=["near", "nowhere", "far"])
        ),
    },
    ("injected-metrics", Reason.UNKNOWN_REGION): {
        "a metric about a region nobody configured": lambda now: metric(now, target_region="nowhere"),
        "a metric for a primary nobody configured": lambda now: metric(now, primary_region="nobodys"),
    },
    ("readiness-reports", Reason.UNKNOWN_REGION): {
        "a report on a region nobody configured": lambda now: encode(replace(report(now), target_region="nowhere")),
    },
}


def test_each_kind_of_bad_input_is_dead_lettered_with_its_bytes_and_the_records_around_it_are_processed(
    kafka: Broker, tmp_path: Path
) -> None:
    with Pipeline(kafka.bootstrap, tmp_path) as pipeline:
        pipeline.start()
        pipeline.configure((PRIMARY,))
        pids = {name: child.pid for name, child in pipeline.running.items()}
        feed = Feed(pipeline, 1, primaries=(PRIMARY,))
        producer = pipeline.producer()
        sent: dict[tuple[str, int, int], str] = {}
        for (topic, _), kinds in {**BAD, **UNKNOWN}.items():
            for name, make in kinds.items():
                now_ms = time.time_ns() // 1_000_000
                feed.batch(PRIMARY, now_ms)
                sent[_send(pipeline, producer, topic, make(now_ms))] = name
        feed.batch(PRIMARY, time.time_ns() // 1_000_000)
        feed.stop()
        assert producer.flush(30) == 0
        names = [name for kinds in (*BAD.values(), *UNKNOWN.values()) for name in kinds]
        assert sorted(sent.values()) == sorted(names)
        pipeline.settle()
        assert {name: child.pid for name, child in pipeline.running.items()} == pids, pipeline.deaths
        pipeline.stop()
        letters = _letters(pipeline)
        verdict = judge(pipeline, None)
        values = {(topic, r.partition, r.offset): r for topic, _ in (*BAD, *UNKNOWN) for r in pipeline.read(topic)}
        good = {key: pane for key, pane in judged_panes(pipeline).items() if key[1] == f"agent-{PRIMARY}"}

    same_panes(feed.panes, good)
    by_name = {sent[place]: letter for letter in letters if (place := _place(letter)) in sent}
    for name, reason in ((name, reason) for (_, reason), kinds in BAD.items() for name in kinds):
        assert name in by_name, f"{name}: no dead letter"
        letter = by_name[name]
        original = values[_place(letter)]
        assert (letter.reason, letter.original) == (reason, original.value), f"{name}: {letter.reason}: {letter.detail}"
        assert letter.original_key == original.key
        assert letter.appended_at_ms == original.appended_at_ms
        assert letter.detail, name
    unknown = [letter for letter in letters if letter.reason == Reason.UNKNOWN_REGION]
    assert len(unknown) == sum(map(len, UNKNOWN.values()))
    assert all(letter.found_by == "decide" and letter.original == values[_place(letter)].value for letter in unknown)
    assert len(letters) == len(names)
    say(f"{len(letters)} kinds of bad input, {feed.samples} good samples between them, {verdict.rankings} rankings")


def test_what_unpacks_to_more_than_any_letter_takes_is_one_all_the_same_and_stops_nothing(
    kafka: Broker, tmp_path: Path
) -> None:
    """A broker bounds a batch as it is compressed: a kilobyte may be many megabytes to whoever reads it."""
    large = {"message.max.bytes": 1_000_000_000, "queue.buffering.max.kbytes": 1_000_000, "compression.type": "zstd"}
    settings = {"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random", "log_level": 0, **large}
    bomb = b'{"a":"' + bytes(12 << 20)
    with Pipeline(kafka.bootstrap, tmp_path) as pipeline:
        pipeline.start("intake")
        producer: Any = Producer(settings)
        for topic, value, key in (
            ("injected-metrics", bomb, b"alpha"),
            ("probe-samples", MAGIC + bytes(JOURNAL_BYTES_MAX), b"agent"),
            ("injected-metrics", b"{}", bytes(9 << 20)),
        ):
            producer.produce(pipeline.prefix + topic, value, key)
            assert producer.flush(60) == 0
        good = InjectedMetric("alpha", "near", "latency_ms", 5.0, "feed", time.time_ns() // 1_000_000)
        producer.produce(f"{pipeline.prefix}injected-metrics", encode(good), b"alpha")
        assert producer.flush(60) == 0
        pipeline.wait(lambda: len(pipeline.read("dead-letters")) == 3, 60, "three dead letters")
        letters = [decode(r.value, DeadLetter) for r in pipeline.read("dead-letters")]
        assert {letter.reason for letter in letters} == {Reason.TOO_LARGE}
        whole = next(letter for letter in letters if f"of {len(bomb)} bytes" in letter.detail)
        assert bomb.startswith(whole.original)
        assert hashlib.sha256(bomb).hexdigest() in whole.detail
        assert sorted(len(letter.original_key or b"") for letter in letters) == [5, 5, 4096]
        pipeline.wait(lambda: any(b"feed" in r.value for r in pipeline.read("observations")), 60, "the good record")
        assert pipeline.deaths == []
        pipeline.stop()


@pytest.mark.soak
def test_a_backlog_of_hours_sent_at_once_does_not_outgrow_the_journals_records(kafka: Broker, tmp_path: Path) -> None:
    with Pipeline(kafka.bootstrap, tmp_path) as pipeline:
        pipeline.start()
        pipeline.configure((PRIMARY,))
        producer, sent = pipeline.producer(), dict[Key, Pane]()
        now_ms = time.time_ns() // 1_000_000
        at, target, method = (a.ravel() for a in np.meshgrid(np.arange(600), np.arange(3), np.arange(3)))
        batches = []
        for number in range(1, 36):
            own_ms = 1 + np.arange(at.size) / 1000 + number * 10
            columns = {"target_index": target, "method_index": method, "sent_offset_ms": at * 1000, "rtt_ms": own_ms}
            zeros = {"outcome": np.zeros(at.size), "code": np.zeros(at.size)}
            started = now_ms - number * 600_000
            batches.append(
                batch(now_ms, started_at_ms=started, methods=["icmp", "tcp-syn", "trace"], **columns, **zeros)
            )
        for each in batches:
            note_samples(sent, each)
        for value in map(encode, batches):
            producer.produce(f"{pipeline.prefix}probe-samples", key="bad-agent", value=value)
        assert producer.flush(30) == 0
        pipeline.settle()
        pipeline.stop()
        same_panes(sent, judged_panes(pipeline))
        assert not _letters(pipeline)
        judge(pipeline, None)
    assert not pipeline.deaths, "\n".join(pipeline.deaths)


@pytest.mark.parametrize(
    "messages",
    [pytest.param(5_000, id="short"), pytest.param(100_000, id="long", marks=pytest.mark.soak)],
)
def test_fuzzed_messages_leave_the_worker_alive_its_memory_steady_and_every_good_record_processed(
    kafka: Broker, tmp_path: Path, messages: int
) -> None:
    seed = seed_from_environment(f"{messages} fuzzed messages")
    chunks = 10 if messages > 10_000 else 5
    with Pipeline(kafka.bootstrap, tmp_path) as pipeline:
        pipeline.start()
        pipeline.configure((PRIMARY, "beta"))
        pids = {name: child.pid for name, child in pipeline.running.items()}
        feed = Feed(pipeline, seed, primaries=(PRIMARY,))
        producer, fuzz = pipeline.producer(), _fuzz(random.Random(seed))
        began_s, rss = time.monotonic(), []
        for _ in range(chunks):
            for _ in range(messages // chunks):
                topic, key, value = next(fuzz)
                producer.produce(f"{pipeline.prefix}{topic}", key=key, value=value)
                producer.poll(0)
            feed.batch(PRIMARY, time.time_ns() // 1_000_000)
            assert producer.flush(60) == 0
            pipeline.settle()
            rss.append({name: psutil.Process(pid).memory_info().rss for name, pid in pids.items()})
        feed.stop()
        pipeline.settle()
        seconds = time.monotonic() - began_s
        assert {name: child.pid for name, child in pipeline.running.items()} == pids, "\n".join(pipeline.deaths)
        pipeline.stop()
        counts = _held_to_account(pipeline, feed)
    say(f"{messages} fuzzed messages in {seconds:.0f} s: {dict(counts)}")
    for name in pids:
        mib = [round(r[name] / 2**20) for r in rss]
        say(f"{name[0]}: resident MiB on the way {mib}")
        grown = max(r[name] for r in rss[3:]) - rss[2][name]
        assert grown <= _RSS_STEADY_BYTES, f"{name[0]} grew by {grown >> 20} MiB after warm-up: {mib}"


def _held_to_account(pipeline: Pipeline, feed: Feed) -> Counter[str]:
    """Each record is in the journal or a dead letter, never both and never neither."""
    letters = _letters(pipeline)
    counts = Counter(f"{letter.found_by}: {letter.reason}" for letter in letters)
    refused = {_place(letter) for letter in letters if letter.found_by == "intake"}
    journal = pipeline.read("observations")
    sent: dict[Key, Pane] = {}
    for record in pipeline.read("probe-samples"):
        if ("probe-samples", record.partition, record.offset) not in refused:
            content = decode(record.value, ProbeBatch, BandwidthMeasurement, AgentHealth, Tick)
            if isinstance(content, ProbeBatch):
                note_samples(sent, content)
                counts["good batches"] += 1
    same_panes(sent, panes_of(journal, _topic_id(pipeline, "probe-samples")))
    for key, pane in feed.panes.items():
        assert sent[key].figures == pane.figures, "a good record's samples are not where they belong"
    for topic in ("injected-metrics", "failover-config"):
        places = [(topic, r.partition, r.offset) for r in pipeline.read(topic)]
        taken = _forwarded(journal, topic, _topic_id(pipeline, topic))
        assert {place: (place in refused) + (place in taken) for place in places} == dict.fromkeys(places, 1)
        counts[f"good on {topic}"] = len(taken)
    with warnings.catch_warnings():  # NumPy's, about a fuzzed policy's numbers: the worker goes on, and so does this
        warnings.simplefilter("ignore", RuntimeWarning)
        made = list(Replay(topic_id=pipeline.topic_id("observations")).run(journal))
    due = {m.output.value for m in made if m.output.topic == "dead-letters"}
    assert {encode(letter) for letter in letters if letter.found_by == "decide"} == due
    return counts


def _forwarded(journal: list[JournalRecord], topic: str, topic_id: str) -> set[tuple[str, int, int]]:
    found = set()
    for record in journal:
        try:
            source = decode(record.value, Observation).source
        except CodecError:
            continue
        if (source.topic, source.topic_id) == (topic, topic_id):
            found.add((topic, source.partition, source.first_offset))
    return found


def _fuzz(chance: random.Random) -> Iterator[tuple[str, str, bytes | None]]:
    """Valid records of all kinds, most of them spoilt; forever."""
    for number in itertools.count():
        now_ms = time.time_ns() // 1_000_000
        # Not intake's own sources: what claims to be one of these makes the fold drop what intake sends afterwards.
        forged = Source("injected-metrics", f"forged-{number % 50}", 0, number, number + 1, now_ms)
        injected = InjectedMetric("beta", "far", "latency_ms", chance.uniform(1, 500), "fuzz", now_ms, 60_000)
        topic, record = chance.choice(
            (
                ("probe-samples", batch(now_ms, primary_region="beta")),
                ("probe-samples", BandwidthMeasurement("bad-agent", "beta", "far", now_ms, 1e9, 0.1, 1000)),
                ("probe-samples", AgentHealth("bad-agent", "beta", now_ms, 0.0, 0, 0)),
                ("injected-metrics", injected),
                ("injected-metrics", None),
                ("failover-config", FailoverConfiguration("beta", ["near", "far"], 3, {"far": 0.5}, 2)),
                ("failover-config", RegionCatalog(1, [Region("near", 5, 5), Region("far", 1, 1, "x", 0.5)])),
                ("observations", Observation("beta", forged, encode(injected))),
                ("observations", Observation("beta", forged, encode(batch(now_ms)))),
                ("observations", Observation("beta", forged, _spoilt(encode(_panes(now_ms)), chance) or b"")),
                ("observations", Observation("beta", forged, _spoilt(encode(injected), chance) or b"")),
                ("observations", Tick("nobody")),
            )
        )
        value = to_json(injected) if record is None else encode(record)
        yield topic, "beta", _spoilt(value, chance)


def _panes(now_ms: int) -> PathPanes:
    flush = Flush(pane_ms=1000, ahead_ms_max=5000, lateness_ms_max=_HOUR_MS)
    assert flush.add(batch(now_ms, primary_region="beta"), 0, now_ms) is None
    return flush.condense()[0]["beta"]


def to_json(record: InjectedMetric) -> bytes:
    return json.dumps(to_plain(record)).encode()


def _spoilt(value: bytes, chance: random.Random) -> bytes | None:
    data = bytearray(value)
    at = chance.randrange(len(data))
    match chance.randrange(9):
        case 0:
            for _ in range(chance.randrange(1, 4)):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        case 1:
            del data[at:]
        case 2:
            data[at:at] = chance.randbytes(chance.randrange(1, 20))
        case 3:
            data[at:at] = data[: chance.randrange(len(data))]
        case 4:
            cls = chance.choice((ProbeBatch, InjectedMetric, FailoverConfiguration, Observation, DeadLetter))
            data[:10] = MAGIC + fingerprint_of(schema_of(cls))
        case 5:
            data = bytearray(chance.randbytes(chance.randrange(1000)))
        case 6:
            extreme = chance.choice(
                (b"\xff" * 9 + b"\x01", b"\x80" * 9 + b"\x01", struct.pack("<d", float("nan")), b"\0" * 8)
            )
            data[at : at + len(extreme)] = extreme
        case 7:
            return chance.choice((None, b"", value))
        case _:
            digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()] or [at]
            data[chance.choice(digits)] = chance.choice(b'9"{}[]e.-\\')
    return bytes(data)


def judged_panes(pipeline: Pipeline) -> dict[Key, Pane]:
    """What the journal holds of the samples of configured primaries."""
    panes = panes_of(pipeline.read("observations"), _topic_id(pipeline, "probe-samples"))
    return {key: pane for key, pane in panes.items() if key[0] == PRIMARY}


def _topic_id(pipeline: Pipeline, topic: str) -> str:
    """As intake writes it (librdkafka's plain base64), which is not how Kafka's own tools do."""
    for record in pipeline.read("observations"):
        try:
            source = decode(record.value, Observation).source
        except CodecError:
            continue
        if source.topic == topic and source.topic_id != "forged" and _alike(source.topic_id, pipeline.topic_id(topic)):
            return source.topic_id
    return ""


def _alike(left: str, right: str) -> bool:
    return left.replace("+", "-").replace("/", "_").rstrip("=") == right


def _letters(pipeline: Pipeline) -> list[DeadLetter]:
    """Each once: a restarted worker may say some again."""
    found = [decode(r.value, DeadLetter) for r in pipeline.read("dead-letters")]
    return list({encode(letter): letter for letter in found}.values())


def _place(letter: DeadLetter) -> tuple[str, int, int]:
    return letter.source_topic, letter.source_partition, letter.source_offset


def _send(pipeline: Pipeline, producer: Any, topic: str, value: bytes | None) -> tuple[str, int, int]:
    """Put one record on a topic; returns where it is."""
    placed: list[Any] = []
    producer.produce(
        f"{pipeline.prefix}{topic}",
        key=f"agent-{PRIMARY}",
        value=value,
        on_delivery=lambda error, message: placed.append(error or (topic, message.partition(), message.offset())),
    )
    assert producer.flush(30) == 0
    place: tuple[str, int, int] = placed[0]
    assert isinstance(place, tuple), place
    return place
