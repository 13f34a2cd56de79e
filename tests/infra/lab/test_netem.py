"""Links by the kernel: what `tc` is told, what is done without, and, where the kernel has netem, what packets say."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from infra.lab import lab as lab_module
from infra.lab import netem
from infra.lab.lab import Lab
from infra.lab.namespaces import missing_right, namespace_of, within
from infra.lab.netem import discipline, missing_netem
from infra.lab.spec import LabLink, LabRegion, LabSpec
from infra.processes import wait_until
from schemas.errors import ProximaError
from tests.infra.lab.ping import ping_ms

REGIONS = [LabRegion(id=r, latitude=0, longitude=0) for r in ("a", "b")]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "limit 100000 delay 0.000ms"),
        ({"delay_ms": 80}, "limit 100000 delay 80.000ms"),
        ({"delay_ms": 80, "jitter_ms": 0.25}, "limit 100000 delay 80.250ms 0.250ms"),
        ({"loss_ratio": 0.2}, "limit 100000 delay 0.000ms loss 20.0000%"),
        ({"rate_mbit": 12, "queue_ms": 50}, "limit 50 delay 0.000ms rate 12000000bit"),
        ({"rate_mbit": 12, "queue_ms": 50, "delay_ms": 10}, "limit 60 delay 10.000ms rate 12000000bit"),
        ({"rate_mbit": 0.001, "queue_ms": 1}, "limit 1 delay 0.000ms rate 1000bit"),
    ],
)
def test_what_tc_is_told(values: dict[str, float], told: str) -> None:
    assert discipline(values) == ["netem", *told.split()]


def described(**of_link: float) -> LabSpec:
    return LabSpec(
        name=f"n{os.getpid()}", regions=REGIONS, links=[LabLink(between=("a", "b"), **of_link)], netem=True
    )  # fmt: skip


@pytest.fixture
def root() -> None:
    missing = missing_right()
    if missing is not None:
        pytest.skip(f"NOT TESTED: no lab here: {missing}")


def ping(running: Lab, times: int = 3) -> list[float | None]:
    far = running.spec.ends(running.links[0].spec)[1]
    return within(namespace_of(running.spec.name, "a"), lambda: ping_ms(far, times))


def test_a_kernel_without_netem_says_so_and_the_relay_carries(
    root: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = missing_netem()
    if missing is None:
        monkeypatch.setattr(lab_module, "missing_netem", lambda: "no netem: not today")
    else:
        assert missing.startswith("no netem: ")
        assert len(missing) > len("no netem: "), "as tc says it"
    with caplog.at_level(logging.WARNING), Lab.start(described(delay_ms=20), routers=False) as running:
        assert min(r or 0 for r in ping(running)) >= 40
    assert "all links are the relay's" in caplog.text


def test_all_but_netem_itself_works_on_any_kernel(root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a plain queue in netem's place: devices, addresses, carrier, counters."""
    monkeypatch.setattr(lab_module, "missing_netem", lambda: None)
    monkeypatch.setattr(netem, "discipline", lambda _: ["pfifo", "limit", "1000"])
    with Lab.start(described(), routers=False) as running:
        link = running.link("a", "b")
        address = running.spec.ends_v6(link.spec)[1]

        def ping_v6() -> float | None:
            return within(namespace_of(running.spec.name, "a"), lambda: ping_ms(address, 1))[0]

        assert None not in ping(running)
        assert [c["sent"] >= 3 for c in link.counters()] == [True, True]
        link.down()
        assert set(ping(running)) == {None}
        link.up()
        wait_until(lambda: ping(running, 1) != [None], 10, "an answer")
        wait_until(lambda: ping_v6() is not None, 10, "an answer by IPv6")
        with pytest.raises(ProximaError, match="netem's, which has no step_ms, trace"):
            link.replay([10.0], 1000)


@pytest.fixture
def by_netem(root: None) -> Iterator[Lab]:
    missing = missing_netem()
    if missing is not None:
        pytest.skip(f"NOT TESTED: the kernel's netem: {missing}")
    with Lab.start(described(delay_ms=20), routers=False) as running:
        yield running


def test_netem_delays_loses_and_limits_as_the_link_says(by_netem: Lab) -> None:
    link = by_netem.link("a", "b")
    assert all(40 <= (r or 0) < 60 for r in ping(by_netem))
    link.jitter_ms = 5
    assert all(40 <= (r or 0) < 80 for r in ping(by_netem, 20))
    link.loss_ratio = 0.5
    lost = sum(r is None for r in ping(by_netem, 40))
    assert 20 <= lost <= 39, "three quarters of the round trips"
    link.black_hole()
    assert set(ping(by_netem)) == {None}
    link.heal()
    link.rate_mbit = 1
    assert _seconds_to_send(by_netem, 125_000) >= 0.8


def _seconds_to_send(running: Lab, count: int) -> float:
    """How long so many bytes take from a to b by TCP."""
    far = running.spec.ends(running.links[0].spec)[1]
    with within(namespace_of(running.spec.name, "b"), lambda: socket.create_server((far, 0))) as server:
        port = server.getsockname()[1]
        begin = f"import socket,time; s=socket.create_connection(('{far}',{port})); t=time.monotonic()"
        end = f"s.sendall(bytes({count})); s.shutdown(1); s.recv(1); print(time.monotonic()-t)"
        sending = ["ip", "netns", "exec", namespace_of(running.spec.name, "a"), "python3", "-c", f"{begin}; {end}"]
        with subprocess.Popen(sending, stdout=subprocess.PIPE, text=True) as sender:
            session, _ = server.accept()
            with session:
                while session.recv(1 << 16):
                    pass
            assert sender.stdout is not None
            return float(sender.stdout.read())
