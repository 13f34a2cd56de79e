"""What a sink has to be, and what it is told of where a record stood."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

Place = tuple[str, int]  # a topic's name on the cluster, and a partition

# How often a store is asked whether it still has everything when there is nothing to write.
CHECK_EVERY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Meta:
    """Where a record stood, and its bytes."""

    topic: str
    partition: int
    offset: int
    appended_at_ms: int
    key: bytes | None
    value: bytes = b""

    @property
    def place(self) -> Place:
        return self.topic, self.partition


class Sink(Protocol):
    """A target of records. One thread calls it; every call may be repeated after a failure."""

    topics: Sequence[str]
    """What it takes, by the names of the table."""
    group: str = "proxima-sink-"
    """How its consumer group's name begins: a role may join the groups of its own kind (schemas/rights.py)."""
    check_every_s: float = CHECK_EVERY_S
    """How often `flush` is called when there is nothing to write."""

    def add(self, record: Any, meta: Meta) -> None:
        """Take a record into the batch, without I/O; raises CodecError for one that the target cannot hold."""

    def skip(self, meta: Meta) -> None:  # noqa: ARG002
        """This place is done too, and nothing of it belongs in the batch."""
        return  # most stores have no position to note it in

    def flush(self) -> Collection[Place]:
        """Write the batch, so that it would survive our death, and start another; also called with an empty one.

        Returns the places whose records the store turns out to have lost after it had confirmed them: `assigned` will
        be asked again where it stands now.
        Raises StoreUnavailableError: the batch is kept, and written at the next call.
        """

    def assigned(self, places: Sequence[Place]) -> Mapping[Place, int]:  # noqa: ARG002 - for those that have one
        """These places, and no others, are ours now; returns where the store's own position in each of them is.

        A place that is not returned goes on at the group's committed offset: right for every store that keeps what
        it has confirmed. Raises StoreUnavailableError.
        """
        return {}

    def handled(self, taken: Mapping[Place, int]) -> Mapping[Place, int]:
        """After a flush: up to which offset each place is done, and may be committed, of what was taken up to `taken`.

        All of it, unless the sink goes on writing after `flush` has returned.
        """
        return taken

    def busy(self) -> Collection[Place]:
        """Places of which no more should be read for now; asked after each flush."""
        return ()

    def drain(self) -> None:
        """Finish soon what is under way and begin nothing, until `assigned` is called: the places become another's."""
        return  # most sinks have nothing under way between two flushes

    def close(self) -> None:
        """Let go of the target."""
