"""POST /v1/metrics: from a body to records that the broker has confirmed.

    who -> is it a good body, of about now -> may they -> not too many -> asked before? -> send, wait -> 202

All of a batch, or nothing of it, is accepted. 202 is an answer about the broker and nothing else; while it cannot
confirm the answer is 503, and nothing is acknowledged that is not on the topic.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from producers.gateway.gauges import Gauges
from producers.gateway.guards import Refused
from producers.gateway.idempotency import Idempotency, OtherBodyError
from producers.gateway.limits import Limits, retry_after
from producers.gateway.tokens import Token
from schemas.config import Gateway
from schemas.errors import DeliveryError
from schemas.records import InjectedMetric, Record

TOPIC = "injected-metrics"
RETRY_S = 2  # a broker that comes back does so in seconds
_MISTAKES_MAX = 20
_GRACE_S = 1.0  # the publisher itself says when it gives up


class Sender(Protocol):
    """Of the publisher, what is needed here."""

    def send(self, topic: str, records: Sequence[tuple[str, Record]]) -> Any:
        """A `concurrent.futures.Future` that is done when all are confirmed."""


class Injection:
    """The way in; one for an application."""

    def __init__(self, settings: Gateway, adapter: TypeAdapter[Any], sender: Sender, gauges: Gauges) -> None:
        self._adapter, self._sender, self._gauges = adapter, sender, gauges
        self._timeout_s = settings.confirm_timeout_s + _GRACE_S
        self._ahead_ms_max = settings.ahead_ms_max
        self._limits = Limits()
        self._asked: Idempotency[int] = Idempotency(settings.idempotency_s, settings.idempotency_keys_max)

    async def accept(self, row: Token, body: bytes, key: str | None) -> tuple[int, bool]:
        """How many records a body became, and whether it had been answered before. Raises Refused."""
        if not row.injects:
            raise Refused(HTTPStatus.FORBIDDEN, "this token may not inject")
        records = self._records(row, body)

        async def publish() -> int:
            return await self._publish(row, records)

        if key is None:
            return await publish(), False
        try:
            count, repeated = await self._asked.once(row.token_id, key, body, publish)
        except OtherBodyError:
            what = "this Idempotency-Key was used with another body"
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, what) from None
        if repeated:
            self._gauges.repeated.inc()
        return count, repeated

    def _records(self, row: Token, body: bytes) -> list[InjectedMetric]:
        try:
            found = self._adapter.validate_json(body)
        except ValidationError as error:
            self._gauges.records.labels(row.source, "invalid").inc()
            raise Refused(
                HTTPStatus.UNPROCESSABLE_ENTITY, "the body is not as it should be", mistakes=_mistakes(error)
            ) from None
        now_ms = time.time_ns() // 1_000_000
        metrics = getattr(found, "metrics", None) or [found]
        is_batch = metrics[0] is not found
        if max(m.observed_at_ms or 0 for m in metrics) > now_ms + self._ahead_ms_max:
            ahead = _said_of(metrics, self._ahead(now_ms), is_batch=is_batch)
            self._gauges.records.labels(row.source, "invalid").inc(len(metrics))
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "nobody has observed that yet", mistakes=ahead)
        if refused := _said_of(metrics, partial(_beyond, row), is_batch=is_batch):
            self._gauges.records.labels(row.source, "out_of_scope").inc(len(metrics))
            raise Refused(HTTPStatus.FORBIDDEN, "this token may not say that", mistakes=refused)
        return [
            InjectedMetric(
                m.primary_region,
                m.target_region,
                m.metric,
                float(m.value),
                row.source,
                now_ms if m.observed_at_ms is None else m.observed_at_ms,
                m.ttl_ms,
            )
            for m in metrics
        ]

    def _ahead(self, now_ms: int) -> Callable[[Any], list[str]]:
        """What of a metric is of a time that has not come: intake would make a dead letter of it, after a 202."""
        latest_ms = now_ms + self._ahead_ms_max

        def mistakes(metric: Any) -> list[str]:
            if metric.observed_at_ms is None or metric.observed_at_ms <= latest_ms:
                return []
            ahead = f"{metric.observed_at_ms - now_ms} ms ahead of the gateway's clock, {self._ahead_ms_max} at most"
            return [f"observed_at_ms: is {ahead}: check yours"]

        return mistakes

    async def _publish(self, row: Token, records: Sequence[InjectedMetric]) -> int:
        if wait_s := self._limits.take(row, len(records)):
            self._gauges.records.labels(row.source, "over_rate").inc(len(records))
            what = f"above {row.records_per_s:g} records/s, {row.burst} at once"
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, what, headers={"Retry-After": retry_after(wait_s)})
        begun_s = time.monotonic()
        try:
            confirmed = self._sender.send(TOPIC, [(record.primary_region, record) for record in records])
            await asyncio.wait_for(asyncio.wrap_future(confirmed), self._timeout_s)
        except (DeliveryError, TimeoutError):
            self._limits.give_back(row, len(records))
            self._gauges.records.labels(row.source, "unconfirmed").inc(len(records))
            what = "the broker has not confirmed it: send it again"
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, what, headers={"Retry-After": retry_after(RETRY_S)}) from None
        self._gauges.confirm_seconds.observe(time.monotonic() - begun_s)
        self._gauges.records.labels(row.source, "accepted").inc(len(records))
        return len(records)


def _beyond(row: Token, metric: Any) -> list[str]:
    """What of a metric is beyond the token's scope."""
    found = []
    if metric.source is not None and metric.source != row.source:
        found.append(f"source: {metric.source} is not this token's, which is {row.source}")
    if not row.may_see(metric.primary_region):
        found.append(f"primary_region: {metric.primary_region} is beyond it")
    if row.metrics and metric.metric not in row.metrics:
        found.append(f"metric: {metric.metric} is beyond it")
    return found


def _said_of(metrics: Sequence[Any], mistakes: Callable[[Any], list[str]], *, is_batch: bool) -> list[str]:
    """The first mistakes, each with its place as a validator would say it."""
    found = []
    for number, metric in enumerate(metrics):
        for mistake in mistakes(metric):
            found.append(f"{f'batch.metrics.{number}' if is_batch else 'one'}.{metric.metric}.{mistake}")
            if len(found) >= _MISTAKES_MAX:
                return found
    return found


def _mistakes(error: ValidationError) -> list[str]:
    """Each with its place, without what was sent: that may be a secret, or large."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return [f"{'.'.join(map(str, e['loc'])) or 'the body'}: {e['msg']}"[:300] for e in found[:_MISTAKES_MAX]]
