"""What a stage shows of itself, for Prometheus (schemas/observed.py): how fresh it is, and what it decides.

It looks from outside: at what goes to the broker, at where the stage stands, at what the consumer fetched last.
Rankings are read again as they leave; whatever fails here is counted here, and stops nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import Metric

from schemas.codec import decode
from schemas.observed import Observed, Pulse, counter, gauge
from schemas.records import Advice, DeadLetter, Event, FailoverRanking, Mode, Reason
from schemas.topics import PARTITIONS, partition_of
from streams.broker import Place, Stage

_RANKINGS: Final = "failover-rankings"
_LETTERS: Final = "dead-letters"
_STUCK_S: Final = 180.0  # reading back gives up after a minute without a record
_UNHEARD_S: Final = 10.0  # fetches are answered 20 times a second
_OLD_S: Final = 30.0  # a journal gets a Tick a second
_EVENTS: Final = [event.value for event in Event]


@dataclass(frozen=True, slots=True)
class Fetched:
    """What the last fetch said of a partition: the next offset that it will give, and when that was (Unix time)."""

    end: int
    at_ms: int


@dataclass(slots=True)
class _Primary:
    """The latest ranking, as far as it is shown."""

    decided_at_ms: int
    stale_after_ms: int
    mode: str
    advice: str
    candidates: int
    eligible: int
    suspects: int
    order_confidence: float


class Gauges(Observed):
    """Of one stage. `look` tells it whom to ask; before that it is not ready."""

    def __init__(self, stage: str) -> None:
        self._name = stage
        self._stage: Stage | None = None
        self._fetched: Callable[[], Mapping[Place, Fetched]] = dict
        self._joined: Callable[[], bool] = lambda: False
        self.pulse = Pulse(f"the loop of {stage}", _STUCK_S)
        self._taken: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()
        self._commits: Counter[str] = Counter({"done": 0, "lost": 0})
        self._letters: Counter[tuple[str, str]] = Counter()
        self._unread = 0
        self._events: Counter[str] = Counter(dict.fromkeys(_EVENTS, 0))
        self._changes: Counter[str] = Counter()
        self._primaries: dict[str, _Primary] = {}
        self._committed = True

    def look(self, stage: Stage, fetched: Callable[[], Mapping[Place, Fetched]], joined: Callable[[], bool]) -> None:
        """Show this stage; `fetched`: partitions that are ours, `joined`: whether the group has given us our part."""
        self._stage, self._fetched, self._joined = stage, fetched, joined
        if self._name != "intake":  # a figure that is 0 before it is 1 can be seen to rise
            self._letters.update({(topic, Reason.FOLD_ERROR.value): 0 for topic in stage.topics})
        self.observe()

    # -- told by the worker

    def took(self, topic: str, count: int) -> None:
        """Records came."""
        self._taken[topic] += count
        self.pulse.beat()

    def sent(self, topic: str, value: bytes) -> None:
        """A record goes to the broker."""
        self._sent[topic] += 1
        if topic not in (_RANKINGS, _LETTERS):
            return
        try:
            if topic == _RANKINGS:
                self._decided(decode(value, FailoverRanking))
            else:
                letter = decode(value, DeadLetter)
                self._letters[letter.source_topic, letter.reason] += 1
        except Exception:
            self._unread += 1

    def committed(self, *, done: bool) -> None:
        """An offset was committed, or could not be."""
        self._commits["done" if done else "lost"] += 1
        self._committed = done

    def _decided(self, ranking: FailoverRanking) -> None:
        primary = ranking.primary_region
        self._events.update(event for event in ranking.events if event in self._events)
        self._changes[primary] += Event.TARGET_CHANGED in ranking.events
        self._primaries[primary] = _Primary(
            decided_at_ms=ranking.decided_at_ms,
            stale_after_ms=ranking.stale_after_ms,
            mode=ranking.mode,
            advice=ranking.advice,
            candidates=len(ranking.candidates),
            eligible=sum(candidate.eligible for candidate in ranking.candidates),
            suspects=len(ranking.suspect_agents),
            order_confidence=ranking.order_confidence,
        )

    # -- shown

    def figures(self) -> Iterator[Metric]:
        """Families of it."""
        yield from self._flow()
        yield from self._standing()
        if self._name == "decide":
            yield from self._decisions()
        if self._stage is not None:
            for histogram in self._stage.timings:
                yield from histogram.collect()

    def _flow(self) -> Iterator[Metric]:
        name, topics = self._name, self._stage.topics if self._stage is not None else ()
        taken = {(name, topic): float(self._taken[topic]) for topic in topics}
        yield counter("proxima_stage_records", "Records taken in, by topic.", taken, "stage", "topic")
        sent = {(name, topic): float(n) for topic, n in list(self._sent.items())}
        yield counter("proxima_stage_sent_records", "Records handed to the broker, by topic.", sent, "stage", "topic")
        letters = {(name, *at): float(n) for at, n in list(self._letters.items())}
        about = "Records that became dead letters, by the topic that they came from."
        yield counter("proxima_stage_dead_letters", about, letters, "stage", "topic", "reason")
        commits = {(name, outcome): float(n) for outcome, n in list(self._commits.items())}
        yield counter("proxima_stage_commits", "Commits of offsets.", commits, "stage", "outcome")
        about = "Rankings and dead letters that could not be read again for these figures."
        yield counter("proxima_stage_unread_records", about, {(name,): self._unread}, "stage")

    def _standing(self) -> Iterator[Metric]:
        name, fetched = (self._name,), self._fetched()
        stands = [] if self._stage is None else self._stage.standings()
        yield gauge("proxima_stage_partitions", "Partitions that are this worker's.", {name: len(fetched)}, "stage")
        lag: Counter[str] = Counter(dict.fromkeys([] if self._stage is None else self._stage.topics, 0))
        newest: dict[str, int] = {}
        for stand in stands:
            topic = stand.place.topic
            if (known := fetched.get(stand.place)) is not None:
                lag[topic] += max(0, known.end - stand.next_offset)
            newest[topic] = max(newest.get(topic, 0), stand.appended_at_ms)
        behind = {(self._name, topic): float(n) for topic, n in lag.items()}
        about = "Records on its partitions that it has not taken in, as of the last fetches."
        yield gauge("proxima_stage_lag_records", about, behind, "stage", "topic")
        at = {(self._name, topic): ms / 1000 for topic, ms in newest.items() if ms}
        about = "When the broker appended the newest record that was taken in."
        yield gauge("proxima_stage_newest_record_timestamp_seconds", about, at, "stage", "topic")
        journal = [stand.clock_ms for stand in stands if stand.clock_ms]
        if journal:
            about = "The journal's time: that of the partition, of this worker's, which is furthest behind."
            yield gauge("proxima_stage_journal_timestamp_seconds", about, {name: min(journal) / 1000}, "stage")
        rounds = [stand.snapshot_at_s for stand in stands if stand.snapshot_at_s]
        if rounds:
            about = "When the oldest snapshot of this worker's partitions was confirmed."
            yield gauge("proxima_stage_snapshot_timestamp_seconds", about, {name: min(rounds)}, "stage")
        if self._stage is not None:
            about = "Records of the journal that the broker no longer had when they were wanted."
            yield counter("proxima_stage_lost_records", about, {name: self._stage.lost_records}, "stage")

    def _decisions(self) -> Iterator[Metric]:
        owned = {place.partition for place in self._fetched()}
        ours = {
            primary: ranking
            for primary, ranking in sorted(self._primaries.items())
            if partition_of(primary.encode(), PARTITIONS) in owned
        }
        events = {(event,): float(n) for event, n in list(self._events.items())}
        yield counter("proxima_ranking_events", "Events of the rankings that were published.", events, "event")
        changes = {(primary,): float(self._changes[primary]) for primary in ours}
        yield counter("proxima_target_changes", "Changes of a primary's target.", changes, "primary")

        def of(name: str, about: str, value: Callable[[_Primary], float]) -> Metric:
            return gauge(name, about, {(p,): value(r) for p, r in ours.items()}, "primary")

        about = "When the latest ranking of a primary was decided, in journal time."
        yield of("proxima_ranking_timestamp_seconds", about, lambda r: r.decided_at_ms / 1000)
        about = "How old a ranking may become before it is stale."
        yield of("proxima_ranking_stale_after_seconds", about, lambda r: r.stale_after_ms / 1000)
        yield of("proxima_ranking_candidates", "Candidates of a primary.", lambda r: r.candidates)
        yield of("proxima_ranking_eligible_candidates", "Candidates that may be chosen.", lambda r: r.eligible)
        yield of("proxima_ranking_suspect_agents", "Agents of a primary that are not believed.", lambda r: r.suspects)
        yield of("proxima_ranking_order_confidence_ratio", "How certain the order is.", lambda r: r.order_confidence)
        modes = {(p, m.value): float(r.mode == m) for p, r in ours.items() for m in Mode}
        yield gauge("proxima_ranking_mode", "1 for the mode that a primary is in.", modes, "primary", "mode")
        advice = {(p, a.value): float(r.advice == a) for p, r in ours.items() for a in Advice}
        yield gauge("proxima_ranking_advice", "1 for the advice of a primary's ranking.", advice, "primary", "advice")

    # -- whether it works

    def stuck(self) -> str:
        """The loop's."""
        return self.pulse.stuck()

    def unready(self) -> str:
        """It has no part of its topics, no broker that answers, or is behind its journal."""
        if self._stage is None or not self._joined():
            return f"{self._name}: its group has not given it partitions yet"
        fetched, now_ms = self._fetched(), time.time_ns() // 1_000_000
        heard_ms = max((each.at_ms for each in fetched.values()), default=now_ms)
        if now_ms - heard_ms > _UNHEARD_S * 1000:
            return f"{self._name}: no broker has answered a fetch for {(now_ms - heard_ms) / 1000:.0f} s"
        if not self._committed:
            return f"{self._name}: its last commit was lost"
        clocks = [stand.clock_ms for stand in self._stage.standings() if stand.clock_ms]
        behind_ms = now_ms - min(clocks, default=now_ms)
        if behind_ms > _OLD_S * 1000:
            return f"{self._name}: its journal's time is {behind_ms / 1000:.0f} s ago"
        return ""
