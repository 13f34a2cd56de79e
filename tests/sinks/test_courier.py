"""Rankings carried to a receiver that is down, slow, wrong or gone: in order, and no more often than it can bear."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from infra.processes import wait_until
from schemas.breaker import State
from schemas.webhook import Destination
from sinks.courier import Courier, Ending, Parcel, Result
from sinks.rendering import as_json
from sinks.sink import Meta
from tests.sinks.rankings import ranking
from tests.sinks.receiver import Answer, Receiver, certificate

KEY = b"k" * 32
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def destination(receiver: Receiver, **changed: Any) -> Destination:
    """Impatient, so that tests are short."""
    quick = {"name": "d", "url": receiver.url, "secret_env": ["S"], "retry_ms": 10, "retry_ms_max": 50,
             "breaker_open_ms": 50, "breaker_open_ms_max": 100, "timeout_ms": 2000, "tries": 1000}  # fmt: skip
    return Destination.model_validate(quick | changed)


def parcel(primary: str = "eu-west-1", sequence: int = 1) -> Parcel:
    body = as_json(ranking(primary, sequence)).encode()
    return Parcel(primary, sequence, f"{primary}-{sequence}", body, Meta("t", 0, sequence, 0, None))


@contextmanager
def carrying(to: Destination) -> Iterator[Courier]:
    courier = Courier(to, [KEY])
    try:
        yield courier
    finally:
        courier.close()


def results(courier: Courier, count: int) -> list[Result]:
    return [courier.results.get(timeout=10) for _ in range(count)]


def test_each_primarys_rankings_arrive_in_order_signed_and_once() -> None:
    parcels = [parcel(p, s) for s in range(1, 31) for p in ("a", "b", "c")]
    with Receiver() as receiver, carrying(destination(receiver)) as courier:
        courier.submit(parcels)
        assert {r.ending for r in results(courier, 90)} == {Ending.DELIVERED}
        assert receiver.sequences() == {p: list(range(1, 31)) for p in "abc"}
        first = receiver.deliveries[0]
        assert first.headers["content-type"] == "application/json"
        assert first.headers["webhook-id"] == f"{first.primary}-{first.sequence}"
        assert abs(int(first.headers["webhook-timestamp"]) - time.time()) < 5


def test_a_receiver_that_is_down_is_tried_until_it_is_there_and_nothing_overtakes() -> None:
    receiver = Receiver()
    with carrying(destination(receiver)) as courier:
        courier.submit([parcel(p, s) for s in range(1, 11) for p in ("a", "b")])
        wait_until(lambda: courier.breaker.status().opened >= 2, 10, "the breaker to open again")
        with receiver:
            assert {r.ending for r in results(courier, 20)} == {Ending.DELIVERED}
            assert receiver.sequences(accepted=False) == {p: list(range(1, 11)) for p in "ab"}
            assert courier.breaker.state is State.CLOSED


def test_an_open_breaker_spares_the_destination() -> None:
    receiver = Receiver()
    receiver.answer = lambda _: Answer(503)
    to = destination(receiver, breaker_failures=3, breaker_open_ms=60_000, breaker_open_ms_max=60_000)
    with receiver, carrying(to) as courier:
        courier.submit([parcel(f"p{n}") for n in range(20)])
        wait_until(lambda: courier.breaker.state is State.OPEN, 10, "the breaker to open")
        courier.drain()
        before = len(receiver.deliveries)
        courier.submit([parcel("later")])
        courier.drain()
        assert len(receiver.deliveries) == before


def test_one_primary_that_always_fails_opens_no_breaker_for_the_others() -> None:
    receiver = Receiver()
    receiver.answer = lambda d: Answer(500 if d.primary == "bad" else 204)
    with receiver, carrying(destination(receiver, tries=20)) as courier:
        courier.submit([parcel("bad", 1), parcel("bad", 2)])
        wait_until(lambda: len(receiver.deliveries) >= 15, 10, "the first tries")
        assert courier.breaker.status().opened == 0
        courier.submit([parcel("good", s) for s in range(1, 6)])
        found = results(courier, 7)
        assert courier.breaker.status().opened == 0
    assert [r.parcel.sequence for r in found if r.ending is Ending.GIVEN_UP] == [1, 2]
    assert "in 20 tries: answers 500" in next(r.why for r in found if r.ending is Ending.GIVEN_UP)
    assert receiver.sequences(accepted=False)["bad"] == [1] * 20 + [2] * 20
    assert receiver.sequences()["good"] == [1, 2, 3, 4, 5]


def test_a_slow_primary_does_not_hold_the_others() -> None:
    receiver = Receiver()
    receiver.answer = lambda d: Answer(after_s=30 if d.primary == "slow" else 0)
    with receiver, carrying(destination(receiver, timeout_ms=400, tries=2)) as courier:
        courier.submit([parcel("slow"), *(parcel(p, s) for s in range(1, 6) for p in ("a", "b"))])
        quick, last = results(courier, 10), results(courier, 1)
    assert {r.parcel.primary for r in quick} == {"a", "b"}
    assert last[0].ending is Ending.GIVEN_UP
    assert "no answer within 400 ms" in last[0].why


def test_gone_is_gone_for_all_that_waits() -> None:
    receiver = Receiver()
    receiver.answer = lambda _: Answer(410)
    with receiver, carrying(destination(receiver)) as courier:
        courier.submit([parcel("a", s) for s in range(1, 6)])
        assert results(courier, 1)[0].ending is Ending.GONE
        courier.submit([parcel("b")])
        courier.drain()
        assert len(receiver.deliveries) == 1
        assert courier.results.empty()


def test_a_redirect_is_not_followed() -> None:
    with Receiver() as elsewhere, Receiver() as receiver:
        receiver.answer = lambda _: Answer(307, {"Location": elsewhere.url})
        with carrying(destination(receiver, tries=2)) as courier:
            courier.submit([parcel()])
            (result,) = results(courier, 1)
        assert result.ending is Ending.GIVEN_UP
        assert "answers 307, a redirect, which is not followed" in result.why
        assert (len(receiver.deliveries), len(elsewhere.deliveries)) == (2, 0)


def test_only_a_certificate_that_is_trusted_and_the_hosts_own_will_do(tmp_path: Path) -> None:
    right, other = certificate(tmp_path), certificate(tmp_path, "DNS:elsewhere.example")
    for served, trusted, says in (
        (right, None, "self-signed certificate"),
        (other, other[0], "IP address mismatch"),
        (right, right[0], ""),
    ):
        with Receiver(served) as receiver, carrying(destination(receiver, tries=2, ca_file=trusted)) as courier:
            courier.submit([parcel()])
            (result,) = results(courier, 1)
            assert result.ending is (Ending.GIVEN_UP if says else Ending.DELIVERED)
            assert says in result.why
            assert len(receiver.deliveries) == (0 if says else 1)


def test_an_https_destination_is_never_told_in_the_clear() -> None:
    with Receiver() as receiver:
        to = destination(receiver, url=receiver.url.replace("http:", "https:"), tries=1)
        with carrying(to) as courier:
            courier.submit([parcel()])
            (result,) = results(courier, 1)
        assert result.ending is Ending.GIVEN_UP
        assert "TLS" in result.why
        assert receiver.deliveries == []


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_heeded_by_all_primaries_up_to_a_bound(as_date: bool) -> None:
    receiver = Receiver()
    when = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True) if as_date else "3600"
    receiver.answer = lambda _: Answer(503 if len(receiver.deliveries) == 1 else 204, {"Retry-After": when})
    with receiver, carrying(destination(receiver, retry_after_ms_max=700)) as courier:
        courier.submit([parcel("a")])
        wait_until(lambda: len(receiver.deliveries) == 1, 10, "the first try")
        wait_until(lambda: courier.breaker.status().failed == 1, 10, "its judgement")
        courier.submit([parcel("b")])
        results(courier, 2)
        first, *later = [d.at_s for d in receiver.deliveries]
    assert len(later) == 2
    assert 0.65 < min(later) - first < 5


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    receiver = Receiver()
    receiver.answer = lambda _: Answer(200, body=None)
    with receiver, carrying(destination(receiver)) as courier:
        courier.submit([parcel("a", s) for s in (1, 2, 3)])
        assert {r.ending for r in results(courier, 3)} == {Ending.DELIVERED}
        # What sockets' buffers hold may have left the receiver; it never stops by itself.
        assert receiver.body_bytes < 100 << 20


def test_draining_finishes_what_is_on_its_way_and_forgets_what_waits() -> None:
    receiver = Receiver()
    receiver.answer = lambda _: Answer(after_s=0.3)
    with receiver, carrying(destination(receiver)) as courier:
        courier.submit([parcel("a", s) for s in (1, 2, 3)])
        wait_until(lambda: bool(receiver.deliveries), 10, "the first on its way")
        courier.drain()
        assert [r.parcel.sequence for r in results(courier, 1)] == [1]
        assert courier.results.empty()
        courier.submit([parcel("a", 2)])
        assert results(courier, 1)[0].parcel.sequence == 2
    assert receiver.sequences() == {"a": [1, 2]}
