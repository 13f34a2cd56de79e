"""Real routers: what is said to them, whether it is there, and that half of a remedy does not stay."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from infra.lab.lab import Lab
from infra.lab.spec import LabLink, LabRegion, LabSpec
from infra.processes import wait_until
from schemas.actuators import Frr, FrrTask, Place, Router
from schemas.records import RemedyKind
from sinks.actuators.actuator import ActuatorError, Wanted
from sinks.actuators.frr import COMMANDS, FrrActuator
from sinks.actuators.vty import tell
from tests.network import skip_without_lab

PREFER = Wanted("home", "prefer-t2", "LOCAL_PREFERENCE", applies=True, value=200)
PREPEND = Wanted("home", "prepend-t1", "AS_PATH_PREPEND", applies=True, value=3)
SESSION = Wanted("home", "session", "LINK", applies=True, value=0)
HALF = Wanted("home", "half", "LOCAL_PREFERENCE", applies=True, value=150)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    skip_without_lab()
    spec = LabSpec(
        name="actfrr",
        regions=[LabRegion(id=r, latitude=0, longitude=0) for r in ("home", "near")],
        transits=["t1", "t2"],
        links=[LabLink(between=(r, t), delay_ms=1) for r in ("home", "near") for t in ("t1", "t2")],
    )
    with Lab.start(spec) as its:
        its.wait_for_routes()
        yield its


@pytest.fixture
def actuator(lab: Lab) -> FrrActuator:
    home = Router(name="home", vty=lab.routers["home"].vty, as_number=lab.spec.as_number("home"))
    dead = Router(name="dead", vty=Path("/nonexistent/bgpd.vty"), as_number=1)
    t2 = Place(router="home", neighbor=ip_address("10.202.2.2"), route_map="t2-in")
    t1 = Place(router="home", neighbor=ip_address("10.202.1.2"), route_map="t1-out")
    nowhere = t2.model_copy(update={"router": "dead"})
    preference, prepend = RemedyKind.LOCAL_PREFERENCE, RemedyKind.AS_PATH_PREPEND
    tasks = (
        FrrTask(primary="home", remedy="prefer-t2", kind=preference, value_min=100, value_max=300, at=(t2,)),
        FrrTask(primary="home", remedy="prepend-t1", kind=prepend, value_min=1, value_max=3, at=(t1,)),
        FrrTask(primary="home", remedy="session", kind=RemedyKind.LINK, at=(t2,)),
        FrrTask(primary="home", remedy="half", kind=preference, value_min=100, value_max=300, at=(t2, nowhere)),
    )
    return FrrActuator(Frr(name="edge", timeout_ms=1000, routers=(home, dead), tasks=tasks))


def best(lab: Lab) -> str | None:
    """The transit over which home reaches near, as its router says; None: it has not chosen yet."""
    (said,) = lab.routers["home"].tell("show bgp ipv4 unicast 10.201.2.0/24 json")
    paths = json.loads(said)["paths"]
    chosen = [p["nexthops"][0]["ip"] for p in paths if p.get("bestpath", {}).get("overall")]
    return {"10.202.1.2": "t1", "10.202.2.2": "t2"}[chosen[0]] if chosen else None


def test_local_preference_moves_the_route_and_back_and_repeating_changes_nothing(
    lab: Lab, actuator: FrrActuator
) -> None:
    away = replace(PREFER, applies=False)
    wait_until(lambda: best(lab) == "t1", 15, "the route over t1")  # both transits' routes may still be on their way
    assert actuator.is_so(away)
    for _ in range(2):
        actuator.do(PREFER, "a-1")
        assert actuator.is_so(PREFER)
        wait_until(lambda: best(lab) == "t2", 5, "the route over t2")
    assert not actuator.is_so(replace(PREFER, value=250)), "another value is another state"
    for _ in range(2):
        actuator.do(away, "a-2")
        assert actuator.is_so(away)
        assert not actuator.is_so(PREFER)
        wait_until(lambda: best(lab) == "t1", 5, "the route over t1")


def test_prepending_is_seen_by_the_neighbour_and_goes_again(lab: Lab, actuator: FrrActuator) -> None:
    def as_path() -> str:
        (said,) = lab.routers["t1"].tell("show bgp ipv4 unicast 10.201.1.0/24 json")
        lengths = [p["aspath"]["string"] for p in json.loads(said)["paths"] if p["peer"]["peerId"] == "10.202.1.1"]
        return str(lengths[0])

    actuator.do(PREPEND, "a-3")
    assert actuator.is_so(PREPEND)
    wait_until(lambda: as_path() == "65001 65001 65001 65001", 5, "the prepended path")
    actuator.do(replace(PREPEND, applies=False), "a-4")
    assert actuator.is_so(replace(PREPEND, applies=False))
    wait_until(lambda: as_path() == "65001", 5, "the plain path")


def test_a_session_is_shut_down_and_taken_up(lab: Lab, actuator: FrrActuator) -> None:
    shut = replace(SESSION, applies=False)
    actuator.do(shut, "a-5")
    assert actuator.is_so(shut)
    actuator.do(SESSION, "a-6")
    assert actuator.is_so(SESSION)
    lab.wait_for_routes()


def test_half_of_a_remedy_does_not_stay(actuator: FrrActuator) -> None:
    with pytest.raises(ActuatorError, match=r"dead does not answer.*not taken back at dead"):
        actuator.do(HALF, "a-7")
    assert actuator.is_so(replace(PREFER, applies=False)), "what was done at home is taken back"


def test_a_route_map_that_is_not_there_is_no_state(actuator: FrrActuator, lab: Lab) -> None:
    with pytest.raises(ActuatorError, match="dead does not answer"):
        actuator.is_so(replace(HALF, applies=False))
    home = Router(name="home", vty=lab.routers["home"].vty, as_number=65001)
    place = Place(router="home", neighbor=ip_address("10.202.2.2"), route_map="nobodys")
    task = FrrTask(
        primary="home", remedy="prefer-t2", kind=RemedyKind.LOCAL_PREFERENCE, value_max=300, at=(place,)
    )  # fmt: skip
    with pytest.raises(ActuatorError, match="no route-map nobodys permit 10"):
        FrrActuator(Frr(name="edge", routers=(home,), tasks=(task,))).is_so(PREFER)


def test_what_is_not_in_its_file_is_refused(actuator: FrrActuator) -> None:
    assert actuator.refuses(PREFER) is None
    for change in (
        {"primary": "away"},
        {"remedy": "other"},
        {"kind": "AS_PATH_PREPEND"},
        {"value": 301},
        {"value": 99},
    ):
        assert actuator.refuses(replace(PREFER, **change)) is not None


def test_the_table_of_commands_has_no_place_for_anything_but_typed_words() -> None:
    places = {p for commands in COMMANDS.values() for c in commands for p in re.findall(r"{(\w+)}", c)}
    assert places == {"route_map", "entry", "value", "prepended", "family", "neighbor", "as_number"}
    assert {kind for kind, _ in COMMANDS} == set(RemedyKind) - {RemedyKind.BANDWIDTH}


def test_a_command_of_two_lines_is_none(lab: Lab) -> None:
    with pytest.raises(ValueError, match="no single command"):
        tell(lab.routers["home"].vty, ["show version\nconfigure terminal"], timeout_s=1)
