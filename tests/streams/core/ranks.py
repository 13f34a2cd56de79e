"""Candidates told briefly, ranked by the real ranking: what the properties of orders are told in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from hypothesis import strategies as st

from schemas.records import Array, Policy
from streams.core.ranked import Ranked
from streams.core.ranking import rank
from streams.core.reports import Standing
from streams.core.views import PathMetrics
from streams.core.weights import METRICS, Said
from tests.streams.core.policy import STATED
from tests.streams.core.weighing import rows

POLICY: Final = replace(STATED, latency_bad_ms=600.0, loss_good_ratio=0.002, loss_bad_ratio=0.3)
NAN: Final = float("nan")


@dataclass(frozen=True, slots=True)
class Path:
    """All that is known of one candidate; by default a good path, freshly measured."""

    latency_ms: float = 40.0
    loss_ratio: float = 0.0
    delay_variation_ms: float = 4.0
    bandwidth_bps: float = NAN
    log_latency_error: float = 0.01
    samples: float = 100.0
    age_ms: float = 500.0
    trusted: bool = True
    down: bool = False
    vetoed: bool = False
    drained: bool = False
    no_route: bool = False
    not_ready: bool = False
    old_report: float = 0.0  # what an old report costs; a logarithm
    ejected: bool = False
    full: bool = False
    baseline: float = 0.5
    known: bool = True
    healthy: float = NAN
    said_latency_ms: float = NAN
    said_loss_ratio: float = NAN
    demotion: float = 0.0  # by a prediction; a logarithm


def ranked(paths: dict[str, Path], policy: Policy = POLICY) -> Ranked:
    def column(name: str, dtype: type = float) -> Array:
        return np.array([getattr(p, name) for p in paths.values()], dtype)

    unknown, samples = np.full(len(paths), NAN), column("samples")
    metrics = PathMetrics(
        latency_ms=column("latency_ms"),
        slow_latency_ms=column("latency_ms"),
        loss_ratio=column("loss_ratio"),
        fast_loss_ratio=column("loss_ratio"),
        delay_variation_ms=column("delay_variation_ms"),
        log_latency_error=column("log_latency_error"),
        samples=samples,
        confidence=samples / (samples + policy.confidence_samples),
        age_ms=column("age_ms"),
        trusted=column("trusted", bool),
        down=column("down", bool),
        vetoed=column("vetoed", bool),
        suspicion_ratio=column("down"),
    )
    said = dict.fromkeys(METRICS, unknown) | {
        "latency_ms": column("said_latency_ms"),
        "loss_ratio": column("said_loss_ratio"),
    }
    return rank(
        list(paths),
        metrics,
        policy,
        baseline=column("baseline"),
        known=column("known", bool),
        bandwidth_bps=column("bandwidth_bps"),
        injected=Said.by_one(rows(said)),
        unhealthy=column("healthy") == 0,
        drained=column("drained", bool),
        no_route=column("no_route", bool),
        standing=Standing(column("old_report"), column("not_ready", bool), dict.fromkeys(paths, "http: answered 500")),
        ejected=column("ejected", bool),
        full=column("full", bool),
        demotion=column("demotion") if column("demotion").any() else None,
    )


def in_order(result: Ranked) -> list[str]:
    return [result.regions[i] for i in result.order]


def reasons(result: Ranked) -> dict[str, str | None]:
    return dict(zip(result.regions, result.reasons, strict=True))


def maybe(values: st.SearchStrategy[float]) -> st.SearchStrategy[float]:
    return st.one_of(st.just(NAN), values)


_SELDOM: Final = st.sampled_from([False, False, False, True])
PATH: Final = st.builds(
    Path,
    latency_ms=maybe(st.floats(0.001, 2000)),
    loss_ratio=maybe(st.floats(0, 1)),
    delay_variation_ms=maybe(st.floats(0, 2000)),
    bandwidth_bps=maybe(st.floats(1e6, 1e11)),
    log_latency_error=maybe(st.floats(0, 1)),
    samples=st.floats(0, 1e4),
    age_ms=maybe(st.floats(0, 30_000)),
    trusted=st.sampled_from([True, True, False]),
    down=_SELDOM,
    vetoed=_SELDOM,
    drained=_SELDOM,
    no_route=_SELDOM,
    not_ready=_SELDOM,
    old_report=st.sampled_from([0.0, 0.0, -0.1]),
    ejected=_SELDOM,
    full=_SELDOM,
    baseline=st.floats(1e-6, 1),
    known=st.sampled_from([True, True, False]),
    healthy=st.sampled_from([NAN, 0.0, 1.0]),
    said_latency_ms=maybe(st.floats(0, 2000)),
    said_loss_ratio=maybe(st.floats(0, 1)),
    demotion=st.sampled_from([0.0, 0.0, -1e-9, -0.05, -0.7, -3.9]),
)
REGIONS: Final = [f"t-{i}" for i in range(9)]
PATHS: Final = st.dictionaries(st.sampled_from(REGIONS), PATH, min_size=1, max_size=8)
ALIVE: Final = st.builds(
    replace,
    PATH,
    age_ms=st.floats(0, 9000),
    healthy=st.just(NAN),
    **dict.fromkeys(("trusted", "known"), st.just(True)),
    **dict.fromkeys(("down", "vetoed", "drained", "no_route", "not_ready", "ejected", "full"), st.just(False)),
)
