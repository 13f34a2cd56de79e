"""`proxima worker`: one child process a stage, started again when it dies.

A stage that fails leaves with an exit code and says why in its log; it comes back as the same static member of its
consumer group, so its partitions wait for it, and it folds on from its last snapshot.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from infra.processes import ChildProcess, stop_all
from schemas.config import WorkerConfig

_PAUSE_S_MAX = 5.0
_LONG_ENOUGH_S = 30.0  # a stage that ran for so long may come back at once


def run_worker(config: WorkerConfig, config_path: Path | None, say: Callable[[str], None]) -> int:
    """Run the configured stages until SIGTERM or SIGINT; returns the exit code."""
    if len(config.worker.stages) == 1:
        from streams.app import run_stage  # noqa: PLC0415 - the supervisor needs no Faust

        run_stage(config.worker.stages[0], config)
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    stages = {name: _Stage(name, config_path) for name in config.worker.stages}
    for stage in stages.values():
        say(f"stage {stage.name} runs as process {stage.start()}")
    while not asked.wait(0.2):
        for stage in stages.values():
            code = stage.returncode
            if code is None or time.monotonic() < stage.not_before_s:
                continue
            say(f"stage {stage.name} ended with {code}, and runs again as process {stage.start()}")
    stop_all([s.child for s in stages.values() if s.child is not None])
    return 0


class _Stage:
    def __init__(self, name: str, config_path: Path | None) -> None:
        self.name, self._config_path = name, config_path
        self.child: ChildProcess | None = None
        self.not_before_s = 0.0
        self._started_s, self._pause_s = 0.0, 0.0

    def start(self) -> int:
        command = [sys.executable, "-m", "infra.cli", "worker", "--stages", self.name]
        if self._config_path is not None:
            command += ["--config", str(self._config_path)]
        long_enough = time.monotonic() - self._started_s > _LONG_ENOUGH_S
        self._pause_s = 0.0 if long_enough else min(_PAUSE_S_MAX, 2 * self._pause_s + 0.1)
        self._started_s = time.monotonic()
        self.not_before_s = self._started_s + self._pause_s
        self.child = ChildProcess.start(command, name=self.name)
        return self.child.pid

    @property
    def returncode(self) -> int | None:
        return None if self.child is None else self.child.returncode
