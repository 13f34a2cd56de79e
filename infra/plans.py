"""What a readiness prober has to know of Kafka: whom to check and how, now and at each change, and who asks for it.

It hands them to the prober as they come.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from infra.kafka.following import Follower
from infra.kafka.reader import BEGINNING, NOW, RawRecord
from producers.readiness import Plan
from schemas.codec import decode, read
from schemas.config import Kafka
from schemas.errors import CodecError
from schemas.records import FailoverConfiguration, OperatorDirective, ReadinessRequest, RegionCatalog
from schemas.topics import named
from schemas.validate import mistakes


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
        self._told: Plan | None = None
        self._requests = named(kafka.topic_prefix, "readiness-requests")
        starts = {named(kafka.topic_prefix, "failover-config"): BEGINNING, self._requests: NOW}
        self._follower = Follower(
            kafka.bootstrap, starts, self._take, self._tell, what="what a readiness prober has to do"
        )

    def close(self) -> None:
        """Watch no more."""
        self._follower.close()

    def _tell(self) -> None:
        plan = Plan(self._configuration, {r.region_id: r for r in self._catalogue.regions})
        if plan != self._told:
            self._told = plan
            self._planned(plan)

    def _take(self, record: RawRecord) -> None:
        if record.topic == self._requests:
            self._request(record)
        else:
            self._configured(record)

    def _configured(self, record: RawRecord) -> None:
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
