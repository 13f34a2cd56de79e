"""The prober: each target in its turn and on request, one report each time, whatever the targets do."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from producers.probes.bandwidth import Bandwidth
from producers.readiness import Plan, ReadinessProber, health_of
from producers.responder import Responder
from schemas import config
from schemas.records import (
    FailoverConfiguration,
    HealthEndpoint,
    Policy,
    ReadinessReport,
    ReadinessRequest,
    Region,
)
from schemas.validate import mistakes
from tests.endpoints import Behaviour, endpoint

PRIMARY = "eu-west-1"


@dataclass
class Bench:
    prober: ReadinessProber
    reports: list[ReadinessReport] = field(default_factory=list)

    def of(self, region: str) -> list[ReadinessReport]:
        return [r for r in self.reports if r.target_region == region]

    async def until(self, holds: Callable[[], bool], timeout_s: float = 10.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline_s, [
                (r.target_region, [(c.name, c.passed, c.reason) for c in r.checks]) for r in self.reports[-5:]
            ]
            await asyncio.sleep(0.01)


def plan(
    ports: dict[str, int], *, version: int = 1, load_ratio: float = 0.0, path: str = "", policy: Policy | None = None
) -> Plan:
    regions = {
        region: Region(region, 0, 0, health=[HealthEndpoint(f"http://127.0.0.1:{port}/")])
        for region, port in ports.items()
    }
    configuration = FailoverConfiguration(
        PRIMARY, list(ports), version, load_ratio=load_ratio, policy=policy or Policy()
    )
    return Plan(configuration, regions)


def request(candidate: str, target: str, primary: str = PRIMARY) -> ReadinessRequest:
    return ReadinessRequest(primary, candidate, target, 0, 1 << 50, 0.5, 1.0, "m", "why")


@asynccontextmanager
async def probing(trains: Bandwidth | None = None, /, **settings: Any) -> AsyncIterator[Bench]:
    stated = {"agent_id": "p-1", "primary_region": PRIMARY, "timeout_ms": 500, "answer_ms_max": 500} | settings
    checked = config.Readiness.model_validate(stated)
    reports: list[ReadinessReport] = []
    bench = Bench(ReadinessProber(checked, reports.append, health_of(checked), trains), reports)
    try:
        yield bench
    finally:
        await bench.prober.close()
    assert [m for r in bench.reports for m in mistakes(r)] == [], "intake would make dead letters of them"


@asynccontextmanager
async def endpoints(behaviours: Sequence[Behaviour]) -> AsyncIterator[dict[str, int]]:
    if not behaviours:
        yield {}
        return
    async with endpoint(behaviours[0]) as port, endpoints(behaviours[1:]) as others:
        yield {f"t-{len(behaviours)}": port, **others}


def test_every_target_has_a_turn_in_each_period_and_not_all_at_once() -> None:
    async def go() -> None:
        behaviours = [Behaviour() for _ in range(8)]
        async with endpoints(behaviours) as ports, probing(period_s=0.8) as bench:
            began_s = time.monotonic()
            bench.prober.plan(plan(ports))
            await bench.until(lambda: len(bench.reports) >= 24)
            took_s = time.monotonic() - began_s
        assert 1.4 < took_s < 5, "three turns of 0.8 s each, the first spread over the first"
        assert set(Counter(r.target_region for r in bench.reports[:8]).values()) == {1}
        assert max(Counter(r.target_region for r in bench.reports).values()) <= 4
        assert all(r.ready and not r.requested and r.config_version == 1 for r in bench.reports)

    asyncio.run(go())


def test_a_request_is_answered_at_once_about_both_that_it_names() -> None:
    async def go() -> None:
        async with endpoints([Behaviour() for _ in range(3)]) as ports, probing(period_s=3000) as bench:
            bench.prober.plan(plan(ports))
            bench.prober.request(request("t-1", "t-2", primary="us-east-1"))
            bench.prober.request(request("t-1", "t-2"))
            bench.prober.request(request("mars", "venus"))
            await bench.until(lambda: len(bench.reports) >= 2)
        assert {r.target_region for r in bench.reports if r.requested} == {"t-1", "t-2"}

    asyncio.run(go())


def test_one_that_hangs_holds_up_nobody_and_is_left_alone_after_a_while() -> None:
    async def go() -> None:
        hanging, well = Behaviour("hangs"), Behaviour()
        settings: dict[str, Any] = {"period_s": 0.3, "timeout_ms": 200, "answer_ms_max": 200, "in_flight_max": 2}
        async with endpoints([hanging, well]) as ports, probing(breaker_open_s=60, **settings) as bench:
            bench.prober.plan(plan(ports))
            await bench.until(lambda: len(bench.of("t-1")) >= 6)
            await bench.until(lambda: any(r.checks[0].breaker == "OPEN" for r in bench.of("t-2")))
            await bench.until(lambda: "not asked" in bench.of("t-2")[-1].checks[0].reason)
            asked = hanging.asked
            reported = len(bench.of("t-2"))
            await bench.until(lambda: len(bench.of("t-2")) >= reported + 2)
            assert hanging.asked == asked == 3
        assert not any(r.ready for r in bench.of("t-2")), "and it is reported all the same"
        assert all(r.ready for r in bench.of("t-1"))

    asyncio.run(go())


def test_who_dies_is_not_ready_and_who_comes_back_is() -> None:
    async def go() -> None:
        behaviour = Behaviour()
        async with endpoints([behaviour]) as ports, probing(period_s=0.2) as bench:
            bench.prober.plan(plan(ports))
            await bench.until(lambda: bool(bench.reports) and bench.reports[-1].ready)
            behaviour.mode = "500"
            await bench.until(lambda: not bench.reports[-1].ready)
            behaviour.mode = "ok"
            await bench.until(lambda: bench.reports[-1].ready)

    asyncio.run(go())


def test_another_plan_is_followed_and_who_is_held_to_the_same_is_not_checked_anew() -> None:
    async def go() -> None:
        async with endpoints([Behaviour() for _ in range(2)]) as ports, probing(period_s=3000) as bench:
            bench.prober.plan(plan(ports))
            bench.prober.request(request("t-1", "t-2"))
            await bench.until(lambda: len(bench.reports) == 2)
            turns = dict(bench.prober._turns)
            bench.prober.plan(plan(ports))
            assert bench.prober._turns == turns
            assert bench.prober.targets == ["t-1", "t-2"]
            bench.prober.plan(plan({"t-2": ports["t-2"]}, version=2, load_ratio=2.0))
            bench.prober.request(request("t-2", "t-1"))
            await bench.until(lambda: len(bench.reports) == 3)
            last = bench.reports[-1]
            assert (last.target_region, last.config_version, last.ready) == ("t-2", 2, False)
            assert [c.name for c in last.checks if not c.passed] == ["capacity"]
            bench.prober.plan(Plan(None, {}))
            assert bench.prober.targets == []

    asyncio.run(go())


@pytest.mark.timed
def test_bandwidth_is_measured_to_the_responder_and_held_to_the_policy() -> None:
    """Loopback carries more than a megabit, and not a petabit."""

    async def go() -> None:
        responder = Responder(config.Respond(bind="127.0.0.1", port=0))
        try:
            for limit_bps, passes in ((1e6, True), (9e14, False)):
                wanted = {"port": responder.port, "every_s": 300}
                policy = Policy(bandwidth_bad_bps=limit_bps, bandwidth_good_bps=9.5e14)
                async with (
                    endpoints([Behaviour()]) as ports,
                    probing(Bandwidth(0.5), period_s=0.2, bandwidth=wanted) as bench,
                ):
                    bench.prober.plan(plan(ports, policy=policy))
                    await bench.until(
                        lambda: bool(bench.reports) and any(c.name == "bandwidth" for c in bench.reports[-1].checks)
                    )
                    check = next(c for c in bench.reports[-1].checks if c.name == "bandwidth")
                    assert check.passed == passes, check
                    assert check.observed is not None
                    assert check.observed > 1e7
        finally:
            responder.close()

    asyncio.run(go())
