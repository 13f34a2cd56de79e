"""Hold-down: whatever the scores do, the table knows what comes next, and traffic does not move back and forth."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.holddown import TRANSITIONS, HoldDown, Phase, Proposal, Signal
from tests.streams.core.policy import STATED

DWELL_MS, DWELL_MIN_MS = 6000, 2000
POLICY = replace(STATED, margin_ratio=0.05, dwell_ms=DWELL_MS, dwell_min_ms=DWELL_MIN_MS)
MARGIN = math.log1p(POLICY.margin_ratio)
JUST = MARGIN * 1.000001  # what leads by the margin
REGIONS = ("a", "b", "c")


@dataclass(frozen=True, slots=True)
class Moment:
    """Scores of a moment, as far as hold-down is told of them, and what operators order."""

    after_ms: int
    best: str | None
    usable: bool = True  # the target in use, if there is one
    lead: float = JUST  # of the best, if it is another than the target in use
    frozen: bool = False
    pinned: str | None = None


_ORDERS = st.sampled_from([(False, None)] * 8 + [(True, None), (False, "a"), (True, "b")])
_MOMENTS = st.lists(
    st.builds(
        lambda order, **of: Moment(frozen=order[0], pinned=order[1], **of),
        order=_ORDERS,
        after_ms=st.one_of(st.just(1000), st.integers(0, 8000)),
        best=st.sampled_from([*REGIONS, None]),
        usable=st.sampled_from([True, True, True, False]),
        lead=st.sampled_from([0.0, JUST, 2 * MARGIN, 100 * MARGIN]),
    ),
    max_size=40,
)


def asked(state: HoldDown, moment: Moment) -> Proposal:
    """As the engine asks: no target is never usable, and a target does not lead itself."""
    usable = moment.usable and state.target is not None
    lead = moment.lead if usable and moment.best not in (None, state.target) else 0.0
    return Proposal(moment.best, usable, lead, moment.frozen, moment.pinned)


def after(*moments: Moment, start: HoldDown | None = None) -> HoldDown:
    """The state after these moments; times go on from where the start was seen."""
    state = start or HoldDown()
    now_ms = max(state.seen_at_ms, 1_000_000)
    for moment in moments:
        now_ms += moment.after_ms
        state, _ = state.step(asked(state, moment), POLICY, now_ms)
    return state


def lead(best: str, seconds: float = 1, by: float = JUST) -> Moment:
    return Moment(int(seconds * 1000), best, lead=by)


A_IN_USE = after(Moment(0, "a"), *[Moment(1000, "a")] * 10)


@settings(max_examples=200)
@given(_MOMENTS, st.sampled_from([0, 1, DWELL_MS]))
def test_the_table_knows_every_signal_in_every_phase_that_can_be_reached(moments: list[Moment], dwell_ms: int) -> None:
    state, now_ms = HoldDown(), 0
    for moment in moments:
        now_ms += moment.after_ms
        state, _ = state.step(asked(state, moment), replace(POLICY, dwell_ms=dwell_ms, dwell_min_ms=0), now_ms)
        assert (state.phase is Phase.NONE) == (state.target is None)


def test_every_line_of_the_table_is_reached() -> None:
    moments = [
        Moment(0, best, usable, by, frozen, pinned)
        for best in ("a", "b", None)
        for usable in (True, False)
        for by in (0.0, JUST, 100 * MARGIN)
        for frozen, pinned in ((False, None), (True, None), (False, "b"))
    ]
    seen: set[tuple[Phase, Signal]] = set()
    states = {HoldDown()}
    for now_ms in range(0, 18_000, 2000):
        following = set()
        for state in states:
            for moment in moments:
                then, signal = state.step(asked(state, moment), POLICY, now_ms)
                seen.add((state.phase, signal))
                following.add(then)
        states = following
    assert seen == set(TRANSITIONS)


@settings(max_examples=300)
@given(_MOMENTS)
def test_a_target_that_stays_usable_is_kept_for_the_dwell_at_least_unless_an_operator_pins(
    moments: list[Moment],
) -> None:
    """No sequence of inputs makes two targets alternate faster than the dwell."""
    state, now_ms = HoldDown(), 0
    changed_at_ms = -DWELL_MS
    for moment in moments:
        now_ms += moment.after_ms
        before = state
        state, signal = before.step(asked(before, moment), POLICY, now_ms)
        if state.target != before.target:
            lost = before.target is None or not moment.usable
            pinned = signal is Signal.PINNED
            assert lost or pinned or now_ms - changed_at_ms >= DWELL_MS
            assert pinned or lost == (signal in (Signal.TARGET_UNUSABLE, Signal.TARGET_LOST))
            changed_at_ms = now_ms


@settings(max_examples=300)
@given(_MOMENTS)
def test_a_move_by_lead_comes_after_an_unbroken_lead_times_time_of_the_margin_times_the_dwell(
    moments: list[Moment],
) -> None:
    """A lead counts for the time since the moment before, of a gap no more than the dwell."""
    state, now_ms = HoldDown(), 0
    led_ms, lead_ms = 0, 0.0
    for number, moment in enumerate(moments):
        now_ms += moment.after_ms
        before, proposal = state, asked(state, moment)
        state, signal = before.step(proposal, POLICY, now_ms)
        operated = moment.frozen or moment.pinned is not None
        passed_ms = min(moment.after_ms, DWELL_MS) if number else 0
        led_ms = 0 if operated or not proposal.lead else led_ms + passed_ms
        lead_ms = 0.0 if operated or not proposal.lead else lead_ms + proposal.lead * passed_ms
        if signal is Signal.DWELL_OVER:
            assert led_ms >= (DWELL_MIN_MS / 3 if lead_ms >= math.log(1.08) * led_ms else DWELL_MIN_MS)
            assert lead_ms >= MARGIN * DWELL_MS
            assert state.target == moment.best
            led_ms, lead_ms = 0, 0.0


@settings(max_examples=200)
@given(_MOMENTS)
def test_the_target_is_always_one_that_was_best_or_pinned_when_it_was_chosen_or_nobody(moments: list[Moment]) -> None:
    state, now_ms = HoldDown(), 0
    for moment in moments:
        now_ms += moment.after_ms
        before, (state, _) = state, state.step(asked(state, moment), POLICY, now_ms)
        assert state.target in (before.target, moment.best, moment.pinned)


@settings(max_examples=200)
@given(_MOMENTS, _MOMENTS)
def test_frozen_the_target_stays_whatever_happens_and_pinned_it_is_the_one_pinned(
    before: list[Moment], during: list[Moment]
) -> None:
    state = after(*before)
    assert after(*[replace(m, frozen=True) for m in during], start=state).target == state.target
    if during:
        assert after(*[replace(m, frozen=False, pinned="b") for m in during], start=state).target == "b"


def test_the_first_eligible_candidate_is_taken_at_once() -> None:
    assert after(Moment(0, None), Moment(1000, "a")).target == "a"


def test_a_challenger_that_leads_by_just_the_margin_has_to_lead_for_the_dwell() -> None:
    assert after(*[lead("b")] * 5, start=A_IN_USE).target == "a"
    assert after(*[lead("b")] * 6, start=A_IN_USE).target == "b"


@pytest.mark.parametrize(("times", "seconds"), [(1, 6), (2, 3), (3, 2), (100, 1)])
def test_a_larger_lead_needs_less_time(times: int, seconds: int) -> None:
    assert after(*[lead("b", by=times * JUST)] * (seconds - 1), start=A_IN_USE).target == "a"
    assert after(*[lead("b", by=times * JUST)] * seconds, start=A_IN_USE).target == "b"


@pytest.mark.parametrize(("by", "seconds"), [(0.07, 6), (0.08, 2)])
def test_a_lead_that_is_not_plain_needs_the_least_dwell_and_a_plain_one_a_third(by: float, seconds: int) -> None:
    policy = replace(POLICY, margin_ratio=0.001, dwell_min_ms=6000)
    state = A_IN_USE
    for second in range(1, seconds + 1):
        assert state.target == "a"
        now_ms = A_IN_USE.seen_at_ms + 1000 * second
        state, _ = state.step(Proposal("b", usable=True, lead=by), policy, now_ms)
    assert state.target == "b"


def test_a_target_just_chosen_stays_for_the_dwell_even_beside_one_that_is_far_ahead() -> None:
    moved = after(lead("b", by=9.0), start=A_IN_USE)
    assert moved.target == "b"
    assert after(*[lead("a", by=9.0)] * 5, start=moved).target == "b"
    assert after(*[lead("a", by=9.0)] * 6, start=moved).target == "a"


def test_a_target_that_came_in_for_a_failed_one_stays_for_the_dwell_too() -> None:
    came_in = after(Moment(1000, "b", usable=False), start=A_IN_USE)
    assert came_in.target == "b"
    assert after(*[lead("a", by=9.0)] * 5, start=came_in).target == "b"
    assert after(*[lead("a", by=9.0)] * 6, start=came_in).target == "a"


def test_a_lead_that_is_lost_begins_anew() -> None:
    lost = Moment(1000, "a", lead=0.0)
    assert after(*[lead("b")] * 5, lost, *[lead("b")] * 5, start=A_IN_USE).target == "a"


def test_leading_by_less_than_the_margin_is_no_lead() -> None:
    assert after(*[Moment(1000, "b", lead=0.0)] * 20, start=A_IN_USE).target == "a"


def test_a_lead_runs_on_when_the_leader_changes_and_the_last_leader_gets_it() -> None:
    assert after(*[lead("b"), lead("c")] * 3, start=A_IN_USE).target == "c"


def test_nothing_eligible_for_a_moment_ends_a_lead_and_keeps_the_target() -> None:
    assert after(*[lead("b")] * 5, Moment(1000, None), lead("b"), start=A_IN_USE).target == "a"


def test_an_order_that_freezes_or_pins_ends_a_lead() -> None:
    for order in (Moment(1000, "b", frozen=True), Moment(1000, "b", pinned="a")):
        assert after(*[lead("b")] * 5, order, lead("b"), start=A_IN_USE).target == "a"


def test_a_freeze_is_stronger_than_a_pin() -> None:
    assert after(Moment(1000, "b", frozen=True, pinned="b"), start=A_IN_USE).target == "a"


def test_a_target_that_is_no_longer_usable_is_left_at_once_for_the_best_of_the_rest() -> None:
    for start in (A_IN_USE, after(lead("b"), start=A_IN_USE)):
        assert after(Moment(0, "c", usable=False), start=start).target == "c"


def test_when_all_are_dead_the_target_is_nowhere_and_the_first_that_revives_is_taken() -> None:
    nowhere = after(Moment(0, None, usable=False), start=A_IN_USE)
    assert nowhere.target is None
    assert after(Moment(0, "c"), start=nowhere).target == "c"


def test_a_silence_longer_than_the_dwell_counts_as_the_dwell_and_not_more() -> None:
    assert after(lead("b", seconds=3600, by=0.9 * MARGIN), start=A_IN_USE).target == "a"
    assert after(lead("b", seconds=3600), start=A_IN_USE).target == "b"


def test_without_a_dwell_the_leader_is_taken_at_once() -> None:
    none = replace(POLICY, dwell_ms=0, dwell_min_ms=0)
    for by, target in ((JUST, "b"), (0.0, "a")):
        moment = Moment(1000, "b", lead=by)
        state, _ = A_IN_USE.step(asked(A_IN_USE, moment), none, A_IN_USE.seen_at_ms + 1000)
        assert state.target == target
