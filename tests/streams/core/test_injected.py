"""A metric that comes twice, as behind two gateways that know nothing of each other's keys, counts once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import InjectedMetric
from streams.core.injected import Injected
from tests.streams.core.probing import PRIMARY
from tests.streams.core.story import T0, Story, steady

CALM = steady(t_1=20.0, t_2=40.0, t_3=200.0)
SECONDS = 12
said = st.tuples(
    st.integers(0, SECONDS - 1),  # when it comes
    st.integers(-5000, 3000),  # how long before that it was observed; less than 0: its source's clock is ahead
    st.sampled_from(["cdn-logs", "load-balancer"]),
    st.sampled_from([("t-1", "latency_ms", 700.0), ("t-1", "latency_ms", 90.0), ("t-1", "healthy", 0.0),
                     ("t-1", "healthy", 1.0), ("t-3", "loss_ratio", 0.0), ("t-2", "capacity_ratio", 0.2),
                     (None, "healthy", 0.0)]),
    st.lists(st.integers(0, SECONDS - 1), max_size=3),  # how long after that it comes again
)  # fmt: skip


def decisions(story: Story) -> list[tuple[str, bytes]]:
    return [(output.topic, output.value) for output in story.outputs]


@settings(max_examples=20, deadline=None)
@given(st.lists(said, min_size=1, max_size=8), st.sampled_from([2000, 60_000]))
def test_however_often_a_metric_comes_and_however_late_again_every_decision_is_as_if_it_had_come_once(
    metrics: list[tuple[int, int, str, tuple[str | None, str, float], list[int]]], ttl_ms: int
) -> None:
    once, again = Story.begun(), Story.begun()
    for story in (once, again):
        story.run(5, CALM)
    comes: dict[int, list[InjectedMetric]] = {}
    repeats: dict[int, list[InjectedMetric]] = {}
    for second, old_ms, source, what, later in sorted(metrics, key=lambda each: each[0]):
        observed_at_ms = T0 + (5 + second) * 1000 - old_ms
        metric = InjectedMetric(PRIMARY, *what, source, observed_at_ms, ttl_ms)
        newest = [
            m for each in comes.values() for m in each if (m.source, m.target_region, m.metric) == (source, *what[:2])
        ]
        if any(m.observed_at_ms == observed_at_ms and m.value != what[2] for m in newest):
            continue  # two values of one moment: nobody can say which is the newer
        comes.setdefault(second, []).append(metric)
        for after in later:
            repeats.setdefault(second + after, []).append(metric)
    for second in range(SECONDS):
        for metric in comes.get(second, ()):
            once.say(metric)
            again.say(metric)
        for metric in repeats.get(second, ()):
            again.say(metric)
        for story in (once, again):
            story.run(1, CALM)
    assert decisions(once) == decisions(again)


TTL_MS = 6000
arrivals = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 12_000)), min_size=1, max_size=40)


@given(st.lists(st.integers(0, 15_000), min_size=8, max_size=8, unique=True), arrivals)
def test_in_any_order_and_however_often_the_latest_stated_of_what_came_is_what_is_said(
    stated: list[int], comings: list[tuple[int, int]]
) -> None:
    """As long as it counts: from when it was stated on, or from when it came first, if that was before."""
    injected, first_ms = Injected(), dict[int, int]()
    for number, after_ms in sorted(comings, key=lambda each: each[1]):
        now_ms = T0 + after_ms
        metric = InjectedMetric(PRIMARY, "t-1", "latency_ms", float(number), "a", T0 + stated[number], TTL_MS)
        assert injected.take(metric, now_ms)
        if stated[number] + TTL_MS > after_ms:  # else it has ended before it came
            first_ms.setdefault(number, after_ms)
        counting = None
        if first_ms:
            latest = max(first_ms, key=lambda each: stated[each])
            counting = float(latest) if after_ms < min(stated[latest], first_ms[latest]) + TTL_MS else None
        assert injected.said(metric, now_ms) == counting
        injected.in_force({"t-1": 0}, now_ms)


def test_of_two_values_of_one_moment_the_one_that_came_last_counts() -> None:
    injected = Injected()
    for value in (5.0, 7.0):
        metric = InjectedMetric(PRIMARY, "t-1", "latency_ms", value, "a", T0, TTL_MS)
        injected.take(metric, T0 + 1)
    assert injected.said(metric, T0 + 2) == 7.0


def test_what_was_remembered_by_an_older_engine_ends_when_it_would_have() -> None:
    injected = Injected({"t-1 latency_ms a": [5.0, T0 + TTL_MS, T0]})
    metric = InjectedMetric(PRIMARY, "t-1", "latency_ms", 5.0, "a", T0, TTL_MS)
    assert (injected.said(metric, T0 + TTL_MS - 1), injected.said(metric, T0 + TTL_MS)) == (5.0, None)
    injected.in_force({"t-1": 0}, T0 + TTL_MS)
    assert injected.values == {}


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0), (1.0, 1)])
def test_only_what_changes_a_sources_word_on_health_is_decided_upon_at_once(value: float, expected: int) -> None:
    story = Story.begun()
    story.run(30, CALM)
    story.targets = ("t-2", "t-3")  # nobody measures t-1 any more, so a word counts
    story.run(15, CALM)
    for _ in range(2):
        story.say(InjectedMetric(PRIMARY, "t-1", "healthy", 0.0, "load-balancer", story.now_ms))
    known = len(story.weights)
    story.say(InjectedMetric(PRIMARY, "t-1", "healthy", value, "load-balancer", story.now_ms))
    assert len(story.weights) - known == expected
