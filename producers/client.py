"""Inject over HTTP, in three lines:

    from producers.client import Injector
    with Injector("https://proxima.example:8420", token) as inject:
        inject("eu-west-1", "us-east-1", "latency_ms", 93.5)

It returns when the broker has the record, and raises GatewayError when the gateway says no. While the gateway or its
broker is away, or we are above our rate, it tries again until its deadline: as long as the gateway asks for, with some
chance in it so that not all come back at once, and always with the same Idempotency-Key.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import httpx

from schemas.errors import GatewayError

_AGAIN: Final = (429, 502, 503, 504)
_PAUSE_S: Final = 0.5  # where the gateway does not say how long
_PAUSE_S_MAX: Final = 10.0


class Injector:
    """A connection to a gateway; call it, or `many` for a batch. Not for several threads at once."""

    def __init__(self, url: str, token: str, *, deadline_s: float = 30.0, verify: Any = True) -> None:
        """`verify`: as httpx has it, an `ssl.SSLContext` where the certificate is of an authority of your own."""
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=10.0, verify=verify)
        self._url, self._deadline_s = url, deadline_s

    def __call__(
        self,
        primary_region: str,
        target_region: str | None,
        metric: str,
        value: float,
        **more: int,
    ) -> None:
        """One metric; `more` may be `observed_at_ms` and `ttl_ms`. Raises GatewayError."""
        named = {"primary_region": primary_region, "target_region": target_region, "metric": metric, "value": value}
        self._post(named | more)

    def many(self, metrics: Sequence[Mapping[str, Any]]) -> None:
        """A batch, all or nothing, each as POST /v1/metrics has it. Raises GatewayError."""
        self._post({"metrics": [dict(metric) for metric in metrics]})

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _post(self, body: Mapping[str, Any]) -> None:
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        until_s = time.monotonic() + self._deadline_s
        while True:
            try:
                answer = self._http.post("/v1/metrics", json=body, headers=headers)
            except httpx.TransportError as error:
                what, asked = f"no answer: {error or type(error).__name__}", ""
            else:
                if answer.status_code == 202:
                    return
                what, asked = _said(answer), answer.headers.get("retry-after", "")
                if answer.status_code not in _AGAIN:
                    raise GatewayError(what, where=self._url)
            pause_s = min(float(asked) if asked.isdigit() else _PAUSE_S, _PAUSE_S_MAX) * random.uniform(0.75, 1.25)  # noqa: S311
            if time.monotonic() + pause_s > until_s:
                raise GatewayError(what, where=self._url, do=f"tried for {self._deadline_s:g} s")
            time.sleep(pause_s)


def _said(answer: httpx.Response) -> str:
    """The problem in words."""
    try:
        problem = answer.json()
        return "; ".join([problem["detail"], *problem.get("mistakes", ())])
    except (ValueError, KeyError, TypeError):
        return f"answered {answer.status_code}"
