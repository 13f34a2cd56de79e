"""A provider's HTTP API (infra/provider/openapi.json): a circuit's bandwidth, asked for and then looked at.

An order is idempotent twice over: it names the bandwidth that is wanted, not a change of it, and carries the action's
id as its Idempotency-Key. What a provider promises counts for nothing until the circuit itself says so. Redirects are
not followed, proxies of the environment not used, bodies bounded, and every answer is held against its schema.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final, TypeVar

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.actuators import Provider, ProviderTask
from schemas.records import RemedyKind
from sinks.actuators.actuator import Actuator, ActuatorError, Wanted

BODY_BYTES_MAX: Final = 64 << 10
_LOOK_EVERY_S: Final = 0.1
_DONE: Final = (200, 202)


class Circuit(BaseModel):
    """As the API describes one; more than that is allowed to be in it."""

    model_config = ConfigDict(strict=True)

    circuit: str = Field(max_length=64)
    bandwidth_bps: int = Field(ge=0, le=10**15)


class Order(BaseModel):
    """The answer to an order."""

    model_config = ConfigDict(strict=True)

    order: str = Field(min_length=1, max_length=128)
    circuit: str = Field(max_length=64)
    bandwidth_bps: int = Field(ge=0, le=10**15)


M = TypeVar("M", Circuit, Order)


class ProviderActuator(Actuator):
    """The tasks of one `[[providers]]`."""

    def __init__(self, config: Provider) -> None:
        self.name = config.name
        self._config = config
        self._tasks = {(t.primary, t.remedy): t for t in config.tasks}

    def refuses(self, wanted: Wanted) -> str | None:
        task = self._tasks.get((wanted.primary, wanted.remedy))
        if task is None:
            return f"{self.name} has no task {wanted.remedy} of {wanted.primary}"
        if wanted.kind != RemedyKind.BANDWIDTH:
            return f"{wanted.remedy} is BANDWIDTH, not {wanted.kind}"
        if wanted.applies and not task.value_min <= wanted.value <= task.value_max:
            return f"{wanted.value} bit/s is not within {task.value_min} to {task.value_max}"
        return None

    def words(self, wanted: Wanted) -> str:
        task, bps = self._task(wanted)
        return f"circuit {task.circuit}: {bps / 1e6:g} Mbit/s"

    def is_so(self, wanted: Wanted) -> bool:
        task, bps = self._task(wanted)
        return asyncio.run(self._has(task, bps, settle_s=0))

    def do(self, wanted: Wanted, action_id: str) -> None:
        task, bps = self._task(wanted)
        asyncio.run(self._order(task, bps, action_id))

    def _task(self, wanted: Wanted) -> tuple[ProviderTask, int]:
        task = self._tasks[wanted.primary, wanted.remedy]
        return task, wanted.value if wanted.applies else task.usual_bps

    async def _order(self, task: ProviderTask, bps: int, action_id: str) -> None:
        body, key = {"bandwidth_bps": bps}, {"Idempotency-Key": action_id}
        order = await self._ask("PUT", f"{task.circuit}/bandwidth", Order, json=body, headers=key)
        if order.circuit != task.circuit or order.bandwidth_bps != bps:
            said = f"{order.bandwidth_bps} bit/s for {order.circuit}"
            raise ActuatorError(f"the provider took an order for something else: {said}", where=self._config.url)
        if not await self._has(task, bps, settle_s=self._config.settle_ms / 1000):
            raise ActuatorError(
                f"the provider said yes ({order.order}), and {task.circuit} does not have {bps} bit/s after "
                f"{self._config.settle_ms} ms",
                where=self._config.url,
            )

    async def _has(self, task: ProviderTask, bps: int, *, settle_s: float) -> bool:
        deadline_s = time.monotonic() + settle_s
        while True:
            circuit = await self._ask("GET", task.circuit, Circuit)
            if circuit.circuit != task.circuit:
                raise ActuatorError(f"asked for {task.circuit}, the provider tells of {circuit.circuit}")
            if circuit.bandwidth_bps == bps or time.monotonic() >= deadline_s:
                return circuit.bandwidth_bps == bps
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _ask(self, method: str, path: str, answer: type[M], **more: Any) -> M:
        url = f"{self._config.url.rstrip('/')}/v1/circuits/{path}"
        timeout = aiohttp.ClientTimeout(total=self._config.timeout_ms / 1000)
        headers = {"Accept": "application/json", **self._authorization(), **more.pop("headers", {})}
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False, auto_decompress=False) as session,
                session.request(method, url, allow_redirects=False, headers=headers, **more) as response,
            ):
                body = await response.content.read(BODY_BYTES_MAX + 1)
                while len(body) <= BODY_BYTES_MAX and (part := await response.content.read(BODY_BYTES_MAX + 1)):
                    body += part
                status = response.status
        except TimeoutError:
            raise ActuatorError(f"no answer within {self._config.timeout_ms} ms", where=f"{method} {url}") from None
        except aiohttp.ClientError as error:
            raise ActuatorError(str(error)[:300] or type(error).__name__, where=f"{method} {url}") from None
        if status not in _DONE:
            raise ActuatorError(f"the provider answers {status}", where=f"{method} {url}")
        if len(body) > BODY_BYTES_MAX:
            raise ActuatorError(f"the answer has more than {BODY_BYTES_MAX} bytes", where=f"{method} {url}")
        try:
            return answer.model_validate_json(body)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors()[:3])
            raise ActuatorError(f"the answer is not what the API describes: {wrong}", where=f"{method} {url}") from None

    def _authorization(self) -> dict[str, str]:
        if self._config.token_file is None:
            return {}
        try:
            token = self._config.token_file.read_text().strip()
        except OSError as error:
            where = str(self._config.token_file)
            raise ActuatorError(f"the token cannot be read: {error.strerror}", where=where) from None
        return {"Authorization": f"Bearer {token}"}
