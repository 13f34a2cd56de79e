"""Faust and aiokafka, and everything that they do wrong; the only importer of both.

Faust runs the stage: group membership, rebalances, fetching, signals. It keeps none of the books, because it was seen
to lose records when tables recover, to commit past what was not acknowledged, and to duplicate in exactly_once mode:

* no tables, no Faust acknowledgements: topics are declared `acks=False`, the stage says what to commit, and it is
  committed on Faust's consumer thread as exactly that offset;
* idempotent producer with acks=all, which Faust sets only in exactly_once mode;
* a send that fails ends the process at once (`os._exit`): nothing may follow a lost record;
* an exception in an agent would leave a living worker that consumes nothing: it ends the process instead;
* each message is delivered by four tasks that race each other: while there is room and no rebalance, one call does;
* reading back (snapshots, offsets that Faust skipped) goes through a plain consumer of ours: `seek` in Faust loses
  records.

Pinned exactly to the versions in pyproject.toml; tests/streams/test_crash.py goes first when they change.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn

import faust
import faust.transport.drivers.aiokafka as driver
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient

from schemas.config import WorkerConfig
from schemas.errors import ConfigError, KafkaUnavailableError
from schemas.topics import JOURNAL_BYTES_MAX, TOPICS
from streams.broker import Place, Stage
from streams.core.engine import FailoverEngine
from streams.journal import JournalRecord

log = logging.getLogger("proxima")

_EXIT_BUG: Final = 70  # EX_SOFTWARE: a supervisor starts us again
_IDLE_S: Final = 0.02
_READ_DEADLINE_S: Final = 60.0
_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3
_STAGES: Final = ("intake", "decide")


def run_stage(name: str, config: WorkerConfig, engine: type[FailoverEngine] = FailoverEngine) -> NoReturn:
    """Run one stage until SIGTERM (exit 0) or a failure (exit 70 or 1); `engine` is for tests that need a broken one.

    Raises KafkaUnavailableError when the broker or a topic is missing, ConfigError for a stage that there is not.
    """
    if name not in _STAGES:
        raise ConfigError([f"stage {name!r} is unknown: one of {', '.join(_STAGES)}"], where="worker.stages")
    _tune_memory()
    worker = faust.Worker(_app(name, config, engine), loglevel="WARN", redirect_stdouts=False, blocking_timeout=60)
    worker.execute_from_commandline()
    raise SystemExit(0)  # Faust has exited already


def _tune_memory() -> None:
    """Keep a flush's arrays in the heap: glibc maps and unmaps each large one, and every page of it faults anew."""
    gc.set_threshold(50_000, 20, 20)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 29)


