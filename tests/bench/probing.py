"""What the benchmarks of probes share: an agent whose samples are kept, and the processor that it took."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from producers.agent import ProbeAgent
from producers.probes.methods import open_probes
from producers.publisher import Publisher, Stats
from schemas.config import Probe, Target
from schemas.records import AgentHealth, Outcome, ProbeBatch
from tests.network import MAY_MAKE_NAMESPACES, Host

LONG = bool(os.environ.get("PROXIMA_SOAK"))


class Kept:
    """In a publisher's place; keeps what it is given."""

    stats = Stats()

    def __init__(self) -> None:
        self.records: list[Any] = []

    def publish(self, _topic: str, _key: str, record: object) -> None:
        self.records.append(record)


@dataclass(frozen=True, slots=True)
class Sampled:
    """Columns of all samples in the order in which they were sent, shape (probes,); moments in Unix milliseconds."""

    target_index: npt.NDArray[Any]
    sent_at_ms: npt.NDArray[Any]
    rtt_us: npt.NDArray[Any]
    outcome: npt.NDArray[Any]
    cpu_ratio: float
    longest_stall_ms: float
    ticks: int

    def count(self, outcome: Outcome) -> int:
        return int((self.outcome == outcome).sum())


def sampled(
    host: Host, addresses: Sequence[str], per_s: int, seconds: float, *, method: str = "icmp", port: int = 1
) -> Sampled:
    """What an agent at the host measures, `per_s` probes to each address a second."""
    settings = Probe(
        agent_id="bench",
        primary_region="here",
        methods=(method,),
        probes_per_tick=per_s,
        rate_max_per_s=1e6,
        targets=tuple(Target(region=f"there-{i}", address=a, port=port) for i, a in enumerate(addresses)),
    )
    kept = Kept()
    with host.entered():  # all the while: connect() opens a socket a probe
        cpu_ratio = asyncio.run(_agent(settings, cast(Publisher, kept), seconds))
    batches = [record for record in kept.records if isinstance(record, ProbeBatch)]
    columns = [batch.columns() for batch in batches]
    return Sampled(
        np.concatenate([c["target_index"] for c in columns]),
        np.concatenate(
            [b.started_at_ms + c["sent_offset_ms"].astype(float) for b, c in zip(batches, columns, strict=True)]
        ),
        np.concatenate([c["rtt_ms"] for c in columns]) * 1e3,
        np.concatenate([c["outcome"] for c in columns]),
        cpu_ratio,
        max(r.stalled_ms for r in kept.records if isinstance(r, AgentHealth)),
        len(batches),
    )


async def _agent(settings: Probe, publisher: Publisher, seconds: float) -> float:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()
    # A little less than whole ticks: the last is whole, and none begins after it.
    loop.call_later(seconds - 0.0005, stop.set_result, None)
    agent = ProbeAgent(settings, publisher, open_probes(settings.methods, settings.timeout_ms / 1000))
    began_s, cpu_s = time.monotonic(), time.process_time()
    await agent.run(stop)
    return (time.process_time() - cpu_s) / (time.monotonic() - began_s)


def us(values: npt.NDArray[Any]) -> dict[str, float]:
    """Median and 99th percentile, in microseconds as given; of what is not NaN."""
    p50, p99 = np.nanpercentile(values, (50, 99))
    return {"p50_us": round(float(p50), 2), "p99_us": round(float(p99), 2)}


def skipped(*tools: str) -> dict[str, Any] | None:
    """A line that says what is missing to run at all; None: nothing."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if MAY_MAKE_NAMESPACES and not missing:
        return None
    needs = "root and network namespaces" if not MAY_MAKE_NAMESPACES else ", ".join(missing)
    return {"NOT_MEASURED": f"needs {needs}"}


def load() -> float:
    """How many processes wanted a processor in the last minute: figures of a busy machine say so."""
    return round(os.getloadavg()[0], 2)
