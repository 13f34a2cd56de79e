"""`kill -9` of workers, brokers and a zone: nothing lost, nothing twice, the same bytes as without a kill.

What a run published is held against its own journal, folded here once more without any kill; and every sample that
was sent must be in exactly one pane of what the fold took in. The long forms run with PROXIMA_SOAK=1.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from infra.kafka.admin import admin_client
from infra.kafka.cluster import Broker, KafkaCluster
from schemas.codec import decode, encode
from schemas.records import Event, FailoverRanking, InjectedMetric, Observation, Reason
from tests.pipeline import Feed, Pipeline, Verdict, Witness, judge, say, seed_from_environment
from tests.streams.broken_engine import BREAKS, BrokenEngine

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize(
    ("workers", "seconds", "kills"),
    [
        pytest.param(1, 60, 10, id="one-worker", marks=pytest.mark.soak),
        pytest.param(2, 60, 10, id="two-workers", marks=pytest.mark.soak),
    ],
)
def test_worker_killed_at_random_points_publishes_what_an_unharmed_one_would(
    kafka: Broker, tmp_path: Path, workers: int, seconds: int, kills: int
) -> None:
    seed = seed_from_environment(f"{kills} kills of {workers} worker(s) in {seconds} s")
    chance = random.Random(seed)
    names = [f"worker-{n + 1}" for n in range(workers)]
    with Pipeline(kafka.bootstrap, tmp_path) as pipeline:
        for name in names:
            pipeline.start(worker=name)
        pipeline.configure()
        with Feed(pipeline, seed) as feed:
            began_s, killed_at = time.monotonic(), []
            for at_s in sorted(chance.uniform(0, seconds) for _ in range(kills)):
                _until(pipeline, began_s + at_s)
                victim = chance.choice(names)
                killed_at.append(time.time_ns() // 1_000_000)
                stages = chance.choice((("intake",), ("decide",), ("intake", "decide")))
                for stage in stages:
                    pipeline.kill(stage, victim)
                # Beside another worker it sometimes stays away until its partitions were given to the other.
                if workers > 1 and chance.random() < 0.5:
                    _until(pipeline, time.monotonic() + 5)
                pipeline.start(*stages, worker=victim)
            _until(pipeline, began_s + seconds)
            feed.stop()
        pipeline.settle()
        pipeline.stop()
        verdict = judge(pipeline, feed)
    assert not pipeline.deaths, "\n".join(pipeline.deaths)
    assert not verdict.dead_letters
    _report(verdict, "kill", killed_at)


@pytest.mark.soak
def test_the_only_broker_killed_and_started_again_costs_time_and_nothing_else(tmp_path: Path) -> None:
    seconds, kills = 60, 5
    seed = seed_from_environment(f"{kills} kill(s) of the only broker in {seconds} s")
    chance = random.Random(seed)
    with KafkaCluster.start(1, log_dir=tmp_path) as cluster, Pipeline(cluster.bootstrap, tmp_path) as pipeline:
        pipeline.start()
        pipeline.configure()
        with Feed(pipeline, seed) as feed:
            began_s, killed_at = time.monotonic(), []
            for at_s in sorted(chance.uniform(3, seconds - 3) for _ in range(kills)):
                _until(pipeline, began_s + at_s)
                killed_at.append(time.time_ns() // 1_000_000)
                cluster.kill(1)
                cluster.restart(1)
            _until(pipeline, began_s + seconds)
            feed.stop()
        pipeline.settle()
        pipeline.stop()
        verdict = judge(pipeline, feed)
    assert not verdict.dead_letters
    say(f"stages that ended by themselves and were started again: {len(pipeline.deaths)}")
    _report(verdict, "broker's kill", killed_at)


@pytest.mark.parametrize("seconds", [pytest.param(12, id="short"), pytest.param(60, id="long", marks=pytest.mark.soak)])
def test_a_zone_killed_with_its_broker_and_its_worker_leaves_the_others_deciding(tmp_path: Path, seconds: int) -> None:
    seed = seed_from_environment(f"a zone of three killed, {seconds} s")
    with KafkaCluster.start(3, log_dir=tmp_path) as cluster, Pipeline(cluster.bootstrap, tmp_path) as pipeline:
        cluster.wait_in_sync()
        for zone in ("a", "b"):
            pipeline.start(worker=f"zone-{zone}")
        pipeline.configure()
        with Feed(pipeline, seed) as feed:
            _until(pipeline, time.monotonic() + seconds / 3)
            killed_at = time.time_ns() // 1_000_000
            for stage in ("intake", "decide"):
                pipeline.kill(stage, "zone-a")
            cluster.kill(1)
            _until(pipeline, time.monotonic() + seconds * 2 / 3)
            feed.stop()
        pipeline.settle()
        pipeline.stop()
        verdict = judge(pipeline, feed)
    assert not verdict.dead_letters
    say(f"stages that ended by themselves and were started again: {len(pipeline.deaths)}")
    _report(verdict, "zone's kill", [killed_at])


class BrokenWitness(BrokenEngine, Witness):
    """The broken engine, noting what it took in."""


class Unbroken(Witness):
    """What the broken engine is to come to: the records that it raises on leave no trace."""

    def inject(self, metric: InjectedMetric, now_ms: int) -> bool:
        return False if metric.source == BREAKS else super().inject(metric, now_ms)


def test_an_engine_that_raises_on_a_record_dead_letters_it_and_goes_on(kafka: Broker, tmp_path: Path) -> None:
    seed = seed_from_environment("a broken engine")
    with Pipeline(kafka.bootstrap, tmp_path) as pipeline:
        pipeline.start("intake")
        pipeline.start("decide", program=("-m", "tests.streams.broken_engine"))
        pipeline.configure()
        producer, bad = pipeline.producer(), []
        with Feed(pipeline, seed) as feed:
            for number in range(3):
                now_ms = time.time_ns() // 1_000_000
                bad.append(encode(InjectedMetric("alpha", "far", "loss_ratio", number / 10, BREAKS, now_ms)))
                producer.produce(f"{pipeline.prefix}injected-metrics", key="alpha", value=bad[-1])
                producer.flush(30)
                if number == 1:
                    pipeline.kill("decide")
                    pipeline.start("decide", program=("-m", "tests.streams.broken_engine"))
                _until(pipeline, time.monotonic() + 1.5)
            feed.stop()
        pipeline.settle()
        pipeline.stop()
        judge(pipeline, None, BrokenWitness)  # no samples: a rollback takes in again what was taken in before
        verdict = judge(pipeline, feed, Unbroken, letters=False)  # it makes none of these dead letters itself
    assert not pipeline.deaths, "\n".join(pipeline.deaths)
    assert [d.reason for d in verdict.dead_letters] == [Reason.FOLD_ERROR] * 3
    assert sorted(decode(d.original, Observation).body for d in verdict.dead_letters) == sorted(bad)
    _report(verdict, "kill", [])


def test_journal_records_deleted_under_a_stopped_worker_are_said_as_a_gap(kafka: Broker, tmp_path: Path) -> None:
    seed = seed_from_environment("a gap")
    with Pipeline(kafka.bootstrap, tmp_path) as pipeline:
        pipeline.start()
        pipeline.configure()
        with Feed(pipeline, seed, primaries=("alpha",)) as feed:
            _until(pipeline, time.monotonic() + 3)
            pipeline.kill("decide")
            ends = pipeline.ends("observations")
            pipeline.wait(
                lambda: pipeline.ends("observations")[4] > ends[4] + 2, 30, "more of alpha's journal"
            )  # alpha's partition
            before = max(_sequences(pipeline))
            admin = admin_client(kafka.bootstrap)
            upto = [TopicPartition(f"{pipeline.prefix}observations", p, e) for p, e in ends.items()]
            upto[4].offset = pipeline.ends("observations")[4]
            for future in admin.delete_records(upto).values():
                future.result()
            pipeline.start("decide")
            pipeline.wait(lambda: Event.GAP in _events(pipeline, before), 30, "a ranking that says GAP")
            feed.stop()
        pipeline.stop()
        sequences = _sequences(pipeline)
    assert sequences == list(range(1, len(sequences) + 1)), "no number skipped, and none with a second content"


def _sequences(pipeline: Pipeline) -> list[int]:
    rankings = [decode(r.value, FailoverRanking) for r in pipeline.read("failover-rankings")]
    return [r.sequence for r in rankings if r.primary_region == "alpha"]


def _events(pipeline: Pipeline, after: int) -> set[str]:
    rankings = [decode(r.value, FailoverRanking) for r in pipeline.read("failover-rankings")]
    return {e for r in rankings if r.primary_region == "alpha" and r.sequence > after for e in r.events}


def _until(pipeline: Pipeline, at_s: float) -> None:
    """Let the run go on until a moment (its length is what is asked for), starting again what ends by itself."""
    pipeline.wait(lambda: time.monotonic() >= at_s, 600, "the run to go on")


def _report(verdict: Verdict, what: str, killed_at: list[int]) -> None:
    gaps = [round(verdict.next_decision_s(at), 2) for at in killed_at]
    say(
        f"{verdict.rankings} rankings and {verdict.weights} path weights as without a kill "
        f"({verdict.repeated} rankings repeated), {verdict.samples} samples each in one pane "
        f"({verdict.repeated_observations} of {verdict.journal} journal records repeated)"
    )
    if gaps:
        say(f"from a {what} to the next decision of every primary: {gaps} s")
