"""What the gateway counts of itself, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from schemas.observed import register_all


class Gauges:
    """One set an application, so that tests may have several."""

    def __init__(self, in_flight: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "proxima_gateway_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.records = Counter(
            "proxima_gateway_records",
            "Metrics that were sent to us, by what became of them.",
            ["source", "outcome"],
            registry=self.registry,
        )
        self.confirm_seconds = Histogram(
            "proxima_gateway_confirm_seconds",
            "Time until the broker had confirmed a request's records.",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
            registry=self.registry,
        )
        self.streams = Gauge("proxima_gateway_streams", "Subscribers of rankings now.", registry=self.registry)
        self.dropped_streams = Counter(
            "proxima_gateway_dropped_streams", "Subscribers dropped for being slow.", registry=self.registry
        )
        self.repeated = Counter(
            "proxima_gateway_repeated_requests",
            "Requests answered from memory, by their idempotency key.",
            registry=self.registry,
        )
        self.stale_tokens = Gauge(
            "proxima_gateway_tokens_stale",
            "1 while the tokens' file cannot be read: those of before count, also who has been revoked since.",
            registry=self.registry,
        )
        waiting = Gauge("proxima_gateway_unconfirmed_records", "Records under way.", registry=self.registry)
        waiting.set_function(in_flight)
        self.heard = Counter("proxima_gateway_rankings", "Rankings that were heard.", registry=self.registry)
        self.newest = Gauge(
            "proxima_gateway_newest_ranking_timestamp_seconds",
            "When the newest ranking that was heard had been decided.",
            registry=self.registry,
        )
        register_all(self.registry)  # the publisher's figures are among them

    def text(self) -> bytes:
        """In Prometheus' exposition format."""
        return generate_latest(self.registry)
