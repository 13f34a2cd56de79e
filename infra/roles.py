"""Readiness probers and sinks as they say they are: who is there, what is not ready, and which breakers are open.

A prober says it in its reports, a sink in the metadata of its group's commits. Whose records were refused lately is
told by the dead letters.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from infra.findings import OK, WARNING, Finding
from infra.kafka.admin import admin_client
from infra.kafka.reader import TopicReader
from infra.times import lasting
from infra.words import clean, listed
from schemas.breaker import State
from schemas.codec import decode
from schemas.errors import CodecError
from schemas.records import DeadLetter, ReadinessReport, Reason
from schemas.topics import named

_BACK: Final = 1000  # of each partition, so many of the last reports are looked at
_LETTERS_BACK: Final = 100  # a letter may be as large as a record
_RECENT_MS: Final = 3_600_000
_DETAIL_MAX: Final = 160
_READ_S: Final = 10.0
_SILENT_MS: Final = 120_000
_SHOWN_MAX: Final = 5
_TIMEOUT_S: Final = 10.0
_OPEN: Final = State.OPEN.value


def probers(bootstrap: str, prefix: str = "") -> Finding:
    """Readiness probers by their last reports. Raises KafkaUnavailableError."""
    latest = _latest_reports(bootstrap, prefix)
    if not latest:
        return Finding("readiness", OK, "no prober reports; nobody is held to be unready")
    now_ms = time.time_ns() // 1_000_000
    agents: dict[str, list[tuple[int, ReadinessReport]]] = {}
    for appended_at_ms, report in latest.values():
        agents.setdefault(report.agent_id, []).append((appended_at_ms, report))
    said, wrong = [], []
    for agent, its in sorted(agents.items()):
        age_ms = now_ms - max(at_ms for at_ms, _ in its)
        ready = sum(report.ready for _, report in its)
        said.append(f"{clean(agent)}: {ready} of {len(its)} targets ready, last report {lasting(max(age_ms, 0))} ago")
        if age_ms > _SILENT_MS:
            wrong.append(f"{clean(agent)} is silent")
        wrong += [line for _, report in sorted(its, key=lambda pair: pair[1].target_region) for line in _unwell(report)]
    if not wrong:
        return Finding("readiness", OK, "; ".join(said))
    do = "look at what is named; a target comes back by itself when its checks pass"
    return Finding("readiness", WARNING, "; ".join([*said, _few(wrong)]), do)


def sinks(bootstrap: str, prefix: str = "") -> Finding:
    """Sinks by their groups: breakers, who is there, how far behind. Raises KafkaException."""
    found = list(_sinks(bootstrap, prefix))
    if not found:
        return Finding("sinks", OK, "none has committed anything")
    said = "; ".join(str(sink) for sink in found)
    if any(sink.breaker for sink in found):
        return Finding("sinks", WARNING, said, "mend the store; its sink goes on by itself where it was")
    if any(sink.behind and not sink.members for sink in found):
        do = "start it; or, if nobody needs it any more, `kafka-consumer-groups.sh --delete --group` its group"
        return Finding("sinks", WARNING, said, do)
    return Finding("sinks", OK, said)


@dataclass(frozen=True, slots=True)
class _Sink:
    name: str
    breaker: str
    """What is wrong with its store; empty: nothing is."""
    members: int
    behind: int
    """Records of its topics that are not in its store."""

    def __str__(self) -> str:
        who = "" if self.members else "no process is there, "
        store = f", {self.breaker}" if self.breaker else ""
        return f"{self.name}: {who}{self.behind} behind{store}"


def refused(bootstrap: str, prefix: str = "") -> Finding:
    """What became dead letters within the last hour, by reason. Raises KafkaUnavailableError."""
    since_ms = time.time_ns() // 1_000_000 - _RECENT_MS
    last: dict[str, str] = {}
    counts: Counter[str] = Counter()
    until_s = time.monotonic() + _READ_S
    with TopicReader(bootstrap, {named(prefix, "dead-letters"): _LETTERS_BACK}) as reader:
        while not reader.at_end and time.monotonic() < until_s:
            record = reader.poll(0.5)
            if record is None or record.appended_at_ms < since_ms or record.value is None:
                continue
            try:
                letter = decode(record.value, DeadLetter)
            except CodecError:
                continue
            counts[letter.reason] += 1
            last[letter.reason] = f"{clean(letter.found_by)} of {clean(letter.source_topic)}: {clean(letter.detail)}"
    if not counts:
        return Finding("dead letters", OK, "none within the last hour")
    said = [
        f"{count} {clean(reason)} (the last by {last[reason][:_DETAIL_MAX]})" for reason, count in counts.most_common()
    ]
    do = "`proxima tail dead-letters --from-beginning --to-end` shows each with its bytes"
    if Reason.FOREIGN_AGENT in counts:
        do += "; if a foreign agent is one of yours, name it in its region's `agents`"
    return Finding("dead letters", WARNING, f"within the last hour, of the newest: {_few(said)}", do)


def _latest_reports(bootstrap: str, prefix: str) -> dict[tuple[str, str, str], tuple[int, ReadinessReport]]:
    """Of each prober, primary and target the last, and when it was appended."""
    found: dict[tuple[str, str, str], tuple[int, ReadinessReport]] = {}
    deadline_s = time.monotonic() + _READ_S
    with TopicReader(bootstrap, {named(prefix, "readiness-reports"): _BACK}) as reader:
        while not reader.at_end and time.monotonic() < deadline_s:
            raw = reader.poll(0.1)
            if raw is None or raw.value is None:
                continue
            try:
                report = decode(raw.value, ReadinessReport)
            except CodecError:
                continue  # intake makes a dead letter of it
            found[report.agent_id, report.primary_region, report.target_region] = raw.appended_at_ms, report
    return found


def _unwell(report: ReadinessReport) -> Iterator[str]:
    where = f"{report.primary_region} to {report.target_region}"
    for check in report.checks:
        if not check.passed:
            breaker = f", breaker {check.breaker}" if check.breaker not in ("", State.CLOSED) else ""
            yield clean(f"{where} is not ready by {report.agent_id} ({check.name}: {check.reason}{breaker})")
            return


def _few(said: list[str]) -> str:
    more = len(said) - _SHOWN_MAX
    return listed([*said[:_SHOWN_MAX], f"{more} more"] if more > 0 else said)


def _sinks(bootstrap: str, prefix: str) -> Iterator[_Sink]:
    admin, begin = admin_client(bootstrap), f"{prefix}proxima-"
    kinds = tuple(begin + kind for kind in ("sink-", "store-", "actuators-"))
    listing = admin.list_consumer_groups(request_timeout=_TIMEOUT_S).result()
    groups = sorted(group.group_id for group in listing.valid if group.group_id.startswith(kinds))
    described = admin.describe_consumer_groups(groups, request_timeout=_TIMEOUT_S) if groups else {}
    for group in groups:
        asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=_TIMEOUT_S)
        places = asked[group].result().topic_partitions
        words = [word for place in places if (word := _word(place.metadata))]
        name = group.removeprefix(begin).removeprefix("sink-").removeprefix("store-")
        yield _Sink(name, _worst(words), len(described[group].result().members), _behind(admin, places))


def _behind(admin: AdminClient, places: list[TopicPartition]) -> int:
    """Records after what is committed; of a topic that is gone there are none."""
    committed = {(place.topic, place.partition): place.offset for place in places if place.offset >= 0}
    latest = {TopicPartition(*place): OffsetSpec.latest() for place in committed}
    ends = admin.list_offsets(latest, request_timeout=_TIMEOUT_S) if latest else {}
    behind = 0
    for place, future in ends.items():
        try:
            behind += max(0, future.result().offset - committed[place.topic, place.partition])
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
    return behind


def _word(metadata: str | None) -> dict[str, Any]:
    try:
        found = json.loads(metadata or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _worst(words: list[dict[str, Any]]) -> str:
    """Of what a group's members say: the latest that a breaker is open, unless one says later that it is not."""
    latest = max(words, key=lambda word: int(word.get("since_ms", 0)), default={})
    if latest.get("breaker") != _OPEN:
        return ""
    for_ms = max(time.time_ns() // 1_000_000 - int(latest.get("since_ms", 0)), 0)
    return f"breaker OPEN for {lasting(for_ms)} ({clean(str(latest.get('reason', '')))})"
