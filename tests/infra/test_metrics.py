"""What Prometheus scrapes of a role: its breakers as they stand, under names that keep to the conventions."""

from __future__ import annotations

import gc
import socket
import subprocess
import urllib.request
from contextlib import ExitStack
from shutil import which

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from infra import metrics
from infra.metrics import registry, serve_metrics
from infra.processes import free_ports, wait_until
from schemas.breaker import Breaker, Limits
from schemas.config import Metrics
from schemas.errors import ConfigError


def shown(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("proxima_breaker")
    }


def test_breakers_are_shown_as_they_stand_and_not_when_they_are_gone() -> None:
    now_s = [0.0]
    breaker = Breaker("carrier", Limits(failures=2, open_s=5), clock=lambda: now_s[0])
    for _ in range(2):
        breaker.permit().failed("503")
    assert breaker.ask() is None
    found = shown(generate_latest(registry()).decode())
    assert found["proxima_breaker_state", "carrier", "open"] == 1
    assert found["proxima_breaker_state", "carrier", "closed"] == 0
    assert found["proxima_breaker_calls_total", "carrier", "failed"] == 2
    assert found["proxima_breaker_calls_total", "carrier", "refused"] == 1
    assert found["proxima_breaker_opened_total", "carrier"] == 1
    now_s[0] = 6
    assert shown(generate_latest(registry()).decode())["proxima_breaker_state", "carrier", "half_open"] == 1
    del breaker
    gc.collect()
    assert not [name for name in shown(generate_latest(registry()).decode()) if "carrier" in name]


def test_they_are_served_where_the_file_says_and_an_address_that_is_taken_is_one_clear_line() -> None:
    breaker = Breaker("the store", clock=lambda: 0.0)
    (port,) = free_ports(1)
    serve_metrics(Metrics(port=port), "a role")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert shown(text)["proxima_breaker_state", breaker.name, "closed"] == 1
    assert "process_resident_memory_bytes" in text
    with pytest.raises(ConfigError, match=f"127.0.0.1:{port} cannot be had"):
        serve_metrics(Metrics(port=port), "a role")
    promtool = which("promtool")
    if promtool is not None:
        subprocess.run([promtool, "check", "metrics"], input=text, text=True, check=True, timeout=30)


def is_hung_up_on(connection: socket.socket) -> bool:
    """Send one more byte of a request that never ends; whether nobody listens any more."""
    try:
        connection.send(b"x")
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def slow(stack: ExitStack, port: int) -> socket.socket:
    """A connection that has begun to ask."""
    found = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
    found.send(b"GET /")
    found.setblocking(False)
    return found


def answers(port: int) -> bool:
    """Whether a scrape is answered now."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_who_asks_slowly_takes_nobodys_place_the_oldest_of_too_many_is_hung_up_on() -> None:
    (port,) = free_ports(1)
    serve_metrics(Metrics(port=port), "a role")
    with ExitStack() as stack:
        connections = [slow(stack, port) for _ in range(metrics._AT_ONCE_MAX)]
        for _ in range(2):  # the first takes a place, the second finds that it is free again
            assert answers(port)
        wait_until(lambda: is_hung_up_on(connections[0]), 2, "the oldest to be hung up on", poll_s=0.05)
        assert [is_hung_up_on(each) for each in connections[2:]] == [False] * (metrics._AT_ONCE_MAX - 2)
        for _ in range(4 * metrics._AT_ONCE_MAX):
            slow(stack, port)
        wait_until(lambda: all(is_hung_up_on(each) for each in connections), 10, "the first ones to be hung up on")
        wait_until(lambda: answers(port), 10, "an answer, once threads of those are gone", poll_s=0.1)


def test_who_sends_a_byte_now_and_then_is_hung_up_on_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_REQUEST_S", 0.5)  # that of a single read stays 5 s
    (port,) = free_ports(1)
    serve_metrics(Metrics(port=port), "a role")
    with ExitStack() as stack:
        connection = slow(stack, port)
        assert not is_hung_up_on(connection)
        wait_until(lambda: is_hung_up_on(connection), 3, "it to be hung up on", poll_s=0.1)
