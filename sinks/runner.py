"""The consumer loop that every sink runs in.

    poll -> decode -> drop what was handled -> Sink.add -> (nothing more comes, or enough) Sink.flush -> commit

An offset is committed only after the flush that covers it, so whatever dies, nothing is lost; a record may come again,
and a sink must not mind. While the store is down the batch is kept, the partitions are paused, and the loop goes on
polling, so the group membership lives and memory stays bounded.

Some stores forget what they had confirmed: a Redis killed with `kill -9` comes back without its last second, or
empty. So a store may keep its own position beside the data (`Sink.assigned`), and then that is where reading
goes on, however far the group's committed offset is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from prometheus_client.core import Metric

from schemas.breaker import Breaker, Permit
from schemas.connection import refused
from schemas.errors import DeliveryError, StoreUnavailableError
from schemas.observed import Observed
from schemas.topics import TOPICS, named
from sinks.availability import Availability
from sinks.brokers import Brokers, consumer_settings
from sinks.dead_letters import DeadLetters
from sinks.gauges import Counts, Gauges
from sinks.offsets import Offsets
from sinks.reading import Reading
from sinks.sink import Meta, Place, Sink

log = logging.getLogger(__name__)

IDLE_POLL_S: Final = 0.1  # how soon SIGTERM is noticed when nothing comes
LOOK_EVERY_S: Final = 1.0
LOOK_TIMEOUT_S: Final = 0.2
LEAVE_TIMEOUT_S: Final = 10.0


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
        self._store = Availability(name, retry_ms_max)
        topics = {named(prefix, topic): TOPICS[topic] for topic in sink.topics}
        self._topics, group = list(topics), f"{prefix}{sink.group}{name}"
        self._brokers = Brokers(bootstrap, group, self._topics)
        self._offsets = Offsets()
        self._letters = DeadLetters(bootstrap, prefix)
        self._reading = Reading(sink, name, topics, self._letters, self.counts)
        self._consumer: Any = Consumer(
            consumer_settings(bootstrap, group)
            | {"on_commit": self._offsets.on_commit, "error_cb": self._brokers.on_trouble}
        )
        self._stop = threading.Event()
        self._waiting = 0  # records since the last flush
        self._waiting_since_s = 0.0
        self._worked_at_s = self._looked_at_s = 0.0
        self._is_leaving = self._was_assigned = False
        self._held: set[Place] = set()  # paused because the sink has enough of them
        self.observe()

    def stop(self) -> None:
        """Flush, commit and leave the group, soon."""
        self._stop.set()

    def figures(self) -> Iterator[Metric]:
        """What it took, wrote and waits for."""
        yield from self._gauges.figures(self.counts, is_up=self._store.is_up, waiting=self._waiting)

    def stuck(self) -> str:
        """The loop's."""
        return self._gauges.pulse.stuck()

    def unready(self) -> str:
        """No place in the group yet, or the store is away."""
        if self._brokers.refused:
            return f"Kafka refuses us: {self._brokers.refused}"
        if not self._was_assigned:
            return f"sink {self._name} has no place in its group yet"
        if self._store.is_down:
            return f"the store of sink {self._name} is away: {self._store.breaker.status().reason}"
        return "Kafka does not answer" if self._brokers.is_away else ""

    def _look_around(self) -> None:
        """For those who look at us, and in this thread: another would wait for the client until a poll of ours is over.

        How far the store is behind, as far as the last fetches know; and whether a broker that was away is back.
        """
        now_s = time.monotonic()
        if now_s < self._looked_at_s + LOOK_EVERY_S:
            return
        self._looked_at_s = now_s
        self._gauges.lag = self._offsets.behind(
            {
                place: self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
                for place in self._offsets.owned
            }
        )
        if self._brokers.is_away:
            with suppress(KafkaException):
                self._consumer.list_topics(self._topics[0], timeout=LOOK_TIMEOUT_S)
                self._brokers.is_away = False

    @property
    def breaker(self) -> Breaker:
        """Around the store; to be looked at."""
        return self._store.breaker

    def run(self) -> Counts:
        """Consume until stopped. Raises KafkaUnavailableError: refused, a right is missing, or the client gave up."""
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        try:
            while not self._stop.is_set():
                self._gauges.pulse.beat()
                more = self._take(self._consumer.poll(self._wait_s()))
                if self._brokers.refused and not self._was_assigned:  # later it may be a broker's own mistake, and pass
                    raise refused(self._brokers.refused, self._bootstrap)
                if self._is_due(more=more):
                    self._work()
                self._offsets.commit_sometimes(self._consumer, self._store.word)
                self._look_around()
        finally:
            self._leave()
            self._sink.close()
            self.unobserve()
        return self.counts

    def _leave(self) -> None:
        """Write and commit what there is, and leave the group, so that others go on at once."""
        self._sink.drain()
        self._flush(self._store.breaker.ask())
        self._is_leaving = True

        def leave() -> None:
            self._offsets.commit(self._consumer, self._store.word, wait=True)
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
            self._brokers.fault(message.error(), message.topic())
            return False
        self._brokers.answered()
        value: bytes | None = message.value()
        meta = Meta(
            message.topic(), message.partition(), message.offset(), message.timestamp()[1], message.key(), value or b""
        )
        if not self._waiting:
            self._waiting_since_s = time.monotonic()
        self._waiting += 1
        self.counts.taken += 1
        self._gauges.newest_ms = max(self._gauges.newest_ms, meta.appended_at_ms)
        self._reading.take(value, meta)
        self._offsets.taken[meta.place] = meta.offset + 1
        return True

    # -- what goes out

    def _wait_s(self) -> float:
        """How long polling may block: not at all while a batch waits for more."""
        if self._store.is_down:
            return min(self._store.breaker.status().probe_in_s, IDLE_POLL_S)
        return 0.0 if self._waiting else IDLE_POLL_S

    def _is_due(self, *, more: bool) -> bool:
        """Under load batches fill up by themselves while the store writes; without load nobody should wait for one."""
        now_s = time.monotonic()
        if self._store.is_down:
            return self._store.may_be_asked
        if self._waiting:
            return not more or self._waiting >= self._batch_max or now_s >= self._waiting_since_s + self._linger_s
        return bool(self._offsets.unplaced) or now_s >= self._worked_at_s + self._sink.check_every_s

    def _work(self) -> None:
        """One try at everything that may fail; afterwards the store has what was taken, or is known to be down."""
        permit = self._store.breaker.ask()
        if permit is not None and self._flush(permit) and self._offsets.unplaced:
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
        self._offsets.flushed.update(self._sink.handled(self._offsets.taken))
        self._hold()
        for place in self._offsets.owned.intersection(lost):
            log.warning("%s, partition %d: the store has lost what it had confirmed; it is read again", *place)
            self.counts.rewinds += 1
            self._reading.forget([place])
            self._offsets.rewound(place)
        return True

    def _is_down(self, error: StoreUnavailableError | DeliveryError, permit: Permit | None) -> None:
        if self._store.failed(error, permit, self._waiting):
            self.counts.outages += 1
        # Paused, not left alone: who does not poll loses the group membership, who polls gets more records.
        self._consumer.pause(self._consumer.assignment())

    def _is_up(self, permit: Permit | None) -> None:
        if self._store.passed(permit):
            self._consumer.resume(self._consumer.assignment())
            self._held.clear()

    def _hold(self) -> None:
        """Pause what the sink has enough of, and read on what it has room for again."""
        owned = self._offsets.owned
        busy = owned.intersection(self._sink.busy())
        for places, turn in ((busy - self._held, self._consumer.pause), (self._held - busy, self._consumer.resume)):
            if ours := places & owned:
                turn([TopicPartition(*place) for place in ours])
        self._held = busy | (self._held - owned)

    # -- where it reads

    def _try_to_place(self) -> bool:
        """Whether the store said where it stands."""
        permit = self._store.breaker.ask()
        if permit is None:
            return False
        try:
            stands = self._sink.assigned(sorted(self._offsets.owned))
        except StoreUnavailableError as error:
            self._is_down(error, permit)
            return False
        self._consumer.assign(self._offsets.placed(stands))
        permit.passed()
        return True

    def _on_assign(self, _consumer: Any, partitions: Sequence[Any]) -> None:
        # The assignor is an eager one: what it gives is everything that we have.
        self._offsets.assigned((p.topic, p.partition) for p in partitions)
        self._was_assigned = True
        self._worked_at_s = time.monotonic()
        if not self._try_to_place():
            self._consumer.assign(partitions)
            self._consumer.pause(partitions)

    def _on_revoke(self, _consumer: Any, partitions: Sequence[Any]) -> None:
        if self._is_leaving:
            return  # everything is done, and maybe too late to be done again
        self._sink.drain()
        if self._flush(self._store.breaker.ask()):
            self._offsets.commit(self._consumer, self._store.word, wait=True)
        self._on_lost(_consumer, partitions)

    def _on_lost(self, _consumer: Any, _partitions: Sequence[Any]) -> None:
        self._sink.drain()
        self._reading.forget(self._offsets.owned)
        self._offsets.lost()
