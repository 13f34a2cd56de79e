"""An MRT file as events: what a monitor would have told if the file's records had come in at their times. No Kafka."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from producers.routes.following import following
from producers.routes.mrt import ESTABLISHED, Counts, MrtReader, PeerKey, address_of
from producers.routes.table import MINUTE_MS, Peer, RouteTable
from schemas.records import Region, RouteEvent, View

FILE_PEERS_MAX: Final = 100_000  # the largest collector has some thousand; a file of nonsense may have any number


class MrtReplay:
    """The events of a file; its records are counted as they go by."""

    def __init__(self, path: Path, regions: Iterable[Region] = (), settle_ms: int = 100) -> None:
        """Raises RouteError: there is no such file, or it may not be read."""
        self._reader = MrtReader(path, following(regions))
        # A file has no monitor of its own: its events say who wrote it down, and are not for Kafka.
        self._table = RouteTable("mrt", "mrt")
        self._settle_ms = settle_ms
        self._peers: dict[PeerKey, Peer] = {}

    @property
    def counts(self) -> Counts:
        return self._reader.counts

    def __iter__(self) -> Iterator[RouteEvent]:
        settled = minute = -1
        for entry in self._reader:
            if entry.at_ms // self._settle_ms != settled:
                settled = entry.at_ms // self._settle_ms
                if minute not in (-1, entry.at_ms // MINUTE_MS):
                    self._table.minute((minute + 1) * MINUTE_MS)
                minute = entry.at_ms // MINUTE_MS
                yield from self._told()
            peer = self._peers.get(entry.peer) or self._meet(entry.peer, entry.at_ms)
            if peer is None:
                continue
            if entry.update is not None:
                self._table.take(peer, View.PRE_POLICY, entry.update, entry.at_ms)
            elif entry.states is not None and entry.states[1] == ESTABLISHED:
                self._table.up(peer, entry.at_ms)
            elif entry.states is not None and entry.states[0] == ESTABLISHED:
                self._table.down(peer, entry.at_ms)
        yield from self._told()

    def _meet(self, key: PeerKey, at_ms: int) -> Peer | None:
        if len(self._peers) >= FILE_PEERS_MAX:
            return None
        peer = self._table.add(address_of(key.local), address_of(key.peer), key.peer_as, at_ms)
        self._peers[key] = peer
        return peer

    def _told(self) -> Iterator[RouteEvent]:
        while events := self._table.tell(1000):
            yield from events
