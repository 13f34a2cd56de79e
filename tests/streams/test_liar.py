"""A liar on the topic of injected metrics, a thousand records a second, through a real broker and real stages.

Under one name, and (with PROXIMA_SOAK=1, for ten minutes each) under a thousand. What it moved is found by folding the
journal again with a Tick in the place of each lie: time passes alike, and nothing else is another.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from infra.kafka.cluster import Broker
from schemas.codec import decode, encode
from schemas.errors import CodecError
from schemas.records import Event, FailoverRanking, InjectedMetric, Observation, PathWeights, Policy, Tick
from schemas.topics import partition_of
from streams.core.trust import BURST, RECORDS_PER_MINUTE, REVIEW_MS, SOURCE_SHARE
from streams.core.weights import INJECTED_SHARE
from streams.journal import JournalRecord
from streams.replay import Replay
from tests.pipeline import Feed, Pipeline, judge, say, seed_from_environment

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
SOAK: Final = bool(os.environ.get("PROXIMA_SOAK"))
SECONDS: Final = 600.0 if SOAK else 14.0
RATE: Final = 1000
LIES: Final = (("near", "latency_ms", 60_000.0), ("near", "healthy", 0.0), ("near", "loss_ratio", 1.0),
               ("far", "latency_ms", 0.0), ("far", "loss_ratio", 0.0))  # fmt: skip
_BATCH: Final = 2000
Moment = tuple[int, str]


def bound(share: float) -> float:
    """What those who have that share may move ln score by: of the network weight, of the health, of the capacity."""
    said = -math.log1p(-share)
    return share * -math.log(Policy().utility_floor) + said + Policy().baseline_exponent * said


@pytest.mark.parametrize("names", [1, pytest.param(1000, marks=pytest.mark.skipif(not SOAK, reason="PROXIMA_SOAK=1"))])
def test_a_liar_moves_a_ranking_within_its_bound_and_what_is_above_its_rate_is_counted(
    kafka: Broker, tmp_path: Path, names: int
) -> None:
    seed = seed_from_environment(f"a liar of {names} names")
    over = threading.Event()
    with Pipeline(kafka.bootstrap, tmp_path) as pipeline:
        pipeline.start()
        pipeline.configure(("alpha",))
        sent, lies = 0, list[bytes]()

        def lie() -> None:
            nonlocal sent
            producer, begun_s = pipeline.producer(), time.monotonic()
            while not over.wait(0.02):
                due = int((time.monotonic() - begun_s) * RATE)
                while sent < due:
                    name = f"liar-{sent // len(LIES) % names}"
                    value = InjectedMetric("alpha", *LIES[sent % len(LIES)], name, time.time_ns() // 1_000_000)
                    lies.append(encode(value))
                    producer.produce(f"{pipeline.prefix}injected-metrics", key="alpha", value=lies[-1])
                    sent += 1
                producer.poll(0)
            assert producer.flush(60) == 0

        with Feed(pipeline, seed, primaries=("alpha",)) as feed:
            if names > 1:  # a new source would wait its turn in a flood; this one has agreed before
                known_s = time.monotonic() + 2.5 * REVIEW_MS / 1000
                pipeline.wait(lambda: time.monotonic() >= known_s, 60, "two reviews to pass")
            liar = threading.Thread(target=lie)
            liar.start()
            until_s = time.monotonic() + SECONDS
            pipeline.wait(lambda: time.monotonic() >= until_s, SECONDS + 30, "the liar's time to pass")
            over.set()
            liar.join()
            feed.stop()
        pipeline.settle()
        pipeline.stop()
        feed.metrics += lies  # each has to be in the journal once
        judge(pipeline, feed)
        partition, topic_id = partition_of(b"alpha"), pipeline.topic_id("observations")
        journal = [record for record in pipeline.read("observations") if record.partition == partition]
        late_ms = [r.appended_at_ms - decode(r.value, PathWeights).decided_at_ms for r in pipeline.read("path-weights")]
    said = {record.offset: metric for record in journal if (metric := _metric(record)) is not None}
    lied, honest = Folded.of(journal, topic_id), Folded.of([_silenced(r, said) for r in journal], topic_id)

    allowed = bound(SOURCE_SHARE if names == 1 else INJECTED_SHARE)  # some of many names may have agreed by chance
    moved = lied.moved_beside(honest)
    served = lied.share_of("injected:feed", honest)
    waited_ms = [took for took, metric in said.values() if metric.source == "feed"]
    say(
        f"{sent} lies in {SECONDS:g} s: moved by {max(moved):.3f} at most, {allowed:.3f} allowed; another source has "
        f"{served:.2f} of its effect; its records are in the journal within {np.percentile(waited_ms, 99):.0f} ms "
        f"(p99); decided {np.percentile(late_ms, 99):.0f} ms (p99) after the tick"
    )
    assert 0.1 < max(moved) <= allowed
    assert served > 0, "another source is served"
    assert Event.SOURCE_OVER_RATE in {e for r in lied.rankings.values() for e in r.events}
    if names > 1:
        return
    trust = lied.replay.folds[partition].engines["alpha"]._state.injected.trust
    assert trust.counts("feed") == (len(waited_ms), 0), "every record of another source is used"
    taken, dropped = trust.counts("liar-0")
    assert (taken, dropped) == _admitted(journal, said)
    assert taken + dropped == sent
    assert f"not used: liar-0 ({_over(lied.last.reason)} of " in lied.last.reason
    say(f"{taken} were used, {dropped} above the rate")


@dataclass
class Folded:
    """What a journal gives."""

    replay: Replay
    rankings: dict[int, FailoverRanking]
    weights: dict[Moment, float]

    @classmethod
    def of(cls, journal: Sequence[JournalRecord], topic_id: str) -> Folded:
        """By the ordinary fold, many records at a time."""
        replay = Replay(topic_id=topic_id, topics=("failover-rankings", "path-weights"))
        found = cls(replay, {}, {})
        for at in range(0, len(journal), _BATCH):
            for outputs in replay.apply_all(journal[at : at + _BATCH]):
                for output in outputs:
                    if output.topic == "failover-rankings":
                        ranking = decode(output.value, FailoverRanking)
                        found.rankings[ranking.decided_at_ms] = ranking
                    elif output.topic == "path-weights":
                        weights = decode(output.value, PathWeights)
                        for region, path in weights.paths().items():
                            found.weights[weights.decided_at_ms, region] = path.weight
        return found

    @property
    def last(self) -> FailoverRanking:
        return self.rankings[max(self.rankings)]

    def moved_beside(self, other: Folded) -> list[float]:
        """By how much ln of each path's weight is another, wherever both have one."""
        both = [m for m in self.weights.keys() & other.weights.keys() if min(self.weights[m], other.weights[m]) > 0]
        assert len(both) > SECONDS
        return [abs(math.log(self.weights[m] / other.weights[m])) for m in both]

    def share_of(self, contribution: str, other: Folded) -> float:
        """Of what a source moves in the other, how much it moves here: the median of the moments that both tell of."""
        found = [
            here.contributions[contribution] / there.contributions[contribution]
            for at in self.rankings.keys() & other.rankings.keys()
            for here in self.rankings[at].candidates
            for there in other.rankings[at].candidates
            if here.region_id == there.region_id
            and contribution in here.contributions
            and there.contributions.get(contribution)
        ]
        assert found, f"no ranking of both has {contribution}"
        return float(np.median(found))


