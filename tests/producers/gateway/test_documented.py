"""What docs/inject.md says to type does what it says there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.processes import wait_until
from schemas.records import InjectedMetric
from tests.producers.gateway.serving import Serving

pytestmark = pytest.mark.kafka
TEXT = (Path(__file__).parents[3] / "docs" / "inject.md").read_text()


def block(language: str, word: str) -> str:
    """The block of the document that has this word in it."""
    (found,) = [b for b in re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL) if word in b]
    return str(found)


def shell(script: str, **variables: str) -> None:
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], env={**os.environ, **variables}, check=True, timeout=60)


def injected(gateway: Serving, source: str) -> list[InjectedMetric]:
    return [m for m in gateway.injected() if m.source == source]


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")
def test_the_line_for_kcat(gateway: Serving) -> None:
    script = block("sh", "kcat").replace("-t injected", f"-t {gateway.prefix}injected").replace("cdn-logs", "by-kcat")
    shell(script, BOOTSTRAP=gateway.bootstrap)
    wait_until(lambda: injected(gateway, "by-kcat"), 10, "the metric")
    (metric,) = injected(gateway, "by-kcat")
    assert (metric.target_region, metric.metric, metric.value) == ("eu-west-2", "latency_ms", 90.0)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_line_for_curl(gateway: Serving) -> None:
    script = block("sh", "/v1/metrics").replace("curl", "curl -sf")
    shell(script, GATEWAY=gateway.url, TOKEN=gateway.token("by-curl"), KEY="one")
    assert len(injected(gateway, "by-curl")) == 1


def test_the_three_lines_of_python(gateway: Serving) -> None:
    program = block("python", "Injector").replace("http://127.0.0.1:8420", gateway.url)
    program = f"import sys; token = sys.argv[1]\n{program}"
    subprocess.run([sys.executable, "-c", program, gateway.token("by-python")], check=True, timeout=60)
    assert len(injected(gateway, "by-python")) == 1
