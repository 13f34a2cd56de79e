"""`proxima worker`: one child process a stage, started again when it dies.

A stage that fails leaves with an exit code and says why in its log; it comes back as the same static member of its
consumer group, so its partitions wait for it, and it folds on from its last snapshot.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client.core import Metric

from infra.metrics import serve_stage_metrics
from infra.processes import ChildProcess, stop_all
from schemas import logs
from schemas.config import WorkerConfig
from schemas.observed import Observed, Pulse, counter, gauge

log = logging.getLogger(__name__)

_PAUSE_S_MAX = 5.0
_STUCK_S = 30.0
_LONG_ENOUGH_S = 30.0  # a stage that ran for so long may come back at once
_AGAIN_MAX = 3  # a stage that was started again more often than this ...
_LATELY_S = 300.0  # ... within so long does not stay up


def run_worker(config: WorkerConfig, config_path: Path | None) -> int:
    """Run the configured stages until SIGTERM or SIGINT; returns the exit code."""
    if len(config.worker.stages) == 1:
        from streams.app import run_stage  # noqa: PLC0415 - the supervisor needs no Faust

        serve_stage_metrics(config.metrics, config.worker.stages[0])
        run_stage(config.worker.stages[0], config)
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    stages = {name: _Stage(name, config_path) for name in config.worker.stages}
    shown = _Supervised(stages)
    serve_stage_metrics(config.metrics, "supervisor")
    for stage in stages.values():
        _say(f"stage {stage.name} runs as process {stage.start()}")
    while not asked.wait(0.2):
        shown.pulse.beat()
        for stage in stages.values():
            code = stage.returncode
            if code is None or time.monotonic() < stage.not_before_s:
                continue
            _say(f"stage {stage.name} ended with {code}, and runs again as process {stage.start()}")
    stop_all([s.child for s in stages.values() if s.child is not None])
    return 0


def _say(text: str) -> None:
    if logs.in_json():
        log.info(text)
    else:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class _Supervised(Observed):
    """The stages as their supervisor sees them; whether they do their work, each says itself."""

    def __init__(self, stages: Mapping[str, _Stage]) -> None:
        self._stages, self.pulse = stages, Pulse("the supervisor", _STUCK_S)
        self.observe()

    def figures(self) -> Iterator[Metric]:
        """Which run, and how often each was started."""
        runs = {(name,): float(stage.returncode is None and stage.child is not None) for name, stage in self._each()}
        yield gauge("proxima_worker_stage_up", "1 while the stage's process runs.", runs, "stage")
        starts = {(name,): float(stage.starts) for name, stage in self._each()}
        yield counter("proxima_worker_stage_starts", "How often the stage's process was started.", starts, "stage")

    def stuck(self) -> str:
        """The loop's."""
        return self.pulse.stuck()

    def unready(self) -> str:
        """A stage does not run, or does not stay up."""
        down = [name for name, stage in self._each() if stage.child is None or stage.returncode is not None]
        loops = [name for name, stage in self._each() if stage.is_looping()]
        said = (("not running", down), (f"started again more than {_AGAIN_MAX} times in {_LATELY_S:.0f} s", loops))
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in said if names)

    def _each(self) -> list[tuple[str, _Stage]]:
        return list(self._stages.items())


class _Stage:
    def __init__(self, name: str, config_path: Path | None) -> None:
        self.name, self._config_path = name, config_path
        self.child: ChildProcess | None = None
        self.not_before_s = 0.0
        self.starts = 0
        self._started_s, self._pause_s = 0.0, 0.0
        self._again_s: deque[float] = deque(maxlen=_AGAIN_MAX + 1)

    def start(self) -> int:
        command = [sys.executable, "-m", "infra.cli", "worker", "--stages", self.name]
        if self._config_path is not None:
            command += ["--config", str(self._config_path)]
        long_enough = time.monotonic() - self._started_s > _LONG_ENOUGH_S
        self._pause_s = 0.0 if long_enough else min(_PAUSE_S_MAX, 2 * self._pause_s + 0.1)
        self._started_s = time.monotonic()
        self.not_before_s = self._started_s + self._pause_s
        self.starts += 1
        if self.child is not None:
            self._again_s.append(self._started_s)
        self.child = ChildProcess.start(command, name=self.name)
        return self.child.pid

    def is_looping(self) -> bool:
        """It was started again too often of late."""
        again_s = list(self._again_s)
        return len(again_s) > _AGAIN_MAX and time.monotonic() - again_s[0] <= _LATELY_S

    @property
    def returncode(self) -> int | None:
        return None if self.child is None else self.child.returncode
