"""A worker with another model on a real broker: it learns from the journal before it counts, killed or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from infra.kafka.cluster import Broker
from schemas.codec import decode, encode
from schemas.errors import CodecError
from schemas.records import (
    DisruptionPrediction,
    Event,
    FailoverConfiguration,
    FailoverRanking,
    ModelWarmed,
    Policy,
    PredictionScorecard,
    Snapshot,
)
from streams.core.state import from_scalars, to_scalars
from tests.pipeline import PRIMARIES, TARGETS, Feed, Pipeline, say, seed_from_environment
from tests.streams.renewed_model import LEARNS, RENEWED, SLOWLY

pytestmark = pytest.mark.kafka
POLICY = replace(Policy(), prediction_every_ms=1000, prediction_horizon_ms=2000)
# So much does the first model learn from, of each primary: more than the new one can while it reads the history.
LABELS_MIN = 60
SURE = {"trust": "TRUSTED", "value": 0.8}


@pytest.mark.soak
@pytest.mark.parametrize("kills", [2])
def test_a_new_model_counts_nothing_until_it_has_learnt_from_the_journal_and_a_kill_meanwhile_changes_nothing(
    kafka: Broker, tmp_path: Path, kills: int
) -> None:
    seed = seed_from_environment(f"a new model, killed {kills} times while it learns")
    renewed = "-m", "tests.streams.renewed_model"
    with Pipeline(kafka.bootstrap, tmp_path) as pipeline:
        pipeline.start()
        pipeline.configure()
        configure(pipeline)
        with Feed(pipeline, seed) as feed:
            pipeline.wait(lambda: len(learnt(pipeline, LABELS_MIN)) == len(PRIMARIES), 90, "labels of every primary")
            old = learnt(pipeline, 0).copy()
            # As orderly as an upgrade: the last round of the old model is written.
            pipeline.running[("decide", "worker-1")].stop(30)
            del pipeline.running[("decide", "worker-1")]
            make_sure_of_the_old_model(pipeline)
            for _ in range(kills):
                pipeline.start("decide", program=(*renewed, SLOWLY))
                log = Path(tmp_path / f"{pipeline.prefix}decide-worker-1.log")
                begun = log.read_text().count(LEARNS)
                pipeline.wait(lambda log=log, begun=begun: log.read_text().count(LEARNS) >= begun + 4, 180, "a warm-up")  # type: ignore[misc]
                pipeline.kill("decide")
                assert not warmed(pipeline), "killed too late to see anything"
            pipeline.start("decide", program=renewed)
            pipeline.wait(lambda: said_warmed(pipeline) == set(PRIMARIES), 180, "every primary to have a warm model")
            now = {model.primary_region: model for model in warmed(pipeline)}
            pipeline.wait(lambda: learnt(pipeline, 0).keys() >= old.keys(), 30, "its predictions")
            feed.stop()
        pipeline.settle()
        pipeline.stop()
        assert not pipeline.deaths, "\n".join(pipeline.deaths)
        assert {model.model for model in warmed(pipeline)} == {RENEWED}
        nothing_counts_before(pipeline)
        nothing_has_two_contents(pipeline)
    assert set(now) == set(PRIMARIES)
    say(f"labels of the old model when it ended: {old}")


def configure(pipeline: Pipeline) -> None:
    """Horizons short enough to be over within this test."""
    producer = pipeline.producer()
    for primary in PRIMARIES:
        configuration = FailoverConfiguration(primary, list(TARGETS), 2, based_on=1, policy=POLICY)
        producer.produce(f"{pipeline.prefix}failover-config", key=primary, value=encode(configuration))
    assert producer.flush(30) == 0


def make_sure_of_the_old_model(pipeline: Pipeline) -> None:
    """Its snapshots say that it is trusted: what the new one must not inherit."""
    producer, topic = pipeline.producer(), f"{pipeline.prefix}engine-snapshots"
    last = {(r.partition, r.key): r for r in pipeline.read("engine-snapshots")}
    for record in sorted(last.values(), key=lambda r: r.offset):
        snapshot = decode(record.value, Snapshot)
        scalars = from_scalars(snapshot.scalars)
        if "foresight" in scalars:
            scalars["foresight"]["influence"] |= SURE
        value = encode(replace(snapshot, scalars=to_scalars(scalars)))
        producer.produce(topic, key=record.key, value=value, partition=record.partition)
    assert producer.flush(30) == 0


def learnt(pipeline: Pipeline, at_least: int) -> dict[str, int]:
    """By primary the labels that the model in its last prediction had learnt from."""
    said = [decode(r.value, DisruptionPrediction) for r in pipeline.read("disruption-predictions")]
    return {p.primary_region: p.labels_learnt for p in said if p.labels_learnt >= at_least}


def warmed(pipeline: Pipeline) -> list[ModelWarmed]:
    found = []
    for record in pipeline.read("observations"):
        try:
            found.append(decode(record.value, ModelWarmed))
        except CodecError:
            continue
    return found


def said_warmed(pipeline: Pipeline) -> set[str]:
    rankings = [decode(r.value, FailoverRanking) for r in pipeline.read("failover-rankings")]
    return {r.primary_region for r in rankings if Event.PREDICTION_WARMED in r.events}


def nothing_counts_before(pipeline: Pipeline) -> None:
    """What the new model says has no influence until the ranking that says it is warm; then it has learnt."""
    at_ms: dict[str, int] = {}
    for record in pipeline.read("failover-rankings"):
        ranking = decode(record.value, FailoverRanking)
        if Event.PREDICTION_WARMED in ranking.events:
            at_ms.setdefault(ranking.primary_region, ranking.decided_at_ms)
    predictions = [decode(r.value, DisruptionPrediction) for r in pipeline.read("disruption-predictions")]
    cards = [decode(r.value, PredictionScorecard) for r in pipeline.read("prediction-scorecards")]
    ours = [p for p in predictions if p.model == RENEWED]
    for primary, warm_at_ms in at_ms.items():
        before = [p for p in ours if p.primary_region == primary and p.predicted_at_ms < warm_at_ms]
        after = [p for p in ours if p.primary_region == primary and p.predicted_at_ms >= warm_at_ms]
        assert before, "it predicts while it learns"
        assert {p.influence for p in before} == {0}
        assert max(p.labels_learnt for p in before) < max((p.labels_learnt for p in after), default=1 << 60)
        its = [c for c in cards if (c.primary_region, c.model) == (primary, RENEWED) and c.scored_at_ms < warm_at_ms]
        assert {(c.trust, c.influence) for c in its} <= {("WARMING", 0)}


def nothing_has_two_contents(pipeline: Pipeline) -> None:
    """Whatever is published again is the same again, and no ranking is left out."""
    contents: dict[tuple[object, ...], bytes] = {}
    sequences: dict[str, set[int]] = {primary: set() for primary in PRIMARIES}
    for record in pipeline.read("failover-rankings"):
        ranking = decode(record.value, FailoverRanking)
        sequences[ranking.primary_region].add(ranking.sequence)
        same(contents, ("ranking", ranking.primary_region, ranking.sequence), record.value)
    for record in pipeline.read("disruption-predictions"):
        said = decode(record.value, DisruptionPrediction)
        same(contents, ("prediction", said.primary_region, said.model, said.predicted_at_ms), record.value)
    for record in pipeline.read("prediction-scorecards"):
        card = decode(record.value, PredictionScorecard)
        same(contents, ("scorecard", card.primary_region, card.model, card.scored_at_ms), record.value)
    assert all(sorted(each) == list(range(1, len(each) + 1)) for each in sequences.values())


def same(contents: dict[tuple[object, ...], bytes], what: tuple[object, ...], value: bytes) -> None:
    assert contents.setdefault(what, value) == value, f"two contents of {what}"
