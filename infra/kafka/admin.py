"""The table of topics (`schemas/topics.py`) on a cluster: made from it, and held against it.

Creating is safe to repeat: what is there already is compared with the table instead, because a topic with another
number of partitions sends a primary's records elsewhere than every reader expects, and one with `CreateTime` takes
time from agents' clocks. Neither can be mended behind an operator's back, so it is said, with every mistake at once.
Replication is the cluster's business and is not compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec

from schemas.connection import Refusal, client_settings, forbidden, refused
from schemas.errors import KafkaUnavailableError
from schemas.rights import Grant
from schemas.topics import TOPICS, Topic, named

REACH_TIMEOUT_S: Final = 5.0
# Of a cluster that is there: another controller may have to be elected first.
ANSWER_TIMEOUT_S: Final = 20.0
CREATE_TIMEOUT_S: Final = 30.0
# Replicas of a topic when the cluster has so many brokers: any one may die, and nothing confirmed is lost.
REPLICATION_MAX: Final = 3

_POLL_S: Final = 0.05
_ASK_TIMEOUT_S: Final = 2.0
_STEP_S: Final = 0.5
_TRY_S: Final = 3.0
_NOBODY_ANSWERED: Final = (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError.REQUEST_TIMED_OUT)
_ANOTHER_MADE_IT: Final = KafkaError.TOPIC_ALREADY_EXISTS
_NO_SUCH_TOPIC: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
_FORBIDDEN: Final = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)
_SHOWN: Final = ("cleanup.policy", "max.message.bytes", "message.timestamp.type", "retention.ms")
# An operator may keep records longer or shorter than the table; this cannot differ without something breaking.
_HELD: Final = ("cleanup.policy", "message.timestamp.type")


@dataclass(frozen=True, slots=True)
class TopicState:
    """A row of the table beside what the cluster has: `mistakes` says in sentences where they differ."""

    topic: Topic
    name: str
    exists: bool
    topic_id: str = ""
    partitions: int = 0
    replication: int = 0
    settings: Mapping[str, str] | None = None
    mistakes: tuple[str, ...] = ()


def create_topics(bootstrap: str, *, prefix: str = "", replication: int | None = None) -> list[str]:
    """Create what the table has and the cluster has not; returns the names created, once they can be used.

    `replication` None: 3, or as many as there are brokers. With 3, a write is confirmed once two have it.
    Raises KafkaUnavailableError: no broker answers, the cluster refuses, or a topic that exists differs from the table.
    """
    admin = admin_client(bootstrap)
    brokers = len(metadata(admin, bootstrap).brokers)
    copies = min(REPLICATION_MAX, brokers) if replication is None else replication
    before = _describe(admin, bootstrap, prefix, "CREATE")
    missing = [state for state in before if not state.exists]
    created = []
    if missing:
        new = [_new_topic(state, copies) for state in missing]
        futures = _answered(admin, bootstrap, lambda: admin.create_topics(new, request_timeout=_TRY_S))
        created = [name for name, future in futures.items() if _was_created(name, future, bootstrap)]
    _wait_usable(admin, bootstrap, [state.name for state in before])
    differing = [m for state in _describe(admin, bootstrap, prefix, "CREATE") for m in state.mistakes]
    if differing:
        raise KafkaUnavailableError(
            "topics differ from the table: " + "; ".join(differing),
            where=bootstrap,
            do="alter them with Kafka's own tools, or use another topic_prefix; partitions cannot be lowered",
        )
    return created


def describe_topics(bootstrap: str, *, prefix: str = "") -> list[TopicState]:
    """Every row of the table beside what the cluster has; raises KafkaUnavailableError when no broker answers."""
    admin = admin_client(bootstrap)
    metadata(admin, bootstrap)
    return _describe(admin, bootstrap, prefix, "DESCRIBE_CONFIGS")


def topic_ids(bootstrap: str, names: Iterable[str], *, operation: str = "READ") -> dict[str, str]:
    """Kafka's ids of topics, by name on the cluster (with prefix), written as Kafka's own tools write them.

    Raises KafkaUnavailableError: no broker answers, a topic does not exist, or it is not for us to see, and then the
    right to the `operation` for which they are wanted is said to be missing.
    """
    admin = admin_client(bootstrap)
    metadata(admin, bootstrap)
    wanted = list(names)
    found = {name: _topic_id(d) for name, d in _descriptions(admin, bootstrap, wanted, operation).items()}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise KafkaUnavailableError(
            f"no topic {', '.join(missing)}", where=bootstrap, do="create the topics with `proxima topics create`"
        )
    return found


def admin_client(bootstrap: str, **settings: Any) -> AdminClient:
    """A client that reports by exceptions alone. Keep a reference: a temporary's futures never resolve."""
    return AdminClient({**client_settings(bootstrap), "log_level": 0, **settings})


