"""Hold-down: whatever the scores do, the table knows what comes next, and traffic does not move back and forth."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.holddown import TRANSITIONS, HoldDown, Phase, Signal

DWELL_MS = 3000
REGIONS = ("a", "b", "c")


@dataclass(frozen=True, slots=True)
class Moment:
    """Scores of a moment, as far as hold-down is told of them."""

    after_ms: int
    best: str | None
    usable: bool = True  # the target in use, if there is one
    leads: bool = True  # the best, if it is another than the target in use


_MOMENTS = st.lists(
    st.builds(
        Moment,
        after_ms=st.one_of(st.just(1000), st.integers(0, 4000)),
        best=st.sampled_from([*REGIONS, None]),
        usable=st.sampled_from([True, True, True, False]),
        leads=st.booleans(),
    ),
    max_size=40,
)


def step(state: HoldDown, moment: Moment, now_ms: int, dwell_ms: int = DWELL_MS) -> tuple[HoldDown, Signal]:
    """As the engine asks: no target is never usable, and a target does not lead itself."""
    usable = moment.usable and state.target is not None
    leads = moment.leads and usable and moment.best not in (None, state.target)
    return state.step(moment.best, usable=usable, leads=leads, now_ms=now_ms, dwell_ms=dwell_ms)


def after(*moments: Moment, dwell_ms: int = DWELL_MS, start: HoldDown | None = None) -> HoldDown:
    state, now_ms = start or HoldDown(), 1_000_000
    for moment in moments:
        now_ms += moment.after_ms
        state, _ = step(state, moment, now_ms, dwell_ms)
    return state


def lead(best: str, seconds: float = 1) -> Moment:
    return Moment(int(seconds * 1000), best)


A_IN_USE = after(Moment(0, "a"))


@settings(max_examples=200)
@given(_MOMENTS, st.sampled_from([0, 1, DWELL_MS]))
def test_the_table_knows_every_signal_in_every_phase_that_can_be_reached(moments: list[Moment], dwell_ms: int) -> None:
    state, now_ms = HoldDown(), 0
    for moment in moments:
        now_ms += moment.after_ms
        state, _ = step(state, moment, now_ms, dwell_ms)
        assert (state.phase is Phase.NONE) == (state.target is None)


def test_every_line_of_the_table_is_reached() -> None:
    seen: set[tuple[Phase, Signal]] = set()

    def walk(state: HoldDown, now_ms: int, depth: int) -> None:
        if depth == 0:
            return
        for best in ("a", "b", None):
            for usable in (True, False):
                for leads in (True, False):
                    following, signal = step(state, Moment(0, best, usable, leads), now_ms)
                    seen.add((state.phase, signal))
                    walk(following, now_ms + 2000, depth - 1)

    walk(HoldDown(), 0, 5)
    assert seen == set(TRANSITIONS)


@settings(max_examples=200)
@given(_MOMENTS)
def test_a_target_that_stays_usable_is_kept_for_the_dwell_at_least(moments: list[Moment]) -> None:
    state, now_ms = HoldDown(), 0
    changed_at_ms = -DWELL_MS
    for moment in moments:
        now_ms += moment.after_ms
        before = state
        state, signal = step(before, moment, now_ms)
        if state.target != before.target:
            lost = before.target is None or not moment.usable
            assert lost or now_ms - changed_at_ms >= DWELL_MS
            assert lost == (signal in (Signal.TARGET_UNUSABLE, Signal.TARGET_LOST))
            changed_at_ms = now_ms


@settings(max_examples=200)
@given(_MOMENTS)
def test_a_move_by_lead_comes_after_an_unbroken_lead_of_the_dwell(moments: list[Moment]) -> None:
    state, now_ms = HoldDown(), 0
    led_since_ms: int | None = None
    for moment in moments:
        now_ms += moment.after_ms
        before = state
        state, signal = step(before, moment, now_ms)
        leads = moment.usable and moment.leads and before.target is not None
        leads = leads and moment.best not in (None, before.target)
        led_since_ms = None if not leads else now_ms if led_since_ms is None else led_since_ms
        if signal is Signal.DWELL_OVER:
            assert led_since_ms is not None
            assert now_ms - led_since_ms >= DWELL_MS
            assert state.target == moment.best
            led_since_ms = None


@settings(max_examples=200)
@given(_MOMENTS)
def test_the_target_is_always_one_that_was_best_when_it_was_chosen_or_nobody(moments: list[Moment]) -> None:
    state, now_ms = HoldDown(), 0
    for moment in moments:
        now_ms += moment.after_ms
        before, (state, _) = state, step(state, moment, now_ms)
        assert state.target in (before.target, moment.best)


def test_the_first_eligible_candidate_is_taken_at_once() -> None:
    assert after(Moment(0, None), Moment(1000, "a")).target == "a"


def test_a_challenger_has_to_lead_for_the_dwell() -> None:
    assert after(lead("b"), lead("b"), lead("b"), start=A_IN_USE).target == "a"
    assert after(lead("b"), lead("b"), lead("b"), lead("b"), start=A_IN_USE).target == "b"


def test_a_lead_that_is_lost_begins_anew() -> None:
    lost = Moment(1000, "a", leads=False)
    assert after(lead("b"), lead("b"), lead("b"), lost, lead("b"), lead("b"), lead("b"), start=A_IN_USE).target == "a"


def test_leading_by_less_than_the_margin_is_no_lead() -> None:
    assert after(*[Moment(1000, "b", leads=False)] * 10, start=A_IN_USE).target == "a"


def test_a_lead_runs_on_when_the_leader_changes_and_the_last_leader_gets_it() -> None:
    assert after(lead("b"), lead("c"), lead("b"), lead("c"), start=A_IN_USE).target == "c"


def test_nothing_eligible_for_a_moment_ends_a_lead_and_keeps_the_target() -> None:
    nothing = Moment(1000, None)
    assert after(lead("b"), lead("b"), lead("b"), nothing, lead("b"), start=A_IN_USE).target == "a"


def test_a_target_that_is_no_longer_usable_is_left_at_once_for_the_best_of_the_rest() -> None:
    for start in (A_IN_USE, after(lead("b"), start=A_IN_USE)):
        assert after(Moment(0, "c", usable=False), start=start).target == "c"


def test_when_all_are_dead_the_target_is_nowhere_and_the_first_that_revives_is_taken() -> None:
    nowhere = after(Moment(0, None, usable=False), start=A_IN_USE)
    assert nowhere.target is None
    assert after(Moment(0, "c"), start=nowhere).target == "c"


def test_without_a_dwell_the_leader_is_taken_at_once() -> None:
    assert after(lead("b"), start=A_IN_USE, dwell_ms=0).target == "b"
    assert after(Moment(1000, "b", leads=False), start=A_IN_USE, dwell_ms=0).target == "a"
