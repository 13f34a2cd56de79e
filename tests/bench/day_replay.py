"""A journal of one day (12 primaries, 11 targets each, ticks of a second) folded again, as `proxima replay FILE` does.

The yardstick reads and decodes the same records in one process and folds nothing. The journal is written first: every
second each primary's agent measured every target twice; `PROXIMA_BENCH_SECONDS` makes it shorter than a day.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from schemas.codec import decode, encode
from schemas.records import FailoverConfiguration, Observation, PathPanes, Region, RegionCatalog, Source
from schemas.topics import partition_of
from streams.core.engine import FailoverEngine
from streams.journal import JournalHeader, JournalRecord, append, read, write_header
from streams.parallel import ParallelReplay
from streams.replay import Replay, without_weights
from tests.bench.fold_speed import panes_of

SECONDS = int(os.environ.get("PROXIMA_BENCH_SECONDS", "86400"))
_REGIONS = [f"region-{i}" for i in range(12)]
_START_MS = 1_700_000_000_000
_TOPICS = ("failover-rankings",)
_VARIANTS = 400  # of a primary's second; they repeat in a random order


def run() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="proxima-bench-") as folder:
        path = Path(folder) / "day.journal"
        records = _write(path)
        started_s = time.perf_counter()
        for record in read(path):
            body = decode(record.value, Observation).body
            decode(body, PathPanes, FailoverConfiguration, RegionCatalog)
        decoding_s = time.perf_counter() - started_s
        processes = os.cpu_count() or 1
        started_s = time.perf_counter()
        run = Replay(engine=without_weights(FailoverEngine), topics=_TOPICS)
        with ParallelReplay(run, processes, _TOPICS) as replay:
            rankings = sum(len(outputs) for _, outputs in replay.each(read(path)))
        folding_s = time.perf_counter() - started_s
    yield {
        "journal_s": SECONDS,
        "records": records,
        "rankings": rankings,
        "processes": processes,
        "seconds": round(folding_s, 1),
        "decode_only_seconds": round(decoding_s, 1),
        "ratio": round(decoding_s / folding_s, 3),
        "us_a_primary_and_second": round(1e6 * folding_s / (SECONDS * len(_REGIONS)), 1),
    }


def _write(path: Path) -> int:
    random = np.random.default_rng(7)
    variants = {
        r: [panes_of(random, r, 0, [t for t in _REGIONS if t != r], _START_MS) for _ in range(_VARIANTS)]
        for r in _REGIONS
    }
    rows = len(_REGIONS) - 1
    offsets = dict.fromkeys(range(12), 0)
    count = 0
    with path.open("wb") as out:
        write_header(out, JournalHeader("observations", "day", 12))

        def put(partition: int, at_ms: int, observation: Observation) -> None:
            nonlocal count
            append(out, JournalRecord(partition, offsets[partition], at_ms, None, encode(observation)))
            offsets[partition] += 1
            count += 1

        catalog = encode(RegionCatalog(1, [Region(r, 5.0 * i, 10.0 * i) for i, r in enumerate(_REGIONS)]))
        for partition in range(12):
            put(partition, _START_MS, Observation(None, Source("failover-config", "c", 0, 0, 1), catalog))
        for i, r in enumerate(_REGIONS):
            body = encode(FailoverConfiguration(r, [t for t in _REGIONS if t != r], 1))
            source = Source("failover-config", "c", 1, i, i + 1)
            put(partition_of(r.encode()), _START_MS, Observation(r, source, body))
        for second in range(SECONDS):
            at_ms = _START_MS + second * 1000
            pane_at_ms = np.full(rows, at_ms, "<i8").tobytes()
            chosen = random.integers(_VARIANTS, size=len(_REGIONS)).tolist()
            for i, r in enumerate(_REGIONS):
                body = encode(replace(variants[r][chosen[i]], pane_at_ms=pane_at_ms))
                source = Source("probe-samples", "s", i, second, second + 1, at_ms)
                put(partition_of(r.encode()), at_ms + 1000 + i, Observation(r, source, body))
    return count
