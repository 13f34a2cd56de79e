"""Webhooks: every ranking POSTed as JSON to one destination, signed (`signing.py`), once it is due (`courier.py`).

**Order.** Every sequence of a primary is delivered, in order: the next only after the one before was delivered or given
up, and a newer ranking never replaces an older one that waits. Primaries do not wait for each other.

**At least once.** An offset is committed when everything up to it was delivered, or is in `dead-letters` with the
reason NOT_DELIVERED. After a crash or a handover a receiver may be sent again what it had, under the same `webhook-id`
(the `decision_id`), and drops it by that, or by a `sequence` at or below its last.

**Waiting is bounded.** A primary that has `waiting_max` rankings waiting has its partition read no further; the few
primaries that share the partition then wait with it, at most until `tries` are over.

A destination that answers 410 is switched off: what it was not sent stays uncommitted, and is sent after a start with
another address (or with this one, should it answer again). One destination is one sink with a consumer group of its
own, so none waits for another.
"""

from __future__ import annotations

import logging
import queue
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final

from schemas.errors import CodecError, DestinationGoneError, ProximaError
from schemas.letters import kept
from schemas.records import DeadLetter, FailoverRanking, Reason
from schemas.webhook import Destination
from sinks.courier import Courier, Ending, Parcel, Result
from sinks.dead_letters import DeadLetters
from sinks.rendering import as_json
from sinks.signing import keys_of
from sinks.sink import Meta, Place, Sink

log = logging.getLogger(__name__)

# It becomes a header, and is signed with dots around it.
_WEBHOOK_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


class WebhookSink(Sink):
    """Raises ConfigError: no secret, a bad one, or a bad `ca_file`."""

    topics = ("failover-rankings",)
    check_every_s = 0.1  # deliveries end while nothing comes in

    def __init__(self, destination: Destination, *, bootstrap: str, prefix: str = "") -> None:
        self._to = destination
        self._letters = DeadLetters(bootstrap, prefix)
        self._courier = Courier(destination, keys_of(destination))
        self._batch: list[Parcel] = []
        self._owned: Sequence[Place] = ()
        self._is_resting = False  # between `drain` and `assigned`
        self._under_way: dict[Place, dict[int, str]] = {}  # offset -> primary, in the topic's order
        self._waiting: Counter[tuple[Place, str]] = Counter()
        self._crowded: set[tuple[Place, str]] = set()
        self._given_up: list[Parcel] = []  # whose dead letters are not confirmed
        self._gone: DestinationGoneError | None = None
        self.delivered = self.given_up = 0

    def add(self, record: FailoverRanking, meta: Meta) -> None:
        if not self._wants(record):
            return
        if not _WEBHOOK_ID.fullmatch(record.decision_id):
            raise CodecError(Reason.OUT_OF_RANGE, "its decision_id can be no webhook-id")
        body = as_json(record).encode()
        self._batch.append(Parcel(record.primary_region, record.sequence, record.decision_id, body, meta))
        self._under_way.setdefault(meta.place, {})[meta.offset] = record.primary_region
        self._waiting[meta.place, record.primary_region] += 1

    def flush(self) -> Collection[Place]:
        batch, self._batch = self._batch, []
        if batch and not self._is_resting and self._gone is None:
            self._courier.submit(batch)
        self._settle()
        self._letters.confirm()
        # Only now: what is given up is done when its dead letter has arrived.
        for parcel in self._given_up:
            self._done(parcel)
        self._given_up.clear()
        if self._gone is not None and not self._is_resting:
            raise self._gone
        return ()

    def assigned(self, places: Sequence[Place]) -> Mapping[Place, int]:
        self._settle()
        # What was not done until now is read again, by us or by another.
        for left in (self._batch, self._under_way, self._waiting, self._crowded, self._given_up):
            left.clear()
        self._owned, self._is_resting = places, False
        return {}

    def handled(self, taken: Mapping[Place, int]) -> Mapping[Place, int]:
        return {place: next(iter(self._under_way.get(place, ())), offset) for place, offset in taken.items()}

    def busy(self) -> Collection[Place]:
        if self._waiting.total() >= self._to.waiting_all_max:
            return self._owned
        # Not read on at the first that leaves: pausing and resuming costs what was fetched ahead.
        self._crowded = {
            key
            for key, waiting in self._waiting.items()
            if waiting >= self._to.waiting_max or (key in self._crowded and waiting > self._to.waiting_max // 2)
        }
        return {place for place, _ in self._crowded}

    def drain(self) -> None:
        self._courier.drain()
        self._is_resting = True

    def close(self) -> None:
        self._courier.close()

    def _wants(self, ranking: FailoverRanking) -> bool:
        to = self._to
        return (not to.primaries or ranking.primary_region in to.primaries) and (
            not to.events or not set(to.events).isdisjoint(ranking.events)
        )

    def _settle(self) -> None:
        """Take note of what the courier did."""
        with suppress(queue.Empty):
            while True:
                self._note(self._courier.results.get_nowait())

    def _note(self, result: Result) -> None:
        parcel = result.parcel
        if result.ending is Ending.BROKEN:
            raise ProximaError(f"a fault of ours: {result.why}", where=self._where(parcel))
        if result.ending is Ending.GONE:
            self._gone = self._switched_off(parcel)
        elif result.ending is Ending.GIVEN_UP:
            log.error("dead letter: %s %d: %s", parcel.primary, parcel.sequence, result.why)
            self._letters.send(self._letter(result))
            self._given_up.append(parcel)
            self.given_up += 1
        else:
            self._done(parcel)
            self.delivered += 1

    def _done(self, parcel: Parcel) -> None:
        place, key = parcel.meta.place, (parcel.meta.place, parcel.primary)
        if self._under_way.get(place, {}).pop(parcel.meta.offset, None) is None:
            return
        self._waiting[key] -= 1
        if not self._waiting[key]:
            del self._waiting[key]

    def _letter(self, result: Result) -> DeadLetter:
        meta = result.parcel.meta
        original, key, detail = kept(meta.value, meta.key, result.why)
        return DeadLetter(
            reason=Reason.NOT_DELIVERED,
            detail=detail,
            source_topic=meta.topic,
            source_partition=meta.partition,
            source_offset=meta.offset,
            appended_at_ms=meta.appended_at_ms,
            found_by=f"webhook-{self._to.name}",
            original=original,
            original_key=key,
        )

    def _switched_off(self, parcel: Parcel) -> DestinationGoneError:
        error = DestinationGoneError(
            "the destination answers 410, gone: it is switched off, and what it was not sent stays uncommitted",
            where=self._where(parcel),
            do="take it out of the configuration, or give its new address and start again",
        )
        log.error("%s", error)
        return error

    def _where(self, parcel: Parcel) -> str:
        return f"webhook {self._to.name}, {parcel.primary} {parcel.sequence}"
