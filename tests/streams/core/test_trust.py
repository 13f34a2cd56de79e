"""Whom of those who inject is believed: bounds, rates, standing; and a liar for ten minutes."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

import pytest

from schemas.records import Event, InjectedMetric, Outcome
from streams.core.injected import Injected
from streams.core.ranked import SOURCES_SHOWN
from streams.core.trust import (
    BURST,
    NEWCOMERS_BURST,
    NEWCOMERS_PER_MINUTE,
    RECORDS_PER_MINUTE,
    REVIEW_MS,
    SOURCE_SHARE,
    Trust,
)
from streams.core.weights import INJECTED_SHARE
from tests.streams.core.policy import STATED
from tests.streams.core.probing import PRIMARY
from tests.streams.core.story import Story, steady

CALM: Final = steady(t_1=20.0, t_2=40.0, t_3=200.0)
# What one source may move ln score by, at most: its share of the network weight, of the health and of the capacity.
_SAID: Final = -math.log1p(-SOURCE_SHARE)
BOUND: Final = SOURCE_SHARE * -math.log(STATED.utility_floor) + _SAID + STATED.baseline_exponent * _SAID
LIES: Final = (
    ("t-1", "latency_ms", 60_000.0), ("t-1", "loss_ratio", 1.0), ("t-1", "healthy", 0.0),
    ("t-1", "capacity_ratio", 0.0), ("t-3", "latency_ms", 0.0), ("t-3", "loss_ratio", 0.0), ("t-3", "healthy", 1.0),
    ("t-3", "bandwidth_bps", 1e15),
)  # fmt: skip


def metric(story: Story, source: str, target: str, name: str, value: float, *, ttl_ms: int = 60_000) -> InjectedMetric:
    return InjectedMetric(PRIMARY, target, name, value, source, story.now_ms, ttl_ms)


def moved(story: Story, honest: Story, target: str) -> float:
    """By how much ln score is another than in the story without lies, now."""
    return math.log(story.weights[-1].paths()[target].weight / honest.weights[-1].paths()[target].weight)


def contribution(story: Story, target: str, source: str) -> float:
    (candidate,) = [c for c in story.last.candidates if c.region_id == target]
    return candidate.contributions.get(f"injected:{source}", 0.0)


def injected(story: Story, target: str) -> dict[str, float]:
    """What the last ranking says that sources moved of a candidate."""
    (candidate,) = [c for c in story.last.candidates if c.region_id == target]
    return {name: moved for name, moved in candidate.contributions.items() if name.startswith("injected:")}


def trust_of(story: Story) -> Trust:
    return story.fold.engines[PRIMARY]._state.injected.trust


def test_a_liar_for_ten_minutes_moves_no_path_by_more_than_its_bound_and_less_and_less() -> None:
    """A thousand records a second under PROXIMA_SOAK=1, else thirty: its rate is ten."""
    rate = 1000 if os.environ.get("PROXIMA_SOAK") else 30
    lied, honest = Story.begun(), Story.begun()
    for story in (lied, honest):
        story.run(60, CALM)
    known, most, sent = len(lied.rankings), 0.0, 0
    for second in range(600):
        for number in range(rate):
            lied.say(metric(lied, "liar", *LIES[number % len(LIES)]))
        sent += rate
        for story in (lied, honest):
            if second % 10 == 0:  # somebody who knows a little better
                story.say(metric(story, "cdn-logs", "t-2", "latency_ms", 30.0))
            story.run(1, CALM)
        most = max(most, *(abs(moved(lied, honest, t)) for t in ("t-1", "t-2", "t-3")))
    assert 0.3 < most <= BOUND
    assert all(c.eligible for ranking in lied.rankings[known:] for c in ranking.candidates)
    taken, over = trust_of(lied).counts("liar")
    assert taken + over == sent
    assert taken <= BURST + 600 * RECORDS_PER_MINUTE / 60 + 1
    assert trust_of(lied).counts("cdn-logs") == (60, 0)
    assert contribution(lied, "t-2", "cdn-logs") == pytest.approx(contribution(honest, "t-2", "cdn-logs"), rel=1e-3)
    assert contribution(lied, "t-2", "cdn-logs") > 0
    assert {Event.SOURCE_OVER_RATE, Event.SOURCE_DISTRUSTED} <= {e for r in lied.rankings[known:] for e in r.events}
    assert "above their rate and not used: liar (" in lied.last.reason
    assert [c.region_id for c in lied.last.candidates] == [c.region_id for c in honest.last.candidates]
    assert max(abs(moved(lied, honest, t)) for t in ("t-1", "t-2", "t-3")) < 0.02 * BOUND, "nobody believes it any more"


def test_what_a_source_moved_stands_in_the_ranking_and_the_contributions_still_sum_to_the_score() -> None:
    story = Story.begun()
    story.run(60, CALM)
    story.say(metric(story, "cdn-logs", "t-1", "latency_ms", 600.0))
    story.say(metric(story, "load-balancer", "t-1", "capacity_ratio", 0.5))
    story.say(metric(story, "load-balancer", "t-2", "healthy", 0.0))
    story.run(1, CALM)
    for candidate in story.last.candidates:
        assert sum(candidate.contributions.values()) == pytest.approx(math.log(candidate.score), abs=1e-4)
    assert -SOURCE_SHARE * -math.log(STATED.utility_floor) < contribution(story, "t-1", "cdn-logs") < -0.3
    half = STATED.baseline_exponent * math.log(1 - SOURCE_SHARE / 2)
    assert contribution(story, "t-1", "load-balancer") == pytest.approx(half, rel=1e-4)
    assert contribution(story, "t-2", "load-balancer") == pytest.approx(
        math.log1p(-trust_of(story).share("load-balancer", "t-2")), rel=1e-4
    )


def test_a_hundred_names_have_no_more_of_the_say_than_all_sources_may() -> None:
    lied, honest = Story.begun(), Story.begun()
    for story in (lied, honest):
        story.run(60, CALM)
    for number in range(100):
        lied.say(metric(lied, f"liar-{number}", "t-1", "latency_ms", 60_000.0))
        lied.say(metric(lied, f"liar-{number}", "t-1", "loss_ratio", 1.0))
    for story in (lied, honest):
        story.run(1, CALM)
    assert 0 > moved(lied, honest, "t-1") >= -INJECTED_SHARE * -math.log(STATED.utility_floor)
    named = injected(lied, "t-1")
    assert len(named) == 9
    assert "injected:others" in named


def test_of_each_candidate_those_are_named_who_moved_it_most_and_nobody_who_moved_nothing() -> None:
    story = Story.begun()
    story.run(60, CALM)
    for number in range(12):
        story.say(metric(story, f"of-1-{number:02}", "t-1", "latency_ms", 100.0 + 50 * number))
    story.say(metric(story, "of-2", "t-2", "latency_ms", 300.0))
    story.say(metric(story, "of-2", "t-1", "bandwidth_bps", 1e15))
    story.run(1, CALM)
    assert list(injected(story, "t-2")) == ["injected:of-2"]
    assert injected(story, "t-3") == {}
    of_1 = injected(story, "t-1")
    assert set(of_1) == {*(f"injected:of-1-{number:02}" for number in range(4, 12)), "injected:others"}
    assert of_1["injected:of-1-04"] > of_1["injected:of-1-11"], "it cost less"
    assert all(of_1.values())
    for candidate in story.last.candidates:
        assert sum(candidate.contributions.values()) == pytest.approx(math.log(candidate.score), abs=1e-4)


def test_a_flood_of_names_and_values_pushes_out_nobody_who_has_agreed() -> None:
    story = Story.begun()
    for _ in range(6):
        story.say(metric(story, "cdn-logs", "t-1", "latency_ms", 21.0))
        story.run(10, CALM)
    for number in range(500):
        for name in ("latency_ms", "loss_ratio", "bandwidth_bps"):
            story.say(metric(story, f"liar-{number}", "t-1", name, 1.0, ttl_ms=3_600_000))
    assert "cdn-logs" in trust_of(story).knows()
    assert "t-1 latency_ms cdn-logs" in story.fold.engines[PRIMARY]._state.injected.values
    assert len(list(trust_of(story).knows())) <= 64


def test_a_thousand_names_that_say_one_thing_each_push_out_nobody_who_says_more_and_has_agreed() -> None:
    story = Story.begun()
    for _ in range(3):
        for target, rtt_ms in (("t-1", 21.0), ("t-2", 41.0), ("t-3", 201.0)):
            story.say(metric(story, "honest", target, "latency_ms", rtt_ms))
        story.run(10, CALM)
    for number in range(2000):
        story.say(metric(story, f"a-liar-{number}", "t-1", "latency_ms", 60_000.0))
    values = story.fold.engines[PRIMARY]._state.injected.values
    assert [key for key in values if key.endswith(" honest")] == [f"t-{n} latency_ms honest" for n in (1, 2, 3)]
    assert len(values) == 1000
    story.run(1, CALM)
    assert contribution(story, "t-3", "honest") != 0


def test_all_who_never_agreed_have_one_rate_together_which_takes_nothing_from_one_who_has() -> None:
    story = Story.begun()
    for _ in range(2):
        story.say(metric(story, "honest", "t-1", "latency_ms", 21.0))
        story.run(10, CALM)
    assert trust_of(story).agreed("honest") > 0
    before = trust_of(story).newcomers()[0]
    sent, seconds = 0, 40
    for second in range(seconds):
        for _ in range(100):
            story.say(metric(story, f"liar-{sent % 1000}", *LIES[sent % 3]))  # no truth among them
            sent += 1
        story.say(metric(story, "honest", "t-1", "latency_ms", 20.0 + second))
        story.run(1, CALM)
    taken, over = trust_of(story).newcomers()
    taken -= before
    assert taken + over == sent
    assert taken <= NEWCOMERS_BURST + seconds * NEWCOMERS_PER_MINUTE / 60 + 1
    assert trust_of(story).counts("honest") == (2 + seconds, 0)
    assert contribution(story, "t-1", "honest") < -0.02, "its word counts beside theirs"
    for number in range(100):
        story.say(metric(story, f"liar-{number}", *LIES[number % 3]))
    story.say(metric(story, "a-new-one", "t-1", "latency_ms", 20.0))
    assert trust_of(story).counts("a-new-one") == (0, 0), "it waits its turn"
    assert "not used: new sources together (" in story.last.reason
    assert Event.SOURCE_OVER_RATE in {e for r in story.rankings for e in r.events}


@pytest.mark.parametrize("seconds", [1, 60])
def test_a_thousand_names_of_a_topic_have_together_no_more_of_the_say_than_all_sources_may(seconds: int) -> None:
    """In every metric at once: of the network weight, of the health and of the capacity."""
    share = SOURCE_SHARE if seconds == 1 else INJECTED_SHARE  # before a review nobody has agreed: they are as one
    allowed = -share * math.log(STATED.utility_floor) - (1 + STATED.baseline_exponent) * math.log1p(-share)
    lied, honest = Story.begun(), Story.begun()
    for story in (lied, honest):
        story.run(60, CALM)
    most = 0.0
    for second in range(seconds):
        for number in range(1000 if second == 0 else 50):  # new ones all the time, each with a full bucket
            name = f"liar-{second * 1000 + number}"
            lied.say(metric(lied, name, *LIES[number % len(LIES)]))
        for story in (lied, honest):
            story.run(1, CALM)
        most = max(most, *(abs(moved(lied, honest, t)) for t in ("t-1", "t-2", "t-3")))
    assert 0.5 * allowed < most <= allowed
    assert lied.last.mode == honest.last.mode
    assert all(c.eligible for c in lied.last.candidates)


def test_standing_is_lost_by_contradiction_and_earned_back_by_agreement_more_slowly() -> None:
    story = Story.begun()
    story.run(60, CALM)

    def after(seconds: int, value: float) -> float:
        for _ in range(seconds // 10):
            story.say(metric(story, "cdn-logs", "t-1", "latency_ms", value))
            story.run(10, CALM)
        return trust_of(story).share("cdn-logs", "t-1") / SOURCE_SHARE

    assert after(60, 22.0) == 1.0
    lost = after(240, 1000.0)
    assert 0.05 < lost < 0.3
    back = after(240, 22.0)
    assert lost + 0.2 < back < 0.9
    assert trust_of(story).share("cdn-logs", "t-2") == SOURCE_SHARE, "of a path that it said nothing about"


def test_who_says_that_a_path_works_which_is_measured_dead_is_not_believed_and_revives_nobody() -> None:
    story = Story.begun()
    story.run(60, CALM)
    for _ in range(30):
        story.say(metric(story, "liar", "t-1", "healthy", 1.0))
        story.run(10, lambda target, second: [Outcome.TIMED_OUT] * 2 if target == "t-1" else CALM(target, second))
    assert story.state_of("t-1") == "DOWN"
    assert trust_of(story).share("liar", "t-1") < 0.2 * SOURCE_SHARE


def test_where_nothing_fresh_is_measured_who_says_unhealthy_is_heard() -> None:
    story = Story.begun()
    story.run(60, CALM)
    story.say(metric(story, "load-balancer", "t-1", "healthy", 0.0))
    story.run(1, CALM)
    assert story.state_of("t-1") is None, "one voice, where probes are answered"
    story.targets = ("t-2", "t-3")  # nobody probes t-1 any more
    story.run(15, CALM)
    assert story.state_of("t-1") == "UNHEALTHY"


def test_a_rate_is_of_journal_time_and_what_is_above_it_is_counted() -> None:
    injected, said = Injected(), InjectedMetric(PRIMARY, "t-1", "latency_ms", 1.0, "fast", 0)
    assert sum(injected.take(said, 1_000_000) for _ in range(1000)) == BURST
    assert sum(injected.take(said, 1_060_000) for _ in range(1000)) == min(BURST, RECORDS_PER_MINUTE)
    assert injected.trust.counts("fast") == (2 * BURST, 2000 - 2 * BURST)


def standing_after(minutes: int, contradiction: float, trust: Trust) -> str:
    """To two digits, as docs/inject.md has it."""
    begin = trust.save()["window"]
    for window in range(begin + 1, begin + 1 + minutes * 60_000 // REVIEW_MS):
        trust.review({("a", "t-1"): contradiction}, window * REVIEW_MS)
    return f"{trust.share('a', 't-1') / SOURCE_SHARE:.2f}"


def test_what_the_document_says_of_bounds_rates_and_standing_is_what_is_done() -> None:
    liar = Trust()
    lost = {off: standing_after(2, off, Trust()) for off in (0.2, 0.3, 0.4)} | {0.6: standing_after(2, 0.6, liar)}
    assert lost[0.2] == standing_after(2, 0.0, Trust()) == "1.00"
    assert lost[0.6] == standing_after(2, 1.0, Trust())
    back = standing_after(10, 0.2, liar)
    document = " ".join((Path(__file__).parents[3] / "docs" / "inject.md").read_text().split())
    for said in (
        f"Every {REVIEW_MS // 1000} s what a source says of a path is held against",
        f"after 2 min who is off by 0.3 has {lost[0.3]}, by 0.4 {lost[0.4]}, by 0.6 or more {lost[0.6]}; and 10 min of "
        f"truth make {back} of that",
        f"One source has {100 * SOURCE_SHARE:.0f} % of the say about a path, all together {100 * INJECTED_SHARE:.0f} %",
        f"{RECORDS_PER_MINUTE} records a minute of a source and primary",
        f"{NEWCOMERS_PER_MINUTE:,} of all together that have never agreed",
        f"for the {SOURCES_SHOWN} that moved it most",
    ):
        assert said in document, said


def test_trust_that_was_saved_goes_on_as_it_was() -> None:
    trust = Trust()
    for number in range(1, 700):
        trust.admits("a", number)
    trust.review({("a", "t-1"): 1.0, ("a", "t-2"): 0.0}, 20_000)
    again = Trust(trust.save())
    assert (again.save(), again.note(), again.share("a", "t-1")) == (
        trust.save(),
        trust.note(),
        trust.share("a", "t-1"),
    )
    assert trust.share("a", "t-1") < SOURCE_SHARE
    assert "a (93 of 699 records)" in trust.note()
