"""The decide stage with an engine that raises: what a bug in ours would do. Run by test_crash.py as a program."""

from __future__ import annotations

from schemas.config import WorkerConfig, load
from schemas.records import InjectedMetric
from streams.app import run_stage
from streams.core.engine import FailoverEngine

BREAKS = "breaks-the-engine"  # source of an injected metric


class BrokenEngine(FailoverEngine):
    """Raises on one source's metrics, half-way: its state is spoilt already when it does."""

    def inject(self, metric: InjectedMetric, now_ms: int) -> bool:
        at_once = super().inject(metric, now_ms)
        if metric.source == BREAKS:
            self._state.sequence += 1000
            raise RuntimeError("a bug")
        return at_once


if __name__ == "__main__":
    run_stage("decide", load(WorkerConfig), engine=BrokenEngine)
