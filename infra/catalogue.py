"""The catalogue of regions in force, now and whenever it changes, for producers: they do not read Kafka themselves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from infra.kafka.reader import BEGINNING, RawRecord, TopicReader
from schemas.codec import read
from schemas.config import Kafka
from schemas.errors import CodecError, ProximaError
from schemas.records import FailoverConfiguration, OperatorDirective, Region, RegionCatalog
from schemas.topics import named
from schemas.validate import mistakes

log = logging.getLogger(__name__)

_POLL_S = 0.2


class CatalogueWatch:
    """A thread that reads `failover-config`; `changed` is called in it with all regions, at once and at each change.

    Raises KafkaUnavailableError: no broker answers, or the topic is not there.
    """

    def __init__(self, kafka: Kafka, changed: Callable[[list[Region]], None]) -> None:
        self._changed = changed
        self._catalogue = RegionCatalog(0, [])
        self._reader = TopicReader(kafka.bootstrap, {named(kafka.topic_prefix, "failover-config"): BEGINNING})
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="catalogue", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()
        self._thread.join()
        self._reader.close()

    def _watch(self) -> None:
        told: list[Region] | None = None
        while not self._closed.is_set():
            try:
                record = self._reader.poll(_POLL_S)
            except ProximaError as error:
                log.error("the catalogue of regions is watched no longer: %s", error)
                return
            if record is not None:
                self._take(record)
            # Not what was applied last year and replaced since, but where it stands.
            if self._reader.at_end and self._catalogue.regions != told:
                told = self._catalogue.regions
                self._changed(told)

    def _take(self, record: RawRecord) -> None:
        try:
            found = read(record.value or b"", RegionCatalog, FailoverConfiguration, OperatorDirective)
        except CodecError:
            return  # intake makes a dead letter of it
        if isinstance(found, RegionCatalog) and found.version > self._catalogue.version and not mistakes(found):
            self._catalogue = found
