"""Predictions and labels: primaries of several sizes, every path predicted and learnt from, as in the engine.

A result says how many path predictions, each with its label, one core makes in a second of CPU time, and which share of
it 40,000 a second take. The yardstick is river's logistic regression on as many scaled features, one path after the
other (`predict_proba_one`, `learn_one`); the ratio is ours over it. Restoring a snapshot must change no bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from river import linear_model, optim, preprocessing

from schemas.records import Array, Policy
from streams.core.prediction import Predictor
from streams.core.prediction_signs import BELIEFS
from streams.core.views import PathMetrics

_START_MS = 1_700_000_000_000
_WANTED = 40_000
_POLICY = replace(Policy(), prediction_every_ms=10_000)
_AT_ONCE = 20  # of many seconds of weather, used in turns


def run() -> Iterator[dict[str, Any]]:
    yardstick = _river(20_000)
    for primaries, paths in ((1, 1000), (20, 100), (100, 20), (200, 10)):
        speed, same = _ours(primaries, paths)
        yield {
            "what": f"{primaries} primaries, {paths} paths each",
            "predictions_and_labels_per_cpu_s": round(speed),
            "load_of_one_core_at_40000": round(_WANTED / speed, 3),
            "restored_bit_equal": same,
            "river_one_by_one_per_cpu_s": round(yardstick),
            "ratio": round(speed / yardstick, 1),
        }


def _ours(primaries: int, paths: int) -> tuple[float, bool]:
    random = np.random.default_rng(1)
    regions = [f"region-{i}" for i in range(paths)]
    predictors = [Predictor(paths) for _ in range(primaries)]
    weather = [_weather(random, paths) for _ in range(_AT_ONCE)]
    moments = max(60, 60_000 // (primaries * paths))
    spent, learnt = 0.0, 0
    for moment in range(moments):
        now_ms = _START_MS + moment * _POLICY.prediction_every_ms
        before = sum(p.labels_learnt for p in predictors)
        started = time.process_time()
        for number, predictor in enumerate(predictors):
            predictor.step("home", regions, weather[(moment + number) % _AT_ONCE], _POLICY, now_ms)
        if moment >= moments // 3:  # warm, and labels are due at every moment
            spent += time.process_time() - started
            learnt += sum(p.labels_learnt for p in predictors) - before
    one = predictors[0]
    again = Predictor.load(*one.save(), paths)
    now_ms = _START_MS + moments * _POLICY.prediction_every_ms
    said = [p.step("home", regions, weather[0], _POLICY, now_ms) for p in (one, again)]
    return learnt / spent, said[0] == said[1]


def _weather(random: np.random.Generator, paths: int) -> PathMetrics:
    """A calm moment; one path in a hundred is slow, and so disrupted if it is at the next moment too."""
    slow_ms = random.uniform(20, 200, paths)
    latency_ms = slow_ms * np.exp(random.normal(0, 0.01, paths)) * np.where(random.random(paths) < 0.01, 2.0, 1.0)
    nothing: Array = np.zeros(paths)
    return PathMetrics(
        latency_ms=latency_ms,
        slow_latency_ms=slow_ms,
        loss_ratio=nothing,
        fast_loss_ratio=nothing,
        delay_variation_ms=random.exponential(3, paths),
        log_latency_error=nothing,
        samples=np.full(paths, 100.0),
        confidence=np.ones(paths),
        age_ms=np.full(paths, 500.0),
        trusted=np.ones(paths, bool),
        down=np.zeros(paths, bool),
        vetoed=np.zeros(paths, bool),
        suspicion_ratio=nothing,
    )


def _river(count: int) -> float:
    """Predictions and labels in a second of CPU time."""
    random = np.random.default_rng(2)
    rows = [dict(zip(BELIEFS, row, strict=True)) for row in random.normal(size=(1000, len(BELIEFS))).tolist()]
    hits = (random.random(1000) < 0.01).tolist()
    scaler, model = preprocessing.StandardScaler(), linear_model.LogisticRegression(optimizer=optim.SGD(0.02))
    started = time.process_time()
    for number in range(count):
        row = rows[number % 1000]
        scaler.learn_one(row)
        scaled = scaler.transform_one(row)
        model.predict_proba_one(scaled)
        model.learn_one(scaled, hits[number % 1000])
    return count / (time.process_time() - started)
