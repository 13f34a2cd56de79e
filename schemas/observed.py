"""What a process says of itself: figures for Prometheus, whether it moves, and why it is not ready.

Whoever has something to say is an `Observed`, for as long as it lives; infra/metrics.py and the gateway show it when
somebody asks. Figures are read from what is counted anyway, at that moment and not before. Looking happens in another
thread than the work: what is looked at copies before it iterates (`list(...)` of a dictionary's items), and what it
raises costs its own figures and nothing else.

    figures()   families of Prometheus; equal names and labels of several are added up
    stuck()     why its loop does not move any more: only a new process helps; empty: it moves
    unready()   why it does not do its work now; empty: it does
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final
from weakref import WeakSet

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.breaker import State, living

log = logging.getLogger(__name__)

disable_created_metrics()  # type: ignore[no-untyped-call] # a series for each counter that nobody asks for
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LIVING: Final[WeakSet[Observed]] = WeakSet()
_told: Final[set[str]] = set()
Values = float | Mapping[Any, float]  # of each tuple of labels


class Observed:
    """Something of this process that can be looked at, once it has called `observe`."""

    def observe(self) -> None:
        """Show it from now on."""
        _LIVING.add(self)

    def unobserve(self) -> None:
        """Show it no more: it has ended."""
        _LIVING.discard(self)

    def figures(self) -> Iterable[Metric]:
        """What it counts."""
        return ()

    def stuck(self) -> str:
        """Why it does not move; empty: it does."""
        return ""

    def unready(self) -> str:
        """Why it does not do its work; empty: it does."""
        return ""


class Pulse:
    """When a loop last had its turn; it is stuck when that is `limit_s` ago."""

    def __init__(self, what: str, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._limit_s, self._clock = what, limit_s, clock
        self._at_s = clock()

    def beat(self) -> None:
        """It moves."""
        self._at_s = self._clock()

    def stuck(self) -> str:
        """Why it is held to be stuck, or nothing."""
        silent_s = self._clock() - self._at_s
        return f"{self._what} has not moved for {silent_s:.0f} s" if silent_s > self._limit_s else ""


class Everything(Collector):
    """All that is observed in this process, as one."""

    def collect(self) -> Iterator[Metric]:
        """Families by name, each once."""
        found: dict[str, Metric] = {}
        for each in list(_LIVING):
            try:
                for family in each.figures():
                    _merge(found, family)
            except Exception as error:  # a figure that is missing is worth less than the rest
                _tell(each, error)
        yield from (found[name] for name in sorted(found))


class Breakers(Collector):
    """Every breaker of this process, as it stands when it is asked."""

    def collect(self) -> Iterator[Metric]:
        """States, calls and openings, by name."""
        state = GaugeMetricFamily("proxima_breaker_state", "1 for the state that it is in.", labels=["name", "state"])
        calls = CounterMetricFamily(
            "proxima_breaker_calls", "Calls by what became of them.", labels=["name", "outcome"]
        )
        opened = CounterMetricFamily("proxima_breaker_opened", "How often it opened.", labels=["name"])
        for status in {each.name: each for each in living()}.values():
            for each in State:
                state.add_metric([status.name, each.value.lower()], float(status.state is each))
            for outcome in ("passed", "failed", "refused"):
                calls.add_metric([status.name, outcome], getattr(status, outcome))
            opened.add_metric([status.name], status.opened)
        yield from (state, calls, opened)


def register_all(registry: CollectorRegistry) -> None:
    """What every role shows: all that is observed, its breakers, and the process itself."""
    for collector in (Everything(), Breakers(), PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)


def stuck() -> list[str]:
    """Why this process does not move; empty: it does."""
    return _said(lambda each: each.stuck())


def unready() -> list[str]:
    """Why this process does not do its work; empty: it does."""
    return _said(lambda each: each.stuck() or each.unready()) if len(_LIVING) else ["it has not begun yet"]


def counter(name: str, about: str, values: Values, *labels: str) -> Metric:
    """A family of counters; `_total` is added to its name."""
    return _filled(CounterMetricFamily(name, about, labels=labels), values)


def gauge(name: str, about: str, values: Values, *labels: str) -> Metric:
    """A family of gauges."""
    return _filled(GaugeMetricFamily(name, about, labels=labels), values)


def seconds(name: str, about: str, *labels: str) -> Histogram:
    """A histogram of durations, which its owner shows with its `collect()`."""
    return Histogram(name, about, labels, buckets=SECONDS, registry=None)


def one_of(values: Iterable[str], now: str) -> dict[tuple[str, ...], float]:
    """A state as Prometheus likes it: 1 for the one that it is, 0 for the others."""
    return {(value,): float(value == now) for value in values}


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: Values) -> Metric:
    rows = list(values.items()) if isinstance(values, Mapping) else [((), values)]
    for labels, value in rows:
        family.add_metric(list(labels), float(value))
    return family


def _merge(found: dict[str, Metric], family: Metric) -> None:
    known = found.setdefault(family.name, family)
    if known is family:
        return
    places = {(s.name, tuple(sorted(s.labels.items()))): at for at, s in enumerate(known.samples)}
    for sample in family.samples:
        at = places.get((sample.name, tuple(sorted(sample.labels.items()))))
        if at is None:
            known.samples.append(sample)
        else:
            known.samples[at] = known.samples[at]._replace(value=known.samples[at].value + sample.value)


def _said(of: Callable[[Observed], str]) -> list[str]:
    found = []
    for each in list(_LIVING):
        try:
            why = of(each)
        except Exception as error:
            _tell(each, error)
            why = f"{type(each).__name__} cannot be looked at: {type(error).__name__}"
        if why:
            found.append(why)
    return sorted(found)


_telling: Final = threading.Lock()


def _tell(each: Observed, error: Exception) -> None:
    """Once a kind: it would be said at every scrape."""
    what = f"{type(each).__name__}: {type(error).__name__}"
    with _telling:
        first = what not in _told
        _told.add(what)
    if first:
        log.warning("cannot be looked at: %s", what, exc_info=error)
