"""The whole network at its largest: 500 regions, each with the 499 others, 249,500 edges, all told every tick.

What is timed is what a tick takes: to take in 500 updates, then to look at everything (health, blame, shared risk,
verdicts, nodes). At a steady network, when one region dies, and when a transit with many paths fails; then a snapshot
round. As the fold does it, with decoding and encoding. The limit is a second of one core: CPU time is
measured, so that what else runs here does not count.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from schemas.codec import encode
from schemas.records import (
    Array,
    FailoverConfiguration,
    GraphRoute,
    GraphUpdate,
    Observation,
    Region,
    RegionCatalog,
    Source,
)
from streams.folding import Output
from streams.journal import JournalRecord
from streams.network_fold import NetworkFold

REGIONS = 500
LIMIT_S = 1.0
_T0 = 1_700_000_000_000
_MONITORED = 50  # regions with a route monitor
_NETWORKS = 40


def run() -> Iterator[dict[str, Any]]:
    names = [f"region-{i:03}" for i in range(REGIONS)]
    fold = NetworkFold(topic="graph-updates", topic_id="bench", partition=0, tick_ms=1000, phase_ms=600)
    journal = _Journal(fold)
    providers = [f"net-{i % _NETWORKS}" for i in range(REGIONS)]
    regions = [Region(n, 0.0, 0.0, providers=[p, f"{p}-b"]) for n, p in zip(names, providers, strict=True)]
    journal.say(RegionCatalog(1, regions), _T0)
    for name in names:
        journal.say(FailoverConfiguration(name, [n for n in names if n != name], 1), _T0)
    rng = np.random.default_rng(1)
    usual = rng.uniform(5, 300, (REGIONS, REGIONS))
    worst: dict[str, list[float]] = {}
    for tick in range(1, 13):
        latency = usual * (1 + rng.normal(0, 0.005, usual.shape))
        state = np.full(usual.shape, GraphUpdate.FRESH | GraphUpdate.ELIGIBLE, np.uint8)
        what = "steady"
        if 5 <= tick <= 7:
            what = "a region is dead"
            state[:, 7] = GraphUpdate.FRESH | GraphUpdate.DOWN
        if tick >= 9:
            what = "a transit is slow"
            for number in range(_MONITORED):
                latency[number, number % _NETWORKS :: _NETWORKS] += 80
        at_ms = _T0 + 1000 * tick
        updates = [encode(_update(i, names, (latency[i], usual[i], state[i]), at_ms)) for i in range(REGIONS)]
        begin = time.process_time()
        for name, value in zip(names, updates, strict=True):
            journal.append(value, at_ms, name)
        taken = time.process_time()
        outputs = journal.append(updates[0], at_ms + 700, names[0])  # a repeat: the tick's edge is all it brings
        done = time.process_time()
        if tick > 1:  # the first brings every region, and is a start's
            worst.setdefault(what, []).append(done - begin)
        told = Counter(output.topic for output in outputs)
        faults = len(fold.engine.suspicions.blamed)
        print(f"{what}: {taken - begin:.3f} s + {done - taken:.3f} s, {dict(told)}, {faults} faults", file=sys.stderr)
    begin = time.process_time()
    values = [encode(s) for s in fold.snapshots()]
    yield {
        "regions": REGIONS,
        "edges": REGIONS * (REGIONS - 1),
        "tick_s_max": {what: round(max(each), 3) for what, each in worst.items()},
        "limit_s": LIMIT_S,
        "snapshot_s": round(time.process_time() - begin, 3),
        "snapshot_mb": round(sum(map(len, values)) / 1e6, 1),
        "snapshot_record_mb_max": round(max(map(len, values)) / 1e6, 1),
    }


class _Journal:
    def __init__(self, fold: NetworkFold) -> None:
        self._fold, self._offset = fold, 0

    def say(self, record: RegionCatalog | FailoverConfiguration, at_ms: int) -> None:
        source = Source("failover-config", "bench", 0, self._offset, self._offset + 1, at_ms)
        self.append(encode(Observation(None, source, encode(record))), at_ms, "key")

    def append(self, value: bytes, at_ms: int, key: str) -> list[Output]:
        outputs = self._fold.apply(JournalRecord(0, self._offset, at_ms, key.encode(), value))
        self._offset += 1
        assert not [o for o in outputs if o.topic == "dead-letters"]
        return outputs


def _update(number: int, names: list[str], rows: Sequence[Array], at_ms: int) -> GraphUpdate:
    latency, usual, state = rows
    others = np.delete(np.arange(REGIONS), number)
    zero = np.zeros(len(others))
    first = at_ms == _T0 + 1000
    routes = [GraphRoute(names[t], [64500 + number, 65000 + t % _NETWORKS]) for t in others.tolist()]
    update = GraphUpdate(
        primary_region=names[number],
        sequence=at_ms,
        decided_at_ms=at_ms,
        target_region=names[others[0]],
        targets=[names[t] for t in others.tolist()],
        agents=["one", "two"],
        silent_agents=[],
        **GraphUpdate.packed(
            latency_ms=latency[others],
            usual_latency_ms=usual[others],
            delay_variation_ms=zero + 2,
            bandwidth_bps=zero + 1e9,
            loss_ratio=zero,
            loss_now_ratio=zero,
            weight=1 / latency[others],
            confidence=zero + 0.95,
            state=state[others],
        ),
    )
    return replace(update, says_routes=True, routes=routes) if first and number < _MONITORED else update
