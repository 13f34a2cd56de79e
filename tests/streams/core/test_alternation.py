"""No network makes two targets alternate faster than the dwell allows; time told in other units changes nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import Failback, Outcome, Policy
from streams.core.paths import Paths
from streams.core.views import PathMetrics, metrics
from tests.streams.core.policy import STATED
from tests.streams.core.probing import Sample, panes
from tests.streams.core.story import TARGETS, Seen, Story

# As restless as a policy may be: no margin to speak of, no certainty needed, nobody waits, nobody is ejected.
RESTLESS = replace(
    STATED,
    fast_tau_ms=500.0,
    margin_ratio=0.001,
    sure_ratio=0.0,
    failback=Failback.IMMEDIATE,
    ejection_base_ms=0,
    heartbeat_ms=1000,
    loss_exponent=0.2,
)
_LEVELS: list[Seen] = [5.0, 21.0, 22.0, 40.0, 300.0, 5000.0, Outcome.TIMED_OUT, Outcome.NOT_SENT]


@pytest.mark.parametrize("eligible_min", [0, 1, 3])
@settings(max_examples=12)
@given(st.integers(0, 1 << 32), st.sampled_from([2000, 6000, 9000]), st.integers(1, 7), st.booleans())
def test_no_network_makes_targets_alternate_faster_than_the_dwell_unless_the_one_in_use_is_not_eligible(
    eligible_min: int, seed: int, dwell_ms: int, phase_s: int, together: bool
) -> None:
    """Each target's delay or silence changes every few seconds, so that another is ahead each time."""
    policy = replace(RESTLESS, dwell_ms=dwell_ms, dwell_min_ms=1000, eligible_min=eligible_min, fresh_ratio_min=0.0)

    def weather(target: str, second: int) -> Sequence[Seen]:
        when = second if together else second + TARGETS.index(target) * 2
        return [random.Random(f"{seed} {target} {when // phase_s}").choice(_LEVELS)] * 2

    story = Story.begun(policy)
    story.run(90, weather)
    target, changed_at_ms, moves = None, -policy.dwell_ms, 0
    for ranking in story.rankings:
        if ranking.target_region == target:
            continue
        eligible = {c.region_id for c in ranking.candidates if c.eligible}
        if target in eligible:
            assert ranking.decided_at_ms - changed_at_ms >= dwell_ms
            moves += 1
        target, changed_at_ms = ranking.target_region, ranking.decided_at_ms


def test_a_network_that_turns_round_every_few_seconds_does_move_a_restless_policy() -> None:
    """So that the property above is about moves, and not about a target that stays."""

    def turning(target: str, second: int) -> Sequence[Seen]:
        ahead = TARGETS[second // 4 % 2]
        return [20.0, 20.0] if target == ahead else [400.0, 400.0]

    story = Story.begun(replace(RESTLESS, dwell_ms=2000, dwell_min_ms=1000))
    story.run(80, turning)
    assert sum("TARGET_CHANGED" in r.events for r in story.rankings) > 10


_SEEN: st.SearchStrategy[Seen] = st.one_of(
    st.floats(5, 500, width=32), st.sampled_from([Outcome.TIMED_OUT, Outcome.NOT_SENT])
)
_SAMPLES = st.lists(
    st.builds(
        Sample,
        target=st.sampled_from(TARGETS),
        at_ms=st.integers(0, 59_999),
        seen=_SEEN,
        agent=st.sampled_from(["agent-1", "agent-2"]),
    ),
    min_size=1,
    max_size=40,
)


def _measured(samples: list[Sample], scale: int, policy: Policy) -> PathMetrics:
    paths, numbers = Paths(), {t: i for i, t in enumerate(TARGETS)}
    begin_ms = 1_680_000_000_000
    for second in range(60):
        mine = [replace(s, at_ms=scale * (begin_ms + s.at_ms)) for s in samples if s.at_ms // 1000 == second]
        if mine:
            now_ms = scale * (begin_ms + 1000 * second + 1000)
            found = panes(mine, pane_ms=scale * 1000)
            paths.fold(found, numbers, policy, now_ms, float(scale * 1000 * (second + 1)))
    return metrics(paths, len(TARGETS), policy, float(scale * 61_000))


@settings(max_examples=60)
@given(_SAMPLES, st.sampled_from([2, 5]))
def test_time_that_runs_slower_by_a_factor_with_all_its_constants_measures_the_same(
    samples: list[Sample], scale: int
) -> None:
    slower = replace(
        STATED,
        fast_tau_ms=scale * STATED.fast_tau_ms,
        slow_tau_ms=scale * STATED.slow_tau_ms,
        stale_after_ms=scale * STATED.stale_after_ms,
    )
    one, other = _measured(samples, 1, STATED), _measured(samples, scale, slower)
    for name in (f.name for f in fields(PathMetrics) if f.name != "suspects"):
        times = scale if name == "age_ms" else 1
        np.testing.assert_allclose(getattr(other, name), times * getattr(one, name), rtol=1e-9, err_msg=name)
    assert one.suspects == other.suspects
