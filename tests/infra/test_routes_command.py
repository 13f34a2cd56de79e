"""`proxima routes`: what a file says, without Kafka; and a monitor on a real broker."""

from __future__ import annotations

import json
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from infra.processes import free_ports, wait_until
from schemas.records import Region, RegionCatalog
from tests.infra.commands import fails, lines, running, succeeds
from tests.infra.conftest import Topics
from tests.producers.routes import wire

DATA = Path(__file__).parents[1] / "producers/routes/data"
OURS = "203.0.113.0/24"
REGIONS = f"""
[[regions]]
region_id = "eu-west-1"
latitude = 53.35
longitude = -6.26
prefixes = ["{OURS}"]
"""


def updates(folder: Path) -> Path:
    path = folder / "updates"
    path.write_bytes(
        wire.bgp4mp(4, wire.announce(OURS, "10.0.0.0/8"), at_s=1000)
        + wire.bgp4mp(4, wire.withdraw(OURS), at_s=1002)
        + b"\0\0"
    )
    return path


def test_a_file_ends_with_what_it_adds_up_to() -> None:
    said = lines("routes", "--mrt", DATA / "updates.20100722.2015.gz", "--json")
    assert said == [{"announced": 5067, "withdrawn": 547, "state_changes": 40, "peers": 63, "unparsed": 0}]


def test_for_people_it_is_a_sentence(tmp_path: Path) -> None:
    said = succeeds("routes", "--mrt", updates(tmp_path))
    assert said == "2 announced, 1 withdrawn, 0 state changes, 1 peers, 1 unparsed\n"


def test_with_regions_the_events_come_before_it(tmp_path: Path) -> None:
    regions = tmp_path / "regions.toml"
    regions.write_text(REGIONS)
    *events, counts = lines("routes", "--mrt", updates(tmp_path), "--regions", regions, "--json")
    assert [(e["kind"], [r["prefix"] for r in e["routes"]], e["observed_at_ms"]) for e in events] == [
        ("PEER_UP", [], 1_000_000),
        ("REACHABLE", [OURS], 1_000_000),
        ("WITHDRAWN", [OURS], 1_002_000),
    ]
    assert counts["withdrawn"] == 1
    *told, _ = succeeds("routes", "--mrt", updates(tmp_path), "--regions", regions).splitlines()
    assert told[1] == f"1970-01-01 00:16:40 UTC REACHABLE 192.0.2.1 AS65001: eu-west-1 {OURS} by [65001]"


@pytest.mark.parametrize("arguments", [[], ["--mrt", "a", "--config", "b"], ["--config", "b", "--json"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert "Error: " in fails(2, "routes", *arguments)


def test_files_that_cannot_be_read_are_named_in_one_line(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert fails(1, "routes", "--mrt", nowhere) == (
        f"proxima: the file cannot be read: No such file or directory ({nowhere})\n"
    )
    empty = tmp_path / "regions.toml"
    empty.write_text(REGIONS.replace("prefixes", "# prefixes"))
    assert "no region in it has prefixes" in fails(1, "routes", "--mrt", nowhere, "--regions", empty)


def test_without_a_broker_a_monitor_says_so(tmp_path: Path) -> None:
    path = configured(tmp_path, 0)
    said = fails(1, "routes", "--config", path, PROXIMA_KAFKA__BOOTSTRAP=f"127.0.0.1:{free_ports(1)[0]}")
    assert said.splitlines()[-1].startswith("proxima: no broker answers")


def configured(folder: Path, port: int) -> Path:
    path = folder / "routes.toml"
    path.write_text(f'[routes]\nagent_id = "eu-west-1/routes"\nprimary_region = "eu-west-1"\nport = {port}\n')
    return path


@pytest.mark.kafka
def test_what_routers_say_is_on_the_topic_for_the_regions_that_are_applied(topics: Topics, tmp_path: Path) -> None:
    log, [port] = tmp_path / "log", free_ports(1)
    topics.publish("failover-config", b"no catalogue", key="regions")
    topics.publish("failover-config", catalogue(1, ["10.0.0.0/8"]), key="regions")
    with running("routes", "--config", configured(tmp_path, port), log_path=log, **topics.environment) as monitor:
        wait_until(lambda: b"listening for BMP" in log.read_bytes(), 30, "the listener", children=[monitor])
        said_to(port, wire.initiation() + wire.as_frr(["10.0.0.0/8", OURS], "192.0.2.1", 65001), 1, topics)
        topics.publish("failover-config", catalogue(2, [OURS]), key="regions")
        topics.publish("failover-config", catalogue(1, ["192.0.2.0/24"]), key="regions")
        said_to(port, wire.initiation() + wire.as_frr(["10.0.0.0/8", OURS], "192.0.2.1", 65001), 2, topics)
        monitor.send_signal(signal.SIGTERM)
        assert monitor.wait(20) == 0
    events = told(topics)
    assert [e["key"] for e in events] == ["eu-west-1/routes"] * len(events)
    prefixes = [r["prefix"] for e in events for r in e["record"]["routes"]]
    assert set(prefixes) == {"10.0.0.0/8", OURS}
    assert prefixes[0] == "10.0.0.0/8"
    assert "Traceback" not in log.read_text()


def catalogue(version: int, prefixes: list[str]) -> RegionCatalog:
    return RegionCatalog(version, [Region("eu-west-1", 53.0, -6.0, prefixes=prefixes)])


def told(topics: Topics) -> list[dict[str, Any]]:
    return lines("tail", "bgp-events", "--from-beginning", "--to-end", **topics.environment)


def said_to(port: int, data: bytes, routes: int, topics: Topics) -> None:
    """A router that comes back whenever its session ends, until so many different routes are told."""

    def is_told() -> bool:
        with socket.create_connection(("127.0.0.1", port)) as router:
            router.sendall(data)
            router.settimeout(1.0)
            with suppress(TimeoutError):
                router.recv(1)
        return len({r["prefix"] for e in told(topics) for r in e["record"]["routes"]}) >= routes

    wait_until(is_told, 60, f"{routes} routes")


def test_events_that_are_printed_are_json_in_every_line(tmp_path: Path) -> None:
    regions = tmp_path / "regions.toml"
    regions.write_text(REGIONS)
    for line in succeeds("routes", "--mrt", updates(tmp_path), "--regions", regions, "--json").splitlines():
        json.loads(line)
