"""What a readiness prober has to know of Kafka: whom to check and how, now and at each change, and who asks for it.

Producers do not read Kafka themselves; this hands them records as they come.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from infra.kafka.reader import BEGINNING, NOW, RawRecord, TopicReader
from producers.readiness import Plan
from schemas.codec import decode, read
from schemas.config import Kafka
from schemas.errors import CodecError, ProximaError
from schemas.records import FailoverConfiguration, OperatorDirective, ReadinessRequest, RegionCatalog
from schemas.topics import named
from schemas.validate import mistakes

log = logging.getLogger(__name__)

_POLL_S: Final = 0.2
_AGAIN_S: Final = 5.0


class PlanWatch:
    """A thread that reads `failover-config` and `readiness-requests`, and calls back in it.

    `planned` is called with the primary's plan, at once and at each change; `asked` with each request that comes from
    now on and has not expired. Raises KafkaUnavailableError: no broker answers, or a topic is not there.
    """

    def __init__(
        self,
        kafka: Kafka,
        primary: str,
        planned: Callable[[Plan], None],
        asked: Callable[[ReadinessRequest], None],
    ) -> None:
        self._primary, self._planned, self._asked = primary, planned, asked
        self._catalogue = RegionCatalog(0, [])
        self._configuration: FailoverConfiguration | None = None
        self._requests = named(kafka.topic_prefix, "readiness-requests")
        self._bootstrap = kafka.bootstrap
        self._starts = {named(kafka.topic_prefix, "failover-config"): BEGINNING, self._requests: NOW}
        self._reader = TopicReader(self._bootstrap, self._starts)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="plans", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()
        self._thread.join()
        self._reader.close()

    def _watch(self) -> None:
        told: Plan | None = None
        while not self._closed.is_set():
            try:
                record = self._reader.poll(_POLL_S)
            except ProximaError as error:  # a right was taken away: what is known goes on being checked
                log.error("neither plans nor requests are read: %s", error)
                self._closed.wait(_AGAIN_S)
                continue
            if record is not None and record.topic == self._requests:
                self._request(record)
            elif record is not None:
                self._take(record)
            # Not what was applied last year and replaced since, but where it stands.
            plan = Plan(self._configuration, {r.region_id: r for r in self._catalogue.regions})
            if self._reader.at_end and (told is None or record is not None) and plan != told:
                told = plan
                self._planned(plan)

    def _take(self, record: RawRecord) -> None:
        try:
            found = read(record.value or b"", RegionCatalog, FailoverConfiguration, OperatorDirective)
        except CodecError:
            return  # intake makes a dead letter of it
        if mistakes(found):
            return
        if isinstance(found, RegionCatalog) and found.version > self._catalogue.version:
            self._catalogue = found
        elif isinstance(found, FailoverConfiguration) and found.primary_region == self._primary:
            known = self._configuration
            if found.based_on == (known.version if known is not None else 0):  # compare-and-set, as the fold judges
                self._configuration = found

    def _request(self, record: RawRecord) -> None:
        try:
            request = decode(record.value or b"", ReadinessRequest)
        except CodecError:
            return
        if request.primary_region == self._primary and request.expires_at_ms > time.time_ns() // 1_000_000:
            self._asked(request)
