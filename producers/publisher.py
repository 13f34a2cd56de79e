"""Records onto Kafka: nothing lost that matters, and no probe loop held up by a broker that is away.

Two kinds of records, two promises:

* **Measurements** (`probe-samples`) age by the second. They wait in a bounded queue of ours; when it is full the
  oldest go, counted. Publishing one never blocks.
* **Everything else** is never dropped: publishing blocks while there is no room, up to a deadline, and raises then.

librdkafka has a queue of its own, which knows no drop-oldest: it refuses the newest, and gives up on records after
`delivery.timeout.ms`, whatever they are. So it may hold only a few measurements at a time (`IN_FLIGHT_MAX`, enough
to fill the wire), the backlog stands in our queue, and it never gives up by itself (timeout 0, endless): what was
accepted stays accepted until the broker has it, or this process ends. Those few are the oldest, and stay first in
line after an outage; idempotence keeps order and removes doubles across reconnects.

Whoever has somebody waiting for an answer uses `send`: it never blocks, and says of these records alone whether the
broker has confirmed them. With `delivery_timeout_s` they are given up after so long, and their sender knows.

A thread polls librdkafka: confirmations arrive, and the queue moves on, also while nobody publishes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from prometheus_client.core import Metric

from schemas.codec import encode
from schemas.connection import client_settings, denial, forbidden, is_refusal, refused
from schemas.errors import DeliveryError, ProximaError
from schemas.observed import Observed, counter, gauge
from schemas.records import Record
from schemas.rights import Grant
from schemas.topics import JOURNAL_BYTES_MAX, named
from schemas.wire import framed

log = logging.getLogger(__name__)

DROPPABLE_TOPIC: Final = "probe-samples"
IN_FLIGHT_MAX: Final = 256
# An hour of one agent; a batch of 600 samples has 10 kB, so bytes bound the larger ones.
QUEUE_BATCHES_MAX: Final = 3600
QUEUE_BYTES_MAX: Final = 64 << 20
LINGER_MS: Final = 5
_POLL_S: Final = 0.1
_SILENT_S: Final = 15.0  # records wait, and the broker has confirmed none for so long: it is away
_GIVEN_UP: Final = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)


@dataclass(frozen=True, slots=True)
class Stats:
    """Records since the start, and those under way now."""

    delivered: int = 0
    failed: int = 0
    dropped: int = 0
    queued: int = 0
    in_flight: int = 0


class _Waiting(NamedTuple):
    topic: str
    key: bytes
    value: bytes


class _Batch:
    """Records that are confirmed together; `done` is set by whichever thread polls librdkafka then."""

    def __init__(self, count: int, topic: str) -> None:
        self.topic, self.done = topic, Future[None]()
        self.done.set_running_or_notify_cancel()  # nobody can cancel it: records cannot be called back
        self._lock = threading.Lock()
        self._left = count
        self._refused = ""

    def answered(self, refused: str) -> None:
        """One of them is confirmed, or never will be, and why."""
        with self._lock:
            self._left -= 1
            if refused:
                self._refused = refused
            if self._left:
                return
        if self._refused:
            self.done.set_exception(
                DeliveryError(f"the broker did not take a record: {self._refused}", where=self.topic)
            )
        else:
            self.done.set_result(None)


class Publisher(Observed):
    """A producer of records; threads may share it. Leaving its context flushes."""

    def __init__(
        self,
        bootstrap: str,
        *,
        client_id: str,
        topic_prefix: str = "",
        queue_batches_max: int = QUEUE_BATCHES_MAX,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
        compression: str = "lz4",
        publish_timeout_s: float = 30.0,
        flush_timeout_s: float = 10.0,
        delivery_timeout_s: float = 0.0,
        in_flight_max: int = 8 * IN_FLIGHT_MAX,
    ) -> None:
        """`delivery_timeout_s` 0: no record is ever given up. `in_flight_max` records may be under way."""
        self._bootstrap, self._prefix = bootstrap, topic_prefix
        self._batches_max, self._bytes_max = queue_batches_max, queue_bytes_max
        self._publish_timeout_s, self._flush_timeout_s = publish_timeout_s, flush_timeout_s
        self._lock = threading.Lock()
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._delivered = self._failed = self._dropped = 0
        self._idle_at_s = time.monotonic()  # when the broker last confirmed one, or none was waiting
        self._droppable_in_flight = self._others_in_flight = 0
        self._refused: list[tuple[str, str]] = []
        self._warned: set[int] = set()
        self._in_trouble = False
        self._fatal: ProximaError | None = None
        self._closed = threading.Event()
        self._producer = Producer(
            {
                **client_settings(bootstrap),
                "client.id": client_id,
                "enable.idempotence": True,
                "acks": "all",
                # Java's partitioner: librdkafka's own sends two thirds of the keys elsewhere.
                "partitioner": "murmur2_random",
                "linger.ms": LINGER_MS,
                "compression.type": compression,
                # The largest record that any topic takes, and its key and headers.
                "message.max.bytes": JOURNAL_BYTES_MAX + (128 << 10),
                "queue.buffering.max.messages": in_flight_max,
                "queue.buffering.max.kbytes": 128 << 10,
                "delivery.timeout.ms": round(delivery_timeout_s * 1000),
                # Half a minute of back-off would be half a minute of silence after the broker's return.
                "reconnect.backoff.max.ms": 2000,
                # It would say at each attempt that nobody answers; `_trouble` says it once.
                "log_level": 0,
                "error_cb": self._trouble,
            }
        )
        self._thread = threading.Thread(target=self._serve, name=f"publisher {client_id}", daemon=True)
        self._thread.start()
        self.observe()

    def publish(self, topic: str, key: str, record: Record, *, droppable: bool | None = None) -> None:
        """Send a record to a topic of the table; `droppable` unless said: what goes to probe-samples.

        Raises DeliveryError: an earlier record that must not be dropped was refused, there was no room for this one
        within the publish timeout, or this producer can send no more at all.
        """
        value = encode(record)
        if topic == DROPPABLE_TOPIC if droppable is None else droppable:
            self._raise_fatal()
            self._offer(_Waiting(named(self._prefix, topic), key.encode(), value))
        else:
            self.publish_raw(topic, key.encode(), value)

    def publish_raw(self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None) -> None:
        """Send a value, never dropped, to the key's partition or the one given; raises as `publish` does."""
        target = named(self._prefix, topic)
        deadline = time.monotonic() + self._publish_timeout_s
        while True:
            with self._lock:
                self._raise_fatal()
                self._raise_refused()
                if self._hand_over(target, key, value, self._confirmed, partition):
                    self._others_in_flight += 1
                    return
            if time.monotonic() >= deadline:
                what = f"no room for another record within {self._publish_timeout_s:g} s"
                raise DeliveryError(what, where=f"{target} at {self._bootstrap}", do="is the broker reachable?")
            self._calls(self._producer.poll, _POLL_S)

    def send(self, topic: str, records: Sequence[tuple[str, Record]]) -> Future[None]:
        """Send records, each with its key, without waiting; done when the broker has confirmed every one of them.

        Fails with DeliveryError when one was refused or given up; then others of them may have arrived. Raises
        DeliveryError: there is no room now, or this producer can send no more at all.
        """
        encoded = [(key.encode(), encode(record)) for key, record in records]
        batch = _Batch(len(encoded), named(self._prefix, topic))
        for key, value in encoded:
            with self._lock:
                self._raise_fatal()
                taken = self._hand_over(batch.topic, key, value, lambda e, _m: self._batch_confirmed(batch, e))
                self._others_in_flight += taken
            if not taken:  # the batch is never done then; its sender knows
                raise DeliveryError("no room for another record now", where=batch.topic, do="is the broker reachable?")
        if not encoded:
            batch.done.set_result(None)
        return batch.done

    def reaches(self, topic: str, timeout_s: float) -> bool:
        """Whether a broker answers within so long, and has this topic of the table."""
        name = named(self._prefix, topic)
        try:
            found = self._producer.list_topics(name, timeout=timeout_s).topics[name]
        except KafkaException:
            return False
        return found.error is None and self._fatal is None

    @property
    def refusal(self) -> ProximaError | None:
        """Why this producer can send no more at all, now or later; None: it can."""
        return self._fatal

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until the broker has confirmed everything.

        Raises DeliveryError: a record that must not be dropped was refused, or something is unconfirmed after
        `timeout_s`; what is unconfirmed stays on its way.
        """
        timeout_s = self._flush_timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        while True:
            with self._lock:
                self._raise_refused()
                measurements = len(self._queue) + self._droppable_in_flight
                others = self._others_in_flight
            if not measurements and not others:
                return
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                what = f"{measurements} measurements and {others} other records unconfirmed after {timeout_s:g} s"
                raise DeliveryError(what, where=self._bootstrap, do="is the broker reachable?")
            # librdkafka's flush, and not poll: it also sends at once what lingers.
            if not self._calls(self._producer.flush, min(_POLL_S, left_s)):
                self._raise_fatal()
            self._move_on()

    @property
    def stats(self) -> Stats:
        with self._lock:
            in_flight = self._droppable_in_flight + self._others_in_flight
            return Stats(self._delivered, self._failed, self._dropped, len(self._queue), in_flight)

    def figures(self) -> Iterator[Metric]:
        """Records by what became of them, and those that wait."""
        stats = self.stats
        outcomes = {("delivered",): stats.delivered, ("failed",): stats.failed, ("dropped",): stats.dropped}
        yield counter("proxima_publisher_records", "Records by what became of them.", outcomes, "outcome")
        yield gauge("proxima_publisher_queued_records", "Measurements that wait in our own queue.", stats.queued)
        yield gauge("proxima_publisher_queued_bytes", "The same in bytes.", self._queued_bytes)
        yield gauge("proxima_publisher_unconfirmed_records", "Handed over, not confirmed yet.", stats.in_flight)

    def unready(self) -> str:
        """The broker is away, or refuses us."""
        with self._lock:
            if self._fatal is not None:
                return str(self._fatal)
            waiting = len(self._queue) + self._droppable_in_flight + self._others_in_flight
            silent_s = time.monotonic() - self._idle_at_s
        if waiting and silent_s > _SILENT_S:
            return f"Kafka has confirmed nothing for {silent_s:.0f} s, and {waiting} records wait"
        if waiting and not self._delivered:
            return "Kafka has not confirmed anything yet"
        return ""

    def close(self) -> None:
        """Let go of the broker at once; what is unconfirmed is lost. Closing twice is fine."""
        self.unobserve()
        self._closed.set()
        self._thread.join()
        self._producer.purge()
        self._producer.poll(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.flush()
        except DeliveryError as unconfirmed:
            if error is None:
                raise
            # The first error says more than what follows from it.
            log.error("%s", unconfirmed)
        finally:
            self.close()

    def _offer(self, waiting: _Waiting) -> None:
        with self._lock:
            self._queue.append(waiting)
            self._queued_bytes += len(waiting.value)
        self._move_on()
        with self._lock:
            while len(self._queue) > self._batches_max or self._queued_bytes > self._bytes_max:
                self._queued_bytes -= len(self._queue.popleft().value)
                if not self._dropped:
                    log.warning("%s: the queue is full, the oldest measurements are dropped", self._bootstrap)
                self._dropped += 1

    def _move_on(self) -> None:
        """Hand librdkafka the oldest of the queue, as many as it may hold."""
        with self._lock:
            while self._queue and self._droppable_in_flight < IN_FLIGHT_MAX:
                oldest = self._queue[0]
                try:
                    if not self._hand_over(oldest.topic, oldest.key, oldest.value, self._measurement_confirmed):
                        return
                except DeliveryError as error:
                    self._count_failure("measurements", error.what, -1)
                else:
                    self._droppable_in_flight += 1
                self._queue.popleft()
                self._queued_bytes -= len(oldest.value)

    def _hand_over(
        self, topic: str, key: bytes | None, value: bytes | None, confirmed: Any, partition: int | None = None
    ) -> bool:
        """Whether librdkafka took the record; False: it has no room. Raises DeliveryError when it never will."""
        where = {} if partition is None else {"partition": partition}
        try:
            sent = None if value is None else framed(value)
            self._producer.produce(topic, key=key, value=sent, on_delivery=confirmed, **where)
        except BufferError:
            return False
        except KafkaException as error:
            raise DeliveryError(error.args[0].str(), where=topic) from error
        return True

    def _serve(self) -> None:
        while not self._closed.is_set():
            if not self._calls(self._producer.poll, _POLL_S):
                return
            self._move_on()
            if not (self._queue or self._droppable_in_flight or self._others_in_flight):
                self._idle_at_s = time.monotonic()

    def _calls(self, wait: Callable[[float], Any], timeout_s: float) -> bool:
        """Let librdkafka call us back; false: it can send nothing more, which it may say by raising."""
        try:
            wait(timeout_s)
        except KafkaException as error:
            self._trouble(error.args[0])
            return False
        return True

    def _trouble(self, error: KafkaError) -> None:
        """What librdkafka meets and goes on from, once until something is delivered again."""
        with self._lock:
            if error.code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED:  # who may write nothing gets no producer's id
                self._fatal = forbidden([Grant("TOPIC", "any topic", "WRITE")], self._bootstrap)
            elif error.fatal():
                self._fatal = DeliveryError(
                    f"nothing more can be sent: {error.str()}", where=self._bootstrap, do="start again"
                )
            elif is_refusal(error) and not self._delivered:  # later it may be a broker's own mistake, and pass
                self._fatal = refused(error.str(), self._bootstrap)
            first, self._in_trouble = not self._in_trouble, True
        if first:
            log.warning("Kafka at %s: %s", self._bootstrap, error.str())

    def _count_delivery(self) -> None:
        self._delivered += 1
        self._idle_at_s = time.monotonic()
        if self._in_trouble:
            self._in_trouble = False
            log.info("Kafka at %s takes records again", self._bootstrap)

    def _confirmed(self, error: KafkaError | None, message: Message) -> None:
        with self._lock:
            self._others_in_flight -= 1
            if error is None:
                self._count_delivery()
            elif error.code() not in _GIVEN_UP:
                self._failed += 1
                what, do = _why(error, message.topic())
                self._refused.append((f"{what} ({message.topic()}, key {message.key()!r})", do))

    def _batch_confirmed(self, batch: _Batch, error: KafkaError | None) -> None:
        why = "" if error is None else ": ".join(filter(None, _why(error, batch.topic)))
        with self._lock:
            self._others_in_flight -= 1
            if error is None:
                self._count_delivery()
            else:
                self._count_failure("records", why, error.code())
        batch.answered(why)

    def _measurement_confirmed(self, error: KafkaError | None, message: Message) -> None:
        with self._lock:
            self._droppable_in_flight -= 1
            if error is None:
                self._count_delivery()
            elif error.code() not in _GIVEN_UP:
                why = ": ".join(filter(None, _why(error, message.topic())))
                self._count_failure("measurements", f"{why} ({message.topic()})", error.code())

    def _count_failure(self, kind: str, why: str, code: int) -> None:
        """One that cannot be delivered; said once a reason, for there may be hundreds a second."""
        self._failed += 1
        if code not in self._warned:
            self._warned.add(code)
            log.warning("%s are refused: %s", kind, why)

    def _raise_fatal(self) -> None:
        """What no patience mends: a refusal, or that the broker lost what it had confirmed. Only a new one goes on."""
        if self._fatal is not None:
            raise self._fatal

    def _raise_refused(self) -> None:
        if self._refused:
            refused, self._refused = self._refused, []
            more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
            what, do = refused[0]
            raise DeliveryError(f"the broker refused a record: {what}{more}", where=self._bootstrap, do=do)


def _why(error: KafkaError, topic: str | None) -> tuple[str, str]:
    """Why a record was refused, and what to do about it."""
    if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED and topic is not None:
        return denial([Grant("TOPIC", topic, "WRITE")])
    return error.str(), ""
