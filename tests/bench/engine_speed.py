"""A tick of the engine: one primary with 1,000 candidates, and 200 primaries with 200 candidates each, every second.

The yardstick is the least that any such engine has to do, in bare numpy: one exponential average of every path, and an
order. Times are CPU time of this process (median over ticks); the load is what taking in a second's panes, deciding and
encoding what is published cost of one core.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from schemas.codec import encode
from schemas.records import FailoverConfiguration, PathPanes
from streams.core.engine import FailoverEngine
from tests.bench.fold_speed import panes_of

_START_MS = 1_700_000_000_000
_SECONDS = 60
_WARM = 40  # until confidence has settled: before, scores move, and rankings say so


def run() -> Iterator[dict[str, Any]]:
    ticks, takes = _one(1000)
    yield {
        "what": "one primary, 1,000 candidates",
        "tick_ms_p50": round(float(np.median(ticks)) * 1e3, 3),
        "tick_ms_p99": round(float(np.quantile(ticks, 0.99)) * 1e3, 3),
        "panes_ms_p50": round(float(np.median(takes)) * 1e3, 3),
        "ratio": round(_bare(1000) / float(np.median(ticks)), 4),
    }
    load, bare = _many(200, 200)
    yield {
        "what": "200 primaries, 200 candidates each, every second",
        "paths": 40_000,
        "load_of_one_core": round(load, 3),
        "ratio": round(bare / load, 4),
    }


def _engine(primary: str, candidates: list[str]) -> FailoverEngine:
    weights = dict.fromkeys(candidates, 0.5)
    return FailoverEngine(FailoverConfiguration(primary, candidates, 1, weights), {})


def _one(count: int) -> tuple[list[float], list[float]]:
    """CPU seconds of each tick, and of taking in the panes before it."""
    candidates = [f"region-{i}" for i in range(count)]
    engine, random = _engine("home", candidates), np.random.default_rng(3)
    ticks, takes = [], []
    for second in range(_WARM + _SECONDS):
        at_ms = _START_MS + second * 1000
        panes = panes_of(random, "home", 0, candidates, at_ms)
        started = time.process_time()
        engine.panes(panes, at_ms + 1000, second * 1000.0, at_ms)
        taken = time.process_time()
        engine.tick(at_ms + 1000, second * 1000.0)
        if second >= _WARM:
            ticks.append(time.process_time() - taken)
            takes.append(taken - started)
    return ticks, takes


def _many(primaries: int, count: int) -> tuple[float, float]:
    """Share of a core that all of it costs, and what the yardstick would."""
    random = np.random.default_rng(4)
    candidates = [f"region-{i}" for i in range(count)]
    engines = [_engine(f"home-{i}", candidates) for i in range(primaries)]
    spent, seconds = 0.0, 10  # a heartbeat of each primary is among them
    for second in range(_WARM + seconds):
        at_ms = _START_MS + second * 1000
        each: list[PathPanes] = [panes_of(random, e.primary, 0, candidates, at_ms) for e in engines]
        started = time.process_time()
        for engine, panes in zip(engines, each, strict=True):
            engine.panes(panes, at_ms + 1000, second * 1000.0, at_ms)
            for published in engine.tick(at_ms + 1000, second * 1000.0):
                encode(published)
        if second >= _WARM:
            spent += time.process_time() - started
    return spent / seconds, primaries * _bare(count)


def _bare(count: int) -> float:
    """CPU seconds of one average and one order of so many paths."""
    random, times = np.random.default_rng(5), []
    average = random.uniform(10, 200, count)
    for _ in range(200):
        seen = random.uniform(10, 200, count)
        started = time.process_time()
        average += 0.1 * (seen - average)
        np.argsort(average)
        times.append(time.process_time() - started)
    return float(np.median(times))
