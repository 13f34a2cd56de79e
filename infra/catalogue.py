"""The catalogue of regions in force, now and whenever it changes, for route monitors."""

from __future__ import annotations

from collections.abc import Callable

from infra.kafka.following import Follower
from infra.kafka.reader import BEGINNING, RawRecord
from schemas.codec import read
from schemas.config import Kafka
from schemas.errors import CodecError
from schemas.records import FailoverConfiguration, OperatorDirective, Region, RegionCatalog
from schemas.topics import named
from schemas.validate import mistakes


class CatalogueWatch:
    """A thread that reads `failover-config`; `changed` is called in it with all regions, at once and at each change.

    Raises KafkaUnavailableError: no broker answers, or the topic is not there.
    """

    def __init__(self, kafka: Kafka, changed: Callable[[list[Region]], None]) -> None:
        self._changed = changed
        self._catalogue = RegionCatalog(0, [])
        self._told: list[Region] | None = None
        starts = {named(kafka.topic_prefix, "failover-config"): BEGINNING}
        self._follower = Follower(kafka.bootstrap, starts, self._take, self._tell, what="the catalogue of regions")

    def close(self) -> None:
        """Watch no more."""
        self._follower.close()

    def _tell(self) -> None:
        if self._catalogue.regions != self._told:
            self._told = self._catalogue.regions
            self._changed(self._told)

    def _take(self, record: RawRecord) -> None:
        try:
            found = read(record.value or b"", RegionCatalog, FailoverConfiguration, OperatorDirective)
        except CodecError:
            return  # intake makes a dead letter of it
        if isinstance(found, RegionCatalog) and found.version > self._catalogue.version and not mistakes(found):
            self._catalogue = found
