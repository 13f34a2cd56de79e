"""The gateway beside its own OpenAPI document: schemathesis sends what the document allows, and what it does not.

A fixed seed and some dozens of cases a route; under PROXIMA_SOAK=1 many times as many, from another seed each time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from producers.publisher import Publisher
from tests.producers.gateway.serving import Serving, eventually, ranking

pytestmark = pytest.mark.kafka
SOAK = bool(os.environ.get("PROXIMA_SOAK"))


def test_the_document_names_every_route_and_every_answer(gateway: Serving) -> None:
    document = gateway.client().get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/metrics", "/v1/rankings/stream", "/v1/rankings/{primary}", "/healthz", "/readyz", "/metrics",
    }  # fmt: skip
    post = document["paths"]["/v1/metrics"]["post"]
    assert set(post["responses"]) == {"202", "401", "403", "413", "422", "429", "503"}
    body = post["requestBody"]["content"]["application/json"]["schema"]
    assert len(body["oneOf"]) == 2, "one metric, or a batch"
    schemas = document["components"]["schemas"]
    assert schemas["Loss"]["properties"]["value"] == {
        "maximum": 1.0,
        "minimum": 0.0,
        "title": "Value",
        "type": "number",
    }
    assert schemas["Batch"]["properties"]["metrics"]["maxItems"] == 200


@pytest.mark.slow
def test_no_request_that_schemathesis_thinks_of_gets_a_5xx_or_an_undescribed_answer(
    gateway: Serving, tmp_path: Path
) -> None:
    token = gateway.token(primaries=())
    with Publisher(gateway.bootstrap, client_id="test", topic_prefix=gateway.prefix) as publisher:
        publisher.publish("failover-rankings", "eu-west-1", ranking("eu-west-1", 1))
    client = gateway.client(token)
    eventually(lambda: client.get("/v1/rankings/eu-west-1"), 200, "a ranking")
    seed = time.time_ns() % 1_000_000 if SOAK else 1
    result = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "run", f"{gateway.url}/openapi.json",
            "--header", f"Authorization: Bearer {token}",
            # The header is added to the requests that should lack it too: `test_injection.py` says 401 of each route.
            "--checks", "all", "--exclude-checks", "missing_required_header,ignored_auth",
            "--max-examples", "2000" if SOAK else "30", "--seed", str(seed),
            "--exclude-path", "/v1/rankings/stream",  # it has no end: `test_rankings.py`
            "--no-color", "--suppress-health-check", "all",
        ],
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.producers.gateway.hooks", "PYTHONPATH": str(Path.cwd())},
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=3000 if SOAK else 240,
    )  # fmt: skip
    assert result.returncode == 0, f"seed {seed}\n{result.stdout[-8000:]}{result.stderr[-2000:]}"
