"""Before a stage runs: are its topics there, and may it do what it is for?

Said at the start, because nobody says it later: without the right to its group a Faust worker idles without a line,
and a send to a topic that does not exist never returns.
"""

from __future__ import annotations

import time
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from schemas.connection import Refusal, client_settings, forbidden, refused
from schemas.errors import KafkaUnavailableError
from schemas.rights import Grant, Rights

_ANSWER_S: Final = 30.0  # another controller may have to be elected first
_STEP_S: Final = 0.5


def admitted(bootstrap: str, prefix: str, group: str, rights: Rights) -> dict[str, tuple[str, int]]:
    """Id and partitions of each of the stage's topics, by its name in the table.

    Raises KafkaUnavailableError: no broker answers, we are refused, or something is missing; then all that is.
    """
    refusal = Refusal()
    admin = AdminClient({**client_settings(bootstrap), "log_level": 0, "error_cb": refusal})
    _wait_answer(admin, refusal, bootstrap)
    try:
        topics, absent, lacking = _topics(admin, prefix, rights)
        if not _may_join(admin, group):
            lacking.append(Grant("GROUP", group, "READ"))
    except KafkaException as error:
        raise KafkaUnavailableError(error.args[0].str(), where=bootstrap, do="are all brokers up?") from error
    if lacking:
        raise forbidden(lacking, bootstrap)
    if absent:
        what = f"topics {', '.join(sorted(absent))} do not exist"
        raise KafkaUnavailableError(what, where=bootstrap, do="run `proxima topics create`")
    return topics


def _wait_answer(admin: AdminClient, refusal: Refusal, bootstrap: str) -> None:
    deadline_s = time.monotonic() + _ANSWER_S
    while True:
        try:
            admin.list_topics(timeout=_STEP_S)
        except KafkaException as error:
            admin.poll(0)
            if refusal.what:
                raise refused(refusal.what, bootstrap) from None
            if time.monotonic() > deadline_s:
                what = f"no broker answers: {error.args[0].str()}"
                raise KafkaUnavailableError(what, where=bootstrap, do="is it up, and is this its address?") from None
        else:
            return


def _topics(
    admin: AdminClient, prefix: str, rights: Rights
) -> tuple[dict[str, tuple[str, int]], list[str], list[Grant]]:
    """What there is, which topics are absent, and which rights."""
    names = {prefix + name: name for name in rights.topics}
    asked = admin.describe_topics(
        TopicCollection(list(names)), include_authorized_operations=True, request_timeout=_ANSWER_S
    )
    found: dict[str, tuple[str, int]] = {}
    absent: list[str] = []
    lacking: list[Grant] = []
    for topic, future in asked.items():
        needed = [op for op, its in (("READ", rights.reads), ("WRITE", rights.writes)) if names[topic] in its]
        described, code = _answer(future)
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            lacking += [Grant("TOPIC", topic, operation) for operation in needed]
        elif described is None:
            absent.append(topic)
        else:
            may = {operation.name for operation in described.authorized_operations or ()}
            lacking += [Grant("TOPIC", topic, operation) for operation in needed if operation not in may]
            # Kafka prints ids in the URL-safe alphabet, librdkafka in the other.
            topic_id = str(described.topic_id).replace("+", "-").replace("/", "_")
            found[names[topic]] = (topic_id, len(described.partitions))
    return found, absent, lacking


def _may_join(admin: AdminClient, group: str) -> bool:
    [future] = admin.describe_consumer_groups([group], request_timeout=_ANSWER_S).values()
    try:
        future.result()
    except KafkaException as error:
        # A group that nobody has joined yet may not be found: whoever may not ask is told that instead.
        return bool(error.args[0].code() != KafkaError.GROUP_AUTHORIZATION_FAILED)
    return True


def _answer(future: Any) -> tuple[Any, int]:
    """A topic's description, or why there is none. Raises KafkaException for what is about no topic."""
    try:
        return future.result(), KafkaError.NO_ERROR
    except KafkaException as error:
        code = error.args[0].code()
        if code not in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART):
            raise
        return None, code
