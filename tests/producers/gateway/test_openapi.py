"""The gateway beside its own OpenAPI document: schemathesis sends what the document allows, and what it does not.

A fixed seed and some dozens of cases a route; under PROXIMA_SOAK=1 many times as many, from another seed each time.
"""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from producers.gateway.page import page as page_of
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
    assert set(post["responses"]) == {"202", "401", "403", "413", "415", "422", "429", "503"}
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


class Page(HTMLParser):
    """What a browser would see of it: tags, whatever an attribute points to, its own places, its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.points_to: set[str] = set()
        self.places: set[str] = set()
        self.text = self.style = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in ("href", "src"):
                self.points_to.add(value or "")
            if name == "id":
                self.places.add(value or "")

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style" and not self.style:
            self.style = data
        else:
            self.text += data


def test_the_page_of_it_shows_every_route_and_loads_and_runs_nothing(gateway: Serving) -> None:
    client = gateway.client()
    document, answer = client.get("/openapi.json").json(), client.get("/docs")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    page = Page(answer.text)
    for path, by_method in document["paths"].items():
        for method, said in by_method.items():
            assert f"{method.upper()} {path}" in page.text
            assert said["summary"] in page.text
    assert set(document["components"]["schemas"]) == page.places
    assert page.tags == {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "a", "code", "table", "tr", "th", "td",
    }  # fmt: skip
    assert page.attributes == {"lang", "charset", "id", "href"}, "none that runs or loads"
    assert page.points_to <= {"openapi.json", *(f"#{place}" for place in page.places)}
    assert page.points_to >= {"openapi.json", "#Batch", "#Problem"}
    assert "url(" not in page.style
    assert "@import" not in page.style
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    for gone in ("/redoc", "/docs/oauth2-redirect"):
        assert client.get(gone).status_code == 404


def test_a_page_says_what_is_in_a_document_as_text() -> None:
    said = {"summary": "<script>", "responses": {"200": {"description": "<img src=//x>"}}}
    document = {
        "info": {"title": "<b>", "description": "a & b"},
        "paths": {"/<i>": {"get": said}},
        "components": {"schemas": {"A": {"properties": {"<u>": {"default": '">', "pattern": "<p>"}}}}},
    }
    page = Page(page_of(document))
    assert page.tags & {"script", "img", "b", "i", "u"} == set()
    for text in ("<script>", "<img src=//x>", "<b>", "a & b", "GET /<i>", "<u>", '">', "<p>"):
        assert text in page.text


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
