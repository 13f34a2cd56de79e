"""A metric that comes twice, as behind two gateways that know nothing of each other's keys, counts once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import InjectedMetric
from tests.streams.core.probing import PRIMARY
from tests.streams.core.story import T0, Story, steady

CALM = steady(t_1=20.0, t_2=40.0, t_3=200.0)
SECONDS = 12
said = st.tuples(
    st.integers(0, SECONDS - 1),  # when it comes
    st.integers(0, 3000),  # how long before that it was observed
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
