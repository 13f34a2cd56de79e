"""What may be taken in together: records whose views are known, once each, and ticks at which the same is in force."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from schemas.records import PathPanes, Policy
from streams.core.paths import Paths
from streams.core.stretch import Arrival, Edge, Step, Stretch, together
from tests.streams.core.probing import each, panes

_POLICY = Policy()
_TARGETS = {"t-1": 0, "t-2": 1}


def of(second: int, *targets: str, agent: str = "agent-1", at: int = 1) -> PathPanes:
    """One pane of each target in a record, or several."""
    times = [1000 * (second + i) for i in range(at)]
    return panes([sample for target in targets for sample in each(target, 20.0, at_ms=times, agent=agent)])


def arrival(record: PathPanes, second: int) -> Arrival:
    return Arrival(record, 1000 * second, 1000.0 * second, 1000 * second)


def taken(*records: PathPanes, known: tuple[PathPanes, ...], observed_s: int = 10) -> Stretch:
    paths = Paths()
    for record in known:
        paths.fold(record, _TARGETS, _POLICY, 1000, 1000.0)
    arrivals = [arrival(record, observed_s + i) for i, record in enumerate(records)]
    return paths.stretch(arrivals, _POLICY)


def test_records_of_known_views_are_taken_together() -> None:
    both = [of(second, "t-1", "t-2") for second in range(5)]
    stretch = taken(*both[1:], known=(both[0],))
    assert (stretch.count, len(stretch.groups)) == (4, 1)


def test_records_that_alternate_between_agents_are_as_many_groups() -> None:
    records = [of(second, "t-1", "t-2", agent=f"agent-{second % 2}") for second in range(6)]
    stretch = taken(*records[2:], known=tuple(records[:2]))
    assert [group.numbers for group in stretch.groups] == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    "odd",
    [of(2, "t-1", agent="newcomer"), of(2, "t-1", at=3), of(2, "t-1"), of(2, "elsewhere")],
    ids=["a new view", "several panes of a view", "the same view in a record with other names", "no target of ours"],
)
def test_a_stretch_ends_before_anything_else(odd: PathPanes) -> None:
    known = (of(0, "t-1", "t-2"), of(0, "elsewhere"), of(1, "t-1", at=3), of(1, "t-1"))
    assert taken(of(1, "t-1", "t-2"), odd, of(3, "t-1", "t-2"), known=known).count == 1


def test_nothing_is_taken_together_while_a_view_may_be_forgotten() -> None:
    both = of(0, "t-1", "t-2")
    assert taken(both, known=(both,), observed_s=2000).count == 1
    assert taken(both, known=(both,), observed_s=3000).count == 0


def test_columns_that_do_not_fit_each_other_are_an_error() -> None:
    good = of(0, "t-1", "t-2")
    for bad in (
        replace(good, outcomes=good.outcomes[:-4]),
        replace(good, bucket=good.bucket + bytes(2)),
        replace(good, bucket_count=good.bucket_count[:-4]),
    ):
        stretch = taken(good, bad, known=(good,))
        with pytest.raises(ValueError, match=r"do(es)? not fit"):
            stretch.groups[0].columns()


def test_steps_go_together_up_to_the_arrivals_allowed_and_to_what_expires_after_the_first_edge() -> None:
    record = of(0, "t-1")
    steps: list[Step] = [step for s in range(5) for step in (arrival(record, s), Edge(1000 * s + 300, 1000.0 * s))]
    assert together(steps, 9, lambda _: math.inf) == steps
    assert together(steps, 2, lambda _: math.inf) == steps[:4]
    assert together(steps, 0, lambda _: math.inf) == []
    assert together(steps[1:], 0, lambda _: math.inf) == steps[1:2]
    assert together(steps, 9, lambda now_ms: now_ms + 2000) == steps[:5]
    assert together(steps, 9, lambda now_ms: now_ms) == steps[:3]
