"""What is wrong with a record from outside: everything at once, in sentences, the same for every reader."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.codec import encode
from schemas.records import (
    RECORDS,
    AgentHealth,
    BandwidthMeasurement,
    DeadLetter,
    FailoverConfiguration,
    HealthEndpoint,
    InjectedMetric,
    Outcome,
    Policy,
    ProbeBatch,
    ReadinessCheck,
    ReadinessReport,
    Region,
    RegionCatalog,
    RegionReach,
    Route,
    RouteEvent,
)
from schemas.validate import METRICS, PREFIXES_MAX, REGION_ID, columns_mistakes, mistakes, policy_mistakes
from tests.schemas.strategies import any_record, record_of

INJECTED = InjectedMetric("eu-west-1", "us-east-1", "latency_ms", 12.5, "cdn-logs", 1_700_000_000_000)
CONFIGURED = FailoverConfiguration("eu-west-1", ["us-east-1", "ap-south-1"], 2, weights={"us-east-1": 0.5}, based_on=1)
CATALOGUE = RegionCatalog(1, [Region("eu-west-1", 53.0, -6.0), Region("us-east-1", 38.0, -77.0)])
BANDWIDTH = BandwidthMeasurement("a/1", "eu-west-1", "us-east-1", 1_700_000_000_000, 1e9, 0.1, 72_000)
HEALTH = AgentHealth("a/1", "eu-west-1", 1_700_000_000_000, 0.0, 0, 0)

ROUTE = Route("us-east-1", "203.0.113.0/24", [65001, 4_200_000_003], 2)
ROUTED = RouteEvent("a/1", "eu-west-1", 1_700_000_000_000, "REACHABLE", "edge-1", "192.0.2.1", 65001,
                    routes=[ROUTE], regions=[RegionReach("us-east-1", 1)])  # fmt: skip
CHECK = ReadinessCheck("http", False, "answered 500", "http://192.0.2.1/", 500.0, 200.0, "status", 3.5, "CLOSED")
REPORT = ReadinessReport("eu-west-1", "us-east-1", "a/1", 1_700_000_000_000, [CHECK])


def batch(probes: int = 3, **changed: Any) -> ProbeBatch:
    columns: dict[str, Any] = {
        "target_index": [0] * probes, "method_index": [0] * probes, "sent_offset_ms": [1.0] * probes,
        "rtt_ms": [9.0] * probes, "outcome": [0] * probes, "code": [0] * probes,
    }  # fmt: skip
    made = ProbeBatch.of(agent_id="a/1", primary_region="eu-west-1", started_at_ms=1, targets=["us-east-1"],
                         methods=["icmp"], **columns)  # fmt: skip
    return replace(made, **changed)


@pytest.mark.parametrize(
    "record",
    [INJECTED, CONFIGURED, CATALOGUE, BANDWIDTH, HEALTH, ROUTED, REPORT, batch()],
    ids=lambda r: type(r).__name__,
)
def test_a_good_record_has_no_mistake(record: Any) -> None:
    assert mistakes(record) == []


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(any_record())
def test_any_record_that_can_be_decoded_can_be_judged_and_the_verdict_can_be_written(record: Any) -> None:
    found = mistakes(record)
    encode(DeadLetter("OUT_OF_RANGE", "; ".join(found), "t", 0, 0, 0, "x", b""))


@pytest.mark.parametrize("name", RECORDS)
def test_judging_twice_says_the_same(name: str) -> None:
    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(record_of(name))
    def holds(record: Any) -> None:
        assert mistakes(record) == mistakes(record)

    holds()


@given(st.text(max_size=70))
def test_a_region_id_is_what_the_contract_says(text: str) -> None:
    allowed = "abcdefghijklmnopqrstuvwxyz0123456789-"
    good = 1 <= len(text) <= 63 and set(text) <= set(allowed) and text[0] != "-"
    assert bool(REGION_ID.fullmatch(text)) == good
    assert (mistakes(replace(INJECTED, target_region=text)) == []) == (good and text != INJECTED.primary_region)


@pytest.mark.parametrize("metric", METRICS)
@given(value=st.floats())
def test_a_metric_is_good_exactly_within_its_range(metric: str, value: float) -> None:
    low, high = METRICS[metric]
    good = low <= value <= high and (metric != "healthy" or value in (0.0, 1.0))
    assert (mistakes(replace(INJECTED, metric=metric, value=value)) == []) == good
    itself = replace(INJECTED, metric=metric, value=value, target_region=None)
    assert (mistakes(itself) == []) == (good and metric == "healthy")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metric": "mood"}, "metric 'mood' is unknown"),
        ({"target_region": None}, "name its target_region"),
        ({"target_region": None, "metric": "capacity_ratio", "value": 0.5}, "healthy alone is heard"),
        ({"target_region": "eu-west-1"}, "target_region is the primary itself"),
        ({"target_region": "eu-west-1", "metric": "healthy", "value": 0.0}, "null means that"),
        ({"source": ""}, "source"),
        ({"source": "a b"}, "source"),
        ({"ttl_ms": 0}, "ttl_ms is 0"),
        ({"ttl_ms": 86_400_001}, "ttl_ms"),
        ({"observed_at_ms": -1}, "observed_at_ms"),
        ({"primary_region": "EU"}, "primary_region 'EU' is no region id"),
        ({"value": math.nan}, "latency_ms is nan"),
    ],
)
def test_each_mistake_of_an_injected_metric_is_said(change: dict[str, Any], said: str) -> None:
    found = mistakes(replace(INJECTED, **change))
    assert len(found) == 1
    assert said in found[0]


def test_all_mistakes_are_said_at_once() -> None:
    wrong = InjectedMetric("EU", "US", "latency_ms", -1.0, "", -1, 0)
    assert len(mistakes(wrong)) == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"potential_failover_regions": []}, "is empty"),
        ({"potential_failover_regions": ["eu-west-1", "us-east-1"]}, "cannot be its own failover region"),
        ({"potential_failover_regions": ["us-east-1", "us-east-1"]}, "us-east-1 is given twice"),
        ({"weights": {"mars": 0.5}}, "weights has mars"),
        ({"weights": {"us-east-1": 0.0}}, "weight of us-east-1"),
        ({"weights": {"us-east-1": 1.5}}, "weight of us-east-1"),
        ({"version": 0, "based_on": 0}, "version is not above 0"),
        ({"based_on": 2}, "based_on 2 is not below version 2"),
        ({"based_on": -1}, "based_on -1"),
    ],
)
def test_each_mistake_of_a_configuration_is_said(change: dict[str, Any], said: str) -> None:
    assert any(said in m for m in mistakes(replace(CONFIGURED, **change)))


def test_the_default_policy_is_good_and_every_number_in_it_is_judged() -> None:
    assert policy_mistakes(Policy()) == []
    for field in fields(Policy):
        wrong: tuple[Any, ...] = {
            "float": (math.nan, math.inf, -1.0), "int": (-1,), "str": ("", "never"), "list[str]": ([""], ["a b"])
        }[str(field.type)]  # fmt: skip
        for value in wrong:
            changed: dict[str, Any] = {field.name: value}
            assert any(field.name in m for m in policy_mistakes(replace(Policy(), **changed))), field.name


@pytest.mark.parametrize(
    ("good", "bad"),
    [("latency_good_ms", "latency_bad_ms"), ("loss_good_ratio", "loss_bad_ratio"),
     ("delay_variation_good_ms", "delay_variation_bad_ms"), ("bandwidth_bad_bps", "bandwidth_good_bps")],
)  # fmt: skip
def test_good_and_bad_the_wrong_way_round_are_found(good: str, bad: str) -> None:
    p = Policy()
    other_way: dict[str, Any] = {good: getattr(p, bad), bad: getattr(p, good)}
    swapped = replace(p, **other_way)
    assert policy_mistakes(swapped) == [f"policy.{good} must be above 0 and below policy.{bad}"]


def test_a_catalogue_names_its_double_and_impossible_regions() -> None:
    found = mistakes(RegionCatalog(0, [Region("a", 91.0, 0.0), Region("a", 0.0, -181.0), Region("b", 0, 0, "", 2.0)]))
    for said in ("version", "a is given twice", "latitude is 91", "longitude is -181", "capacity_ratio is 2"):
        assert any(said in m for m in found), said


def test_an_agent_stands_in_one_region_and_has_a_name() -> None:
    def of(*agents: list[str]) -> list[str]:
        return mistakes(RegionCatalog(1, [Region(f"r-{i}", 0, 0, agents=each) for i, each in enumerate(agents)]))

    assert of(["r-0/a", "r-0/b"], ["r-1/a"], []) == []
    assert of(["x", "y"], ["x"]) == ["agent 'x' is named by r-0 and r-1"]
    assert of(["x", "x"]) == ["agent 'x' is named by r-0 twice"]
    assert of(["two words"])[0].startswith("r-0: agent 'two words' does not match")
    assert of([f"a-{n}" for n in range(1001)]) == ["r-0 names 1001 agents, 1000 at most"]


@given(st.sampled_from(sorted(ProbeBatch.COLUMNS)), st.integers(0, 30))
def test_columns_of_different_lengths_are_found_and_never_an_exception(column: str, length: int) -> None:
    wrong = batch(3, **{column: bytes(length)})
    width = {"<u2": 2, "u1": 1, "<f4": 4}[ProbeBatch.COLUMNS[column]]
    assert (columns_mistakes(wrong) == []) == (length == 3 * width)


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=12), min_size=6, max_size=6))
def test_any_bytes_in_columns_are_judged_without_an_exception(columns: list[bytes]) -> None:
    mistakes(batch(1, **dict(zip(ProbeBatch.COLUMNS, columns, strict=True))))


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("target_index", [1], "beyond the 1 targets"),
        ("method_index", [1], "beyond the 1 methods"),
        ("outcome", [len(Outcome)], "outcome 6 is unknown"),
        ("sent_offset_ms", [-1.0], "sent_offset_ms"),
        ("sent_offset_ms", [float("nan")], "sent_offset_ms"),
        ("sent_offset_ms", [600_001.0], "sent_offset_ms"),
    ],
)
def test_a_sample_that_points_nowhere_is_found(column: str, values: list[float], said: str) -> None:
    wrong = batch(1, **{column: np.asarray(values, ProbeBatch.COLUMNS[column]).tobytes()})
    assert any(said in m for m in mistakes(wrong))


def test_an_empty_batch_is_no_batch() -> None:
    assert mistakes(batch(0)) == ["the batch is empty"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"agent_id": ""}, "agent_id"),
        ({"primary_region": "EU"}, "primary_region"),
        ({"observed_at_ms": -1}, "observed_at_ms"),
        ({"peer_as": 1 << 32}, "peer_as"),
        ({"kind": "LOUD"}, "kind 'LOUD' is unknown"),
        ({"view": "mine"}, "view 'mine' is unknown"),
        ({"announced": -1}, "announced"),
        ({"withdrawn": -1}, "withdrawn"),
        ({"over_ms": -1}, "over_ms"),
        ({"regions": [RegionReach("US", 1)]}, "regions"),
        ({"regions": [RegionReach("us", -1)]}, "peers_left"),
        ({"routes": [replace(ROUTE, region_id="US")]}, "routes"),
        ({"routes": [replace(ROUTE, prefix="203.0.113.1/24")]}, "prefix '203.0.113.1/24'"),
        ({"routes": [replace(ROUTE, as_path=[-1])]}, "as_path"),
        ({"routes": [replace(ROUTE, as_path_length=-1)]}, "as_path_length"),
    ],
)
def test_each_mistake_of_a_route_event_is_said(change: dict[str, Any], said: str) -> None:
    [found] = mistakes(replace(ROUTED, **change))
    assert said in found


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("203.0.113.0", "in CIDR notation as"),
        ("203.0.113.0/255.255.255.0", "write 203.0.113.0/24"),
        ("2001:DB8:1::/48", "write 2001:db8:1::/48"),
        ("203.0.113.7/24", "has host bits set"),
        ("203.0.113.0/33", "203.0.113.0/33"),
        ("fe80::%eth0/64", "in CIDR notation as"),
        ("", "in CIDR notation as"),
        ("everything", "in CIDR notation as"),
    ],
)
def test_a_prefix_is_written_as_routers_show_it(prefix: str, said: str) -> None:
    [found] = mistakes(RegionCatalog(1, [Region("a", 1.0, 2.0, prefixes=[prefix])]))
    assert found.startswith("a: prefix ")
    assert said in found


@given(st.integers(0, (1 << 128) - 1), st.integers(0, 128))
def test_every_network_is_a_prefix(address: int, bits: int) -> None:
    network = ipaddress.IPv6Network((address >> (128 - bits) << (128 - bits), bits))
    assert mistakes(RegionCatalog(1, [Region("a", 1.0, 2.0, prefixes=[str(network)])])) == []


def test_a_prefix_belongs_to_one_region_and_there_are_not_too_many() -> None:
    twice = RegionCatalog(1, [Region(r, 1.0, 2.0, prefixes=["203.0.113.0/24"]) for r in ("a", "b")])
    assert mistakes(twice) == ["prefix '203.0.113.0/24' is given twice"]
    many = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(PREFIXES_MAX + 1)]
    assert mistakes(RegionCatalog(1, [Region("a", 1.0, 2.0, prefixes=many)])) == [
        f"the regions have {PREFIXES_MAX + 1} prefixes, {PREFIXES_MAX} at most"
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"checks": []}, "0 checks"),
        ({"checks": [CHECK] * 65}, "65 checks"),
        ({"checks": [replace(CHECK, name="Ä")]}, "no name of a check"),
        ({"checks": [replace(CHECK, reason=" ")]}, "must say its reason"),
        ({"checks": [replace(CHECK, observed=math.nan)]}, "a number that is none"),
        ({"checks": [replace(CHECK, took_ms=math.inf)]}, "a number that is none"),
        ({"checks": [replace(CHECK, breaker="AJAR")]}, "breaker 'AJAR' is unknown"),
        ({"agent_id": "a b"}, "agent_id"),
        ({"target_region": "Ü"}, "target_region"),
        ({"observed_at_ms": -1}, "observed_at_ms"),
    ],
)
def test_each_mistake_of_a_readiness_report_is_said(change: dict[str, Any], said: str) -> None:
    assert any(said in m for m in mistakes(replace(REPORT, **change)))


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1/healthz",
        "https://a.example.com",
        "https://[2001:db8::1]:8443/x?y=1",
        "tcp://a_b.example.com:25",
    ],
)
def test_endpoints_that_can_be_asked_have_no_mistake(url: str) -> None:
    assert mistakes(RegionCatalog(1, [Region("a", 0, 0, health=[HealthEndpoint(url)])])) == []


@pytest.mark.parametrize(
    "endpoint",
    [
        HealthEndpoint(""),
        HealthEndpoint("a.example.com"),
        HealthEndpoint("file:///etc/passwd"),
        HealthEndpoint("ftp://a.example.com/"),
        HealthEndpoint("http://"),
        HealthEndpoint("http://-a/"),
        HealthEndpoint("http://a:b@c/"),
        HealthEndpoint("http://a/ b"),
        HealthEndpoint("http://a/\r\nX: y"),
        HealthEndpoint("http://a/#b"),
        HealthEndpoint("http://a:99999/"),
        HealthEndpoint("http://[::1/"),
        HealthEndpoint("tcp://a"),
        HealthEndpoint("tcp://a:1/b"),
        HealthEndpoint("http://a/" + "x" * 600),
        HealthEndpoint("http://a/", 600),
        HealthEndpoint("http://a/", 200, "b"),
        HealthEndpoint("https://a/", 200, "-"),
    ],
    ids=lambda e: e.url[:30],
)
def test_endpoints_that_cannot_be_asked_are_mistakes(endpoint: HealthEndpoint) -> None:
    assert mistakes(RegionCatalog(1, [Region("a", 0, 0, health=[endpoint])])) != []
    assert mistakes(RegionCatalog(1, [Region("a", 0, 0, health=[HealthEndpoint("tcp://a:1")] * 9)])) != []
