"""A real lab: packets take as long as the links say, and routers go round what is down."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.lab.lab import Lab
from infra.lab.namespaces import namespace_of, namespaces, within
from infra.lab.spec import LabSpec
from infra.processes import wait_until
from schemas.errors import ProximaError
from tests.infra.lab.conftest import EXAMPLE
from tests.infra.lab.ping import ping_ms

BY_T1_MS = 2 * (4.0 + 6.0)  # from EU to CENTRAL, and back
REPLAYED = """
name = "{name}"
links = [{{ between = ["a", "b"], trace = "series.csv", step_seconds = 1.5 }}]
regions = [{{ id = "a", latitude = 0, longitude = 0 }}, {{ id = "b", latitude = 0, longitude = 0 }}]
"""
EU, CENTRAL, US = "eu-west-1", "eu-central-1", "us-east-1"


@pytest.fixture
def healed(lab: Lab) -> Iterator[Lab]:
    yield lab
    lab.heal()
    # Routes by the way round are routes too: the ways by t1 have to be back.
    wait_until(lambda: (rtt_ms(lab, EU, CENTRAL) or 999) < BY_T1_MS + 8, 30, "the way by t1")


def rtt_ms(lab: Lab, source: str, target: str, *, v6: bool = False) -> float | None:
    """The least of some pings' round-trip times; None: all are lost."""
    address = lab.spec.address_v6(target) if v6 else lab.spec.address(target)
    found = within(namespace_of(lab.spec.name, source), lambda: ping_ms(address, 5))
    answered = [r for r in found if r is not None]
    return min(answered) if answered else None


@pytest.mark.parametrize("v6", [False, True])
def test_a_round_trip_takes_twice_what_the_links_on_the_way_say(lab: Lab, v6: bool) -> None:
    found = rtt_ms(lab, EU, US, v6=v6)
    assert found is not None
    assert found >= 2 * (4.0 + 30.0), "by t1"
    wait_until(lambda: (rtt_ms(lab, EU, US, v6=v6) or 999) < 2 * (4.0 + 30.0) + 8, 20, "a ping on time")


def test_routers_go_round_a_link_that_is_down_and_back(healed: Lab) -> None:
    healed.link(US, "t1").down()
    wait_until(lambda: (rtt_ms(healed, EU, US) or 0) >= 2 * (6.0 + 35.0), 20, "the way by t2")
    healed.link(US, "t1").up()
    wait_until(lambda: (rtt_ms(healed, EU, US) or 999) < 2 * (6.0 + 35.0), 20, "the way by t1 again")


def test_a_region_whose_links_are_all_down_is_known_to_nobody(healed: Lab) -> None:
    healed.link(CENTRAL, "t1").down()
    prefix = healed.spec.prefixes(CENTRAL)[0]
    wait_until(lambda: prefix not in healed.routers[EU].routes(), 20, "the withdrawal")
    healed.link(CENTRAL, "t2").up()  # the standby link
    wait_until(lambda: prefix in healed.routers[EU].routes(), 30, "the way by the standby")


def test_a_black_hole_loses_everything_and_no_router_knows_yet(healed: Lab) -> None:
    healed.link(CENTRAL, "t1").black_hole()
    assert rtt_ms(healed, EU, CENTRAL) is None
    assert healed.spec.prefixes(CENTRAL)[0] in healed.routers[EU].routes()


def test_a_recorded_series_is_replayed(healed: Lab) -> None:
    healed.link(CENTRAL, "t1").replay([200.0] * 50, step_ms=1000)
    found = rtt_ms(healed, EU, CENTRAL)
    assert found is not None
    assert found >= 200 + 2 * 4.0


@pytest.mark.usefixtures("lab_is_possible")
def test_a_lab_replays_what_its_file_names_half_of_each_round_trip_either_way(tmp_path: Path) -> None:
    (tmp_path / "series.csv").write_text("step,rtt_ms\n0,80\n1,\n2,20\n")
    file = tmp_path / "lab.toml"
    file.write_text(REPLAYED.format(name=f"r{os.getpid()}"))
    with Lab.start(LabSpec.read(file), routers=False) as replayed:
        link = replayed.link("a", "b")
        far = replayed.spec.ends(link.spec)[1]

        def ping() -> float | None:
            return within(namespace_of(replayed.spec.name, "a"), lambda: ping_ms(far, 1))[0]

        for _ in range(2):  # healed, it begins again
            link.heal()
            first = ping()
            assert first is not None
            assert 80 <= first < 100
            wait_until(lambda: ping() is None, 5, "the lost step")
            wait_until(lambda: 20 <= (ping() or 0) < 40, 5, "the last step")
        link.delay_ms = 100
        assert (ping() or 0) >= 200, "the replay has ended"


def test_a_refused_command_and_a_link_that_is_not_there_are_said(lab: Lab) -> None:
    with pytest.raises(ProximaError, match="bgpd of eu-west-1 refuses: show nonsense"):
        lab.routers[EU].tell("show nonsense")
    with pytest.raises(ProximaError, match="no link between eu-west-1 and us-east-1"):
        lab.link(EU, US)
    with pytest.raises(AttributeError, match="a link has no speed"):
        lab.link(EU, "t1").speed = 1.0


@pytest.mark.usefixtures("lab_is_possible")
def test_the_command_takes_changes_line_by_line_and_ends_with_its_input() -> None:
    lines = ["eu-west-1 t1 delay 80", "eu-west-1 t1 speed 80", "nowhere t1 down", "eu-west-1 t1 down", ""]
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", "lab", str(EXAMPLE)],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ready" in done.stdout
    assert "not done: 'eu-west-1 t1 speed 80' is no change of a link" in done.stdout
    assert "not done: no link between nowhere and t1" in done.stdout
    assert not namespaces("lab")


def test_a_door_leads_to_the_machines_own_loopback(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        lab.open_doors([port])

        def speak() -> socket.socket:
            return socket.create_connection(("127.0.0.1", port), timeout=5)

        with within(namespace_of(lab.spec.name, US), speak) as inside:
            inside.sendall(b"from inside")
            outside, _ = server.accept()
            with outside:
                assert outside.recv(100) == b"from inside"
                outside.sendall(b"from outside")
                assert inside.recv(100) == b"from outside"