def _new_topic(state: TopicState, copies: int) -> NewTopic:
    settings = state.topic.settings()
    if copies >= REPLICATION_MAX:
        settings["min.insync.replicas"] = "2"
    return NewTopic(state.name, num_partitions=state.topic.partitions, replication_factor=copies, config=settings)


def _was_created(name: str, future: Any, bootstrap: str) -> bool:
    """Whether we made it; false when somebody else was faster, which is as good."""
    try:
        future.result()
    except KafkaException as error:
        reason = error.args[0]
        if reason.code() == _ANOTHER_MADE_IT:
            return False
        if reason.code() in _FORBIDDEN:
            raise forbidden([Grant("TOPIC", name, "CREATE")], bootstrap) from None
        raise KafkaUnavailableError(
            f"cannot create topic {name}: {reason.str()}",
            where=bootstrap,
            do="look at the brokers' logs",
        ) from None
    return True


def _wait_usable(admin: AdminClient, bootstrap: str, names: list[str]) -> None:
    """Wait until every partition has a leader: right after the controller agreed, other brokers do not know yet."""
    deadline = time.monotonic() + CREATE_TIMEOUT_S
    while True:
        found = metadata(admin, bootstrap).topics
        waiting = [n for n in names if n not in found or not _has_leaders(found[n])] or _not_led(admin, found, names)
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise KafkaUnavailableError(
                f"topic {waiting[0]} has partitions without a leader after {CREATE_TIMEOUT_S:g} s",
                where=bootstrap,
                do="look whether all brokers are up",
            )
        time.sleep(_POLL_S)


def _has_leaders(topic: Any) -> bool:
    return topic.error is None and bool(topic.partitions) and all(p.leader >= 0 for p in topic.partitions.values())


def _not_led(admin: AdminClient, found: Any, names: list[str]) -> list[str]:
    """Topics with a partition whose leader does not know yet that it is: metadata says so a moment too early."""
    places = [TopicPartition(name, number) for name in names for number in found[name].partitions]
    if not places:
        return []
    asked = admin.list_offsets({place: OffsetSpec.latest() for place in places}, request_timeout=_ASK_TIMEOUT_S)
    waiting = []
    for place, future in asked.items():
        try:
            future.result(2 * _ASK_TIMEOUT_S)
        except (KafkaException, TimeoutError):
            waiting.append(place.topic)
    return waiting


def _describe(admin: AdminClient, bootstrap: str, prefix: str, operation: str) -> list[TopicState]:
    """`operation`: which right is said to be missing where topics are not for us to see."""
    rows = {named(prefix, topic.name): topic for topic in TOPICS.values()}
    descriptions = _descriptions(admin, bootstrap, list(rows), operation)
    settings = _settings(admin, bootstrap, list(descriptions))
    return [
        _state(topic, name, descriptions[name], settings[name])
        if name in descriptions
        else TopicState(topic, name, exists=False)
        for name, topic in rows.items()
    ]


def _state(topic: Topic, name: str, description: Any, settings: Mapping[str, str]) -> TopicState:
    partitions = len(description.partitions)
    found: list[str] = []
    if partitions != topic.partitions:
        found.append(f"{name} has {partitions} partitions, not {topic.partitions}")
    wanted = topic.settings()
    for key in _HELD:
        if not _same(settings.get(key, ""), wanted[key]):
            found.append(f"{name} has {key}={settings.get(key)}, not {wanted[key]}")
    if int(settings.get("max.message.bytes", 0)) < topic.max_message_bytes:
        found.append(
            f"{name} has max.message.bytes={settings.get('max.message.bytes')}, below {topic.max_message_bytes}"
        )
    return TopicState(
        topic,
        name,
        exists=True,
        topic_id=_topic_id(description),
        partitions=partitions,
        replication=min((len(p.replicas) for p in description.partitions), default=0),
        settings=settings,
        mistakes=tuple(found),
    )


