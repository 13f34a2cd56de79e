"""Faust and aiokafka, and everything that they do wrong; the only importer of both.

Faust runs the stage: group membership, rebalances, fetching, signals. It keeps none of the books, because it was seen
to lose records when tables recover, to commit past what was not acknowledged, and to duplicate in exactly_once mode:

* no tables, no Faust acknowledgements: topics are declared `acks=False`, the stage says what to commit, and it is
  committed on Faust's consumer thread as exactly that offset;
* idempotent producer with acks=all, which Faust sets only in exactly_once mode;
* a send that fails ends the process at once (`os._exit`): nothing may follow a lost record;
* an exception in an agent would leave a living worker that consumes nothing: it ends the process instead;
* it takes 100 us for each message: all that a fetch brought of a partition is one message to it;
* it sleeps a second when it starts and two when it ends: not here;
* it waits up to 1.5 s for partitions that are empty while others have records: fetches are short, queues just full;
* it unpacks whatever a batch unpacks to: here that is bounded (`unpacking.py`);
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
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

import faust
import faust.transport.drivers.aiokafka as driver
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer import fetcher
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.tables import TableManager
from faust.types.auth import AuthProtocol

from schemas import connection, logs
from schemas.config import WorkerConfig
from schemas.errors import ConfigError, KafkaUnavailableError
from schemas.rights import RIGHTS, Rights
from schemas.topics import JOURNAL_BYTES_MAX
from schemas.wire import framed, unframed
from streams.admission import admitted
from streams.broker import Place, Stage
from streams.gauges import Fetched, Gauges
from streams.journal import JournalRecord
from streams.unpacking import DECODERS, Batches, TooLarge

if TYPE_CHECKING:
    from streams.core.engine import FailoverEngine

log = logging.getLogger("proxima")

_EXIT_BUG: Final = 70  # EX_SOFTWARE: a supervisor starts us again
_EXIT_KAFKA: Final = 1  # so it does here; Kafka is away or refuses
_IDLE_S: Final = 0.02
_TURN_RECORDS: Final = 10  # then the metronome, confirmations and commits have theirs
_FETCH_WAIT_MS: Final = 50  # for a first record; meanwhile there is no other fetch
_READ_DEADLINE_S: Final = 60.0
_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3
_STAGES: Final = ("intake", "decide", "overview")


def run_stage(name: str, config: WorkerConfig, engine: type[FailoverEngine] | None = None) -> NoReturn:
    """Run one stage until SIGTERM (exit 0) or a failure (exit 70 or 1); `engine` is for tests that need a broken one.

    Raises KafkaUnavailableError when the broker or a topic is missing, ConfigError for a stage that there is not.
    """
    if name not in _STAGES:
        raise ConfigError([f"stage {name!r} is unknown: one of {', '.join(_STAGES)}"], where="worker.stages")
    _tune_memory()
    bound_unpacking()
    level = config.log.level or "WARN"
    worker = _Worker(_app(name, config, engine), loglevel=level, redirect_stdouts=False, blocking_timeout=60)
    if logs.in_json():
        worker.override_logging = False  # what is set up already is for Faust's and aiokafka's lines too
    worker.spinner = None  # it sets every logger to DEBUG, for lines that nobody sees
    worker.execute_from_commandline()
    raise SystemExit(0)  # Faust has exited already


def _tune_memory() -> None:
    """Keep a flush's arrays in the heap: glibc maps and unmaps each large one, and every page of it faults anew."""
    gc.set_threshold(50_000, 20, 20)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 29)


def bound_unpacking() -> None:
    """Have every consumer of this process unpack no more than `streams.unpacking` allows."""
    # Where the class was made, in Python or in C, is where it looks for what unpacks.
    for name, decode in DECODERS.items():
        setattr(sys.modules[DefaultRecordBatch.__module__], name, decode)
    fetcher.MemoryRecords = lambda fetched: Batches(MemoryRecords(fetched))


