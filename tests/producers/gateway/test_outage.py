"""The broker killed under a gateway in use: 503 and no lie; and what was acknowledged is there after its return."""

from __future__ import annotations

import ssl
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from infra.kafka.admin import create_topics
from infra.kafka.cluster import KafkaCluster
from infra.processes import free_ports, wait_until
from producers.client import Injector
from schemas.errors import GatewayError, KafkaUnavailableError
from tests.producers.gateway.serving import eventually, metric, serving

pytestmark = pytest.mark.kafka


@pytest.mark.slow
def test_with_the_broker_killed_it_answers_503_and_nothing_that_it_acknowledged_is_lost(tmp_path: Path) -> None:
    with KafkaCluster.start(data_dir=tmp_path / "kafka") as cluster:
        create_topics(cluster.bootstrap, prefix="outage-")
        with serving(cluster.bootstrap, tmp_path, prefix="outage-", CONFIRM_TIMEOUT_S=1) as gateway:
            token = gateway.token()
            client = gateway.client(token)
            acknowledged: list[int] = []
            refused: list[httpx.Response] = []
            over = threading.Event()

            def post() -> None:
                number = 0
                with httpx.Client(base_url=gateway.url, headers=client.headers, timeout=30, trust_env=False) as own:
                    while not over.is_set():
                        number += 1
                        answer = own.post("/v1/metrics", json=metric("outage", value=float(number)))
                        if answer.status_code == 202:
                            acknowledged.append(number)
                        else:
                            refused.append(answer)

            writer = threading.Thread(target=post)
            writer.start()
            wait_until(lambda: len(acknowledged) > 50, 30, "the first records")
            cluster.kill(1)
            wait_until(lambda: len(refused) >= 2, 30, "the gateway to refuse")
            assert {(a.status_code, a.headers["content-type"]) for a in refused} == {(503, "application/problem+json")}
            assert all(int(a.headers["retry-after"]) >= 1 for a in refused)
            eventually(lambda: client.get("/readyz"), 503, "it to say that it is not ready")
            assert client.get("/healthz").status_code == 200
            before = len(acknowledged)
            cluster.restart(1)
            eventually(lambda: client.get("/readyz"), 200, "it to be ready again")
            wait_until(lambda: len(acknowledged) > before + 20, 30, "it to take records again")
            over.set()
            writer.join()
            there: set[int] = set()

            def read_back() -> bool:
                with suppress(KafkaUnavailableError):  # a broker that has just come back leads nothing for a moment
                    there.update(int(m.value) for m in gateway.injected())
                return bool(there)

            wait_until(read_back, 30, "the broker to lead its partitions")
            assert set(acknowledged) <= there, sorted(set(acknowledged) - there)
            assert len(acknowledged) == len(set(acknowledged)) > 70


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
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    settings = {"TLS_CERTIFICATE_FILE": certificate, "TLS_KEY_FILE": key}
    with serving(nobody, tmp_path, prefix="tls-", scheme="https", **settings) as gateway:
        trusting = ssl.create_default_context(cafile=certificate)
        assert httpx.get(f"{gateway.url}/healthz", verify=trusting, trust_env=False).status_code == 200
        with pytest.raises(httpx.ConnectError, match="certificate"):
            httpx.get(f"{gateway.url}/healthz", trust_env=False)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{gateway.url.replace('https', 'http')}/healthz", trust_env=False)
