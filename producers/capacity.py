"""Bandwidth in turns: each path once in a while, one after another, spread evenly over that while.

A train delays whatever else is on its path while it passes, other probes of ours too: what they say meanwhile is our
own doing. So each measurement is also a disturbance of its target.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from producers.probes import Answer, Endpoint, Probe
from producers.tick import Disturbance
from schemas.records import BandwidthMeasurement, Outcome

log = logging.getLogger(__name__)
_KEPT_MAX: Final = 1000


class CapacityRounds:
    """Measures until it is cancelled. `endpoint_of` says where a target's responder is; None: nobody knows now."""

    def __init__(
        self,
        probe: Probe,
        *,
        agent_id: str,
        primary_region: str,
        targets: Sequence[str],
        endpoint_of: Callable[[int], Endpoint | None],
        publish: Callable[[BandwidthMeasurement], None],
        every_s: float,
    ) -> None:
        self._probe, self._endpoint_of, self._publish, self._every_s = probe, endpoint_of, publish, every_s
        self._agent_id, self._primary_region, self._targets = agent_id, primary_region, targets
        self._order = random.SystemRandom().sample(range(len(targets)), len(targets))
        self._recent: deque[Disturbance] = deque(maxlen=_KEPT_MAX)
        self._now: tuple[int, float] | None = None
        self._said: dict[int, Outcome] = {}
        self.counts: Counter[Outcome] = Counter()

    async def run(self) -> None:
        """Raises what `publish` does."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            for target_index in self._order:
                due_s = max(due_s + self._every_s / len(self._order), loop.time())
                await asyncio.sleep(due_s - loop.time())
                endpoint = self._endpoint_of(target_index)
                if endpoint is not None:
                    await self._measure(target_index, endpoint)

    def disturbances(self, now_s: float) -> Iterator[Disturbance]:
        """The recent ones, and the one that is under way, by the event loop's clock."""
        yield from self._recent
        if self._now is not None:
            target_index, began_s = self._now
            yield Disturbance(began_s, now_s, target_index)

    async def _measure(self, target_index: int, endpoint: Endpoint) -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Answer] = loop.create_future()
        began_s = loop.time()
        self._now = (target_index, began_s)
        self._probe.ask(endpoint, ended.set_result)
        answer = await ended
        self._now = None
        self.counts[answer.outcome] += 1
        if answer.bytes_sent:
            self._recent.append(Disturbance(began_s, loop.time(), target_index))
        if answer.outcome == Outcome.ANSWERED:
            self._publish(
                BandwidthMeasurement(
                    self._agent_id,
                    self._primary_region,
                    self._targets[target_index],
                    time.time_ns() // 1_000_000,
                    answer.bandwidth_bps,
                    answer.uncertainty_ratio,
                    answer.bytes_sent,
                )
            )
        if self._said.get(target_index, Outcome.ANSWERED) != answer.outcome:
            log.warning("bandwidth to %s at %s: %s", self._targets[target_index], endpoint, answer.outcome.name)
        self._said[target_index] = answer.outcome