def _same(left: str, right: str) -> bool:
    """Lists of policies have no order: `delete,compact` is `compact,delete`."""
    return sorted(left.split(",")) == sorted(right.split(","))


def _topic_id(description: Any) -> str:
    """librdkafka writes ids in plain base64; Kafka itself, and every other client, in the URL-safe alphabet."""
    return str(description.topic_id).replace("+", "-").replace("/", "_").rstrip("=")


def _descriptions(admin: AdminClient, bootstrap: str, names: list[str], operation: str) -> dict[str, Any]:
    """What the cluster says about topics by name; those that it does not have are left out."""
    topics = TopicCollection(names)
    asked = _answered(admin, bootstrap, lambda: admin.describe_topics(topics, request_timeout=_TRY_S))
    found = {}
    for name, future in asked.items():
        description = _result(future, bootstrap, [Grant("TOPIC", name, operation)], _NO_SUCH_TOPIC)
        if description is not None:
            found[name] = description
    return found


def _settings(admin: AdminClient, bootstrap: str, names: list[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
    asked = _answered(admin, bootstrap, lambda: admin.describe_configs(resources, request_timeout=_TRY_S))
    found = {}
    for resource, future in asked.items():
        entries = _result(future, bootstrap, [Grant("TOPIC", resource.name, "DESCRIBE_CONFIGS")]) or {}
        found[resource.name] = {key: entries[key].value for key in _SHOWN if key in entries}
    return found


def _answered(admin: AdminClient, bootstrap: str, ask: Callable[[], dict[Any, Any]]) -> dict[Any, Any]:
    """The futures of a request that somebody answered, be it with errors.

    A client that learnt of a controller just before that died waits for it until its request times out, and looks for
    another only when it is made to: so tries are short, and the brokers are asked anew between them.
    """
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while True:
        futures = ask()
        failed = [e for e in (future.exception() for future in futures.values()) if e is not None]
        if not any(e.args[0].code() in _NOBODY_ANSWERED for e in failed) or time.monotonic() >= deadline:
            return futures
        metadata(admin, bootstrap)


def _result(future: Any, bootstrap: str, needed: Sequence[Grant], absent: tuple[int, ...] = ()) -> Any:
    """A future's result, None for an error that only means absence; `needed` are the rights for it."""
    try:
        return future.result()
    except KafkaException as error:
        if error.args[0].code() in absent:
            return None
        raise unavailable(error.args[0], bootstrap, needed) from None


def metadata(client: Any, bootstrap: str, topic: str | None = None) -> Any:
    """What brokers and topics there are, by an AdminClient or a Consumer; raises KafkaUnavailableError.

    In short steps: Ctrl-C is not heard while librdkafka waits.
    """
    deadline = time.monotonic() + REACH_TIMEOUT_S
    refusal, listening = Refusal(), None
    while True:
        try:
            return (
                client.list_topics(topic, timeout=_STEP_S) if topic is not None else client.list_topics(timeout=_STEP_S)
            )
        except KafkaException as error:
            # One that listens to no errors is told of a time-out only. A refusal comes at once, and nobody has to wait
            # for the deadline; under load it comes later.
            listening = listening or admin_client(bootstrap, error_cb=refusal)
            listening.poll(_STEP_S)
            if refusal.what:
                raise refused(refusal.what, bootstrap) from None
            if time.monotonic() >= deadline:
                raise _no_answer(error.args[0].str(), bootstrap) from None


def unavailable(error: KafkaError, bootstrap: str, needed: Sequence[Grant]) -> KafkaUnavailableError:
    """Why nothing came of a request: a right of those that it needs is missing, or no broker answers."""
    return forbidden(needed, bootstrap) if error.code() in _FORBIDDEN else _no_answer(error.str(), bootstrap)


def _no_answer(what: str, bootstrap: str) -> KafkaUnavailableError:
    return KafkaUnavailableError(
        f"no broker answers: {what}",
        where=bootstrap,
        do="start it, or give another address with --bootstrap or PROXIMA_KAFKA__BOOTSTRAP",
    )
