"""Health endpoints, by real connections on loopback: whatever one does, the check ends in time, with its reason."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.processes import free_ports
from producers.checks import Measured, Target, checks_of, targets_of
from producers.health import Health, Seen
from schemas.breaker import Limits, State
from schemas.errors import ConfigError
from schemas.records import FailoverConfiguration, HealthEndpoint, Outcome, Policy, ReadinessCheck, Region
from tests.endpoints import Behaviour, certificate_for, endpoint

TIMEOUT_S = 1.0
LIMITS = Limits(failures=3, open_s=10, open_s_max=40, answer_s=5)


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def asking(ca_file: Path | None = None, clock: Callable[[], float] = time.monotonic) -> AsyncIterator[Health]:
    health = Health(timeout_s=TIMEOUT_S, connects=3, limits=LIMITS, ca_file=ca_file, clock=clock)
    try:
        yield health
    finally:
        await health.close()


def seen_of(mode: str, **changed: object) -> tuple[Seen, Behaviour, float]:
    """What is seen of an endpoint that does this, the endpoint, and how long it took."""
    behaviour = Behaviour(mode)

    async def see() -> tuple[Seen, float]:
        async with endpoint(behaviour) as port, asking() as health:
            began_s = time.monotonic()
            where = HealthEndpoint(f"http://127.0.0.1:{port}/healthz", **changed)  # type: ignore[arg-type]
            return await health.ask(where), time.monotonic() - began_s

    seen, took_s = asyncio.run(see())
    return seen, behaviour, took_s


def failed(seen: Seen, answer_ms_max: float = 1000.0, latency_ms_max: float = 1000.0) -> list[str]:
    target = Target(Region("t-1", 0.0, 0.0), 0.0, latency_ms_max, 1e8, 1)
    checks = checks_of(target, [seen], None, answer_ms_max=answer_ms_max, now_s=0.0)
    return [f"{check.name}: {check.reason}" for check in checks if not check.passed]


def test_one_that_says_yes_passes_with_all_that_was_measured() -> None:
    seen, behaviour, _ = seen_of("ok")
    assert failed(seen) == []
    assert (seen.status, seen.reason, seen.breaker) == (200, "answered 200", State.CLOSED)
    assert seen.answer_ms is not None
    assert seen.latency_ms is not None
    assert 0 < seen.latency_ms < 100
    head = behaviour.heads[0].lower()
    assert head.startswith(b"get /healthz http/1.1\r\n")
    assert b"cookie" not in head


def test_another_status_than_declared_is_a_no_at_once() -> None:
    seen, _, took_s = seen_of("500")
    assert failed(seen) == ["http: answered 500, and 200 was to come"]
    assert took_s < TIMEOUT_S
    assert failed(seen_of("500", expected_status=500)[0]) == []


def test_a_redirect_is_not_followed() -> None:
    assert failed(seen_of("redirect")[0]) == ["http: answered 302, and 200 was to come"]


def test_one_that_answers_slowly_fails_by_how_long_it_took() -> None:
    seen, _, _ = seen_of("slow")
    assert failed(seen) == []
    (said,) = failed(seen, answer_ms_max=200)
    assert said.startswith("answer: it took 4")
    assert said.endswith("200 ms at most")


@pytest.mark.parametrize("mode", ["hangs", "half", "long-header", "garbage", "closes"])
def test_one_that_does_not_answer_has_failed_within_its_time(mode: str) -> None:
    seen, _, took_s = seen_of(mode)
    (said,) = failed(seen)
    assert said.startswith("http: ")
    assert seen.status is None
    assert took_s < TIMEOUT_S + 0.5
    if mode in ("hangs", "half"):
        assert said == "http: no whole answer within 1 s"


def test_a_body_without_end_is_read_no_further_than_the_bound() -> None:
    seen, _, took_s = seen_of("endless")
    assert failed(seen) == []
    assert took_s < TIMEOUT_S


def test_one_that_is_dead_refuses_and_is_named_so() -> None:
    async def see() -> Seen:
        async with asking() as health:
            return await health.ask(HealthEndpoint(f"http://127.0.0.1:{free_ports(1)[0]}/"))

    assert failed(asyncio.run(see())) == ["http: connection refused"]


def test_a_name_that_nobody_knows_is_a_failed_check() -> None:
    async def see() -> Seen:
        async with asking() as health:
            return await health.ask(HealthEndpoint("http://nobody.invalid/"))

    (said,) = failed(asyncio.run(see()))
    assert "nobody.invalid" in said


def test_a_certificate_has_to_be_for_the_declared_name(tmp_path: Path) -> None:
    pair = certificate_for("target.example.com", tmp_path)

    async def see() -> list[Seen]:
        async with endpoint(Behaviour(), certificate=pair) as port, asking(pair[0]) as health, asking() as stranger:
            url = f"https://127.0.0.1:{port}/"
            return [
                await health.ask(HealthEndpoint(url, tls_name="target.example.com")),
                await health.ask(HealthEndpoint(url, tls_name="other.example.com")),
                await health.ask(HealthEndpoint(url)),
                await stranger.ask(HealthEndpoint(url, tls_name="target.example.com")),
            ]

    right, wrong, by_address, untrusted = asyncio.run(see())
    assert failed(right) == []
    (said,) = failed(wrong)
    assert said.startswith("https: its certificate does not prove that it is other.example.com")
    assert "127.0.0.1" in failed(by_address)[0]
    assert "self-signed" in failed(untrusted)[0].replace("self signed", "self-signed")


def test_plain_http_where_tls_is_declared_is_a_failed_check() -> None:
    async def see() -> Seen:
        async with endpoint(Behaviour()) as port, asking() as health:
            return await health.ask(HealthEndpoint(f"https://127.0.0.1:{port}/"))

    assert failed(asyncio.run(see()))[0].startswith("https: ")


def test_tcp_is_a_connection_that_is_accepted() -> None:
    async def see() -> tuple[Seen, Seen]:
        async with endpoint(Behaviour("hangs")) as port, asking() as health:
            dead = HealthEndpoint(f"tcp://127.0.0.1:{free_ports(1)[0]}")
            return await health.ask(HealthEndpoint(f"tcp://127.0.0.1:{port}")), await health.ask(dead)

    alive, dead = asyncio.run(see())
    assert failed(alive) == []
    assert failed(alive, latency_ms_max=0.0)[0].startswith("latency: a connection takes 0.")
    assert failed(dead) == ["tcp: connection refused"]


def run_with_clock(work: Callable[[Health, Clock, Behaviour, HealthEndpoint], Awaitable[None]], mode: str) -> None:
    async def go() -> None:
        clock, behaviour = Clock(), Behaviour(mode)
        async with endpoint(behaviour) as port, asking(clock=clock) as health:
            await work(health, clock, behaviour, HealthEndpoint(f"http://127.0.0.1:{port}/"))

    asyncio.run(go())


def test_one_that_never_answers_is_left_alone_and_asked_by_one_probe_after_a_while() -> None:
    async def work(health: Health, clock: Clock, behaviour: Behaviour, where: HealthEndpoint) -> None:
        for _ in range(3):
            assert not (await health.ask(where)).answered
        assert behaviour.asked == 3
        began_s = time.monotonic()
        refused = await health.ask(where)
        assert time.monotonic() - began_s < 0.1, "it costs no time any more"
        assert refused.breaker is State.OPEN
        assert refused.reason == "no whole answer within 1 s (not asked for another 10 s)"
        assert behaviour.asked == 3
        clock.now_s += 10
        one, other = await asyncio.gather(health.ask(where), health.ask(where))
        assert behaviour.asked == 4, "half-open: one probe at a time"
        assert {one.answered, other.answered} == {False}
        behaviour.mode = "ok"
        clock.now_s += 19
        assert (await health.ask(where)).breaker is State.OPEN, "for twice as long this time"
        clock.now_s += 1
        well = await health.ask(where)
        assert well.answered
        assert well.breaker is State.CLOSED

    run_with_clock(work, "hangs")


def test_one_that_says_no_at_once_is_asked_every_time() -> None:
    async def work(health: Health, _clock: Clock, behaviour: Behaviour, where: HealthEndpoint) -> None:
        for _ in range(6):
            assert (await health.ask(where)).breaker is State.CLOSED
        assert behaviour.asked == 6

    run_with_clock(work, "500")


def test_a_file_without_certificates_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    async def make(path: Path) -> None:
        Health(timeout_s=1, connects=1, limits=LIMITS, ca_file=path)

    (tmp_path / "empty.pem").write_text("")
    for path in (tmp_path / "nowhere.pem", tmp_path / "empty.pem"):
        with pytest.raises(ConfigError, match=r"ca_file"):
            asyncio.run(make(path))


# -- what is held against what


def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_ports(1)[0]}")
    assert failed(seen_of("ok")[0]) == []


def only(checks: list[ReadinessCheck], name: str) -> ReadinessCheck:
    (found,) = (check for check in checks if check.name == name)
    return found


def test_capacity_has_to_cover_the_primarys_load_where_that_is_stated() -> None:
    for load, passed in ((0.4, True), (0.6, False)):
        target = Target(Region("t-1", 0, 0, capacity_ratio=0.5), load, 1000, 1e8, 1)
        check = only(checks_of(target, [], None, answer_ms_max=1, now_s=0), "capacity")
        assert (check.passed, check.observed, check.limit) == (passed, 0.5, load)
    assert "0.5" in check.reason
    assert "0.6" in check.reason


@pytest.mark.parametrize(
    ("measured", "passed"),
    [
        (Measured(Outcome.ANSWERED, 0, "udp://t", 2e8, 0.01), True),
        (Measured(Outcome.ANSWERED, 0, "udp://t", 5e7, 0.01), False),
        (Measured(Outcome.ANSWERED, 0, "udp://t", 9.5e7, 0.1), True),
        (Measured(Outcome.TIMED_OUT, 0, "udp://t"), False),
    ],
)
def test_bandwidth_has_to_reach_the_policys_bad_value_as_far_as_it_is_known(measured: Measured, passed: bool) -> None:
    target = Target(Region("t-1", 0, 0), 0, 1000, 1e8, 1)
    check = only(checks_of(target, [], measured, answer_ms_max=1, now_s=60), "bandwidth")
    assert (check.passed, check.limit) == (passed, 1e8)


def test_who_is_checked_follows_from_catalogue_and_configuration() -> None:
    regions = {
        "t-1": Region("t-1", 0, 0, health=[HealthEndpoint("tcp://127.0.0.1:1")]),
        "t-2": Region("t-2", 0, 0),
        "t-3": Region("t-3", 0, 0, health=[HealthEndpoint("tcp://127.0.0.1:1")]),
    }
    policy = Policy(latency_bad_ms=300.0, bandwidth_bad_bps=1e6)
    configuration = FailoverConfiguration("p", ["t-1", "t-2", "t-9"], 4, policy=policy)
    found = targets_of(configuration, regions)
    assert list(found) == ["t-1"], "the others say nothing, are no candidates, or unknown"
    assert (found["t-1"].latency_ms_max, found["t-1"].bandwidth_bps_min, found["t-1"].config_version) == (300.0, 1e6, 4)
    with_load = FailoverConfiguration("p", ["t-1", "t-2"], 5, load_ratio=0.5)
    assert list(targets_of(with_load, regions)) == ["t-1", "t-2"]
    assert targets_of(None, regions) == {}
