"""A journal under other policies: what its seconds cost, and which targets a policy would have had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from schemas.records import Array, FailoverRanking, Outcome, Policy
from streams.backtest import NOWHERE, YARDSTICKS, Past, score
from streams.backtest_journal import run_journal
from streams.journal import JournalRecord
from tests.streams.core.probing import PRIMARY, Sample, panes
from tests.streams.core.story import T0, TARGETS, Network, Story, steady

TIMEOUT_MS = 1000.0


class Recorded(Story):
    """A story whose records are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[JournalRecord] = []

    def append(self, value: bytes, at_ms: int | None = None) -> list[FailoverRanking]:
        self.records.append(JournalRecord(0, len(self.records), at_ms or self.now_ms, PRIMARY.encode(), value))
        return super().append(value, at_ms)


def changing(target: str, second: int) -> Sequence[float | Outcome]:
    """t-1 is best, but for 20 seconds in which nothing comes back from it; t-2 is twice as far, t-3 far away."""
    if target == "t-1" and 40 <= second < 60:
        return [Outcome.TIMED_OUT] * 2
    return [{"t-1": 30.0, "t-2": 60.0, "t-3": 400.0}[target]] * 2


def recorded(network: Network, seconds: int = 80, policy: Policy | None = None) -> Recorded:
    story = Recorded.begun(policy)
    assert isinstance(story, Recorded)
    story.run(seconds, network)
    return story


def past_of(story: Recorded, **policies: Policy) -> Past:
    return run_journal(story.records, policies, topic_id="journal-1", timeout_ms=TIMEOUT_MS)[PRIMARY]


def test_a_journals_seconds_cost_what_its_panes_say() -> None:
    past = past_of(recorded(changing), default=Policy())
    assert past.course.candidates == TARGETS
    assert past.step_at_ms.tolist() == [T0 + 1000 * s for s in range(80)]
    assert past.course.cost_ms[:, 0] == pytest.approx([30.0] * 40 + [TIMEOUT_MS] * 20 + [30.0] * 20)
    assert past.course.lost_ratio[:, 0].tolist() == [0.0] * 40 + [1.0] * 20 + [0.0] * 20
    assert past.course.cost_ms[:, 2] == pytest.approx(400.0)


def test_under_the_policy_that_was_in_force_the_targets_are_those_that_were_published() -> None:
    story = recorded(changing)
    past = past_of(story, default=Policy())
    for second, number in enumerate(past.runs["default"].chosen):
        before = [r.target_region for r in story.rankings if r.decided_at_ms <= T0 + 1000 * second]
        assert (TARGETS[number] if number != NOWHERE else None) == (before[-1] if before else None)


def test_another_policy_replaces_the_one_in_the_journal_everywhere() -> None:
    """The journal's own policy never moves back; the one in question does after its dwell, and so it says."""
    story = recorded(changing, 260, policy=Policy(dwell_ms=10_000_000))
    past = past_of(story, own=Policy(dwell_ms=10_000_000), quick=Policy())
    own, quick = (past.runs[name].chosen for name in ("own", "quick"))
    assert (own[45], own[-1]) == (1, 1)
    assert (quick[45], quick[-1]) == (1, 0)
    found = {name: score([(past.course, past.runs[name])], TIMEOUT_MS) for name in past.runs}
    assert found["quick"].bad_ratio < found["own"].bad_ratio, "twice as slow as the best is bad"
    assert list(found) == ["own", "quick", *YARDSTICKS]


def test_what_was_not_measured_counts_as_it_last_was_and_then_as_lost() -> None:
    def silent(target: str, second: int) -> Sequence[float | Outcome]:
        return [] if target == "t-1" and second >= 40 else changing(target, 0)

    course = past_of(recorded(silent), default=Policy()).course
    assert course.cost_ms[:, 0] == pytest.approx([30.0] * 50 + [TIMEOUT_MS] * 30)
    assert course.lost_ratio[:, 0].tolist() == [0.0] * 50 + [1.0] * 30


def test_seconds_in_which_nothing_was_measured_are_no_steps() -> None:
    story = recorded(steady(t_1=30.0, t_2=60.0, t_3=90.0), 20)
    story.run(10, None)
    story.run(20, steady(t_1=30.0, t_2=60.0, t_3=90.0))
    past = past_of(story, default=Policy())
    assert len(past.step_at_ms) == 40
    assert len(past.course.cost_ms) == 40


def test_a_course_has_no_holes() -> None:
    course = past_of(recorded(changing), default=Policy()).course
    values: Array = np.stack((course.cost_ms, course.lost_ratio))
    assert np.isfinite(values).all()


def test_what_a_rollback_shows_again_counts_once() -> None:
    whole, broken = recorded(changing), Recorded.begun()
    assert isinstance(broken, Recorded)
    broken.run(40, changing)
    nothing = panes([Sample("t-1", T0, 30.0)])
    broken.say(replace(nothing, targets=[]))  # its index points nowhere: the engine raises, and is folded again
    assert broken.letters[-1].reason == "FOLD_ERROR"
    broken.run(40, changing)
    one, other = (past_of(story, default=Policy()) for story in (whole, broken))
    np.testing.assert_array_equal(one.course.cost_ms, other.course.cost_ms)
    assert one.runs["default"].chosen.tolist() == other.runs["default"].chosen.tolist()
