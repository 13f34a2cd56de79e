"""From an action to its result: once, in time, allowed, looked at, told; whatever dies in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from infra.kafka.admin import create_topics
from infra.kafka.cluster import Broker
from schemas.actuators import Actuators
from schemas.errors import CodecError, DeliveryError, StoreUnavailableError
from schemas.records import OperatorDirective
from schemas.topics import TOPICS, partition_of
from sinks.actuators.log import ActionLog
from sinks.actuators.results import Results
from sinks.actuators.stops import Stops
from tests.sinks.actuators.acting import Scene, action, now_ms, publishing

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def prefix(kafka: Broker) -> str:
    create_topics(kafka.bootstrap, prefix="acting-")
    return "acting-"


@pytest.fixture
def scene(kafka: Broker, prefix: str, tmp_path: Path) -> Iterator[Scene]:
    made = Scene(kafka.bootstrap, prefix, tmp_path)
    yield made
    made.sink.close()


def stop(expires_at_ms: int, directive_id: str = "stop-1") -> OperatorDirective:
    return OperatorDirective(directive_id, "stop-actions", expires_at_ms, "ops", "we work on the routers")


def test_an_action_is_begun_done_looked_at_and_told(scene: Scene) -> None:
    scene.takes(action("t1"))
    assert scene.switch.done == ["t1"]
    assert scene.outcomes("t1") == ["STARTED", "APPLIED"]
    scene.takes(action("t2", operation="ROLL_BACK"))
    assert not scene.switch.is_on
    assert scene.outcomes("t2") == ["STARTED", "APPLIED"]


def test_an_action_that_comes_again_does_nothing_and_says_nothing_even_to_another_process(scene: Scene) -> None:
    first = action("a1")
    scene.takes(first)
    scene.switch.is_on = False  # somebody has switched it off since
    scene.takes(first)
    scene.again()
    scene.takes(first)
    assert scene.switch.done == ["a1"]
    assert not scene.switch.is_on
    assert scene.outcomes("a1") == ["STARTED", "APPLIED"]


def test_what_is_so_already_is_not_done(scene: Scene) -> None:
    scene.switch.is_on = True
    scene.takes(action("b1"))
    assert scene.switch.done == []
    assert scene.outcomes("b1") == ["STARTED", "ALREADY"]


def test_a_process_that_dies_after_the_effect_finds_it_done_and_one_that_dies_before_does_it(scene: Scene) -> None:
    scene.switch.dies = True
    with pytest.raises(KeyboardInterrupt):
        scene.takes(action("c1"))
    scene.switch.dies = False
    scene.again()
    scene.takes(action("c1"))
    assert scene.switch.done == ["c1"]
    assert scene.last("c1").outcome == "APPLIED"
    assert "after a restart" in scene.last("c1").detail

    scene.switch.dies, scene.switch.lies = True, True
    with pytest.raises(KeyboardInterrupt):
        scene.takes(action("c2", operation="ROLL_BACK"))
    scene.switch.dies = scene.switch.lies = False
    scene.again()
    scene.takes(action("c2", operation="ROLL_BACK"))
    assert scene.switch.done == ["c1", "c2", "c2"]
    assert not scene.switch.is_on
    assert scene.last("c2").outcome == "APPLIED"


def test_what_was_begun_and_expired_meanwhile_is_not_gone_on_with_and_may_be_there_in_part(scene: Scene) -> None:
    scene.switch.dies = scene.switch.lies = True
    begun = action("d1", lasts_ms=60_000)
    with pytest.raises(KeyboardInterrupt):
        scene.takes(begun)
    scene.switch.dies = scene.switch.lies = False
    scene.wall_off_ms = 70_000  # a minute later
    scene.again()
    scene.takes(begun)
    assert scene.switch.done == ["d1"]
    assert scene.last("d1").outcome == "FAILED"
    assert "begun before a restart" in scene.last("d1").detail


def test_a_topic_that_is_read_again_without_the_log_moves_nothing(scene: Scene) -> None:
    old = [action(f"e{i}", planned_at_ms=now_ms() - 100_000, expires_at_ms=now_ms() - 90_000) for i in range(5)]
    for each in old:
        scene.takes(each, appended_at_ms=now_ms() - 100_000)
    assert scene.switch.done == []
    assert {scene.last(each.action_id).outcome for each in old} == {"EXPIRED"}


@pytest.mark.parametrize("off_ms", [-3_600_000, 0])
def test_late_is_judged_by_the_brokers_clock_however_wrong_ours_is(scene: Scene, off_ms: int) -> None:
    scene.wall_off_ms = off_ms
    name = f"f{abs(off_ms)}"
    late = action(name, expires_at_ms=now_ms() - 1)
    scene.takes(late, appended_at_ms=now_ms() - 30_000)  # appended in time, read late
    assert scene.switch.done == []
    assert scene.outcomes(name) == ["STARTED", "EXPIRED"] if off_ms else scene.outcomes(name)[-1] == "EXPIRED"


def test_a_dry_run_says_what_it_would_do(scene: Scene) -> None:
    scene.config = Actuators()
    scene.again()
    scene.takes(action("g1"))
    assert scene.switch.done == []
    assert scene.outcomes("g1") == ["DRY_RUN"]
    assert scene.last("g1").detail == "would be done: on"


def test_an_actuator_that_says_yes_and_does_nothing_has_failed(scene: Scene) -> None:
    scene.switch.lies = True
    scene.takes(action("h1"))
    assert scene.last("h1").outcome == "FAILED"
    assert "it is not so" in scene.last("h1").detail


def test_an_actuator_that_fails_again_and_again_is_left_alone_and_asked_later(scene: Scene) -> None:
    scene.switch.fails = "no answer"
    for i in range(3):
        scene.takes(action(f"i{i}"))
    assert [scene.last(f"i{i}").outcome for i in range(3)] == ["FAILED", "FAILED", "REFUSED"]
    assert "no answer" in scene.last("i2").detail
    assert scene.last("i1").breaker == "OPEN"
    scene.clock_s, scene.switch.fails = 11.0, ""
    scene.takes(action("i3"))
    assert [r.breaker for r in scene.results() if r.action_id == "i3"] == ["HALF_OPEN", "CLOSED"]
    assert scene.last("i3").outcome == "APPLIED"


def test_a_remedy_that_is_not_in_its_file_is_refused(scene: Scene) -> None:
    scene.takes(action("j1", remedy_id="reboot"))
    assert scene.last("j1").outcome == "REFUSED"
    assert scene.switch.done == []


def test_so_many_remedies_an_hour_and_roll_backs_always(scene: Scene) -> None:
    scene.config = Actuators(dry_run=False, applies_per_hour_max=2)
    scene.again()
    for i in range(3):
        scene.takes(action(f"k{i}a"))
        scene.takes(action(f"k{i}b", operation="ROLL_BACK"))
    assert scene.switch.done == ["k0a", "k0b", "k1a", "k1b"]
    assert scene.last("k2a").outcome == "REFUSED"
    assert scene.last("k2b").outcome == "ALREADY"


def test_so_many_remedies_an_hour_into_one_region(scene: Scene) -> None:
    scene.config = Actuators(dry_run=False, region_applies_per_hour_max=1)
    scene.again()
    scene.takes(action("l0"))
    scene.switch.is_on = False
    scene.takes(action("l1"))
    scene.takes(action("l2", target_region="ap"))
    assert [scene.last(f"l{i}").outcome for i in range(3)] == ["APPLIED", "REFUSED", "APPLIED"]


def test_an_operators_stop_counts_here_too_until_it_ends(scene: Scene) -> None:
    scene.takes(stop(now_ms() + 60_000), key=b"directive/stop-1")
    scene.takes(action("m1"))
    scene.takes(action("m2", operation="ROLL_BACK"))
    assert [scene.last(i).outcome for i in ("m1", "m2")] == ["REFUSED", "REFUSED"]
    assert "stopped by ops: we work on the routers" in scene.last("m1").detail
    scene.takes(stop(0), key=b"directive/stop-1")
    scene.takes(action("m3"))
    assert scene.last("m3").outcome == "APPLIED"


def test_stops_that_were_given_before_the_start_are_known_at_the_start(kafka: Broker, prefix: str) -> None:
    with publishing(kafka.bootstrap, prefix) as publisher:
        for expires_at_ms, its_id in ((now_ms() + 60_000, "s-1"), (now_ms() + 60_000, "s-2"), (0, "s-2")):
            publisher.publish("failover-config", f"directive/{its_id}", stop(expires_at_ms, its_id))
    stops = Stops()
    stops.read(kafka.bootstrap, prefix)
    assert stops.why("eu", now_ms()) == "stopped by ops: we work on the routers"
    stops.take(stop(0, "s-1"), partition_of(b"directive/s-1"), 1 << 40)
    assert stops.why("eu", now_ms()) is None


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({}, b"ap"),
        ({}, None),
        ({"kind": "SHELL"}, b"eu"),
        ({"value": float("nan")}, b"eu"),
        ({"action_id": "x y"}, b"eu"),
    ],
)
def test_an_action_that_overview_did_not_write_is_a_dead_letter(
    scene: Scene, wrong: dict[str, object], key: bytes
) -> None:
    with pytest.raises(CodecError):
        scene.takes(replace(action("n1"), **wrong), key=key)  # type: ignore[arg-type]
    scene.sink.flush()
    assert scene.switch.done == []


def test_actions_of_others_are_passed_by(scene: Scene) -> None:
    scene.takes(action("o1", actuator="another"))
    assert scene.outcomes("o1") == []


def test_two_processes_of_one_name_do_nothing(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="another process has it"):
        ActionLog(tmp_path / "actions.sqlite")
    places = [(t, p) for t in scene.sink.topics for p in range(TOPICS[t].partitions)]
    scene.sink.assigned(places[: len(places) // 2])
    scene.takes(action("p1"))
    assert scene.last("p1").outcome == "REFUSED"
    scene.sink.assigned(places)
    scene.takes(action("p2"))
    assert scene.last("p2").outcome == "APPLIED"


def test_nothing_is_done_that_cannot_be_told(scene: Scene) -> None:
    scene.sink._results = Results("127.0.0.1:1", scene.prefix)
    with pytest.raises(DeliveryError, match="cannot be told"):
        scene.takes(action("q1"))
    assert scene.switch.done == []
    scene.sink._results = Results(scene.bootstrap, scene.prefix)
    scene.sink.flush()
    assert scene.switch.done == ["q1"]
    assert scene.outcomes("q1") == ["STARTED", "APPLIED"]
