"""Directives in force: until they expire, for whom they are meant, and the same after a snapshot."""

from __future__ import annotations

from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import Directive, Event, OperatorDirective
from streams.core.directives import Directives
from streams.core.state import from_scalars, to_scalars

PRIMARY: Final = "eu-1"
CANDIDATES: Final = ("t-1", "t-2", "t-3")
NOW_MS: Final = 1_700_000_000_000
_DIRECTIVE = st.builds(
    OperatorDirective,
    directive_id=st.sampled_from(["a", "b", "c", "d"]),
    kind=st.sampled_from(list(Directive)),
    expires_at_ms=st.integers(NOW_MS - 5000, NOW_MS + 60_000),
    author=st.text(min_size=1, max_size=10),
    reason=st.text(min_size=1, max_size=10),
    primary_region=st.sampled_from([None, PRIMARY, "us-9"]),
    region=st.sampled_from([None, "t-1", "t-2", "t-9"]),
)
_GIVEN = st.lists(st.tuples(st.integers(0, 10_000), _DIRECTIVE), max_size=20)


def given_all(told: list[tuple[int, OperatorDirective]]) -> tuple[Directives, int]:
    """After all of them, each some time after the one before; and when that is."""
    directives, now_ms = Directives(), NOW_MS
    for passed_ms, directive in told:
        now_ms += passed_ms
        directives.expire(now_ms)
        directives.give(directive, PRIMARY, CANDIDATES, now_ms)
    return directives, now_ms


@settings(max_examples=100)
@given(_GIVEN, _GIVEN)
def test_saved_and_loaded_they_order_the_same_then_and_later(
    before: list[tuple[int, OperatorDirective]], after: list[tuple[int, OperatorDirective]]
) -> None:
    one, now_ms = given_all(before)
    scalars = from_scalars(to_scalars({"directives": one.save()}))
    other = Directives.load(scalars["directives"])
    assert other.save() == one.save()
    for passed_ms, directive in after:
        now_ms += passed_ms
        assert other.expire(now_ms) == one.expire(now_ms)
        answers = [d.give(directive, PRIMARY, CANDIDATES, now_ms) for d in (one, other)]
        assert answers[0] == answers[1]
        assert other.orders(CANDIDATES) == one.orders(CANDIDATES)
    assert other.save() == one.save()


@settings(max_examples=100)
@given(_GIVEN)
def test_only_what_is_meant_for_this_primary_and_has_not_expired_is_in_force(
    told: list[tuple[int, OperatorDirective]],
) -> None:
    directives, now_ms = given_all(told)
    directives.expire(now_ms)
    orders = directives.orders(CANDIDATES)
    latest = {d.directive_id: d for _, d in told}
    for shown in orders.shown:
        directive = latest[shown.directive_id]
        assert directive.primary_region in (None, PRIMARY)
        assert directive.expires_at_ms > now_ms
        assert directive.region in (None, *CANDIDATES)
    assert orders.pinned is None or orders.pinned in CANDIDATES
    assert orders.drained <= set(CANDIDATES)


@settings(max_examples=100)
@given(_GIVEN, st.data())
def test_any_of_those_in_force_given_again_changes_nothing(
    told: list[tuple[int, OperatorDirective]], data: st.DataObject
) -> None:
    directives, now_ms = given_all(told)
    directives.expire(now_ms)
    before = directives.save()
    if before:
        again = OperatorDirective(**data.draw(st.sampled_from(before)))
        assert directives.give(again, PRIMARY, CANDIDATES, now_ms) is Event.DIRECTIVE_ACCEPTED
        assert directives.save() == before


def test_so_many_directives_that_a_ranking_could_not_carry_them_are_bounded_and_the_next_to_expire_goes() -> None:
    directives = Directives()
    for number in range(300):
        many = OperatorDirective(f"d-{number}", Directive.DRAIN, NOW_MS + 1000 + number, "ops", "why", None, "t-1")
        directives.give(many, PRIMARY, CANDIDATES, NOW_MS)
    shown = [d.directive_id for d in directives.orders(CANDIDATES).shown]
    assert shown == [f"d-{number}" for number in range(200, 300)]
