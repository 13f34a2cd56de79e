"""A gateway as it runs: a process of its own on topics of one test, with tokens that it was given."""

from __future__ import annotations

import ssl
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from infra.kafka.admin import create_topics
from infra.kafka.reader import BEGINNING, TopicReader
from infra.processes import ChildProcess, free_ports, wait_until
from producers.gateway.tokens import new_token, read_tokens, write_tokens
from schemas.codec import read
from schemas.records import FailoverRanking, InjectedMetric

Metric = dict[str, Any]


def metric(primary: str = "eu-west-1", **fields: Any) -> Metric:
    said = {"primary_region": primary, "target_region": "us-east-1", "metric": "latency_ms", "value": 90.0}
    return said | fields


def ranking(primary: str, sequence: int, **fields: Any) -> FailoverRanking:
    """A small one."""
    said: dict[str, Any] = {
        "decision_id": "", "sequence": sequence, "decided_at_ms": 1, "evidence_at_ms": 1, "primary_region": primary,
        "mode": "NORMAL", "advice": "HOLD", "events": ["HEARTBEAT"], "reason": "as before", "config_version": 1,
        "stale_after_ms": 90_000, "order_confidence": 0.9, "candidates": [],
    }  # fmt: skip
    return FailoverRanking(**said | fields)


@dataclass
class Serving:
    """Where it is, and what it wrote."""

    bootstrap: str
    prefix: str
    url: str
    tokens_file: Path
    child: ChildProcess
    clients: list[httpx.Client] = field(default_factory=list)

    def token(self, source: str = "cdn-logs", **scopes: Any) -> str:
        text, row = new_token(source, **{"records_per_s": 100_000.0, "burst": 100_000} | scopes)
        write_tokens(self.tokens_file, [*read_tokens(self.tokens_file), row])
        client = self.client(text)
        wait_until(lambda: client.get("/v1/rankings/nobody").status_code != 401, 10, "the token to be known")
        return text

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        client = httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False, **options)
        self.clients.append(client)
        return client

    def injected(self) -> list[InjectedMetric]:
        """Everything on the topic, in each partition's order."""
        found = []
        with TopicReader(self.bootstrap, {f"{self.prefix}injected-metrics": BEGINNING}) as reader:
            while not reader.at_end:
                record = reader.poll(1)
                if record is not None:
                    found.append(read(record.value or b"", InjectedMetric))
        return found


@contextmanager
def serving(
    bootstrap: str, folder: Path, *, prefix: str | None = None, scheme: str = "http", **settings: object
) -> Iterator[Serving]:
    """A gateway that answers; its process and clients end with the context."""
    if prefix is None:
        prefix = f"gateway-{uuid.uuid4().hex[:8]}-"
        create_topics(bootstrap, prefix=prefix)
    tokens_file, port = folder / "tokens.json", free_ports(1)[0]
    write_tokens(tokens_file, [])
    config = folder / "gateway.toml"
    config.write_text("")
    said = {"PORT": port, "TOKENS_FILE": tokens_file, **settings}
    child = ChildProcess.start(
        [sys.executable, "-m", "infra.cli", "gateway", "--config", config],
        name="gateway",
        log_path=folder / "gateway.log",
        env={
            "PROXIMA_KAFKA__BOOTSTRAP": bootstrap,
            "PROXIMA_KAFKA__TOPIC_PREFIX": prefix,
            **{f"PROXIMA_GATEWAY__{name}": str(value) for name, value in said.items()},
        },
    )
    found = Serving(bootstrap, prefix, f"{scheme}://127.0.0.1:{port}", tokens_file, child)
    try:
        wait_until(lambda: answers(found.url, child), 30, "the gateway")
        yield found
    finally:
        for client in found.clients:
            client.close()
        child.kill()


def certified(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def answers(url: str, child: ChildProcess) -> bool:
    """Whether it is there; raises when it never will be."""
    assert child.alive, child.log_tail(30)
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/healthz", verify=anybody, trust_env=False).status_code == 200
    return False


def eventually(answer: Callable[[], httpx.Response], status: int, what: str, timeout_s: float = 30) -> httpx.Response:
    """An answer of that status."""
    last: list[httpx.Response] = []

    def there() -> bool:
        last[:] = [answer()]
        return last[0].status_code == status

    wait_until(there, timeout_s, what, poll_s=0.1)
    return last[0]
