"""One prober with 500 targets, each checked every 10 s: its share of a core, with real connections and a real broker.

The endpoints are another process, so only the prober's own processor time is counted: checks, reports, and its
producer. Each check is one GET over a connection (and a handshake) of its own, and three connections for the latency.
The yardstick makes the same connections by http with asyncio's streams, and does nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from infra.kafka import cluster
from infra.kafka.admin import create_topics
from infra.processes import ChildProcess, free_ports, wait_until
from producers.publisher import Publisher
from producers.readiness import Plan, ReadinessProber, health_of
from schemas import config
from schemas.records import FailoverConfiguration, HealthEndpoint, ReadinessReport, Region
from tests.bench.probing import LONG, load
from tests.endpoints import certificate_for

TARGETS: Final = 500
PERIOD_S: Final = 10.0
LIMIT: Final = 0.20  # of a core
SECONDS: Final = 60.0 if LONG else 20.0
_NAME: Final = "target.example.com"


def run() -> Iterator[dict[str, Any]]:
    """By http, by https, and where nobody ever answers."""
    logging.disable(logging.WARNING)  # of every endpoint that hangs
    folder = Path(tempfile.mkdtemp(prefix="proxima-bench-"))
    with cluster.existing_or_started(log_dir=folder) as broker:
        for kind in (("http", "ok"), ("https", "ok"), ("http", "hangs")):
            yield measured(kind, broker.bootstrap, folder, SECONDS)


def measured(kind: tuple[str, str], bootstrap: str, folder: Path, seconds: float) -> dict[str, Any]:
    """What one prober takes for endpoints of a kind (scheme, what they do), in a time after the first turns."""
    prefix = f"bench-readiness-{time.time_ns() % 1_000_000_000}-"
    create_topics(bootstrap, prefix=prefix)
    ports, certificate = free_ports(TARGETS), certificate_for(_NAME, folder)
    files = [str(path) for path in certificate] if kind[0] == "https" else []
    log = folder / f"{prefix}.log"
    command = [sys.executable, "-m", "tests.endpoints", kind[1], ",".join(map(str, ports)), *files]
    child = ChildProcess.start(command, name="endpoints", log_path=log)
    try:
        wait_until(lambda: log.exists() and b"ready" in log.read_bytes(), 60, "the endpoints")
        return asyncio.run(_measured(kind, ports, certificate[0], (bootstrap, prefix), seconds=seconds))
    finally:
        child.kill()


async def _measured(
    asked: tuple[str, str], ports: list[int], ca_file: Path, where: tuple[str, str], *, seconds: float
) -> dict[str, Any]:
    scheme, mode = asked
    settings = config.Readiness(agent_id="bench", primary_region="here", period_s=PERIOD_S, ca_file=ca_file)
    tls_name = _NAME if scheme == "https" else ""
    health = {f"t-{n}": HealthEndpoint(f"{scheme}://127.0.0.1:{port}/", 200, tls_name) for n, port in enumerate(ports)}
    regions = {region: Region(region, 0, 0, health=[its]) for region, its in health.items()}
    plan = Plan(FailoverConfiguration("here", list(regions), 1), regions)
    reports: list[tuple[float, ReadinessReport]] = []
    with Publisher(where[0], client_id="bench", topic_prefix=where[1]) as publisher:

        def publish(report: ReadinessReport) -> None:
            reports.append((time.monotonic(), report))
            publisher.publish("readiness-reports", "here", report, droppable=True)

        prober = ReadinessProber(settings, publish, health_of(settings))
        prober.plan(plan)
        await asyncio.sleep(PERIOD_S)  # the first turns
        began_s, before_s = time.monotonic(), time.process_time()
        await asyncio.sleep(seconds)
        took_s, cpu_s = time.monotonic() - began_s, time.process_time() - before_s
        await prober.close()
    bare_s = await _bare_s(ports) if asked == ("http", "ok") else 0.0
    since = [report for at_s, report in reports if at_s >= began_s]
    checked = Counter(report.target_region for report in since)
    return {
        "scheme": scheme,
        "endpoints": mode,
        "targets": TARGETS,
        "period_s": PERIOD_S,
        "seconds": round(took_s, 1),
        "reports": len(since),
        "every_target_in_time": len(checked) == TARGETS and min(checked.values()) >= round(seconds / PERIOD_S) - 1,
        "ready": sum(report.ready for report in since),
        "breakers_open": sum(report.checks[0].breaker == "OPEN" for report in since),
        "core_ratio": round(cpu_s / took_s, 3),
        "limit": LIMIT,
        **({"times_a_bare_client": round(cpu_s / len(since) / bare_s, 2)} if bare_s else {}),
        "load": load(),
    }


async def _bare_s(ports: list[int]) -> float:
    """CPU seconds a target for a client that makes the same connections, and does nothing with what it hears."""
    before_s = time.process_time()
    for port in ports:
        for asks in (True, False, False, False):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if asks:
                writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()
            await writer.wait_closed()
    return (time.process_time() - before_s) / len(ports)
