"""How far each partition of a sink is taken from Kafka, has reached the store, and is committed.

    taken >= flushed >= committed

Only what the store has is committed, with a word about the store as the commit's metadata. A commit that fails is made
good by the next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, KafkaException, TopicPartition

from sinks.sink import Place

log = logging.getLogger(__name__)

COMMIT_EVERY_S: Final = 0.2


class Offsets:
    """Of the places that are ours. An offset is that of the next record."""

    def __init__(self) -> None:
        self.owned: set[Place] = set()
        self.unplaced: set[Place] = set()  # of these: the store has yet to say where it stands
        self.taken: dict[Place, int] = {}
        self.flushed: dict[Place, int] = {}  # the store has so much
        self._committed: dict[Place, tuple[int, str]] = {}  # and what was said with it
        self._committing = ""  # what is said with the commit under way
        self._is_committing = False
        self._committed_at_s = 0.0

    def assigned(self, places: Iterable[Place]) -> None:
        """These places, and no others, are ours now."""
        self.owned = set(places)
        self.unplaced = set(self.owned)

    def lost(self) -> None:
        """No place is ours any more."""
        for place in self.owned:
            self._forget(place)
        self.owned, self.unplaced, self._is_committing = set(), set(), False

    def rewound(self, place: Place) -> None:
        """The store has lost what it had confirmed of it."""
        self._forget(place)
        self.unplaced.add(place)

    def _forget(self, place: Place) -> None:
        for known in (self.taken, self.flushed, self._committed):
            known.pop(place, None)

    def placed(self, stands: Mapping[Place, int]) -> list[TopicPartition]:
        """Where to read on: where the store stands, else where we stand, else where the group does."""
        # What the store has is committed too: a rebalance may come between a flush and its commit.
        self.flushed.update((place, offset) for place, offset in stands.items() if offset > 0)
        self.unplaced.clear()
        return [_at(place, stands.get(place, self.taken.get(place))) for place in sorted(self.owned)]

    def behind(self, ends: Mapping[Place, tuple[int, int] | None]) -> int:
        """Records that the store does not have, by the lowest and highest offset of each place, where known."""
        done = {**self.taken, **self.flushed}
        return sum(max(0, end[1] - done[place]) for place, end in ends.items() if end is not None and place in done)

    def commit_sometimes(self, consumer: Any, word: str) -> None:
        """Not after every flush: at a low rate that is every record, and each costs the group's coordinator a write."""
        now_s = time.monotonic()
        if now_s >= self._committed_at_s + COMMIT_EVERY_S and not self._is_committing:
            self._committed_at_s = now_s
            self.commit(consumer, word, wait=False)

    def commit(self, consumer: Any, word: str, *, wait: bool) -> None:
        """Commit what the store has and is not committed with this word yet."""
        self._committing = word
        offsets = [
            TopicPartition(*place, offset, word)
            for place, offset in self.flushed.items()
            if self._committed.get(place) != (offset, word)
        ]
        if not offsets:
            return
        try:
            consumer.commit(offsets=offsets, asynchronous=not wait)
        except KafkaException as error:
            log.info("not committed: %s", error.args[0].str())
        else:
            self._is_committing = not wait

    def on_commit(self, error: Any, offsets: Sequence[Any]) -> None:
        """The client's answer to a commit."""
        self._is_committing = False
        if error is not None:
            log.info("not committed: %s", error.str())
            return
        for done in offsets:
            place = done.topic, done.partition
            if done.error is None and place in self.flushed:
                self._committed[place] = done.offset, self._committing


def _at(place: Place, offset: int | None) -> TopicPartition:
    """A place to read from: None is where the group stands, 0 whatever is the oldest that is kept."""
    if offset is None:
        return TopicPartition(*place, OFFSET_INVALID)
    return TopicPartition(*place, offset if offset > 0 else OFFSET_BEGINNING)
