"""Rankings over HTTP, from a real broker: the latest, and streams that go on where they were left."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from infra.processes import wait_until
from producers.gateway.tokens import read_tokens, write_tokens
from producers.publisher import Publisher
from schemas.codec import to_plain
from tests.producers.gateway.serving import Serving, eventually, ranking

pytestmark = pytest.mark.kafka
Event = tuple[dict[str, int], dict[str, Any]]


def publish(gateway: Serving, *rankings: Any) -> None:
    with Publisher(gateway.bootstrap, client_id="test", topic_prefix=gateway.prefix) as publisher:
        for each in rankings:
            publisher.publish("failover-rankings", each.primary_region, each)


@contextmanager
def stream(gateway: Serving, token: str, *primaries: str, last: str | None = None) -> Iterator[Iterator[Event]]:
    """Events of a stream: what the subscriber has by its id, and the ranking. Opened before it is returned."""
    headers = {} if last is None else {"Last-Event-ID": last}
    with gateway.client(token).stream(
        "GET", "/v1/rankings/stream", params={"primary": primaries}, headers=headers
    ) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        lines = answer.iter_lines()
        assert next(lines) == ": rankings"
        yield _events(lines)


def _events(lines: Iterator[str]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
        elif line == "" and "data" in fields:
            assert fields["event"] == "ranking"
            has = (each.split(":") for each in fields["id"].split(","))
            yield {primary: int(number) for primary, number in has}, json.loads(fields["data"])
            fields = {}


def test_the_latest_ranking_of_a_primary(gateway: Serving) -> None:
    client = gateway.client(gateway.token())
    assert client.get("/v1/rankings/latest").status_code == 404
    publish(gateway, ranking("latest", 1), ranking("latest", 2, target_region="us-east-1"), ranking("latest", 1))
    answer = eventually(lambda: client.get("/v1/rankings/latest"), 200, "a ranking")
    wait_until(lambda: client.get("/v1/rankings/latest").json()["sequence"] == 2, 10, "the second ranking")
    assert client.get("/v1/rankings/latest").json() == to_plain(ranking("latest", 2, target_region="us-east-1"))
    assert answer.headers["cache-control"] == "no-store"


def test_a_stream_tells_how_things_stand_and_then_what_comes(gateway: Serving) -> None:
    token = gateway.token()
    publish(gateway, ranking("st-a", 1), ranking("st-a", 2), ranking("st-b", 5))
    client = gateway.client(token)
    wait_until(lambda: client.get("/v1/rankings/st-b").status_code == 200, 10, "the rankings")
    wait_until(lambda: client.get("/v1/rankings/st-a").json().get("sequence") == 2, 10, "the rankings")
    with stream(gateway, token, "st-a", "st-b") as events:
        standing = [next(events), next(events)]
        assert [(r["primary_region"], r["sequence"]) for _, r in standing] == [("st-a", 2), ("st-b", 5)]
        publish(gateway, ranking("st-b", 5), ranking("st-c", 1), ranking("st-b", 6))  # a repeat, and another's
        has, came = next(events)
        assert (came["primary_region"], came["sequence"]) == ("st-b", 6)
        assert has == {"st-a": 2, "st-b": 6}


def test_who_comes_back_gets_what_was_missed_and_nothing_twice(gateway: Serving) -> None:
    token = gateway.token()
    publish(gateway, ranking("back-a", 1), ranking("back-b", 1))
    client = gateway.client(token)
    wait_until(lambda: client.get("/v1/rankings/back-a").status_code == 200, 10, "the ranking")
    publish(gateway, *(ranking("back-a", number) for number in (2, 3, 4)))
    wait_until(lambda: client.get("/v1/rankings/back-a").json().get("sequence") == 4, 10, "the rankings")
    with stream(gateway, token, "back-a", "back-b", last="back-a:2,back-b:1") as events:
        missed = [next(events)[1]["sequence"] for _ in range(2)]
        assert missed == [3, 4]
        publish(gateway, ranking("back-b", 2))
        assert next(events)[0] == {"back-a": 4, "back-b": 2}


def test_a_token_sees_its_own_primaries_only(gateway: Serving) -> None:
    token = gateway.token(primaries=("own-a",))
    with stream(gateway, token) as events:
        publish(gateway, ranking("own-b", 1), ranking("own-a", 1))
        assert next(events)[1]["primary_region"] == "own-a"


def test_a_silent_stream_is_kept_open_by_heartbeats(gateway: Serving) -> None:
    with gateway.client(gateway.token(primaries=("silence",))).stream("GET", "/v1/rankings/stream") as answer:
        lines = answer.iter_lines()
        assert [line for _, line in zip(range(6), lines, strict=False) if line] == [
            ": rankings", ": still here", ": still here",
        ]  # fmt: skip


@pytest.mark.parametrize("last", ["rubbish", "a:", "a:1,", "A:1", "a:" + 19 * "9"])
def test_a_last_event_id_that_was_never_given_is_422(gateway: Serving, last: str) -> None:
    token = gateway.token()
    answer = gateway.client(token).get("/v1/rankings/stream", headers={"Last-Event-ID": last})
    assert answer.status_code == 422


def test_a_subscriber_that_does_not_read_is_dropped_and_holds_nobody_up(gateway: Serving) -> None:
    token, parts = gateway.token(), urlsplit(gateway.url)
    with socket.create_connection((parts.hostname, parts.port)) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = f"GET /v1/rankings/stream?primary=slow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        slow.sendall(request.encode())
        wait_until(lambda: "proxima_gateway_streams 1.0" in gateway.client().get("/metrics").text, 10, "the stream")
        with stream(gateway, token, "slow") as events:
            begun_s, number = time.monotonic(), 0

            def dropped() -> bool:
                nonlocal number
                more = [ranking("slow", number + i, reason=200_000 * "x") for i in range(1, 11)]
                publish(gateway, *more)
                number += 10
                seen = [next(events)[1]["sequence"] for _ in range(10)]
                assert seen == [each.sequence for each in more], "the other is served meanwhile"
                return "proxima_gateway_dropped_streams_total 1.0" in gateway.client().get("/metrics").text

            wait_until(dropped, 60, "the slow one to be dropped")
            assert time.monotonic() - begun_s < 60


def test_a_revoked_token_ends_its_open_streams_and_no_others(gateway: Serving) -> None:
    revoked, kept = gateway.token(primaries=("rev",)), gateway.token(primaries=("rev",))
    with stream(gateway, revoked) as ends, stream(gateway, kept) as goes_on:
        publish(gateway, ranking("rev", 1))
        assert next(ends)[1]["sequence"] == next(goes_on)[1]["sequence"] == 1
        rows = read_tokens(gateway.tokens_file)
        write_tokens(gateway.tokens_file, [row for row in rows if row.token_id != revoked.split("_")[1]])
        begun_s = time.monotonic()
        assert list(ends) == []  # it ended, and well
        assert time.monotonic() - begun_s < 2
        publish(gateway, ranking("rev", 2))
        assert next(goes_on)[1]["sequence"] == 2
    assert gateway.client(revoked).get("/v1/rankings/stream").status_code == 401


def test_told_to_stop_it_ends_its_streams_and_leaves(gateway: Serving) -> None:
    """The last of this module: it stops the gateway."""
    with stream(gateway, gateway.token(primaries=("silence",))) as events:
        gateway.child.stop(10)
        assert list(events) == []
    assert gateway.child.returncode == 0, gateway.child.log_tail(20)