def _app(name: str, config: WorkerConfig, engine: type[FailoverEngine] | None) -> faust.App:
    kafka, session_s = config.kafka, config.worker.session_timeout_s
    driver.Transport.Consumer = _Consumer
    driver.Producer._settings_extra = lambda _: {"acks": "all", "enable_idempotence": True}
    app = faust.App(
        f"{kafka.topic_prefix}proxima-{name}",
        broker="kafka://" + ";".join(kafka.bootstrap.split(",")),
        broker_credentials=_credentials(),
        store="memory://",
        datadir=tempfile.gettempdir(),  # nothing is written without tables
        web_enabled=False,
        topic_allow_declare=False,  # infra creates topics from the table
        topic_disable_leader=True,
        stream_wait_empty=False,
        stream_buffer_maxsize=16,
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
        TableManager=_Tables,
    )
    gauges = Gauges(name)
    broker = FaustBroker(app, config, RIGHTS[name], gauges)
    stage = _stage(name, broker, config, engine)
    names = {kafka.topic_prefix + topic: topic for topic in stage.topics}
    gauges.look(stage, lambda: broker.fetched(names), lambda: broker.is_assigned)
    # Records and the metronome take turns: a stage is never entered twice.
    turn = asyncio.Lock()

    @app.agent(app.topic(*names, key_serializer="raw", value_serializer="raw", acks=False))
    async def take(stream: Any) -> None:
        try:
            async for event in stream.noack().events():
                fetched, topic = event.message, names[event.message.topic]
                for start in range(0, len(fetched.value), _TURN_RECORDS):
                    async with turn:
                        gauges.took(topic, len(fetched.value[start : start + _TURN_RECORDS]))
                        for record in fetched.value[start : start + _TURN_RECORDS]:
                            if fetched.generation_id != app.consumer_generation_id or not app.flow_control.is_active():
                                break  # fetched before a rebalance: whoever owns it now reads it again
                            await stage.take(topic, _journal_record(record))
                    await asyncio.sleep(0)
        except Exception as error:
            _die(error)

    @app.task
    async def metronome() -> None:
        try:
            while not app.should_stop:
                await asyncio.sleep(_IDLE_S)
                gauges.pulse.beat()
                if not app.flow_control.is_active() or app.rebalancing:
                    continue
                async with turn:
                    await stage.idle(time.time_ns() // 1_000_000, broker.owned(names))
        except Exception as error:
            _die(error)

    @app.on_partitions_revoked.connect
    async def revoked(*_: Any, **__: Any) -> None:
        broker.is_assigned = False
        stage.revoke()

    @app.on_partitions_assigned.connect
    async def assigned(*_: Any, **__: Any) -> None:
        broker.is_assigned = True

    @app.on_before_shutdown.connect
    async def leaving(*_: Any, **__: Any) -> None:
        async with turn:
            await stage.stop()
        await broker.close()

    return app


def _credentials() -> Any:
    """Who we are, in Faust's words."""
    we, context = connection.in_use(), connection.ssl_context()
    if we.is_sasl:
        found = faust.SASLCredentials(
            username=we.username,
            password=connection.password_in_use(),
            mechanism=we.sasl_mechanism,
            ssl_context=context,
        )
        found.protocol = AuthProtocol(we.security_protocol)  # without TLS it would be left at its default
        return found
    return faust.SSLCredentials(context) if context is not None else None


def _reader_security() -> dict[str, Any]:
    """The same in aiokafka's."""
    we = connection.in_use()
    found: dict[str, Any] = {"security_protocol": we.security_protocol, "ssl_context": connection.ssl_context()}
    if we.is_sasl:
        found |= {
            "sasl_mechanism": we.sasl_mechanism,
            "sasl_plain_username": we.username,
            "sasl_plain_password": connection.password_in_use(),
        }
    return found


class _Worker(faust.Worker):
    """Faust's, without the two seconds that it sleeps when all has stopped."""

    async def on_shutdown(self) -> None:
        """Nobody tells the watchdog to end, and it is waited for."""
        await super().on_shutdown()
        await self.blocking_detector.stop()

    async def _sentinel_task(self) -> None:
        pass


class _Tables(TableManager):
    """None: so there is nothing to wait for."""

    async def on_start(self) -> None:
        """Faust sleeps a second first, so that agents have subscribed; but its subscription waits until they have."""
        await self._update_channels()
        await self.recovery.start()


class _Consumer(driver.Consumer):
    """Faust's consumer, to which all that a fetch brought of a partition is one message."""

    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:
        fetched = await super()._getmany(active_partitions, timeout)
        return {tp: [records] for tp, records in fetched.items()}

    def _to_message(self, tp: Any, record: Any) -> Any:
        message = super()._to_message(tp, record[-1])
        message.value = record
        return message

    def on_buffer_full(self, tp: Any) -> None:
        """Nothing: a full queue holds up delivery. Faust would ask for other partitions alone, and wait for them."""


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Records that wait to be taken are not fetched again, so that a fetch may be for empty partitions alone.
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS
        return consumer


def _stage(name: str, broker: FaustBroker, config: WorkerConfig, engine: type[FailoverEngine] | None) -> Stage:
    # Imported here: only decide needs SciPy and river, whose import costs half a second.
    if name == "intake":
        from streams.intake import Intake  # noqa: PLC0415

        return Intake(broker, config.intake, config.worker.name)
    if name == "overview":
        from streams.overview import Overview  # noqa: PLC0415

        return Overview(broker, config.overview, config.worker.name)
    from streams.core.engine import FailoverEngine  # noqa: PLC0415
    from streams.decide import Decide  # noqa: PLC0415

    return Decide(broker, config.decide, config.worker.name, engine or FailoverEngine)


class FaustBroker:
    """`streams.broker.Broker` by Faust's producer, Faust's consumer thread, and a plain reader of ours."""

    def __init__(self, app: faust.App, config: WorkerConfig, rights: Rights, gauges: Gauges) -> None:
        self._app, self._prefix, self._bootstrap = app, config.kafka.topic_prefix, config.kafka.bootstrap
        self._gauges, self.is_assigned = gauges, False
        self._topics = admitted(self._bootstrap, self._prefix, app.conf.id, rights)
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

    def fetched(self, names: dict[str, str]) -> dict[Place, Fetched]:
        """The same, with what the last fetches said of them; from any thread, and only as good as that."""
        found: dict[Place, Fetched] = {}
        consumer = self._app.consumer._thread._consumer if self.is_assigned else None
        subscription = None if consumer is None else consumer._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None:
            return found
        for tp in list(assignment.tps):
            if tp.topic in names:
                state = assignment.state_value(tp)
                found[Place(names[tp.topic], tp.partition)] = Fetched(state.highwater or 0, state.timestamp or 0)
        return found

    async def send(
        self, topic: str, key: bytes | None, value: bytes, partition: int | None = None
    ) -> Awaitable[object]:
        self._gauges.sent(topic, value)
        future: Any = await self._app.producer.send(self._prefix + topic, key, framed(value), partition, None, None)
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
            self._gauges.committed(done=False)
            return False
        self._gauges.committed(done=True)
        return True

    async def committed(self, place: Place) -> tuple[int, str] | None:
        thread, tp = self._app.consumer._thread, self._tp(place)

        async def fetch() -> Any:
            return (await thread._consumer._coordinator.fetch_committed_offsets([tp])).get(tp)

        found = await thread.call_thread(fetch)
        return None if found is None or found.offset < 0 else (found.offset, found.metadata or "")

    async def earliest(self, place: Place) -> int:
        async with self._reading:
            reader, tp = await self._opened(), self._tp(place)
            return int((await reader.beginning_offsets([tp]))[tp])

    async def read(
        self, place: Place, first: int | None = None, end: int | None = None, *, bytes_max: int | None = None
    ) -> Sequence[JournalRecord]:
        found: list[JournalRecord] = []
        async with self._reading:
            reader, tp = await self._opened(), self._tp(place)
            start = (await reader.beginning_offsets([tp]))[tp]
            last = (await reader.end_offsets([tp]))[tp]
            first, end = max(start, first or 0), last if end is None else min(end, last)
            if first >= end:
                return found
            reader.assign([tp])
            reader.seek(tp, first)
            deadline_s = time.monotonic() + _READ_DEADLINE_S
            while await reader.position(tp) < end:
                batch = await reader.getmany(tp, timeout_ms=500)
                found += [_journal_record(r) for r in batch.get(tp, []) if r.offset < end]
                if bytes_max is not None and sum(len(r.value) for r in found) > bytes_max:
                    break
                if batch:
                    deadline_s = time.monotonic() + _READ_DEADLINE_S
                elif time.monotonic() > deadline_s:
                    what = f"nothing could be read for {_READ_DEADLINE_S:.0f} s"
                    raise KafkaUnavailableError(what, where=f"{tp.topic}-{tp.partition}", do="is its leader alive?")
            reader.unsubscribe()  # what is assigned is fetched, wanted or not
        return found

    async def close(self) -> None:
        """Give the reader's connections back."""
        if self._reader is not None:
            await self._reader.stop()

    def _tp(self, place: Place) -> TopicPartition:
        return TopicPartition(self._prefix + place.topic, place.partition)

    async def _opened(self) -> AIOKafkaConsumer:
        if self._reader is None:
            self._reader = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap.split(","),
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=JOURNAL_BYTES_MAX,
                fetch_max_wait_ms=20,  # reading back ends at a partition's end, and must not wait there for more
                **_reader_security(),
            )
            await self._reader.start()
        return self._reader


def _journal_record(record: Any) -> JournalRecord:
    # A tombstone is no record of ours, and gets its dead letter.
    value = record.value if isinstance(record.value, TooLarge) else unframed(record.value or b"")
    return JournalRecord(record.partition, record.offset, record.timestamp, record.key, value)


def _end_if_failed(future: asyncio.Future[object]) -> None:
    error = None if future.cancelled() else future.exception()
    if error is not None:
        _die(error)


def _die(error: BaseException) -> NoReturn:
    """Leave at once, without Faust's clean-up: it would commit and send on after what was lost."""
    if logs.in_json():
        log.critical("the stage ends: %s", error, exc_info=error)
    else:
        sys.stderr.write("".join(traceback.format_exception(error)))
    sys.stderr.flush()
    os._exit(_EXIT_KAFKA if _is_kafkas(error) or _is_kafkas(error.__cause__) else _EXIT_BUG)


def _is_kafkas(error: BaseException | None) -> bool:
    """Faust raises an error of its own from one of a send."""
    return isinstance(error, KafkaError | KafkaUnavailableError)
