"""Injections a second over HTTP, confirmed by a real broker, and how long one waits; beside an app that does nothing.

The gateway is one process; `core_used` says how much of a core it takes, and its broker and the clients share the
machine.
Batches are sent by some connections as fast as they are answered, or at a rate; single metrics too. The yardstick is a
bare ASGI application on the same server, which reads the body and answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil

from infra.kafka.cluster import KafkaCluster
from infra.processes import ChildProcess, free_ports, wait_until
from tests.producers.gateway.serving import answers, metric, serving

SECONDS = float(os.environ.get("PROXIMA_BENCH_SECONDS", "10"))
BATCH = 100
_BARE = """
import sys, uvicorn
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    while (await receive()).get("more_body"):
        pass
    status = 200 if scope["method"] == "GET" else 202
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False, lifespan="off")
"""


def run() -> Iterator[dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="proxima-bench-"))
    port = free_ports(1)[0]
    bare = ChildProcess.start([sys.executable, "-c", _BARE, str(port)], name="bare", log_path=folder / "bare.log")
    with bare, KafkaCluster.start(nodes=1, log_dir=folder) as cluster, serving(cluster.bootstrap, folder) as gateway:
        token = gateway.token(records_per_s=1_000_000.0, burst=1_000_000)
        wait_until(lambda: answers(f"http://127.0.0.1:{port}", bare), 10, "the yardstick")
        for what, records, rate in (
            ("batches, at 5,000 records/s", BATCH, 5000), ("batches, as fast as they are answered", BATCH, 0),
            ("batches of 10, at 1,000 records/s", 10, 1000), ("single, at 1,000 records/s", 1, 1000),
             ("single, as fast as they are answered", 1, 0),
        ):  # fmt: skip
            asyncio.run(_load(gateway.url, token, records, rate, 1.0))  # warm
            cpu_s = _cpu_s(gateway.child)
            found = asyncio.run(_load(gateway.url, token, records, rate, SECONDS))
            cpu_s = _cpu_s(gateway.child) - cpu_s
            beside = asyncio.run(_load(f"http://127.0.0.1:{port}", token, records, rate, SECONDS))
            yield {
                "what": what,
                **found,
                "core_used": round(cpu_s / SECONDS, 2),
                "yardstick": beside,
                "ratio_of_rates": round(found["records_a_second"] / beside["records_a_second"], 3),
                "ratio_of_p99": round(found["p99_ms"] / beside["p99_ms"], 2),
            }


async def _load(
    url: str, token: str, records: int, rate: int, seconds: float, *, connections: int = 32
) -> dict[str, Any]:
    """`rate` records a second, or as many as are answered (0); a late answer makes the next request no later."""
    one = metric(value=90.0)
    request = _request(token, json.dumps(one if records == 1 else {"metrics": [one] * records}).encode())
    took_s: list[float] = []
    begun_s = time.perf_counter()
    turns = iter(range(1 << 60))

    async def send() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        while True:
            due_s = time.perf_counter()
            if rate:
                due_s = begun_s + next(turns) * records / rate
            if due_s > begun_s + seconds or time.perf_counter() > begun_s + seconds:
                break
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))  # type: ignore[index]
            assert head.startswith(b"HTTP/1.1 202"), (head, body)
            took_s.append(time.perf_counter() - due_s)  # from when it was due: who waits for us waits too
        writer.close()

    await asyncio.gather(*(send() for _ in range(connections)))
    passed_s = time.perf_counter() - begun_s
    p50, p99 = np.percentile(took_s, [50, 99]) * 1000
    return {
        "records_a_second": round(len(took_s) * records / passed_s),
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
    }


def _request(token: str, body: bytes) -> bytes:
    """As text on a connection: a client library would take more of the machine than the gateway."""
    head = (
        f"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _cpu_s(child: ChildProcess) -> float:
    times = psutil.Process(child.pid).cpu_times()
    return float(times.user + times.system)
