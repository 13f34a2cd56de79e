"""What a sink's loop shows of itself, for Prometheus (schemas/observed.py)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import Metric

from schemas.observed import Pulse, counter, gauge, seconds

_STUCK_S: Final = 120.0  # a store that hangs for so long has no time-out that works


@dataclass(slots=True)
class Counts:
    """What a run did, for logs and tests."""

    taken: int = 0
    repeated: int = 0
    dead_letters: int = 0
    flushes: int = 0
    outages: int = 0
    rewinds: int = 0


class Gauges:
    """Of one sink; `sink` is the name that operators gave it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._flushes = seconds("proxima_sink_flush_seconds", "Time that the store took for a flush.", "sink")
        self.flush_seconds = self._flushes.labels(name)
        self.pulse = Pulse(f"the loop of sink {name}", _STUCK_S)
        self.flushed = 0
        self.newest_ms = 0
        self.lag = 0  # as the loop last saw it

    def figures(self, counts: Counts, *, is_up: bool, waiting: int) -> Iterator[Metric]:
        """Families of it, by what the loop knows."""
        name, sink = (self._name,), "sink"
        outcomes = {
            (self._name, "taken"): counts.taken,
            (self._name, "repeated"): counts.repeated,
            (self._name, "dead_lettered"): counts.dead_letters,
            (self._name, "flushed"): self.flushed,
        }
        about = "Records taken, those of them that came twice or became dead letters, and those that the store has."
        yield counter("proxima_sink_records", about, outcomes, sink, "outcome")
        yield gauge("proxima_sink_up", "1 while its store takes what it is given.", {name: is_up}, sink)
        about = "Records taken that the store does not have."
        yield gauge("proxima_sink_waiting_records", about, {name: waiting}, sink)
        about = "Records on its partitions that the store does not have."
        yield gauge("proxima_sink_lag_records", about, {name: self.lag}, sink)
        about = "When the broker appended the newest record that was taken."
        yield gauge("proxima_sink_newest_record_timestamp_seconds", about, {name: self.newest_ms / 1000}, sink)
        yield counter("proxima_sink_outages", "How often its store went away.", {name: counts.outages}, sink)
        about = "How often its store had lost what it had confirmed."
        yield counter("proxima_sink_rewinds", about, {name: counts.rewinds}, sink)
        yield from self._flushes.collect()