def _app(name: str, config: WorkerConfig, engine: type[FailoverEngine]) -> faust.App:
    kafka, session_s = config.kafka, config.worker.session_timeout_s
    driver.Transport.Consumer = _Consumer
    driver.Producer._settings_extra = lambda _: {"acks": "all", "enable_idempotence": True}
    app = faust.App(
        f"{kafka.topic_prefix}proxima-{name}",
        broker="kafka://" + ";".join(kafka.bootstrap.split(",")),
        store="memory://",
        datadir=tempfile.gettempdir(),  # nothing is written without tables
        web_enabled=False,
        topic_allow_declare=False,  # infra creates topics from the table
        topic_disable_leader=True,
        stream_wait_empty=False,
        stream_buffer_maxsize=512,
        consumer_auto_offset_reset="earliest",
        # Static membership: the same worker is back at once, without a rebalance.
        consumer_group_instance_id=f"{kafka.topic_prefix}{name}-{config.worker.name}",
        broker_session_timeout=session_s,
        broker_heartbeat_interval=session_s / 4,
        broker_request_timeout=max(10.0, session_s + 1),
        consumer_max_fetch_size=JOURNAL_BYTES_MAX,
        producer_request_timeout=60.0,
        producer_max_request_size=JOURNAL_BYTES_MAX + 128 * 1024,
        producer_compression_type="zstd",  # aiokafka compresses lz4 at level 9: a third of the speed, and larger
        producer_linger=0.0,
        worker_redirect_stdouts=False,
    )
    broker = FaustBroker(app, config)
    stage = _stage(name, broker, config, engine)
    names = {kafka.topic_prefix + topic: topic for topic in stage.topics}
    # Records and the metronome take turns: a stage is never entered twice.
    turn = asyncio.Lock()

    @app.agent(app.topic(*names, key_serializer="raw", value_serializer="raw", acks=False))
    async def take(stream: Any) -> None:
        queue = stream.channel.queue
        _Consumer.room = staticmethod(lambda: not queue.full())
        try:
            async for event in stream.noack().events():
                message = event.message
                async with turn:
                    if message.generation_id != app.consumer_generation_id:
                        continue  # fetched before a rebalance: whoever owns it now reads it again
                    record = JournalRecord(
                        message.partition,
                        message.offset,
                        round(message.timestamp * 1000),
                        message.key,
                        message.value or b"",  # a tombstone is no record of ours, and gets its dead letter
                    )
                    await stage.take(names[message.topic], record)
        except Exception as error:
            _die(error)

    @app.task
    async def metronome() -> None:
        try:
            while not app.should_stop:
                await asyncio.sleep(_IDLE_S)
                if not app.flow_control.is_active() or app.rebalancing:
                    continue
                async with turn:
                    await stage.idle(time.time_ns() // 1_000_000, broker.owned(names))
        except Exception as error:
            _die(error)

    @app.on_partitions_revoked.connect
    async def revoked(*_: Any, **__: Any) -> None:
        stage.revoke()

    @app.on_before_shutdown.connect
    async def leaving(*_: Any, **__: Any) -> None:
        async with turn:
            await stage.stop()
        await broker.close()

    return app


class _Consumer(driver.Consumer):
    """Faust's consumer, which delivers a message without a race when nothing could win it but the delivery."""

    room: Callable[[], bool] = staticmethod(lambda: False)  # whether the agent's queue takes one more

    async def wait_first(self, *coros: Any, timeout: Any = None) -> Any:
        """Called for each message with (its delivery, the wait for a rebalance): 60 of a message's 100 us."""
        if timeout is not None or self.suspend_flow.is_set() or not self.room():
            return await super().wait_first(*coros, timeout=timeout)
        delivery, rebalance = coros
        rebalance.close()
        await delivery
        return None


def _stage(name: str, broker: FaustBroker, config: WorkerConfig, engine: type[FailoverEngine]) -> Stage:
    # Imported here: intake needs no river, whose import costs a second.
    if name == "intake":
        from streams.intake import Intake  # noqa: PLC0415

        return Intake(broker, config.intake, config.worker.name)
    from streams.decide import Decide  # noqa: PLC0415

    return Decide(broker, config.decide, config.worker.name, engine)


class FaustBroker:
    """`streams.broker.Broker` by Faust's producer, Faust's consumer thread, and a plain reader of ours."""

    def __init__(self, app: faust.App, config: WorkerConfig) -> None:
        self._app, self._prefix, self._bootstrap = app, config.kafka.topic_prefix, config.kafka.bootstrap
        self._topics = self._describe()
        self._reader: AIOKafkaConsumer | None = None
        self._reading = asyncio.Lock()

    def topic_id(self, topic: str) -> str:
        return self._topics[topic][0]

    def partitions(self, topic: str) -> int:
        return self._topics[topic][1]

    def generation(self) -> int:
        return int(self._app.consumer_generation_id)

    def owned(self, names: dict[str, str]) -> Sequence[Place]:
        """Partitions assigned to us, of the stage's own topics."""
        return [Place(names[tp.topic], tp.partition) for tp in self._app.consumer.assignment() if tp.topic in names]

    async def send(
        self, topic: str, key: bytes | None, value: bytes, partition: int | None = None
    ) -> Awaitable[object]:
        future: Any = await self._app.producer.send(self._prefix + topic, key, value, partition, None, None)
        future.add_done_callback(_end_if_failed)
        return future  # type: ignore[no-any-return]

    async def commit(self, place: Place, offset: int, metadata: str = "") -> bool:
        thread = self._app.consumer._thread
        what = {self._tp(place): OffsetAndMetadata(offset, metadata)}
        try:
            await thread.call_thread(thread._consumer.commit, what)
        except (IllegalStateError, KafkaError) as error:
            # The next commit covers it; a partition that is no longer ours is another's to commit.
            log.warning("commit of %s-%d at %d lost: %s", place.topic, place.partition, offset, error)
            return False
        return True

    async def committed(self, place: Place) -> tuple[int, str] | None:
        thread, tp = self._app.consumer._thread, self._tp(place)

        async def fetch() -> Any:
            return (await thread._consumer._coordinator.fetch_committed_offsets([tp])).get(tp)

        found = await thread.call_thread(fetch)
        return None if found is None or found.offset < 0 else (found.offset, found.metadata or "")

    async def earliest(self, place: Place) -> int:
        async with self._reading:
            reader, tp = await self._assigned(place)
            return int((await reader.beginning_offsets([tp]))[tp])

    async def read(self, place: Place, first: int | None = None, end: int | None = None) -> Sequence[JournalRecord]:
        found: list[JournalRecord] = []
        async with self._reading:
            reader, tp = await self._assigned(place)
            start = (await reader.beginning_offsets([tp]))[tp]
            last = (await reader.end_offsets([tp]))[tp]
            first, end = max(start, first or 0), last if end is None else min(end, last)
            if first >= end:
                return found
            reader.seek(tp, first)
            deadline_s = time.monotonic() + _READ_DEADLINE_S
            while await reader.position(tp) < end:
                batch = await reader.getmany(tp, timeout_ms=500)
                found += [
                    JournalRecord(r.partition, r.offset, r.timestamp, r.key, r.value or b"")
                    for r in batch.get(tp, [])
                    if r.offset < end
                ]
                if batch:
                    deadline_s = time.monotonic() + _READ_DEADLINE_S
                elif time.monotonic() > deadline_s:
                    what = f"nothing could be read for {_READ_DEADLINE_S:.0f} s"
                    raise KafkaUnavailableError(what, where=f"{tp.topic}-{tp.partition}", do="is its leader alive?")
        return found

    async def close(self) -> None:
        """Give the reader's connections back."""
        if self._reader is not None:
            await self._reader.stop()

    def _tp(self, place: Place) -> TopicPartition:
        return TopicPartition(self._prefix + place.topic, place.partition)

    async def _assigned(self, place: Place) -> tuple[AIOKafkaConsumer, TopicPartition]:
        if self._reader is None:
            self._reader = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap.split(","),
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=JOURNAL_BYTES_MAX,
                fetch_max_wait_ms=20,  # reading back ends at a partition's end, and must not wait there for more
            )
            await self._reader.start()
        tp = self._tp(place)
        self._reader.assign([tp])
        return self._reader, tp

    def _describe(self) -> dict[str, tuple[str, int]]:
        """Id and partitions of every topic in the table; a missing one is said now, for a send to it never returns."""
        admin = AdminClient({"bootstrap.servers": self._bootstrap, "logger": logging.getLogger("proxima.admin")})
        names = {self._prefix + name: name for name in TOPICS}
        try:
            futures = admin.describe_topics(TopicCollection(list(names)), request_timeout=30)
            missing, found = [], {}
            for topic, future in futures.items():
                try:
                    described = future.result()
                except Exception as error:
                    if "UNKNOWN_TOPIC" not in str(error):
                        raise
                    missing.append(topic)
                else:
                    # Kafka prints ids in the URL-safe alphabet, librdkafka in the other.
                    topic_id = str(described.topic_id).replace("+", "-").replace("/", "_")
                    found[names[topic]] = (topic_id, len(described.partitions))
        except Exception as error:
            raise KafkaUnavailableError(str(error), where=self._bootstrap, do="is it up, and may we?") from error
        if missing:
            what = f"topics {', '.join(sorted(missing))} do not exist"
            raise KafkaUnavailableError(what, where=self._bootstrap, do="run `proxima topics create`")
        return found


def _end_if_failed(future: asyncio.Future[object]) -> None:
    error = None if future.cancelled() else future.exception()
    if error is not None:
        _die(error)


def _die(error: BaseException) -> NoReturn:
    """Leave at once, without Faust's clean-up: it would commit and send on after what was lost."""
    sys.stderr.write("".join(traceback.format_exception(error)))
    sys.stderr.flush()
    os._exit(_EXIT_BUG)
