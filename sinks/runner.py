"""The consumer loop that every sink runs in, and what a sink has to be.

    poll -> decode -> drop what was handled -> Sink.add -> (nothing more comes, or enough) Sink.flush -> commit

An offset is committed only after the flush that covers it, so whatever dies, nothing is lost; a record may come again,
and a sink must not mind. A circuit breaker is around the store: while it is open the batch is kept, the partitions are
paused, and the loop goes on polling, so the group membership lives and memory stays bounded; half-open, one flush finds
out, and each that fails keeps it open for longer. Its state goes into the log, and as the commits' metadata to whoever
asks the group about its offsets (`proxima doctor`). Readable records that
were handled before (a `sequence` at or below the last) are dropped; unreadable ones become dead letters.

Some stores forget what they had confirmed: a Redis killed with `kill -9` comes back without its last second, or
empty. So a store may keep its own position beside the data (`Sink.assigned`), and then that is where reading
goes on, however far the group's committed offset is.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition
from prometheus_client.core import Metric

from schemas.breaker import Breaker, Change, Limits, Permit, State
from schemas.codec import decode, read
from schemas.connection import client_settings, forbidden, is_refusal, refused
from schemas.errors import CodecError, DeliveryError, KafkaUnavailableError, StoreUnavailableError
from schemas.letters import kept
from schemas.observed import Observed
from schemas.records import DeadLetter, FailoverRanking, Record
from schemas.rights import Grant
from schemas.topics import TOPICS, named
from sinks.dead_letters import DeadLetters
from sinks.gauges import Gauges

log = logging.getLogger(__name__)

Place = tuple[str, int]  # a topic's name on the cluster, and a partition

RETRY_MS_MIN: Final = 50
IDLE_POLL_S: Final = 0.1  # how soon SIGTERM is noticed when nothing comes
# How often a store is asked whether it still has everything when there is nothing to write.
CHECK_EVERY_S: Final = 2.0
COMMIT_EVERY_S: Final = 0.2
LOOK_EVERY_S: Final = 1.0
LOOK_TIMEOUT_S: Final = 0.2
LEAVE_TIMEOUT_S: Final = 10.0
_NO_RIGHT: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)


@dataclass(frozen=True, slots=True)
class Meta:
    """Where a record stood, and its bytes."""

    topic: str
    partition: int
    offset: int
    appended_at_ms: int
    key: bytes | None
    value: bytes = b""

    @property
    def place(self) -> Place:
        return self.topic, self.partition


class Sink(Protocol):
    """A target of records. One thread calls it; every call may be repeated after a failure."""

    topics: Sequence[str]
    """What it takes, by the names of the table."""
    group: str = "proxima-sink-"
    """How its consumer group's name begins: a role may join the groups of its own kind (schemas/rights.py)."""
    check_every_s: float = CHECK_EVERY_S
    """How often `flush` is called when there is nothing to write."""

    def add(self, record: Any, meta: Meta) -> None:
        """Take a record into the batch, without I/O; raises CodecError for one that the target cannot hold."""

    def skip(self, meta: Meta) -> None:  # noqa: ARG002
        """This place is done too, and nothing of it belongs in the batch."""
        return  # most stores have no position to note it in

    def flush(self) -> Collection[Place]:
        """Write the batch, so that it would survive our death, and start another; also called with an empty one.

        Returns the places whose records the store turns out to have lost after it had confirmed them: `assigned` will
        be asked again where it stands now.
        Raises StoreUnavailableError: the batch is kept, and written at the next call.
        """

    def assigned(self, places: Sequence[Place]) -> Mapping[Place, int]:  # noqa: ARG002 - for those that have one
        """These places, and no others, are ours now; returns where the store's own position in each of them is.

        A place that is not returned goes on at the group's committed offset: right for every store that keeps what
        it has confirmed. Raises StoreUnavailableError.
        """
        return {}

    def handled(self, taken: Mapping[Place, int]) -> Mapping[Place, int]:
        """After a flush: up to which offset each place is done, and may be committed, of what was taken up to `taken`.

        All of it, unless the sink goes on writing after `flush` has returned.
        """
        return taken

    def busy(self) -> Collection[Place]:
        """Places of which no more should be read for now; asked after each flush."""
        return ()

    def drain(self) -> None:
        """Finish soon what is under way and begin nothing, until `assigned` is called: the places become another's."""
        return  # most sinks have nothing under way between two flushes

    def close(self) -> None:
        """Let go of the target."""


