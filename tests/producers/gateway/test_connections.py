"""Connections that nobody uses: half-sent requests, handshakes that never end, and too many of them."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from infra.kafka.cluster import Broker
from infra.processes import free_ports, wait_until
from tests.producers.gateway.serving import Serving, certified, metric, serving

pytestmark = pytest.mark.kafka
REQUEST_S, CONNECTIONS_MAX = 0.5, 30
ENDLESS = [
    pytest.param(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ", b"a", id="a header"),
    pytest.param(b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"X: a\r\n", id="headers"),
    pytest.param(b"GET /", b"a", id="an address"),
    pytest.param(b"", b"\r\n", id="empty lines"),
    pytest.param(b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"", id="a trailer"),
]
HALF = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"GET /healthz", id="half a line"),
    pytest.param(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-More: ", id="half a header"),
    pytest.param(b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n[", id="half a body"),
]


@pytest.fixture(scope="module")
def bounded(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("gateway")
    limits: dict[str, Any] = {"REQUEST_S": REQUEST_S, "CONNECTIONS_MAX": CONNECTIONS_MAX, "HEARTBEAT_S": 0.3}
    with serving(kafka.bootstrap, folder, **limits) as found:
        yield found


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("gateway")
    certificate, key = certified(folder)
    limits: dict[str, Any] = {"REQUEST_S": REQUEST_S, "CONNECTIONS_MAX": CONNECTIONS_MAX}
    files = {"TLS_CERTIFICATE_FILE": certificate, "TLS_KEY_FILE": key}
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    with serving(nobody, folder, prefix="tls-", scheme="https", **limits, **files) as found:
        yield found


def trusting(gateway: Serving) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=gateway.tokens_file.with_name("certificate.pem"))


def client_hello(context: ssl.SSLContext) -> bytes:
    sent = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="127.0.0.1").do_handshake()
    return sent.read()


def connected(gateway: Serving) -> socket.socket:
    parts = urlsplit(gateway.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def rest(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    found = b""
    try:
        while more := connection.recv(65_536):
            found += more
    except ConnectionResetError:
        pass
    return found


@pytest.mark.parametrize("half", HALF)
def test_half_a_request_is_closed_in_time_however_it_drips(bounded: Serving, half: bytes) -> None:
    with connected(bounded) as connection:
        connection.sendall(half)
        begun_s = time.monotonic()

        def closed() -> bool:
            try:
                if half:
                    connection.sendall(b"a")
                connection.settimeout(0.05)
                return connection.recv(65_536) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_until(closed, 5, "the connection to be closed")
        assert time.monotonic() - begun_s > REQUEST_S / 2


@pytest.mark.parametrize(("begin", "more"), ENDLESS)
def test_what_has_no_end_is_431_long_before_its_deadline(bounded: Serving, begin: bytes, more: bytes) -> None:
    """The trailer's request has been answered already, with 401."""
    with connected(bounded) as connection:
        connection.sendall(begin)
        if not more:
            assert b" 401 " in connection.recv(65_536)
            begin, more = b"0\r\nX: ", b"a"
            connection.sendall(begin)
        with suppress(OSError):  # closed meanwhile
            connection.sendall((1 << 19) // len(more) * more)
        found = rest(connection)
    assert b" 431 " in found
    assert b"application/problem+json" in found


def test_a_header_of_100_kilobytes_is_read(bounded: Serving) -> None:
    assert bounded.client().get("/healthz", headers={"X-Long": 100_000 * "a"}).status_code == 200


@pytest.mark.parametrize(
    "wrong", [b"rubbish\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"GET a HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_http_is_a_problem_too(bounded: Serving, wrong: bytes) -> None:
    with connected(bounded) as connection:
        connection.sendall(wrong)
        head, _, body = rest(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"application/problem+json" in head
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["status"] == 400


def test_nothing_is_written_into_an_answer_that_has_begun(bounded: Serving) -> None:
    token = bounded.token()
    with connected(bounded) as connection:
        request = f"GET /v1/rankings/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        connection.sendall(request.encode())
        found = connection.recv(65_536)
        assert b" 200 OK" in found
        connection.sendall(b"rubbish\r\n\r\n")
        assert b" 400 " not in found + rest(connection)


def test_who_hangs_up_within_a_body_leaves_no_trace(bounded: Serving) -> None:
    token, client = bounded.token(), bounded.client()
    head = f"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 50\r\n\r\n["
    counted = 'proxima_gateway_requests_total{route="/v1/metrics",status="400"} 1.0'
    with connected(bounded) as connection:
        connection.sendall(head.encode())
    wait_until(lambda: counted in client.get("/metrics").text, 10, "it to be noticed")
    assert "Traceback" not in bounded.child.log_tail(200)
    assert "/v1/metrics" not in bounded.child.log_tail(200)


def test_half_a_second_request_is_closed_too(bounded: Serving) -> None:
    whole = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(bounded) as connection:
        connection.sendall(whole)
        assert b"200 OK" in connection.recv(65_536)
        connection.sendall(whole[:-2])
        assert b"200 OK" not in rest(connection)


def test_what_is_whole_has_its_time(bounded: Serving) -> None:
    client = bounded.client(bounded.token())
    with client.stream("GET", "/v1/rankings/stream") as answer:
        begun_s, lines = time.monotonic(), answer.iter_lines()
        while time.monotonic() - begun_s < 3 * REQUEST_S:
            next(lines)
    idle = bounded.client(bounded.token())
    assert idle.post("/v1/metrics", json=metric()).status_code == 202
    assert idle.post("/v1/metrics", json=metric()).status_code == 202


def test_one_connection_too_many_is_closed_and_the_others_are_served(bounded: Serving) -> None:
    client = bounded.client()
    assert client.get("/healthz").status_code == 200  # its connection stays
    with ExitStack() as stack:
        many = [stack.enter_context(connected(bounded)) for _ in range(3 * CONNECTIONS_MAX)]
        begun_s = time.monotonic()
        assert rest(many[-1]) == b""
        assert time.monotonic() - begun_s < REQUEST_S, "at once"
        assert client.get("/healthz").status_code == 200
        for each in many:
            rest(each)
    assert bounded.client().get("/healthz").status_code == 200, "there is room again"


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0], ids=["nothing", "half a hello", "a hello, and no more"])
def test_a_handshake_that_never_ends_is_closed_in_time_and_the_others_are_served(
    encrypted: Serving, part: float
) -> None:
    context = trusting(encrypted)
    hello = client_hello(context)
    client = encrypted.client(verify=context)
    with ExitStack() as stack:
        silent = [stack.enter_context(connected(encrypted)) for _ in range(CONNECTIONS_MAX // 2)]
        begun_s = time.monotonic()
        for each in silent:
            each.sendall(hello[: int(part * len(hello))])
        assert client.get("/healthz").status_code == 200
        for each in silent:
            rest(each)
        took_s = time.monotonic() - begun_s
        assert REQUEST_S / 2 < took_s < 8, "the deadline is ours: asyncio's own is a minute"
        assert client.get("/healthz").status_code == 200


def test_handshakes_that_are_under_way_count_as_connections(encrypted: Serving) -> None:
    client = encrypted.client(verify=trusting(encrypted))
    assert client.get("/healthz").status_code == 200  # its connection stays
    with ExitStack() as stack:
        many = [stack.enter_context(connected(encrypted)) for _ in range(3 * CONNECTIONS_MAX)]
        begun_s = time.monotonic()
        assert rest(many[-1]) == b""
        assert time.monotonic() - begun_s < REQUEST_S, "at once"
        assert client.get("/healthz").status_code == 200
        assert len(psutil.Process(encrypted.child.pid).net_connections("tcp")) < 2 * CONNECTIONS_MAX
        for each in many:
            rest(each)
    assert encrypted.client(verify=trusting(encrypted)).get("/healthz").status_code == 200, "there is room again"


def test_it_takes_the_descriptors_that_it_may_have(bounded: Serving) -> None:
    limits = Path(f"/proc/{bounded.child.pid}/limits").read_text()
    soft, hard = next(line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files"))
    assert hard == "unlimited" or int(soft) >= min(int(hard), 65_536)


def test_silent_handshakes_hold_up_no_farewell(encrypted: Serving) -> None:
    """The last of this file: it ends the gateway."""
    with connected(encrypted):
        assert encrypted.child.stop() == 0
    assert "Traceback" not in encrypted.child.log_tail(50)
