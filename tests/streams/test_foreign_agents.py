"""Five agents that stand elsewhere say that a region's best target is dead, through a real broker and real stages."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from infra.kafka.cluster import Broker
from schemas.codec import decode, encode
from schemas.records import AgentHealth, DeadLetter, FailoverRanking, Outcome, PathWeights, ProbeBatch, Reason
from tests.pipeline import TARGETS, Feed, Pipeline, judge, say, seed_from_environment

pytestmark = pytest.mark.kafka
LIARS = tuple(f"elsewhere/{n}" for n in range(5))
SECONDS = 9.0


def lie(agent: str, now_ms: int) -> bytes:
    """A second in which nobody answered it but the farthest."""
    return encode(
        ProbeBatch.of(
            agent_id=agent,
            primary_region="alpha",
            started_at_ms=now_ms - 500,
            targets=list(TARGETS),
            methods=["icmp"],
            target_index=[0, 1, 2],
            method_index=[0, 0, 0],
            sent_offset_ms=[0, 1, 2],
            rtt_ms=[np.nan, np.nan, 1.0],
            outcome=[Outcome.TIMED_OUT, Outcome.TIMED_OUT, Outcome.ANSWERED],
            code=[0, 0, 0],
        )
    )


def test_what_agents_of_elsewhere_say_of_a_region_is_a_dead_letter_each_and_moves_nothing(
    kafka: Broker, tmp_path: Path
) -> None:
    seed = seed_from_environment("agents of elsewhere")
    with Pipeline(kafka.bootstrap, tmp_path) as pipeline:
        pipeline.start()
        pipeline.configure(("alpha",), agents={"alpha": ["agent-alpha"]})
        producer, topic = pipeline.producer(), f"{pipeline.prefix}probe-samples"

        def letters() -> list[DeadLetter]:
            return [decode(r.value, DeadLetter) for r in pipeline.read("dead-letters")]

        def is_bound() -> bool:  # the catalogue reaches alpha's journal beside the configuration
            health = AgentHealth(LIARS[0], "alpha", time.time_ns() // 1_000_000, 0.0, 0, 0)
            producer.produce(topic, key=LIARS[0], value=encode(health))
            producer.flush(10)
            return bool(letters())

        pipeline.wait(is_bound, 60, "the catalogue to be in the journal")
        with Feed(pipeline, seed, primaries=("alpha",)) as feed:
            begun_s, sent, killed = time.monotonic(), 0, False

            def lied() -> bool:
                nonlocal sent, killed
                for agent in LIARS:
                    producer.produce(topic, key=agent, value=lie(agent, time.time_ns() // 1_000_000))
                    sent += 1
                producer.poll(0)
                if not killed and time.monotonic() - begun_s > SECONDS / 2:
                    pipeline.kill("decide")
                    pipeline.start("decide")
                    killed = True
                return time.monotonic() - begun_s > SECONDS

            pipeline.wait(lied, SECONDS + 60, "the liars to have had their say")
            feed.stop()
        assert producer.flush(30) == 0
        pipeline.settle()
        pipeline.stop()
        judge(pipeline, feed)  # no pane of theirs was folded, and the letters are what any fold makes
        found = letters()
        rankings = [decode(r.value, FailoverRanking) for r in pipeline.read("failover-rankings")]
        weights = [decode(r.value, PathWeights) for r in pipeline.read("path-weights")]
    assert {letter.reason for letter in found} == {Reason.FOREIGN_AGENT}
    assert {name for letter in found for name in LIARS if name in letter.detail} == set(LIARS)
    assert all(letter.detail.endswith("the agents that the catalogue names for alpha") for letter in found)
    reached = [c.ineligible_reason for r in rankings for c in r.candidates if c.region_id == "middle"]
    assert "DOWN" not in reached, "nobody of alpha's own ever lost it"
    latencies = [p.latency_ms for w in weights for region, p in w.paths().items() if region == "far" and p.latency_ms]
    assert min(latencies) > 90, "they said a millisecond"
    say(f"{sent} batches of lies, {len(found)} dead letters")
