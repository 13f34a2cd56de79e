"""What Prometheus may scrape of a role: the breakers of its process, and the process itself."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.breaker import State, living
from schemas.config import Metrics
from schemas.errors import ConfigError


class Breakers(Collector):
    """Every breaker of this process, as it stands when it is asked."""

    def collect(self) -> Iterator[Metric]:
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


def registry() -> CollectorRegistry:
    """All that a role shows."""
    found = CollectorRegistry()
    for collector in (Breakers(), PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        found.register(collector)
    return found


def serve_metrics(settings: Metrics) -> None:
    """Serve them from a thread, until the process ends. Raises ConfigError: the address cannot be had."""
    if not settings.port:
        return
    try:
        start_http_server(settings.port, settings.listen, registry())
    except OSError as error:
        where = f"metrics: {settings.listen}:{settings.port} cannot be had: {error.strerror or error}"
        raise ConfigError([where], do="give another metrics.port") from error
