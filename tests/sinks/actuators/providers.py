"""The provider's simulator as a process of its own, and what it was asked for."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.processes import ChildProcess, wait_until


@dataclass(frozen=True, slots=True)
class Simulator:
    url: str
    token_file: Path

    def behaves(self, mode: str) -> None:
        request = urllib.request.Request(f"{self.url}/simulator/mode/{mode}", method="PUT")  # noqa: S310 - loopback
        urllib.request.urlopen(request, timeout=5).close()  # noqa: S310

    def seen(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/simulator/requests", timeout=5) as answer:  # noqa: S310
            return json.load(answer)  # type: ignore[no-any-return]


@contextmanager
def simulator(folder: Path, mode: str = "honest") -> Iterator[Simulator]:
    log = folder / "provider.log"
    argv = [sys.executable, "-m", "infra.provider.simulator", mode]
    with ChildProcess.start(argv, name="provider", log_path=log) as child:
        wait_until(lambda: log.exists() and log.read_text().endswith("}\n"), 20, "the provider", children=[child])
        said = json.loads(log.read_text().splitlines()[-1])
        token = folder / "token"
        token.write_text(said["token"])
        yield Simulator(said["url"], token)