@dataclass(slots=True)
class Counts:
    """What a run did, for logs and tests."""

    taken: int = 0
    repeated: int = 0
    dead_letters: int = 0
    flushes: int = 0
    outages: int = 0
    rewinds: int = 0


class SinkRunner(Observed):
    """One sink on its topics. `run` blocks until `stop` is called, from a signal handler or another thread."""

    def __init__(
        self,
        sink: Sink,
        *,
        bootstrap: str,
        name: str,
        prefix: str = "",
        batch_max: int = 500,
        linger_ms: int = 50,
        retry_ms_max: int = 2000,
    ) -> None:
        """`name` ends the consumer group's (`proxima-sink-NAME`): sinks of one name share the work on one store."""
        self.counts = Counts()
        self._gauges = Gauges(name)
        self._sink, self._name, self._bootstrap = sink, name, bootstrap
        self._batch_max, self._linger_s = batch_max, linger_ms / 1000
        # One flush that fails is proof enough: it is tried again with the same records, and soon.
        limits = Limits(failures=1, open_s=RETRY_MS_MIN / 1000, growth=2, open_s_max=retry_ms_max / 1000, answer_s=3600)
        self._breaker = Breaker(f"the store of sink {name}", limits, clock=time.monotonic, on_change=self._changed)
        self._word = _word(State.CLOSED)  # about the breaker, in the commits' metadata
        self._topics = {named(prefix, topic): TOPICS[topic] for topic in sink.topics}
        self._group = f"{prefix}{sink.group}{name}"
        self._consumer: Any = Consumer(
            _settings(bootstrap, self._group) | {"on_commit": self._on_commit, "error_cb": self._on_trouble}
        )
        self._letters = DeadLetters(bootstrap, prefix)
        self._stop = threading.Event()
        self._waiting = 0  # records since the last flush
        self._waiting_since_s = 0.0
        self._worked_at_s = self._committed_at_s = 0.0
        self._in_trouble = self._is_away = False
        self._looked_at_s = 0.0
        self._refused = ""  # why the brokers do not let us in
        self._is_committing = False
        self._is_leaving = False
        self._down_since_s: float | None = None
        self._owned: set[Place] = set()
        self._was_assigned = False
        self._unplaced: set[Place] = set()  # of these: the store has yet to say where it stands
        self._next: dict[Place, int] = {}  # offset after the last record taken
        self._flushed: dict[Place, int] = {}  # ... that the store has
        self._committed: dict[Place, tuple[int, str]] = {}  # ... and what was said with it
        self._committing = self._word
        self._sequences: dict[Place, dict[str, tuple[int, int]]] = {}
        self._held: set[Place] = set()  # paused because the sink has enough of them
        self.observe()

    def stop(self) -> None:
        """Flush, commit and leave the group, soon."""
        self._stop.set()

    def figures(self) -> Iterator[Metric]:
        """What it took, wrote and waits for."""
        is_up = self._down_since_s is None and self._breaker.state is State.CLOSED
        yield from self._gauges.figures(self.counts, is_up=is_up, waiting=self._waiting)

    def stuck(self) -> str:
        """The loop's."""
        return self._gauges.pulse.stuck()

    def unready(self) -> str:
        """No place in the group yet, or the store is away."""
        if self._refused:
            return f"Kafka refuses us: {self._refused}"
        if not self._was_assigned:
            return f"sink {self._name} has no place in its group yet"
        if self._down_since_s is not None:
            return f"the store of sink {self._name} is away: {self._breaker.status().reason}"
        return "Kafka does not answer" if self._is_away else ""

    def _look_around(self) -> None:
        """For those who look at us, and in this thread: another would wait for the client until a poll of ours is over.

        How far the store is behind, as far as the last fetches know; and whether a broker that was away is back.
        """
        now_s = time.monotonic()
        if now_s < self._looked_at_s + LOOK_EVERY_S:
            return
        self._looked_at_s = now_s
        ends = {
            place: self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True) for place in self._owned
        }
        done = {**self._next, **self._flushed}
        self._gauges.lag = sum(max(0, ends[p][1] - done[p]) for p in ends.keys() & done.keys() if ends[p] is not None)
        if self._is_away:
            with suppress(KafkaException):
                self._consumer.list_topics(next(iter(self._topics)), timeout=LOOK_TIMEOUT_S)
                self._is_away = False

    @property
    def breaker(self) -> Breaker:
        """Around the store; to be looked at."""
        return self._breaker

    def run(self) -> Counts:
        """Consume until stopped. Raises KafkaUnavailableError: refused, a right is missing, or the client gave up."""
        self._consumer.subscribe(
            list(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        try:
            while not self._stop.is_set():
                self._gauges.pulse.beat()
                more = self._take(self._consumer.poll(self._wait_s()))
                if self._refused and not self._was_assigned:  # later it may be a broker's own mistake, and pass
                    raise refused(self._refused, self._bootstrap)
                if self._is_due(more=more):
                    self._work()
                self._commit_sometimes()
                self._look_around()
        finally:
            self._leave()
            self._sink.close()
            self.unobserve()
        return self.counts

    def _leave(self) -> None:
        """Write and commit what there is, and leave the group, so that others go on at once."""
        self._sink.drain()
        self._flush(self._breaker.ask())
        self._is_leaving = True

        def leave() -> None:
            self._commit(wait=True)
            self._consumer.close()

        # While no broker answers librdkafka waits here for ever, and somebody wants this process to end.
        leaving = threading.Thread(target=leave, name=f"sink {self._name} leaves", daemon=True)
        leaving.start()
        leaving.join(LEAVE_TIMEOUT_S)
        if leaving.is_alive():
            log.warning("Kafka does not answer: what is not committed will be read again")

    # -- what comes in

    def _take(self, message: Any) -> bool:
        """Whether there was a record."""
        if message is None:
            return False
        if message.error() is not None:
            self._fault(message.error(), message.topic())
            return False
        self._in_trouble = self._is_away = False
        value: bytes | None = message.value()
        meta = Meta(
            message.topic(), message.partition(), message.offset(), message.timestamp()[1], message.key(), value or b""
        )
        if not self._waiting:
            self._waiting_since_s = time.monotonic()
        self._waiting += 1
        self.counts.taken += 1
        self._gauges.newest_ms = max(self._gauges.newest_ms, meta.appended_at_ms)
        if not self._is_added(value, meta):
            self._sink.skip(meta)
        self._next[meta.place] = meta.offset + 1
        return True

    def _is_added(self, value: bytes | None, meta: Meta) -> bool:
        if value is None:  # a tombstone: Kafka's compaction is told to forget
            return False
        topic = self._topics[meta.topic]
        try:
            record: Record = (read if topic.takes_json else decode)(value, *topic.records)
            if isinstance(record, FailoverRanking) and self._was_handled(record, meta.place):
                self.counts.repeated += 1
                return False
            self._sink.add(record, meta)
        except CodecError as error:
            self._bury(value, meta, error)
            return False
        return True

    def _was_handled(self, ranking: FailoverRanking, place: Place) -> bool:
        """Whether a ranking of the primary with this sequence or a higher one came before: a subscriber drops it."""
        seen = self._sequences.setdefault(place, {})
        sequence, decided_at_ms = seen.get(ranking.primary_region, (0, 0))
        if ranking.sequence > sequence:
            seen[ranking.primary_region] = ranking.sequence, ranking.decided_at_ms
            return False
        if ranking.decided_at_ms > decided_at_ms:
            log.warning("%s: a later decision has sequence %d, after %d: numbers went back, it is dropped",
                        ranking.primary_region, ranking.sequence, sequence)  # fmt: skip
            seen[ranking.primary_region] = sequence, ranking.decided_at_ms
        return True

    def _bury(self, value: bytes, meta: Meta, error: CodecError) -> None:
        self.counts.dead_letters += 1
        log.warning("dead letter: %s, partition %d, offset %d: %s", meta.topic, meta.partition, meta.offset, error.what)
        original, key, detail = kept(value, meta.key, error.what)
        self._letters.send(
            DeadLetter(
                reason=error.reason,
                detail=detail,
                source_topic=meta.topic,
                source_partition=meta.partition,
                source_offset=meta.offset,
                appended_at_ms=meta.appended_at_ms,
                found_by=self._name,
                original=original,
                original_key=key,
            )
        )

    def _fault(self, error: Any, topic: str | None) -> None:
        if error.code() in _NO_RIGHT:
            group = Grant("GROUP", self._group, "READ")
            its = [Grant("TOPIC", name, "READ") for name in ([topic] if topic else self._topics)]
            raise forbidden([group] if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED else its, self._bootstrap)
        if error.fatal():
            raise KafkaUnavailableError(error.str(), where=self._bootstrap, do="start again")
        self._on_trouble(error)

    def _on_trouble(self, error: Any) -> None:
        """What librdkafka meets and goes on from by itself: said once, until a record comes again."""
        if is_refusal(error):
            self._refused = error.str()
        if not self._in_trouble:
            log.warning("Kafka at %s: %s", self._bootstrap, error.str())
        self._in_trouble = self._is_away = True

    # -- what goes out

    def _wait_s(self) -> float:
        """How long polling may block: not at all while a batch waits for more."""
        if self._down_since_s is not None:
            return min(self._breaker.status().probe_in_s, IDLE_POLL_S)
        return 0.0 if self._waiting else IDLE_POLL_S

    def _is_due(self, *, more: bool) -> bool:
        """Under load batches fill up by themselves while the store writes; without load nobody should wait for one."""
        now_s = time.monotonic()
        if self._down_since_s is not None:
            return self._breaker.state is not State.OPEN
        if self._waiting:
            return not more or self._waiting >= self._batch_max or now_s >= self._waiting_since_s + self._linger_s
        return bool(self._unplaced) or now_s >= self._worked_at_s + self._sink.check_every_s

    def _work(self) -> None:
        """One try at everything that may fail; afterwards the store has what was taken, or is known to be down."""
        permit = self._breaker.ask()
        if permit is not None and self._flush(permit) and self._unplaced:
            self._try_to_place()

    def _flush(self, permit: Permit | None) -> bool:
        """Whether the store has all that was taken; without a permit: the last chance, whatever the breaker says."""
        self._worked_at_s = time.monotonic()
        try:
            # In this order: a store that keeps its own position gives up the places of what it could not take.
            self._letters.confirm()
            with self._gauges.flush_seconds.time():
                lost = self._sink.flush()
        except (StoreUnavailableError, DeliveryError) as error:
            self._is_down(error, permit)
            return False
        self._is_up(permit)
        self._gauges.flushed += self._waiting
        self._waiting = 0
        self.counts.flushes += 1
        self._flushed.update(self._sink.handled(self._next))
        self._hold()
        for place in self._owned.intersection(lost):
            log.warning("%s, partition %d: the store has lost what it had confirmed; it is read again", *place)
            self.counts.rewinds += 1
            self._forget(place)
            self._unplaced.add(place)
        return True

    def _is_down(self, error: StoreUnavailableError | DeliveryError, permit: Permit | None) -> None:
        if permit is not None:
            permit.failed(str(error))
        if self._down_since_s is None:
            self._down_since_s = time.monotonic()
            self.counts.outages += 1
            log.error("%d records wait: %s", self._waiting, error)
        # Paused, not left alone: who does not poll loses the group membership, who polls gets more records.
        self._consumer.pause(self._consumer.assignment())

    def _is_up(self, permit: Permit | None) -> None:
        if permit is not None:
            permit.passed()
        else:
            self._breaker.reset()
        if self._down_since_s is not None:
            log.warning("the store is back after %.1f s", time.monotonic() - self._down_since_s)
            self._down_since_s = None
            self._consumer.resume(self._consumer.assignment())
            self._held.clear()

    def _hold(self) -> None:
        """Pause what the sink has enough of, and read on what it has room for again."""
        busy = self._owned.intersection(self._sink.busy())
        for places, turn in ((busy - self._held, self._consumer.pause), (self._held - busy, self._consumer.resume)):
            if ours := places & self._owned:
                turn([TopicPartition(*place) for place in ours])
        self._held = busy | (self._held - self._owned)

    def _changed(self, change: Change) -> None:
        """Of the breaker: said once when it opens and closes, for between it opens with every try."""
        if change.before is State.CLOSED or change.after is State.CLOSED:
            log.warning("%s: its breaker is %s", change.name, change.after)
            self._word = _word(change.after, change.reason)

    # -- where it reads

    def _try_to_place(self) -> bool:
        """Whether the store said where it stands."""
        permit = self._breaker.ask()
        if permit is None:
            return False
        try:
            self._place()
        except StoreUnavailableError as error:
            self._is_down(error, permit)
            return False
        permit.passed()
        return True

    def _place(self) -> None:
        """Read on where the store stands, else where we stand, else where the group does."""
        stands = self._sink.assigned(sorted(self._owned))
        # What the store has is committed too: a rebalance may come between a flush and its commit.
        self._flushed.update((place, offset) for place, offset in stands.items() if offset > 0)
        self._consumer.assign([_at(place, stands.get(place, self._next.get(place))) for place in sorted(self._owned)])
        self._unplaced.clear()

    def _on_assign(self, _consumer: Any, partitions: Sequence[Any]) -> None:
        # The assignor is an eager one: what it gives is everything that we have.
        self._owned, self._was_assigned = {(p.topic, p.partition) for p in partitions}, True
        self._unplaced = set(self._owned)
        self._worked_at_s = time.monotonic()
        if not self._try_to_place():
            self._consumer.assign(partitions)
            self._consumer.pause(partitions)

    def _on_revoke(self, _consumer: Any, partitions: Sequence[Any]) -> None:
        if self._is_leaving:
            return  # everything is done, and maybe too late to be done again
        self._sink.drain()
        if self._flush(self._breaker.ask()):
            self._commit(wait=True)
        self._on_lost(_consumer, partitions)

    def _on_lost(self, _consumer: Any, _partitions: Sequence[Any]) -> None:
        self._sink.drain()
        for place in self._owned:
            self._forget(place)
        self._owned, self._unplaced, self._is_committing = set(), set(), False

    def _forget(self, place: Place) -> None:
        for known in (self._next, self._flushed, self._committed, self._sequences):
            known.pop(place, None)

    def _commit_sometimes(self) -> None:
        """Not after every flush: at a low rate that is every record, and each costs the group's coordinator a write."""
        now_s = time.monotonic()
        if now_s >= self._committed_at_s + COMMIT_EVERY_S and not self._is_committing:
            self._committed_at_s = now_s
            self._commit(wait=False)

    def _commit(self, *, wait: bool) -> None:
        """Commit what the store has; a commit that fails is made good by the next."""
        self._committing = self._word
        offsets = [
            TopicPartition(*place, offset, self._word)
            for place, offset in self._flushed.items()
            if self._committed.get(place) != (offset, self._word)
        ]
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=not wait)
        except KafkaException as error:
            log.info("not committed: %s", error.args[0].str())
        else:
            self._is_committing = not wait

    def _on_commit(self, error: Any, offsets: Sequence[Any]) -> None:
        self._is_committing = False
        if error is not None:
            log.info("not committed: %s", error.str())
            return
        for done in offsets:
            place = done.topic, done.partition
            if done.error is None and place in self._flushed:
                self._committed[place] = done.offset, self._committing


def _word(state: State, reason: str = "") -> str:
    """A breaker's state, as a commit's metadata (4,096 bytes at most)."""
    said = {"breaker": state.value, "since_ms": time.time_ns() // 1_000_000, "reason": reason[:300]}
    return json.dumps(said)


def _at(place: Place, offset: int | None) -> Any:
    """A place to read from: None is where the group stands, 0 whatever is the oldest that is kept."""
    if offset is None:
        return TopicPartition(*place, OFFSET_INVALID)
    return TopicPartition(*place, offset if offset > 0 else OFFSET_BEGINNING)


def _settings(bootstrap: str, group: str) -> dict[str, Any]:
    return {
        **client_settings(bootstrap),
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "partition.assignment.strategy": "range",
        # After a kill -9 another instance goes on so soon.
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 1_500,
        # By default it would look for a returned broker every ten seconds only.
        "reconnect.backoff.max.ms": 1_000,
        # librdkafka waits a second by default before it fetches on when its queue was full.
        "fetch.queue.backoff.ms": 5,
        # It would say twenty times a second that nobody answers; `_on_trouble` says it once.
        "log_level": 0,
    }
