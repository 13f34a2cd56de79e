"""A new model learns from the journal's history beside the fold, and what it learnt is adopted at one place of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from schemas.codec import decode, encode
from schemas.config import Decide as DecideConfig
from schemas.records import Event, ModelWarmed, Snapshot
from streams.broker import Place
from streams.core.prediction import MODEL
from streams.core.state import from_scalars, to_scalars
from streams.decide import Decide
from streams.journal import JournalRecord
from streams.warmup import Warmup
from tests.streams.core.policy import STATED
from tests.streams.core.probing import PRIMARY
from tests.streams.core.story import Story, configuration, new_fold
from tests.streams.test_refold import assert_same, with_losses

POLICY = replace(STATED, prediction_horizon_ms=5000, prediction_every_ms=1000)


def lived(seconds: int = 120) -> Story:
    story = Story.begun(POLICY)
    story.run(seconds, with_losses(0.2, 1))
    return story


def of_another_model(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """As if an older model had written them."""
    found = []
    for snapshot in snapshots:
        scalars = from_scalars(snapshot.scalars)
        for part in ("predictor", "foresight"):
            if part in scalars:
                scalars[part]["model"] = "an-older-one"
        found.append(replace(snapshot, scalars=to_scalars(scalars)))
    return found


def renewed(story: Story) -> Story:
    """Goes on where the story stands, with a new model."""
    other = Story(new_fold()).told_by(story)
    other.fold.restore(of_another_model(story.fold.snapshots()))
    return other


def labels(story: Story) -> int:
    return int(story.fold.engines[PRIMARY]._state.model.predictor.labels_learnt)


def test_a_model_that_takes_anothers_place_is_cold_and_warm_by_the_history() -> None:
    story = lived()
    assert not story.fold.engines[PRIMARY].is_cold
    other = renewed(story)
    assert other.fold.engines[PRIMARY].is_cold
    assert labels(other) == 0
    warmup = Warmup(other.fold)
    for begin in range(0, len(story.journal), 50):
        warmup.take(story.journal[begin : begin + 50])
    [model] = warmup.models()
    other.run(5, with_losses(0.2, 1))
    other.append(encode(model))
    other.run(1, with_losses(0.2, 1))
    assert Event.PREDICTION_WARMED in other.last.events
    assert labels(other) == labels(story), "the same code path as the fold's, so the same labels"
    assert not other.fold.engines[PRIMARY].is_cold
    assert (model.since_ms, model.until_ms) == (story.journal[0].appended_at_ms, story.journal[-1].appended_at_ms)


def test_what_was_adopted_is_the_same_for_everyone_who_folds_the_journal() -> None:
    story = lived()
    warmup = Warmup(renewed(story).fold)
    warmup.take(story.journal)
    fresh = Story.begun(POLICY)
    fresh.run(20, with_losses(0.2, 2))
    fresh.append(encode(warmup.models()[0]))
    fresh.run(20, with_losses(0.2, 2))
    assert any(Event.PREDICTION_WARMED in r.events for r in fresh.rankings)
    assert_same(fresh.journal, random.Random(1))


def test_targets_that_came_and_went_meanwhile_are_no_obstacle() -> None:
    story = lived()
    warmup = Warmup(renewed(story).fold)
    warmup.take(story.journal)
    fresh = Story.begun(POLICY)
    fresh.second = 200  # later than the history
    fresh.say(configuration(2, 1, ["t-3", "t-1"], POLICY))
    fresh.append(encode(warmup.models()[0]))
    fresh.run(20, with_losses(0.2, 2))
    assert not fresh.letters
    assert labels(fresh) > labels(story)


def test_who_has_learnt_more_and_another_model_keep_what_they_have() -> None:
    story = lived()
    warmup = Warmup(renewed(lived(30)).fold)
    warmup.take(story.journal[:100])
    [model] = warmup.models()
    before = labels(story)
    story.append(encode(model))
    story.append(encode(replace(model, model="another", scalars="{}", columns=[])))
    story.run(1, with_losses(0.2, 1))
    assert labels(story) >= before
    assert Event.PREDICTION_WARMED not in story.last.events
    assert not story.letters


# -- the stage


@dataclass
class Written:
    """A broker that only has what the stage reads and writes here: the journal, and the snapshots of an older model."""

    journal: list[JournalRecord]
    snapshots: list[Snapshot]
    sent: list[ModelWarmed] = field(default_factory=list)

    def topic_id(self, _: str) -> str:
        return "journal-1"

    def generation(self) -> int:
        return 1

    async def earliest(self, _: Place) -> int:
        return 0

    async def read(self, place: Place, first: int | None = None, end: int | None = None) -> Sequence[JournalRecord]:
        if place.topic == "observations":
            return [r for r in self.journal if (first or 0) <= r.offset < (end or 1 << 60)]
        return [JournalRecord(0, i, 0, b"", encode(s)) for i, s in enumerate(self.snapshots)]

    async def send(self, topic: str, _: bytes | None, value: bytes, __: int | None = None) -> Awaitable[None]:
        if topic == "observations":
            self.sent.append(decode(value, ModelWarmed))
        return asyncio.sleep(0)


@pytest.mark.parametrize(("warm_up_ms", "seconds"), [(10_000_000, 120), (60_000, 60)])
def test_the_stage_warms_up_by_the_last_of_the_journal(warm_up_ms: int, seconds: int) -> None:
    story = lived()
    broker = Written(story.journal, of_another_model(story.fold.snapshots()))

    async def opened() -> None:
        stage = Decide(broker, DecideConfig(warm_up_ms=warm_up_ms), "worker-1")  # type: ignore[arg-type]
        partition = await stage._open(Place("observations", 0))
        assert partition.warming is not None
        await partition.warming

    asyncio.run(opened())
    [model] = broker.sent
    assert (model.primary_region, model.model) == (PRIMARY, MODEL)
    assert model.until_ms - model.since_ms == pytest.approx(seconds * 1000, abs=1500)


def test_the_stage_leaves_a_model_that_is_not_new_alone() -> None:
    story = lived()
    broker = Written(story.journal, story.fold.snapshots())

    async def opened() -> None:
        stage = Decide(broker, DecideConfig(), "worker-1")  # type: ignore[arg-type]
        assert (await stage._open(Place("observations", 0))).warming is None

    asyncio.run(opened())
