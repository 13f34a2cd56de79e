"""What the gateway shows of itself beside what it counts: what every role does."""

from __future__ import annotations

from producers.gateway.gauges import Gauges
from schemas.breaker import Breaker


def test_it_shows_its_breakers_and_its_process_as_every_role_does() -> None:
    breaker = Breaker("the registry", clock=lambda: 0.0)
    text = Gauges(lambda: 0).text().decode()
    assert f'proxima_breaker_state{{name="{breaker.name}",state="closed"}} 1.0' in text
    for name in ("proxima_breaker_calls_total", "proxima_breaker_opened_total", "python_info", "python_gc_"):
        assert f"\n{name}" in text, name
    assert "\nprocess_resident_memory_bytes" in text
