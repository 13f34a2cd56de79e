"""Probe samples told briefly, and condensed by the real intake half: what the stories of paths and engines feed on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.records import Outcome, PathPanes, ProbeBatch
from streams.core.panes import Flush

PRIMARY = "eu-1"
PANE_MS = 1000
_OFFSET_MS_MAX = 500_000


@dataclass(frozen=True, slots=True)
class Sample:
    """What came of one probe: its round-trip time when it was answered, else how it failed."""

    target: str
    at_ms: int
    seen: float | Outcome
    agent: str = "agent-1"


def each(
    target: str, seen: float | Outcome, *, at_ms: Iterable[int], probes: int = 1, agent: str = "agent-1"
) -> list[Sample]:
    """So many equal probes in each pane."""
    return [Sample(target, at, seen, agent) for at in at_ms for _ in range(probes)]


def panes(samples: Iterable[Sample], primary: str = PRIMARY, pane_ms: int = PANE_MS) -> PathPanes:
    """Everything in one record, as intake would condense it."""
    flush = Flush(pane_ms=pane_ms, ahead_ms_max=1 << 40, lateness_ms_max=1 << 50)
    messages: dict[tuple[str, int], list[Sample]] = {}
    for sample in samples:
        messages.setdefault((sample.agent, sample.at_ms // _OFFSET_MS_MAX), []).append(sample)
    for (agent, part), of in messages.items():
        targets = list(dict.fromkeys(s.target for s in of))
        answered = [not isinstance(s.seen, Outcome) for s in of]
        batch = ProbeBatch.of(
            agent_id=agent,
            primary_region=primary,
            started_at_ms=part * _OFFSET_MS_MAX,
            targets=targets,
            methods=["icmp"],
            target_index=[targets.index(s.target) for s in of],
            method_index=[0] * len(of),
            sent_offset_ms=[s.at_ms - part * _OFFSET_MS_MAX for s in of],
            rtt_ms=[s.seen if a else float("nan") for s, a in zip(of, answered, strict=True)],
            outcome=[Outcome.ANSWERED if a else s.seen for s, a in zip(of, answered, strict=True)],
            code=[0] * len(of),
        )
        rejected = flush.add(batch, 0, part * _OFFSET_MS_MAX)
        assert rejected is None, rejected
    found, bad = flush.condense()
    assert not bad, bad
    return found[primary]