def _metric(record: JournalRecord) -> tuple[int, InjectedMetric] | None:
    """How long it took into the journal, by the broker's clock, and what was said; None: it is something else."""
    try:
        observation = decode(record.value, Observation)
        metric = decode(observation.body, InjectedMetric)
    except CodecError:
        return None
    return record.appended_at_ms - observation.source.appended_at_ms, metric


def _silenced(record: JournalRecord, said: dict[int, tuple[int, InjectedMetric]]) -> JournalRecord:
    is_lie = record.offset in said and said[record.offset][1].source.startswith("liar")
    return replace(record, value=_NOTHING) if is_lie else record


_NOTHING: Final = encode(Tick("nobody"))


def _admitted(journal: Sequence[JournalRecord], said: dict[int, tuple[int, InjectedMetric]]) -> tuple[int, int]:
    """Lies within and above the rate, counted by a bucket of our own over the journal's append times."""
    level, filled_ms, clock_ms, counts = float(BURST), 0, 0, [0, 0]
    for record in journal:
        clock_ms = max(clock_ms, record.appended_at_ms)
        if record.offset in said and said[record.offset][1].source == "liar-0":
            level = min(BURST, level + (clock_ms - (filled_ms or clock_ms)) * RECORDS_PER_MINUTE / 60_000)
            filled_ms = clock_ms
            counts[level < 1] += 1
            level -= level >= 1
    return counts[0], counts[1]


def _over(reason: str) -> int:
    """The number that the ranking's reason gives."""
    return int(reason.partition("liar-0 (")[2].split()[0])
