"""Remedies through both journals: decide sees, overview plans, an actuator answers; the same bytes after a restart."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from typing import Final

import pytest

from schemas.codec import decode, encode
from schemas.errors import CodecError
from schemas.records import (
    ActionResult,
    Directive,
    FailoverConfiguration,
    GraphUpdate,
    OperatorDirective,
    PathAction,
    Reason,
    Remedy,
    RemedyLimits,
    RemedyReport,
    Snapshot,
)
from streams.core.mending import Mending
from tests.pipeline import seed_from_environment
from tests.streams.core.policy import STATED
from tests.streams.core.treating import result
from tests.streams.core.world import Seen, World, new_network_fold

LINK: Final = Remedy("standby", "b", "LINK", "edge", revert_after_ms=20_000)
PREFER: Final = Remedy("prefer", "b", "LOCAL_PREFERENCE", "edge", value=200.0, verify_within_ms=12_000)
LIMITS: Final = RemedyLimits(breaker_failures=1, breaker_open_ms=60_000)


class MendedWorld(World):
    """Primary a with targets b and c; the path to b is slow from a second on, unless what cures it is in place."""

    def __init__(self, *remedies: Remedy, cure: str = "standby", slow_ms: float = 90.0) -> None:
        super().__init__("abc", primaries="a")
        self.in_place: set[str] = set()
        self.said: list[PathAction | RemedyReport] = []
        self.answered = 0
        self.cure, self.slow_ms, self.is_slow = cure, slow_ms, False
        changed = FailoverConfiguration(
            "a", ["b", "c"], 2, based_on=1, policy=STATED, remedies=list(remedies), remedy_limits=LIMITS
        )
        self.configure(changed, "a")

    def live(self, seconds: int) -> MendedWorld:
        for _ in range(seconds):
            self.run(1, self._seen)
            self._act()
        return self

    def _seen(self, _: str, target: str, __: int) -> Seen:
        if target == "c":
            return 60.0
        return self.slow_ms if self.is_slow and self.cure not in self.in_place else 30.0

    def _act(self) -> None:
        outputs = [o for made in self.graph_outputs[self.answered :] for o in made if o.topic == "path-actions"]
        self.answered = len(self.graph_outputs)
        for output in outputs:
            assert output.key == b"a"
            said = decode(output.value, PathAction, RemedyReport)
            self.said.append(said)
            if isinstance(said, PathAction):
                change = self.in_place.add if said.operation == "APPLY" else self.in_place.discard
                change(said.remedy_id)
                for outcome in ("STARTED", "APPLIED"):
                    self.tell(result(said, outcome))

    def tell(self, its: ActionResult, key: bytes | None = None) -> None:
        """On action-results, and by intake to overview."""
        observation = self._observation(its, its.primary_region)
        self._to_overview(observation, self.now_ms + 700, key or its.primary_region.encode())

    @property
    def story(self) -> list[tuple[str, str]]:
        return [(s.remedy_id, s.event) for s in self.said if isinstance(s, RemedyReport)]


@cache
def told() -> MendedWorld:
    """One remedy that is no use, one that is, a withdrawal in vain, a stop, forged results."""
    world = MendedWorld(LINK, PREFER, cure="prefer").live(25)
    world.is_slow = True
    world.live(60)
    forged = ActionResult("f" * 32, "a", "prefer", "edge", "APPLY", "APPLIED", "trust me", "CLOSED", 1)
    world.tell(forged)
    world.tell(replace(forged, primary_region="b"), b"b")
    world.tell(forged, b"c")
    world.live(20)
    stop = OperatorDirective("s", Directive.STOP_ACTIONS, world.now_ms + 15_000, "ops", "work")
    world.configure(stop, None)
    world.is_slow = False
    return world.live(40)


def test_a_remedy_is_planned_by_what_decide_says_and_verified_by_it() -> None:
    world = MendedWorld(LINK).live(25)
    world.is_slow = True
    world.live(40)
    assert world.story[:3] == [("standby", "STARTED"), ("standby", "APPLIED"), ("standby", "VERIFIED")]
    verified = [s for s in world.said if isinstance(s, RemedyReport)][2]
    assert verified.gain is not None
    assert verified.gain > 20


def test_the_story_here_is_worth_folding() -> None:
    events = {event for _, event in told().story}
    assert events >= {"STARTED", "APPLIED", "NOT_HELPED", "WITHDRAWN", "BREAKER_OPENED", "VERIFIED"}
    assert [letter.reason for letter in told().letters] == 3 * [Reason.UNASKED]


def test_from_any_snapshot_the_rest_of_the_journal_gives_the_same_plans() -> None:
    journal, due = told().graph_journal, told().graph_outputs
    chance = random.Random(seed_from_environment("restarts of plans"))
    whole = new_network_fold()
    cuts = sorted(chance.sample(range(1, len(journal)), 10))
    kept: dict[int, list[Snapshot]] = {}
    for offset, record in enumerate(journal):
        assert whole.apply(record) == due[offset]
        if offset in cuts:
            kept[offset] = whole.snapshots()
    for cut in cuts:
        fold = new_network_fold()
        fold.restore(decode(encode(s), Snapshot) for s in kept[cut])
        assert [fold.apply(record) for record in journal[cut + 1 :]] == due[cut + 1 :]


def test_a_result_that_is_read_twice_counts_once() -> None:
    world = MendedWorld(LINK).live(25)
    world.is_slow = True
    world.live(10)
    observations = [r for r in world.graph_journal if r.key == b"a" and _is_result(r.value)]
    before = len(world.letters)
    for record in observations:
        world._to_overview(record.value, world.now_ms, record.key or b"")
    world.live(30)
    assert world.letters[before:] == []
    assert world.story[:3] == [("standby", "STARTED"), ("standby", "APPLIED"), ("standby", "VERIFIED")]


def _is_result(value: bytes) -> bool:
    try:
        decode(value, GraphUpdate)
    except CodecError:
        return True
    return False


def test_a_configuration_that_was_not_accepted_brings_no_remedies() -> None:
    mending = Mending()
    first = FailoverConfiguration("a", ["b"], 1, remedies=[LINK])
    mending.take(first, "a", 1)
    mending.take(replace(first, version=5, based_on=4, remedies=[PREFER]), "a", 2)
    assert list(mending.primaries["a"].treatments) == ["standby"]
    mending.take(replace(first, version=2, based_on=1, remedies=[PREFER]), "a", 3)
    assert list(mending.primaries["a"].treatments) == ["prefer"]


@pytest.mark.parametrize("key", ["b", "", "regions"])
def test_a_result_under_another_key_is_nobodys(key: str) -> None:
    mending = Mending()
    mending.take(FailoverConfiguration("a", ["b"], 1, remedies=[LINK]), "a", 1)
    forged = ActionResult("f", "a", "standby", "edge", "APPLY", "APPLIED", "", "CLOSED", 1)
    assert "is not the primary" in (mending.take(forged, key, 2) or "")
