"""What could be wrong around Proxima, looked at one by one, each with what to do about it.

Broken is what stops the pipeline; a warning is what some role needs that may not run here. Nothing is changed but for
a topic of the doctor's own, which exists for a second: the difference between the brokers' clock and ours shows only
in the append time of a record.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any, Final

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaException, Producer
from confluent_kafka.admin import NewTopic

from infra.doctor_roles import role
from infra.doctor_security import identity, rights
from infra.doctor_stores import registry, stores
from infra.findings import BROKEN, OK, WARNING, Finding
from infra.kafka.admin import TopicState, admin_client, describe_topics, metadata
from infra.roles import probers, refused, sinks
from schemas.config import Intake, Kafka, ProbeConfig, Redis, RoleConfig, SinkConfig
from schemas.connection import client_settings
from schemas.errors import KafkaUnavailableError

# A tick's half: more, and a sample may be counted to the tick beside its own.
CLOCK_WARNING_MS: Final = 500
JAVA_VERSION_MIN: Final = 17
_CLOCK_TRIES: Final = 5
_TIMEOUT_S: Final = 10.0


def examine(config: RoleConfig) -> Iterator[Finding]:
    """Everything that has to do with this role, one after the other, as it is found; a client's has to do with all."""
    kafka: Kafka | None = getattr(config, "kafka", None)
    if kafka is not None:
        yield identity(kafka)
        reached = _broker(kafka.bootstrap)
        yield reached
        if reached.status == OK:
            yield rights(kafka)
            yield from _pipeline(kafka)
    redis: Redis | None = getattr(config, "redis", None)
    if redis is not None or isinstance(config, ProbeConfig):
        yield _sockets()
    if redis is not None:
        yield _redis(redis, wanted="redis" in config.model_fields_set)
    if config.registry.url:
        yield registry(config.registry)
    if isinstance(config, SinkConfig):
        yield from stores(config)
    yield from role(config)
    if redis is not None:
        yield _java()


def _pipeline(kafka: Kafka) -> Iterator[Finding]:
    """What is on the cluster; somebody who may not look at all of it is told so."""
    try:
        states = describe_topics(kafka.bootstrap, prefix=kafka.topic_prefix)
    except KafkaUnavailableError as error:
        yield Finding("topics", WARNING, f"cannot be looked at: {error.what}", "come as `operator` or `admin`")
        return
    yield _topics(states)
    if any(state.exists for state in states):
        yield _append_time(states)
        yield from _roles(kafka.bootstrap, kafka.topic_prefix)
    yield _clock(kafka.bootstrap, kafka.topic_prefix)
    if all(state.exists for state in states):
        yield from _remedies(kafka.bootstrap, kafka.topic_prefix)


def _broker(bootstrap: str) -> Finding:
    try:
        brokers = len(metadata(admin_client(bootstrap), bootstrap).brokers)
    except KafkaUnavailableError as error:
        return Finding("kafka", BROKEN, f"{error.what} ({bootstrap})", error.do)
    return Finding("kafka", OK, f"{brokers} broker{'s' * (brokers != 1)} at {bootstrap}")


def _topics(states: list[TopicState]) -> Finding:
    missing = [s.name for s in states if not s.exists]
    if missing:
        return Finding("topics", BROKEN, f"missing: {', '.join(missing)}", "run `proxima topics create`")
    wrong = [m for s in states for m in s.mistakes if "message.timestamp.type" not in m]
    if wrong:
        do = "alter them with Kafka's own tools, or use another topic_prefix; partitions cannot be lowered"
        return Finding("topics", BROKEN, "; ".join(wrong), do)
    copies = min(s.replication for s in states)
    if copies < 2:
        found = f"{len(states)} topics are as the table says, with {copies} replica each"
        return Finding(
            "topics", WARNING, found, "fine for a test; in production a dead disk would take the journal along"
        )
    return Finding("topics", OK, f"{len(states)} topics are as the table says, {copies} replicas")


def _append_time(states: list[TopicState]) -> Finding:
    wrong = [s.name for s in states if any("message.timestamp.type" in m for m in s.mistakes)]
    if not wrong:
        return Finding("append time", OK, "the brokers say when a record was appended")
    do = "with kafka-configs.sh: --alter --add-config message.timestamp.type=LogAppendTime --entity-type topics ..."
    return Finding("append time", BROKEN, f"producers say it, on {', '.join(wrong)}", do)


def _roles(bootstrap: str, prefix: str) -> Iterator[Finding]:
    """What those that run say of themselves; who may not read it is told so."""
    for name, look in (("readiness", probers), ("sinks", sinks), ("dead letters", refused)):
        try:
            yield look(bootstrap, prefix)
        except (KafkaUnavailableError, KafkaException) as error:
            yield Finding(name, WARNING, f"cannot be looked at: {error}", "ask somebody who may read it")


