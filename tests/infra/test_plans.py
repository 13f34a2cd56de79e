"""What a prober is told of Kafka: the plan in force, whatever was applied before, and requests that are still good."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from infra.plans import PlanWatch
from infra.processes import free_ports, wait_until
from producers.readiness import Plan
from schemas.config import Kafka
from schemas.records import FailoverConfiguration, HealthEndpoint, ReadinessRequest, Region, RegionCatalog
from tests.infra.commands import fails
from tests.infra.conftest import Topics

PRIMARY = "eu-west-1"


def configured(version: int, based_on: int, *targets: str, primary: str = PRIMARY) -> FailoverConfiguration:
    return FailoverConfiguration(primary, list(targets), version, based_on=based_on)


def catalogue(version: int, *regions: str) -> RegionCatalog:
    health = [HealthEndpoint("tcp://192.0.2.1:1")]
    return RegionCatalog(version, [Region(region, 0, 0, health=health) for region in regions])


def request(candidate: str, *, primary: str = PRIMARY, expires_in_s: float = 60.0) -> ReadinessRequest:
    expires_at_ms = int(1000 * (time.time() + expires_in_s))
    return ReadinessRequest(primary, candidate, candidate, 0, expires_at_ms, 0.0, 0.0, "", "why")


@pytest.mark.kafka
def test_the_plan_is_what_compare_and_set_leaves_and_requests_are_those_of_now(topics: Topics) -> None:
    topics.publish(
        "failover-config",
        b"nonsense",
        configured(1, 0, "t-1"),
        configured(3, 2, "t-9"),  # based on what never was
        configured(2, 1, "t-1", "t-2"),
        configured(1, 0, "t-8", primary="us-east-1"),
    )
    topics.publish("failover-config", catalogue(2, "t-1", "t-2"), catalogue(1, "t-7"), key="regions")
    topics.publish("readiness-requests", request("before"))
    plans: list[Plan] = []
    asked: list[str] = []
    kafka = Kafka(bootstrap=topics.bootstrap, topic_prefix=topics.prefix)
    watch = PlanWatch(kafka, PRIMARY, plans.append, lambda r: asked.append(r.candidate_region))
    try:
        wait_until(lambda: bool(plans), 20, "a plan")
        (plan,) = plans
        assert plan.configuration == configured(2, 1, "t-1", "t-2")
        assert sorted(plan.regions) == ["t-1", "t-2"]
        topics.publish(
            "readiness-requests", b"nonsense", request("old", expires_in_s=-1), request("other", primary="us-east-1"),
            request("t-2"),
        )  # fmt: skip
        wait_until(lambda: bool(asked), 20, "a request")
        topics.publish("failover-config", configured(3, 2, "t-2"))
        wait_until(lambda: len(plans) > 1, 20, "another plan")
        assert plans[-1].configuration == configured(3, 2, "t-2")
    finally:
        watch.close()
    assert asked == ["t-2"]


def test_without_a_broker_a_prober_says_so(tmp_path: Path) -> None:
    path = tmp_path / "readiness.toml"
    path.write_text(f'[readiness]\nagent_id = "p-1"\nprimary_region = "{PRIMARY}"\n')
    said = fails(1, "readiness", "--config", path, PROXIMA_KAFKA__BOOTSTRAP=f"127.0.0.1:{free_ports(1)[0]}")
    assert said.splitlines()[-1].startswith("proxima: no broker answers")
