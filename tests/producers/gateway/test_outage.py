"""The broker killed under a gateway in use: 503 and no lie; and what was acknowledged is there after its return."""

from __future__ import annotations

import ssl
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import pytest

from infra.kafka.admin import create_topics
from infra.kafka.cluster import KafkaCluster
from infra.processes import free_ports, wait_until
from producers.client import Injector
from schemas.errors import GatewayError, KafkaUnavailableError
from tests.pipeline import say
from tests.producers.gateway.serving import certified, eventually, metric, serving

pytestmark = pytest.mark.kafka


BATCH: Final = 50
Record = tuple[str, float]  # primary, value


@dataclass
class Writer:
    """Posts one request after the other about a primary of its own, every record with a value of its own."""

    primary: str
    size: int  # metrics in a request; 1: a single one
    acknowledged: list[Record] = field(default_factory=list)
    refused: list[httpx.Response] = field(default_factory=list)

    def run(self, http: httpx.Client, over: threading.Event) -> None:
        number = 0
        while not over.is_set():
            records = [(self.primary, float(number * self.size + i)) for i in range(self.size)]
            number += 1
            bodies = [metric(primary, metric="bandwidth_bps", value=value) for primary, value in records]
            answer = http.post("/v1/metrics", json={"metrics": bodies} if self.size > 1 else bodies[0])
            if answer.status_code == 202:
                assert answer.json() == {"accepted": self.size}
                self.acknowledged += records
            else:
                self.refused.append(answer)


@pytest.mark.slow
def test_with_the_broker_killed_it_answers_503_and_nothing_that_it_acknowledged_is_lost(tmp_path: Path) -> None:
    """Under load, of single metrics and of batches."""
    writers = [Writer(f"outage-{n}", size) for n, size in enumerate((1, 1, 1, BATCH, BATCH))]
    with KafkaCluster.start(data_dir=tmp_path / "kafka") as cluster:
        create_topics(cluster.bootstrap, prefix="outage-")
        with (
            serving(cluster.bootstrap, tmp_path, prefix="outage-", CONFIRM_TIMEOUT_S=1) as gateway,
            ExitStack() as stack,
        ):
            token, over = gateway.token(), threading.Event()
            client = gateway.client(token)
            threads = [
                threading.Thread(target=writer.run, args=(gateway.client(token), over), daemon=True)
                for writer in writers
            ]
            stack.callback(over.set)
            for thread in threads:
                thread.start()
            wait_until(lambda: all(len(w.acknowledged) > 50 for w in writers), 30, "the first records of each")
            cluster.kill(1)
            wait_until(lambda: all(len(w.refused) >= 2 for w in writers), 60, "the gateway to refuse each")
            eventually(lambda: client.get("/readyz"), 503, "it to say that it is not ready")
            assert client.get("/healthz").status_code == 200
            before = {w.primary: len(w.acknowledged) for w in writers}
            cluster.restart(1)
            eventually(lambda: client.get("/readyz"), 200, "it to be ready again")
            wait_until(
                lambda: all(len(w.acknowledged) > before[w.primary] + 20 for w in writers), 60, "records of each again"
            )
            over.set()
            for thread in threads:
                thread.join()
            there: Counter[Record] = Counter()

            def read_back() -> bool:
                with suppress(KafkaUnavailableError):  # a broker that has just come back leads nothing for a moment
                    there.update((m.primary_region, m.value) for m in gateway.injected())
                return bool(there)

            wait_until(read_back, 30, "the broker to lead its partitions")
    refused = [answer for writer in writers for answer in writer.refused]
    assert {(a.status_code, a.headers["content-type"]) for a in refused} == {(503, "application/problem+json")}
    assert all(int(a.headers["retry-after"]) >= 1 for a in refused)
    acknowledged = [record for writer in writers for record in writer.acknowledged]
    lost = sorted(set(acknowledged) - there.keys())
    say(f"{len(acknowledged)} records acknowledged, {len(refused)} requests refused, {len(lost)} records lost")
    assert lost == []
    assert [record for record in acknowledged if there[record] != 1] == [], "once each"


def test_the_client_of_three_lines_waits_for_the_broker_and_says_what_was_wrong(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    with serving(nobody, tmp_path, prefix="away-", CONFIRM_TIMEOUT_S=0.2) as gateway:
        token = gateway.token()
        begun_s = time.monotonic()
        with Injector(gateway.url, token, deadline_s=6) as inject, pytest.raises(GatewayError, match="not confirmed"):
            inject("eu-west-1", "us-east-1", "latency_ms", 93.5)
        assert time.monotonic() - begun_s > 1.5, "it tried again"
        with Injector(gateway.url, token) as inject, pytest.raises(GatewayError, match="value"):
            inject("eu-west-1", "us-east-1", "loss_ratio", 2.0)
        with Injector(gateway.url, "px_0_1") as inject, pytest.raises(GatewayError, match="no such token"):
            inject("eu-west-1", None, "healthy", 0)


def test_with_a_certificate_it_speaks_tls_and_nothing_else(tmp_path: Path) -> None:
    certificate, key = certified(tmp_path)
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    settings = {"TLS_CERTIFICATE_FILE": certificate, "TLS_KEY_FILE": key}
    with serving(nobody, tmp_path, prefix="tls-", scheme="https", **settings) as gateway:
        trusting = ssl.create_default_context(cafile=certificate)
        assert httpx.get(f"{gateway.url}/healthz", verify=trusting, trust_env=False).status_code == 200
        with pytest.raises(httpx.ConnectError, match="certificate"):
            httpx.get(f"{gateway.url}/healthz", trust_env=False)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{gateway.url.replace('https', 'http')}/healthz", trust_env=False)
