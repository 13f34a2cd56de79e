"""One tick's probes: a row each, filled in as they are sent and end, and then a ProbeBatch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from producers.probes import Answer
from schemas.records import Outcome, ProbeBatch

# A machine that stood still gets what was on its way to it within so long after.
GRACE_S: Final = 0.025


class Disturbance(NamedTuple):
    """A span of the event loop's clock in which probes say nothing about their paths: one target's, or (None) all."""

    began_s: float
    ended_s: float
    target_index: int | None = None


class Tick:
    """A tick that began at `began_s` by the event loop's clock, with a probe due at each of `due_s`.

    `target_index` and `method_index` have the shape (probes,). `over` is done when every probe that had its turn has
    ended; it needs `close` before.
    """

    def __init__(
        self,
        began_s: float,
        due_s: Sequence[float],
        target_index: npt.NDArray[np.uint16],
        method_index: npt.NDArray[np.uint8],
    ) -> None:
        self.began_s, self.due_s = began_s, due_s
        self._target_index, self._method_index = target_index, method_index
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self._loop.create_future()
        probes = len(due_s)
        self._sent_s = list(due_s)
        self._ended_s = [0.0] * probes
        self._answers: list[Answer | None] = [None] * probes
        self._ended = 0
        self._probes: int | None = None

    def sent(self, row: int) -> None:
        """A probe is sent now."""
        self._sent_s[row] = self._loop.time()

    def ended(self, row: int, answer: Answer) -> None:
        """A probe ended now."""
        self._ended_s[row] = self._loop.time()
        self._answers[row] = answer
        self._ended += 1
        self._look()

    def close(self, probes: int) -> None:
        """No probe but the first so many had, or will have, its turn."""
        self._probes = probes
        self._look()

    def _look(self) -> None:
        if self._ended == self._probes and not self.over.done():
            self.over.set_result(None)

    def batch(
        self,
        *,
        agent_id: str,
        primary_region: str,
        wall_ms: float,
        targets: list[str],
        methods: list[str],
        disturbances: Iterable[Disturbance],
    ) -> ProbeBatch | None:
        """What was measured; None when nothing was. `wall_ms` is the Unix time of the event loop's clock 0.

        A probe whose end may have been our doing is SUSPECT: one that answered, if it was due, overdue or under way
        during a disturbance; and one that timed out, if it was due, or its time ran out, in one. Not if it was only
        under way: what arrives meanwhile waits for us, and a lost probe is under way for so long that hardly any loss
        would ever count where the machine hiccups once a second. A refusal, an unreachable and what we could not send
        stay what they are.
        """
        rows = self._probes or 0
        if not rows:
            return None
        answers = [answer for answer in self._answers[:rows] if answer is not None]
        outcome = np.array([answer.outcome for answer in answers], dtype=np.uint8)
        rtt_ms = np.array([answer.rtt_ms for answer in answers])
        due_s, ended_s = np.array(self.due_s[:rows]), np.array(self._ended_s[:rows])
        answered, timed_out = outcome == Outcome.ANSWERED, outcome == Outcome.TIMED_OUT
        ours = np.zeros(rows, dtype=bool)
        for began_s, until_s, target_index in disturbances:
            of_target = True if target_index is None else self._target_index[:rows] == target_index
            due_in = (due_s >= began_s) & (due_s < until_s)
            ran_out_in = (ended_s > began_s) & (ended_s <= until_s + GRACE_S)
            overlapping = (due_s < until_s) & (ended_s > began_s)
            ours |= of_target & ((answered & overlapping) | (timed_out & (due_in | ran_out_in)))
        return ProbeBatch.of(
            agent_id=agent_id,
            primary_region=primary_region,
            started_at_ms=round(wall_ms + self.began_s * 1000),
            targets=targets,
            methods=methods,
            target_index=self._target_index[:rows],
            method_index=self._method_index[:rows],
            sent_offset_ms=(np.array(self._sent_s[:rows]) - self.began_s) * 1000,
            rtt_ms=np.where(ours, np.nan, rtt_ms),
            outcome=np.where(ours, int(Outcome.SUSPECT), outcome),
            code=[answer.code for answer in answers],
        )
