"""Many records at a time give what one after the other gives: the same outputs of each record, and the same state."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import decode
from schemas.records import DeadLetter, Outcome, Policy, Reason
from streams.core.decision import Moment
from streams.core.engine import FailoverEngine
from streams.fold import JournalFold
from streams.folding import Output
from streams.journal import JournalRecord, read
from streams.parallel import ParallelReplay
from streams.refold import Refold
from streams.replay import Replay
from tests.golden.decisions import journals
from tests.streams.core.probing import Sample, panes
from tests.streams.core.story import TARGETS, Network, Seen, Story
from tests.streams.core.test_whatever_comes import AGENTS, a_network, a_policy, something
from tests.streams.test_determinism import journal

_TOPICS = (
    "failover-rankings", "path-weights", "disruption-predictions", "prediction-scorecards", "readiness-requests",
    "graph-updates",
    "dead-letters",
)  # fmt: skip


class Ahead(Refold):
    """Fails where it would fall back on one record after the other."""

    def apply(self, record: JournalRecord) -> list[Output]:
        raise AssertionError(f"record {record.offset} was folded by itself")


def new(fold: type[Any], engine: type[FailoverEngine] = FailoverEngine) -> Any:
    return fold(topic="observations", topic_id="id", partition=0, tick_ms=1000, phase_ms=300, engine=engine)


def assert_same(
    records: Sequence[JournalRecord],
    chance: random.Random,
    fold: type[Refold] = Ahead,
    engine: type[FailoverEngine] = FailoverEngine,
) -> list[list[Output]]:
    """In lists of any lengths, with a snapshot round now and then; what each record brought about."""
    one, many = new(JournalFold, engine), new(fold, engine)
    made = []
    at = 0
    while at < len(records):
        some = records[at : at + chance.choice([1, 2, 10, 60, 400])]
        at += len(some)
        expected = [one.apply(record) for record in some]
        assert many.apply_all(some) == expected
        made += expected
        if chance.random() < 0.2 or at >= len(records):
            assert many.snapshots() == one.snapshots()
    return made


def with_losses(ratio: float, seed: int) -> Network:
    def seen(target: str, second: int) -> Sequence[Seen]:
        chance = random.Random(f"{seed} {target} {second}")
        return [Outcome.TIMED_OUT if chance.random() < ratio else chance.lognormvariate(3.0, 0.3) for _ in range(2)]

    return seen


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 32))
def test_whatever_comes_gives_the_same_in_lists(seed: int) -> None:
    chance = random.Random(seed)
    story = Story.begun(a_policy(chance))
    network, version = a_network(seed), 1
    for _ in range(12):
        version = something(story, chance, version)
        story.run_each(chance.randrange(1, 12), network)
    assert_same(story.journal, chance)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([0.0, 0.01, 0.3]))
def test_long_calm_and_lossy_stretches_give_the_same_in_lists(seed: int, ratio: float) -> None:
    chance = random.Random(seed)
    story = Story.begun(chance.choice([a_policy(chance), Policy()]))
    for _ in range(3):
        agents = chance.sample(AGENTS, chance.randrange(1, 4))
        story.run_each(chance.randrange(20, 90), {agent: with_losses(ratio, seed) for agent in agents})
        something(story, chance, 1)
    assert_same(story.journal, chance)


def test_several_primaries_agents_that_come_and_go_and_everything_else_give_the_same_in_lists() -> None:
    assert_same(journal(), random.Random(1))


@pytest.mark.parametrize("path", journals(), ids=lambda path: path.name.split(".")[0])
def test_golden_journals_give_the_same_in_lists(path: Path) -> None:
    records = list(read(path))
    for partition in {r.partition for r in records}:
        assert_same([r for r in records if r.partition == partition], random.Random(2))


def test_agents_whose_records_alternate_are_taken_together() -> None:
    story = Story.begun()
    for second in range(100):
        story.run_each(1, {AGENTS[second % 2]: with_losses(0.02, 1)})
    assert_same(story.journal, random.Random(3))


def test_a_replay_of_lists_and_one_in_processes_give_the_same_in_order() -> None:
    other = [replace(r, partition=r.partition + 5) for r in journal()[:400]]
    records = sorted([*journal()[:400], *other], key=lambda r: (r.appended_at_ms, r.offset, r.partition))
    alone = list(Replay(topic_id="id").each(records))
    assert Replay(topic_id="id").apply_all(records) == [outputs for _, outputs in alone]
    with ParallelReplay(Replay(topic_id="id"), 2, _TOPICS) as replay:
        assert list(replay.each(records)) == alone


# -- engines that fail


def with_repeats(records: Sequence[JournalRecord], chance: random.Random) -> Iterator[JournalRecord]:
    """With records that come again, later: they are dropped, and must be so when a partition is folded again."""
    for number, record in enumerate(records):
        yield record
        if chance.random() < 0.2:
            yield records[chance.randrange(number + 1)]


def failing(at_ms: Sequence[int], what: str) -> type[FailoverEngine]:
    """An engine that raises at these moments, half-way: its state is spoilt already when it does."""

    class Failing(FailoverEngine):
        def _decide(self, moment: Moment) -> Any:
            published = super()._decide(moment)
            if moment.now_ms in at_ms and what == "at a tick":
                self._state.sequence += 1000
                raise RuntimeError("a bug")
            return published

        def inject(self, metric: Any, now_ms: int) -> bool:
            at_once = super().inject(metric, now_ms)
            if what == "by a metric" and metric.value > 100:
                self._state.sequence += 1000
                raise RuntimeError("a bug")
            return at_once

    return Failing


def letters(made: Sequence[Sequence[Output]]) -> Iterator[DeadLetter]:
    for outputs in made:
        for output in outputs:
            if output.topic == "dead-letters":
                yield decode(output.value, DeadLetter)


@pytest.mark.parametrize("what", ["at a tick", "by a metric"])
@pytest.mark.parametrize("seed", range(3))
def test_an_engine_that_raises_on_the_way_makes_the_same_dead_letters(what: str, seed: int) -> None:
    chance = random.Random(seed)
    begin_ms = journal()[0].appended_at_ms // 1000 * 1000 + 300
    at_ms = [begin_ms + 1000 * chance.randrange(1, 240) for _ in range(4)]
    records = list(with_repeats(journal(), chance))
    made = assert_same(records, chance, Refold, failing(at_ms, what))
    assert sum(letter.reason == Reason.FOLD_ERROR for letter in letters(made)) > 1


def test_panes_whose_columns_do_not_fit_each_other_make_the_same_dead_letters() -> None:
    story = Story.begun()
    for _ in range(40):
        story.run_each(1, dict.fromkeys(AGENTS, with_losses(0.1, 5)))
        if story.second % 10 == 0:
            torn = panes([Sample(target, story.now_ms, 20.0, AGENTS[0]) for target in TARGETS])
            story.say(replace(torn, rtt_sum_us=torn.rtt_sum_us[:-8]))
    made = assert_same(story.journal, random.Random(6), Refold)
    assert [letter.reason for letter in letters(made)] == [Reason.FOLD_ERROR] * 4


class Counting(FailoverEngine):
    """Takes part in everything itself."""

    ticks = 0

    def tick(self, now_ms: int, observed_ms: float) -> Any:
        Counting.ticks += 1
        return super().tick(now_ms, observed_ms)


def test_an_engine_with_a_tick_of_its_own_is_asked_for_each() -> None:
    Counting.ticks = 0
    assert_same(journal()[:200], random.Random(4), Ahead, Counting)
    ticks = Counting.ticks
    fold = new(JournalFold, Counting)
    Counting.ticks = 0
    for record in journal()[:200]:
        fold.apply(record)
    assert ticks == 2 * Counting.ticks
