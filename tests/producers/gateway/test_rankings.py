"""Rankings over HTTP, from a real broker: the latest, and streams that go on where they were left."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.types import ASGIApp

from infra.kafka.cluster import Broker
from infra.processes import wait_until
from infra.rankings import RankingWatch
from producers.gateway.app import make_app
from producers.gateway.tokens import TokenBook, read_tokens, write_tokens
from producers.publisher import Publisher
from schemas.codec import to_plain
from schemas.config import Gateway, Kafka
from schemas.records import FailoverRanking
from tests.producers.gateway.conftest import TOKEN_STREAMS_MAX
from tests.producers.gateway.serving import Serving, eventually, ranking, serving

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
    begun_s = time.monotonic()
    for line in lines:
        assert time.monotonic() - begun_s < 20, "heartbeats, and no event"
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
        elif line == "" and "data" in fields:
            assert fields["event"] == "ranking"
            has = (each.split(":") for each in fields["id"].split(","))
            yield {primary: int(number) for primary, number in has}, json.loads(fields["data"])
            fields, begun_s = {}, time.monotonic()


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


def test_who_comes_back_to_another_gateway_gets_what_was_missed_too(gateway: Serving, tmp_path: Path) -> None:
    """It was not there when they were published, as after a restart: it reads the last of each primary again."""
    publish(gateway, *(ranking("anew", number) for number in range(1, 41)), ranking("anew-b", 7))
    with serving(gateway.bootstrap, tmp_path, prefix=gateway.prefix) as second:
        token = second.token()
        client = second.client(token)
        wait_until(lambda: client.get("/v1/rankings/anew").status_code == 200, 10, "the rankings")
        with stream(second, token, "anew", "anew-b", last="anew:2") as events:
            found = [next(events)[1] for _ in range(33)]
        with stream(second, token, "anew") as events:
            assert next(events)[1]["sequence"] == 40, "who comes for the first time wants no history"
    assert [each["sequence"] for each in found if each["primary_region"] == "anew"] == list(range(9, 41))
    assert [each["sequence"] for each in found if each["primary_region"] == "anew-b"] == [7]


def test_who_has_more_than_there_is_gets_what_there_is(gateway: Serving) -> None:
    token = gateway.token()
    publish(gateway, ranking("more-a", 4))
    client = gateway.client(token)
    wait_until(lambda: client.get("/v1/rankings/more-a").status_code == 200, 10, "the ranking")
    with stream(gateway, token, "more-a", "more-b", last="more-a:999,more-b:999") as events:
        assert next(events)[0] == {"more-a": 4, "more-b": 999}
        publish(gateway, ranking("more-b", 1))  # of which nothing had been there
        assert next(events)[0] == {"more-a": 4, "more-b": 1}


@pytest.mark.parametrize(
    "bad",
    [
        ranking("bad", 4, order_confidence=math.nan),
        ranking("bad", 4, order_confidence=math.inf),
        ranking("bad", -1),
        ranking("bad", 10**18),
        ranking("bad\r\nid: x", 4),
        ranking("../bad", 4),
    ],
)
def test_a_ranking_that_cannot_be_told_is_left_out_and_those_after_it_are_not(
    gateway: Serving, bad: FailoverRanking
) -> None:
    token = gateway.token()
    client, before = gateway.client(token), ranking("bad", time.time_ns() // 1000)
    publish(gateway, before)
    wait_until(lambda: client.get("/v1/rankings/bad").json().get("sequence") == before.sequence, 10, "the ranking")
    with stream(gateway, token, "bad") as events:
        assert next(events)[1]["sequence"] == before.sequence
        with Publisher(gateway.bootstrap, client_id="test", topic_prefix=gateway.prefix) as publisher:
            publisher.publish("failover-rankings", "bad", bad)  # of the same partition, so that it comes first
            publisher.publish("failover-rankings", "bad", replace(before, sequence=before.sequence + 1))
        assert next(events)[1]["sequence"] == before.sequence + 1
    assert client.get("/readyz").status_code == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_it_is_not_ready_when_nobody_reads_rankings_any_more(kafka: Broker, gateway: Serving, tmp_path: Path) -> None:
    def deaf(_heard: Any) -> RankingWatch:
        def fail(_rankings: Any) -> None:
            raise RuntimeError("a mistake of ours")

        return RankingWatch(Kafka(bootstrap=kafka.bootstrap, topic_prefix=gateway.prefix), fail, 1)

    publish(gateway, ranking("deaf", 1))
    tokens = tmp_path / "tokens.json"
    write_tokens(tokens, [])
    with Publisher(kafka.bootstrap, client_id="test", topic_prefix=gateway.prefix) as publisher:
        app = make_app(Gateway(), publisher, TokenBook(tokens), deaf)
        assert "rankings are heard no more" in asyncio.run(_not_ready(app)).json()["detail"]


async def _not_ready(app: ASGIApp) -> httpx.Response:
    """Its answer when it has become unready, within 10 s."""
    told: asyncio.Queue[Any] = asyncio.Queue()
    heard: asyncio.Queue[Any] = asyncio.Queue()
    life = asyncio.ensure_future(app({"type": "lifespan", "asgi": {}, "state": {}}, told.get, heard.put))
    await told.put({"type": "lifespan.startup"})
    assert (await heard.get())["type"] == "lifespan.startup.complete"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        deadline_s = time.monotonic() + 10
        while (answer := await client.get("/readyz")).status_code != 503 and time.monotonic() < deadline_s:
            await asyncio.sleep(0.05)
    await told.put({"type": "lifespan.shutdown"})
    await life
    assert answer.status_code == 503
    return answer


def test_one_token_cannot_take_all_streams(gateway: Serving) -> None:
    greedy, other = gateway.token(primaries=("silence",)), gateway.token(primaries=("silence",))
    with ExitStack() as stack:
        for _ in range(TOKEN_STREAMS_MAX):
            stack.enter_context(stream(gateway, greedy))
        with gateway.client(greedy).stream("GET", "/v1/rankings/stream") as answer:  # which would have no end
            assert (answer.status_code, answer.headers["content-type"]) == (429, "application/problem+json")
            assert int(answer.headers["retry-after"]) >= 1
        stack.enter_context(stream(gateway, other))
    client = gateway.client()
    wait_until(lambda: "proxima_gateway_streams 0.0" in client.get("/metrics").text, 10, "them to end")
    with stream(gateway, greedy):
        pass


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
