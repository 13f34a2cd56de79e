"""A liar on the topic of injected metrics, a thousand records a second, through a real broker and real stages."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import pytest

from infra.kafka.cluster import Broker
from schemas.codec import decode, encode
from schemas.records import Event, FailoverRanking, InjectedMetric, Policy
from streams.core.trust import SOURCE_SHARE
from tests.pipeline import Feed, Pipeline, judge, say, seed_from_environment

pytestmark = pytest.mark.kafka
SECONDS = 14.0
RATE = 1000
_SAID = -math.log1p(-SOURCE_SHARE)
BOUND = SOURCE_SHARE * -math.log(Policy().utility_floor) + _SAID + Policy().baseline_exponent * _SAID
LIES = (("near", "latency_ms", 60_000.0), ("near", "healthy", 0.0), ("near", "loss_ratio", 1.0),
        ("far", "latency_ms", 0.0), ("far", "loss_ratio", 0.0))  # fmt: skip


def test_a_liar_moves_a_ranking_within_its_bound_and_what_is_above_its_rate_is_counted(
    kafka: Broker, tmp_path: Path
) -> None:
    seed = seed_from_environment("a liar")
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
                    value = InjectedMetric("alpha", *LIES[sent % len(LIES)], "liar", time.time_ns() // 1_000_000)
                    lies.append(encode(value))
                    producer.produce(f"{pipeline.prefix}injected-metrics", key="alpha", value=lies[-1])
                    sent += 1
                producer.poll(0)
            assert producer.flush(60) == 0

        with Feed(pipeline, seed, primaries=("alpha",)) as feed:
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
        rankings = [decode(r.value, FailoverRanking) for r in pipeline.read("failover-rankings")]
    moved = [abs(c.contributions.get("injected:liar", 0.0)) for ranking in rankings for c in ranking.candidates]
    say(f"{sent} lies, moved by {max(moved):.2f} at most, {BOUND:.2f} are allowed")
    assert 0.1 < max(moved) <= BOUND
    assert any("injected:feed" in c.contributions for c in rankings[-1].candidates), "another source is served"
    assert Event.SOURCE_OVER_RATE in {e for r in rankings for e in r.events}
    assert "not used: liar (" in rankings[-1].reason
