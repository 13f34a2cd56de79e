"""An interface in a namespace of its own, up and down."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from schemas.actuators import Links, LinkTask
from sinks.actuators.actuator import ActuatorError, Wanted
from sinks.actuators.link import LinkActuator
from tests.network import NEEDS_ROOT, hosts

pytestmark = NEEDS_ROOT
UP = Wanted("eu", "standby", "LINK", applies=True, value=0)
GONE = Wanted("eu", "gone", "LINK", applies=True, value=0)


@pytest.fixture
def actuator() -> Iterator[LinkActuator]:
    with hosts("10.76.0", "fd76:") as (here, _):
        add = ["ip", "-n", here.name, "link", "add", "standby0", "type", "veth", "peer", "name", "other0"]
        subprocess.run(add, check=True)
        tasks = tuple(
            LinkTask(primary="eu", remedy=remedy, device=device, namespace=here.name)
            for remedy, device in (("standby", "standby0"), ("gone", "gone0"))
        )
        yield LinkActuator(Links(name="links", tasks=tasks))


def test_a_link_goes_up_and_down_and_repeating_changes_nothing(actuator: LinkActuator) -> None:
    down = replace(UP, applies=False)
    assert actuator.is_so(down)
    for wanted in (UP, UP, down, down):
        actuator.do(wanted, "a-1")
        assert actuator.is_so(wanted)
        assert not actuator.is_so(replace(wanted, applies=not wanted.applies))


def test_a_device_that_is_not_there_is_a_failure_with_what_the_kernel_says(actuator: LinkActuator) -> None:
    for call in (actuator.is_so, lambda wanted: actuator.do(wanted, "a-2")):
        with pytest.raises(ActuatorError, match=r'gone0.*does not exist|Cannot find device "gone0"'):
            call(GONE)


@pytest.mark.parametrize("change", [{"primary": "ap"}, {"remedy": "other"}, {"kind": "BANDWIDTH"}])
def test_what_is_not_in_its_file_is_refused(actuator: LinkActuator, change: dict[str, str]) -> None:
    assert actuator.refuses(UP) is None
    assert actuator.refuses(replace(UP, **change)) is not None  # type: ignore[arg-type]