def _clock(bootstrap: str, prefix: str) -> Finding:
    """The brokers' clock less ours, by the append time of a record of ours; as sure as half its round trip."""
    topic = f"{prefix}proxima-doctor-{uuid.uuid4().hex[:8]}"
    admin = admin_client(bootstrap)
    settings = {"message.timestamp.type": "LogAppendTime"}
    try:
        for future in admin.create_topics([NewTopic(topic, 1, 1, config=settings)], operation_timeout=5).values():
            future.result()
    except KafkaException as error:
        what = f"not compared: a topic for it cannot be created ({error.args[0].str()})"
        return Finding("clock", WARNING, what, "compare `date` here and there, or run this as somebody who may")
    try:
        offset_ms, unsure_ms = min((_clock_offset(bootstrap, topic)), key=lambda pair: pair[1])
    except (ValueError, KafkaException):
        return Finding("clock", WARNING, "not compared: a record was not confirmed", "look at the brokers' logs")
    finally:
        for future in admin.delete_topics([topic]).values():
            future.exception()  # waits; what stays behind is one empty topic
    ahead = "ahead of" if offset_ms > 0 else "behind"
    found = f"the brokers' clock is {abs(offset_ms):.0f} ms {ahead} ours, give or take {unsure_ms:.0f} ms"
    do = "set the clocks by NTP: agents ahead of the brokers are not believed, and ages are shown wrong"
    limit_ms = Intake().ahead_ms_max
    off_ms = abs(offset_ms) - unsure_ms
    if off_ms > limit_ms:
        return Finding("clock", BROKEN, found, do)
    return Finding("clock", WARNING, found, do) if off_ms > CLOCK_WARNING_MS else Finding("clock", OK, found)


def _clock_offset(bootstrap: str, topic: str) -> list[tuple[float, float]]:
    """Offset and uncertainty in milliseconds, of some tries: a busy moment spoils one."""
    producer = Producer({**client_settings(bootstrap), "acks": "all", "linger.ms": 0, "log_level": 0})
    found: list[tuple[float, float]] = []

    def delivered(error: Any, message: Any) -> None:
        back_ms = time.time_ns() / 1e6
        kind, appended_ms = message.timestamp()
        if error is None and kind == TIMESTAMP_LOG_APPEND_TIME:
            # Append times are whole milliseconds, cut off.
            found.append((appended_ms + 0.5 - (sent_ms + back_ms) / 2, (back_ms - sent_ms) / 2 + 0.5))

    for _ in range(_CLOCK_TRIES + 1):
        sent_ms = time.time_ns() / 1e6
        producer.produce(topic, value=b"tick", on_delivery=delivered)
        producer.flush(_TIMEOUT_S / _CLOCK_TRIES)
    return found


def _remedies(bootstrap: str, prefix: str) -> Iterator[Finding]:
    """What acts upon paths, by what it said last."""
    from infra.doctor_actuators import actuators, remedies  # noqa: PLC0415

    for name, look, do in (
        ("actuators", actuators, "look at what they reach: routers, links, providers; a breaker tries by itself again"),
        ("remedies", remedies, "`proxima explain PRIMARY` tells the rest; docs/remedies.md says what to do"),
    ):
        is_well, found = look(bootstrap, prefix)
        yield Finding(name, OK if is_well else WARNING, found, "" if is_well else do)


def _sockets() -> Finding:
    """Whether ICMP and raw TCP probes can be sent by this user."""
    can = [name for name, kind in (("raw", socket.SOCK_RAW), ("ping", socket.SOCK_DGRAM)) if _opens(kind)]
    if can:
        return Finding("icmp sockets", OK, f"{' and '.join(can)} sockets can be opened")
    do = (
        "to probe by ICMP from here, `sysctl net.ipv4.ping_group_range='0 2147483647'`, "
        "or give the agent CAP_NET_RAW; tcp-connect probes need neither"
    )
    return Finding("icmp sockets", WARNING, "this user may open neither raw nor ping sockets", do)


def _opens(kind: int) -> bool:
    try:
        socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP).close()
    except OSError:
        return False
    return True


def _redis(settings: Redis, *, wanted: bool) -> Finding:
    import redis  # noqa: PLC0415 - half of the time that this module takes to load

    where = settings.url.partition("://")[2].rpartition("@")[2]
    try:
        with redis.Redis.from_url(
            settings.url, socket_timeout=2, socket_connect_timeout=2, **settings.options()
        ) as client:
            facts = client.info()
    except redis.RedisError as error:
        do = "start it, or give its address in [redis] or PROXIMA_REDIS__URL; the redis sink alone needs it"
        return Finding("redis", BROKEN if wanted else WARNING, f"does not answer at {where}: {error}", do)
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return Finding("redis", WARNING, f"at {where}, with maxmemory-policy {policy}",
                       "set noeviction, or a primary's ranking may vanish")  # fmt: skip
    saved = "appends to a file" if facts.get("aof_enabled") else "keeps no append-only file; a sink fills it again"
    return Finding("redis", OK, f"{facts.get('redis_version', '?')} at {where}, {saved}")


def _java() -> Finding:
    do = f"`proxima demo` and the tests start a broker with Java {JAVA_VERSION_MIN} or newer; nothing else needs it"
    found = shutil.which("java")
    if found is None:
        return Finding("java", WARNING, "not installed", do)
    try:
        said = subprocess.run(
            [found, "-version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        ).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("java", WARNING, f"{found} does not run: {error}", do)
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    if version is None or int(version[1]) < JAVA_VERSION_MIN:
        return Finding("java", WARNING, f"{found} is of version {version[1] if version else 'unknown'}", do)
    return Finding("java", OK, f"version {version[1]}")
