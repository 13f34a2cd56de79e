"""POST /v1/metrics on a real broker: what is acknowledged is on the topic, once, under the token's own name."""

from __future__ import annotations

import gzip
import json
import threading
import time
from pathlib import Path

import httpx
import pytest

from infra.processes import wait_until
from producers.gateway.tokens import read_tokens, write_tokens
from tests.producers.gateway.serving import Metric, Serving, metric, serving

pytestmark = pytest.mark.kafka
PROBLEM = "application/problem+json"


def ours(gateway: Serving, primary: str) -> list[float]:
    """The values on the topic about a primary that no other test uses."""
    return [m.value for m in gateway.injected() if m.primary_region == primary]


def test_what_is_acknowledged_is_on_the_topic_with_the_tokens_source(gateway: Serving) -> None:
    client = gateway.client(gateway.token("load-balancer"))
    before_ms = time.time_ns() // 1_000_000
    one = client.post("/v1/metrics", json=metric("one"))
    batch = client.post("/v1/metrics", json={"metrics": [metric("one", value=float(i), ttl_ms=5) for i in range(200)]})
    assert (one.status_code, one.json()) == (202, {"accepted": 1})
    assert (batch.status_code, batch.json()) == (202, {"accepted": 200})
    found = [m for m in gateway.injected() if m.primary_region == "one"]
    assert [m.value for m in found] == [90.0, *range(200)]
    assert {m.source for m in found} == {"load-balancer"}
    assert all(before_ms <= m.observed_at_ms <= time.time_ns() // 1_000_000 for m in found)
    assert [m.ttl_ms for m in found] == [60_000] + 200 * [5]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "one"),
        (json.dumps(metric(value="90")).encode(), "value"),
        (json.dumps(metric(value=-1)).encode(), "value"),
        (json.dumps(metric(metric="mood")).encode(), "metric"),
        (json.dumps(metric(metric="healthy", value=0.5)).encode(), "value"),
        (json.dumps(metric(metric="healthy", value=False)).encode(), "value"),
        (json.dumps(metric(colour="red")).encode(), "colour"),
        (json.dumps(metric("No")).encode(), "primary_region"),
        (json.dumps(metric(ttl_ms=0)).encode(), "ttl_ms"),
        (json.dumps(metric(target_region=None)).encode(), "target_region"),
        (json.dumps(metric(target_region=None, metric="capacity_ratio", value=0.5)).encode(), "target_region"),
        (json.dumps(metric(target_region="eu-west-1")).encode(), "target_region"),
        (json.dumps(metric(target_region="eu-west-1", metric="healthy", value=0)).encode(), "target_region"),
        (json.dumps({"metrics": []}).encode(), "metrics"),
        (json.dumps({"metrics": [metric(), metric(value=None)]}).encode(), "metrics.1"),
        (json.dumps({"metrics": 201 * [metric()]}).encode(), "metrics"),
        (b'{"metric": "latency_ms", "primary_region": "a", "value": NaN}', "value"),
        (b"\xff\xfe{}", "body"),
    ],
)
def test_a_wrong_body_is_422_with_the_place_of_each_mistake(gateway: Serving, body: bytes, place: str) -> None:
    token = _TOKENS.setdefault(gateway.url, gateway.token())
    answer = gateway.client(token).post("/v1/metrics", content=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == PROBLEM
    assert any(place in mistake for mistake in answer.json()["mistakes"]), answer.json()


_TOKENS: dict[str, str] = {}


def test_nothing_of_a_batch_with_a_mistake_is_sent(gateway: Serving) -> None:
    answer = gateway.client(gateway.token()).post("/v1/metrics", json={"metrics": [metric("none"), metric(value=-1)]})
    assert answer.status_code == 422
    assert ours(gateway, "none") == []


def test_what_is_of_the_future_is_422_with_its_place_and_nothing_is_sent(gateway: Serving) -> None:
    client, now_ms = gateway.client(gateway.token()), time.time_ns() // 1_000_000
    near, far = (metric("future", observed_at_ms=now_ms + ahead_ms) for ahead_ms in (4000, 3_600_000))
    answer = client.post("/v1/metrics", json={"metrics": [near, far, metric("future")]})
    assert (answer.status_code, len(answer.json()["mistakes"])) == (422, 1)
    assert answer.json()["mistakes"][0].startswith("batch.metrics.1.latency_ms.observed_at_ms: ")
    assert client.post("/v1/metrics", json=far).json()["mistakes"][0].startswith("one.latency_ms.observed_at_ms: ")
    assert client.post("/v1/metrics", json=near).status_code == 202
    assert ours(gateway, "future") == [90.0]


@pytest.mark.parametrize(
    ("encoding", "status"), [("gzip", 415), ("br, gzip", 415), ("identity", 202), ("Identity", 202)]
)
def test_a_body_that_is_packed_is_415(gateway: Serving, encoding: str, status: int) -> None:
    token = _TOKENS.setdefault(gateway.url, gateway.token())
    body = json.dumps(metric("packed")).encode()
    content = gzip.compress(body) if status == 415 else body
    answer = gateway.client(token).post("/v1/metrics", content=content, headers={"Content-Encoding": encoding})
    assert answer.status_code == status
    if status == 415:
        assert (answer.headers["content-type"], answer.headers["accept-encoding"]) == (PROBLEM, "identity")


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer px_0_1", "Basic cHg6eA==", "Bearer " + 5000 * "é"])
def test_without_a_token_nothing_is_said_but_401(gateway: Serving, authorization: str | None) -> None:
    headers = {} if authorization is None else {b"Authorization": authorization.encode()}
    for answer in (
        gateway.client().post("/v1/metrics", content=b"{", headers=headers),
        gateway.client().get("/v1/rankings/eu-west-1", headers=headers),
        gateway.client().get("/v1/rankings/stream", headers=headers),
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (401, PROBLEM)
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_token_with_another_secret_is_none(gateway: Serving) -> None:
    assert gateway.client(gateway.token()[:-1] + "?").post("/v1/metrics", json=metric()).status_code == 401


def test_a_token_is_bound_to_its_source_primaries_and_metrics(gateway: Serving) -> None:
    client = gateway.client(gateway.token("narrow", primaries=("mine",), metrics=("latency_ms",)))
    assert client.post("/v1/metrics", json=metric("mine", source="narrow")).status_code == 202
    for beyond in (
        metric("theirs"),
        metric("mine", metric="loss_ratio", value=1),
        metric("mine", source="somebody-else"),
    ):
        answer = client.post("/v1/metrics", json={"metrics": [metric("mine"), beyond]})
        assert (answer.status_code, len(answer.json()["mistakes"])) == (403, 1), answer.text
        assert answer.json()["mistakes"][0].startswith(f"batch.metrics.1.{beyond['metric']}."), answer.text
        assert client.post("/v1/metrics", json=beyond).json()["mistakes"][0].startswith(f"one.{beyond['metric']}.")
    assert ours(gateway, "mine") == [90.0]
    assert client.get("/v1/rankings/theirs").status_code == 403
    assert client.get("/v1/rankings/stream", params={"primary": "theirs"}).status_code == 403


def test_a_token_for_reading_cannot_inject_and_one_for_injecting_cannot_read(gateway: Serving) -> None:
    reader, injector = gateway.client(gateway.token(injects=False)), gateway.client(gateway.token(reads=False))
    assert reader.post("/v1/metrics", json=metric()).status_code == 403
    assert injector.get("/v1/rankings/eu-west-1").status_code == 403
    assert injector.get("/v1/rankings/stream").status_code == 403


def test_a_revoked_token_is_refused_without_a_restart(gateway: Serving) -> None:
    client = gateway.client(gateway.token("revoked"))
    assert client.post("/v1/metrics", json=metric()).status_code == 202
    write_tokens(gateway.tokens_file, [r for r in read_tokens(gateway.tokens_file) if r.source != "revoked"])
    wait_until(lambda: client.post("/v1/metrics", json=metric()).status_code == 401, 10, "the token to be refused")


def test_above_its_rate_a_token_is_told_when_to_come_back(gateway: Serving) -> None:
    client = gateway.client(gateway.token(records_per_s=10.0, burst=50))
    other = gateway.client(gateway.token())
    batch = {"metrics": 50 * [metric("rated")]}
    assert client.post("/v1/metrics", json=batch).status_code == 202
    answer = client.post("/v1/metrics", json=batch)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 5
    assert other.post("/v1/metrics", json=metric("rated")).status_code == 202, "another's rate is its own"
    assert len(ours(gateway, "rated")) == 51


def test_the_same_key_gives_the_same_answer_and_no_second_record(gateway: Serving) -> None:
    client, key = gateway.client(gateway.token()), {"Idempotency-Key": "order-7"}
    body = {"metrics": [metric("keyed", value=1.0), metric("keyed", value=2.0)]}
    first, again = (client.post("/v1/metrics", json=body, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code, first.json()) == (202, 202, again.json())
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
    other = client.post("/v1/metrics", json=metric("keyed", value=3.0), headers=key)
    assert (other.status_code, "another body" in other.json()["detail"]) == (422, True)
    somebody = gateway.client(gateway.token("somebody"))
    assert somebody.post("/v1/metrics", json=metric("keyed", value=4.0), headers=key).status_code == 202
    assert ours(gateway, "keyed") == [1.0, 2.0, 4.0]


def test_the_same_key_sent_twenty_times_at_once_is_one_record(gateway: Serving) -> None:
    client, answers = gateway.client(gateway.token()), list[httpx.Response]()

    def post() -> None:
        answers.append(client.post("/v1/metrics", json=metric("at-once"), headers={"Idempotency-Key": "k"}))

    threads = [threading.Thread(target=post) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(a.status_code, a.json()) for a in answers] == 20 * [(202, {"accepted": 1})]
    assert ours(gateway, "at-once") == [90.0]


def test_behind_two_gateways_a_key_may_become_two_records_which_are_the_same(gateway: Serving, tmp_path: Path) -> None:
    """The fold counts such a pair once: tests/streams/core/test_injected.py."""
    token, key = gateway.token(), {"Idempotency-Key": "of-both"}
    said = metric("of-both", observed_at_ms=time.time_ns() // 1_000_000)
    with serving(gateway.bootstrap, tmp_path, prefix=gateway.prefix) as second:
        write_tokens(second.tokens_file, read_tokens(gateway.tokens_file))
        client = second.client(token)
        wait_until(lambda: client.get("/v1/rankings/nobody").status_code != 401, 10, "the token to be known")
        for each in (gateway.client(token), client):
            assert each.post("/v1/metrics", json=said, headers=key).status_code == 202
    one, other = [m for m in gateway.injected() if m.primary_region == "of-both"]
    assert one == other


@pytest.mark.parametrize("key", ["", 129 * "k", "two words", "é"])
def test_a_key_is_printable_and_short(gateway: Serving, key: str) -> None:
    token = _TOKENS.setdefault(gateway.url, gateway.token())
    answer = gateway.client(token).post("/v1/metrics", json=metric(), headers={b"Idempotency-Key": key.encode()})
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_413(gateway: Serving, *, chunked: bool) -> None:
    token, body = _TOKENS.setdefault(gateway.url, gateway.token()), b" " * 65_537
    content = iter([body[:40_000], body[40_000:]]) if chunked else body
    answer = gateway.client(token).post("/v1/metrics", content=content)
    assert (answer.status_code, answer.headers["content-type"]) == (413, PROBLEM)


def test_what_is_not_there_is_a_problem_too(gateway: Serving) -> None:
    client = gateway.client()
    for answer, status in (
        (client.get("/nothing"), 404),
        (client.post("/v1/metrics/"), 404),
        (client.put("/v1/metrics"), 405),
    ):
        assert (answer.status_code, answer.headers["content-type"], answer.json()["status"]) == (
            status,
            PROBLEM,
            status,
        )


def test_it_says_what_it_counted_and_that_it_is_ready(gateway: Serving) -> None:
    client = gateway.client(gateway.token("counted"))
    metrics: list[Metric] = [metric() for _ in range(7)]
    assert client.post("/v1/metrics", json={"metrics": metrics}).status_code == 202
    assert client.get("/readyz").json() == {"status": "ok"}
    heads = [client.head(path) for path in ("/healthz", "/readyz", "/metrics")]
    assert [(head.status_code, head.content) for head in heads] == 3 * [(200, b"")]
    text = client.get("/metrics").text
    assert 'proxima_gateway_records_total{outcome="accepted",source="counted"} 7.0' in text
    assert 'proxima_gateway_requests_total{route="/v1/metrics",status="202"}' in text


def test_no_token_and_no_secret_is_in_its_log_or_file(gateway: Serving) -> None:
    token = gateway.token("secretive")
    gateway.client(token).post("/v1/metrics", json=metric())
    secret = token.split("_", 2)[2]
    assert secret not in gateway.tokens_file.read_text()
    assert secret not in gateway.child.log_tail(10_000)
    assert gateway.tokens_file.stat().st_mode & 0o077 == 0
