"""Prometheus and promtool: those of the machine, else Debian's package unpacked beside, without installing it.

Unpacked, it leaves no daemon behind, and needs no root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.processes import ChildProcess, free_ports, wait_until

_FETCH_S = 120


def program(name: str, folder: Path) -> str:
    """The path of `prometheus` or `promtool`; skips the test where neither is there nor can be had."""
    found = shutil.which(name)
    if found is None:
        _unpack(folder)
        found = shutil.which(name, path=str(folder / "usr" / "bin"))
    if found is None:
        pytest.skip(f"there is no {name}, and Debian's package `prometheus` cannot be had here")
    return found


def _unpack(folder: Path) -> None:
    if shutil.which("apt-get") is None or (folder / "usr").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    fetch = ["apt-get", "download", "-qq", "prometheus"]
    if _fails(fetch, folder) and os.geteuid() == 0:  # a machine that has no lists yet
        _fails(["apt-get", "update", "-qq"], folder)
        _fails(fetch, folder)
    for package in folder.glob("prometheus_*.deb"):
        _fails(["dpkg-deb", "-x", package.name, "."], folder)


def _fails(command: list[str], folder: Path) -> bool:
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=_FETCH_S, check=False).returncode != 0


class Prometheus:
    """One that runs, and scrapes every second."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def query(self, expression: str) -> list[Any]:
        """An instant query's series; raises AssertionError with what Prometheus says of one that it cannot read."""
        return self._get("query", query=expression)["result"]  # type: ignore[no-any-return]

    def rules(self) -> list[dict[str, Any]]:
        """All rules that it evaluates."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **asked: str) -> Any:
        answer = self._client.get(f"/api/v1/{what}", params=asked)
        assert answer.status_code == 200, f"{asked}: {answer.text}"
        return answer.json()["data"]


@contextmanager
def scraping(tools: Path, folder: Path, targets: Mapping[str, int], rules: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes these ports of 127.0.0.1, by role, and evaluates the rules."""
    (port,) = free_ports(1)
    jobs = "".join(
        f'      - targets: ["127.0.0.1:{at}"]\n        labels: {{role: "{role}"}}\n' for role, at in targets.items()
    )
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f'rule_files: ["{rules}"]\n'
        f"scrape_configs:\n  - job_name: proxima\n    static_configs:\n{jobs}"
    )
    command = [
        program("prometheus", tools),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (
        ChildProcess.start(command, name="prometheus", log_path=folder / "prometheus.log") as child,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client,
    ):
        found = Prometheus(client)

        def answers() -> bool:
            try:
                return bool(found.query("vector(1)"))
            except (httpx.TransportError, AssertionError):
                return False

        wait_until(answers, 30, "Prometheus", children=[child])
        yield found
