"""Journal seconds folded a second, beside only decoding the same records.

The journal: 12 primaries with 11 targets each, two agents a primary, one observation an agent and a second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from schemas.codec import decode, encode
from schemas.records import (
    FailoverConfiguration,
    Observation,
    PathPanes,
    ProbeBatch,
    Region,
    RegionCatalog,
    Source,
)
from streams.core.panes import Flush
from streams.journal import JournalRecord
from streams.replay import Replay

_PRIMARIES, _TARGETS, _SECONDS = 12, 11, 120
_START_MS = 1_700_000_000_000


def run() -> Iterator[dict[str, Any]]:
    journal = list(_journal())
    started_s = time.perf_counter()
    for record in journal:
        observation = decode(record.value, Observation)
        decode(observation.body, PathPanes, FailoverConfiguration, RegionCatalog)
    decoding_s = time.perf_counter() - started_s
    started_s = time.perf_counter()
    outputs = sum(1 for _ in Replay().run(journal))
    folding_s = time.perf_counter() - started_s
    yield {
        "primaries": _PRIMARIES,
        "targets": _TARGETS,
        "records": len(journal),
        "outputs": outputs,
        "journal_seconds_a_second": round(_SECONDS / folding_s, 1),
        "decode_only_journal_seconds_a_second": round(_SECONDS / decoding_s, 1),
        "ratio": round(decoding_s / folding_s, 3),
    }


def _journal() -> Iterator[JournalRecord]:
    random = np.random.default_rng(1)
    regions = [f"region-{i}" for i in range(_PRIMARIES)]
    offset = 0

    def record(at_ms: int, primary: str | None, body: bytes, source: Source) -> JournalRecord:
        nonlocal offset
        offset += 1
        return JournalRecord(0, offset - 1, at_ms, None, encode(Observation(primary, source, body)))

    catalog = RegionCatalog(1, [Region(r, 5.0 * i, 10.0 * i) for i, r in enumerate(regions)])
    yield record(_START_MS, None, encode(catalog), Source("failover-config", "c", 0, 0, 1))
    for i, primary in enumerate(regions):
        candidates = [r for r in regions if r != primary][:_TARGETS]
        configuration = encode(FailoverConfiguration(primary, candidates, 1))
        yield record(_START_MS, primary, configuration, Source("failover-config", "c", 1, i, i + 1))
    for second in range(_SECONDS):
        at_ms = _START_MS + second * 1000
        for i, primary in enumerate(regions):
            candidates = [r for r in regions if r != primary][:_TARGETS]
            for agent in range(2):
                panes = panes_of(random, primary, agent, candidates, at_ms)
                source = Source("probe-samples", "s", 2 * i + agent, second, second + 1, at_ms)
                yield record(at_ms + 1000 + i, primary, encode(panes), source)


def panes_of(random: np.random.Generator, primary: str, agent: int, candidates: list[str], at_ms: int) -> PathPanes:
    target = np.repeat(np.arange(len(candidates)), 2)
    flush = Flush(pane_ms=1000, ahead_ms_max=5000, lateness_ms_max=60_000)
    batch = ProbeBatch.of(
        agent_id=f"{primary}/{agent}",
        primary_region=primary,
        started_at_ms=at_ms,
        targets=candidates,
        methods=["icmp"],
        target_index=target,
        method_index=np.zeros(len(target)),
        sent_offset_ms=np.linspace(0, 900, len(target)),
        rtt_ms=(20 + 10 * target) * random.lognormal(0, 0.02, len(target)),
        outcome=np.zeros(len(target)),
        code=np.zeros(len(target)),
    )
    flush.add(batch, 0, at_ms)
    return flush.condense()[0][primary]
