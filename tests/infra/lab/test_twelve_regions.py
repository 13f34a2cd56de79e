"""The largest lab: twelve regions behind two transits, half of them with a standby link to the second."""

from __future__ import annotations

import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from infra.lab.lab import Lab
from infra.lab.namespaces import namespace_of, within
from infra.lab.routers import BMP_PORT
from infra.lab.spec import REGIONS_MAX, LabLink, LabRegion, LabSpec
from infra.processes import wait_until
from tests.infra.lab.ping import ping_ms
from tests.infra.lab.remains import processes, remains

REGIONS = [f"region-{i}" for i in range(REGIONS_MAX)]
BMP_INITIATION = b"\x03", b"\x04"  # version, at octet 0; type, at octet 5 (RFC 7854, 4.1 and 4.3)
pytestmark = [pytest.mark.timed, pytest.mark.usefixtures("lab_is_possible")]


def test_twelve_regions_reach_each_other_by_either_transit_and_nothing_stays() -> None:
    spec = LabSpec(
        name=f"w{os.getpid()}",
        regions=[LabRegion(id=r, latitude=0, longitude=0) for r in REGIONS],
        transits=["t1", "t2"],
        links=[
            *(LabLink(between=(r, "t1"), delay_ms=1 + i) for i, r in enumerate(REGIONS)),
            *(LabLink(between=(r, "t2"), delay_ms=2 + i, standby=i % 2 == 1) for i, r in enumerate(REGIONS)),
        ],
    )
    before, at_s = processes(os.getpid()), [time.monotonic()]
    with Lab.start(spec) as lab:
        at_s.append(time.monotonic())
        lab.wait_for_routes()
        at_s.append(time.monotonic())
        started = processes(os.getpid()) - before
        assert len(started) >= 2 * (len(REGIONS) + 2), "two daemons a node"
        assert [r for r in REGIONS if not _speaks_bmp(spec, r)] == []
        assert _silent(spec) == []
        for region in REGIONS:
            lab.link(region, "t2").up()  # the standby links
            lab.link(region, "t1").down()
        wait_until(lambda: not _silent(spec), 60, "the ways by t2")
        at_s.append(time.monotonic())
    took_s = time.monotonic() - at_s[-1]
    sys.stderr.write(
        f"\ntwelve regions: started in {at_s[1] - at_s[0]:.1f} s, all routes {at_s[2] - at_s[1]:.1f} s later, "
        f"torn down in {took_s:.1f} s\n"
    )
    assert remains(spec.name, started) == []


def _silent(spec: LabSpec) -> list[tuple[str, str]]:
    """Pairs of regions of which one does not answer the other; all regions ask at once."""
    with ThreadPoolExecutor(len(REGIONS)) as pool:
        return [pair for found in pool.map(partial(_silent_to, spec), REGIONS) for pair in found]


def _silent_to(spec: LabSpec, one: str) -> list[tuple[str, str]]:
    def ask() -> list[tuple[str, str]]:
        others = [other for other in REGIONS if other != one]
        return [(one, other) for other in others if ping_ms(spec.address(other), 1) == [None]]

    return within(namespace_of(spec.name, one), ask)


def _speaks_bmp(spec: LabSpec, region: str) -> bool:
    """Whether the region's router connects to where its route monitor would be, and begins."""
    with within(namespace_of(spec.name, region), lambda: socket.create_server(("127.0.0.1", BMP_PORT))) as monitor:
        monitor.settimeout(10)
        session, _ = monitor.accept()
        with session:
            session.settimeout(10)
            header = session.recv(6, socket.MSG_WAITALL)
    return (header[:1], header[5:]) == BMP_INITIATION
