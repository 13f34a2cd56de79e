"""`[[webhook.destinations]]`: whom the webhook sink tells, what, and how patiently."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.records import Event
from schemas.validate import REGION_ID

_URL: Final = re.compile(r"[!-~]+")  # others are written %XX
_NAME: Final = r"^[a-z0-9][a-z0-9-]{0,62}$"


class Destination(BaseModel):
    """One receiver, with a consumer group, a breaker and a pace of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=_NAME, description="gives the consumer group, proxima-sink-webhook-NAME")
    url: str = Field(min_length=1, max_length=2048)
    primaries: tuple[str, ...] = Field((), description="only these; none: all")
    events: tuple[Event, ...] = Field((), description="only rankings with one of these; none: all")
    secret_files: tuple[Path, ...] = Field((), description="each with one secret or more, one a line")
    secret_env: tuple[str, ...] = Field((), description="names of variables with one secret or more")
    allow_http: bool = Field(False, description="plain http beyond loopback: anybody on the way reads and alters it")
    ca_file: Path | None = Field(None, description="certificates to trust instead of the system's (PEM)")
    timeout_ms: int = Field(10_000, ge=10, le=120_000, description="of a whole try")
    connect_timeout_ms: int = Field(3_000, ge=10, le=120_000)
    tries: int = Field(20, ge=1, le=1000, description="of one ranking, some 6 minutes; then it is a dead letter")
    retry_ms: int = Field(500, ge=1, le=3_600_000, description="longest pause after the first try, then twice as long")
    retry_ms_max: int = Field(60_000, ge=1, le=3_600_000, description="longest pause of all")
    retry_after_ms_max: int = Field(300_000, ge=0, le=86_400_000, description="a Retry-After is heeded up to this")
    in_flight_max: int = Field(32, ge=1, le=1000, description="requests at once; never two of one primary")
    waiting_max: int = Field(1_000, ge=1, le=10_000, description="of a primary; then its partition is read no further")
    waiting_all_max: int = Field(10_000, ge=1, le=100_000, description="of all; then nothing is read")
    breaker_failures: int = Field(5, ge=1, le=1000, description="in a row, then it is not asked ...")
    breaker_open_ms: int = Field(1_000, ge=10, le=3_600_000, description="... for so long, twice as long each time")
    breaker_open_ms_max: int = Field(30_000, ge=10, le=3_600_000, description="... and no longer than this")

    @property
    def host(self) -> str:
        """For logs: a URL's path and query may be what only few should know."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname or "", parts.port
        except ValueError as error:
            raise ValueError(f"url is none: {error}") from None
        if parts.scheme not in {"http", "https"} or not host:
            raise ValueError("url has to begin with https://HOST (or http://, see allow_http)")
        if not _URL.fullmatch(self.url) or not all(host.removesuffix(".").split(".")) or parts.port == 0:
            raise ValueError("url has characters, a host or a port that no address has")
        if parts.username is not None or parts.password is not None:
            raise ValueError("url holds a user or a password; this file is no place for secrets")
        if parts.fragment:
            raise ValueError("url has a fragment, which is never sent")
        if parts.scheme == "http" and not (self.allow_http or _is_loopback(host)):
            raise ValueError("url is plain http beyond loopback: use https, or say allow_http = true")
        if not self.secret_files and not self.secret_env:
            raise ValueError("give secret_files or secret_env: what is not signed could be anybody's")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        wrong = [p for p in self.primaries if not REGION_ID.fullmatch(p)]
        if wrong:
            raise ValueError(f"primaries: {', '.join(wrong)} can be no region's name")
        if self.breaker_open_ms > self.breaker_open_ms_max:
            raise ValueError("breaker_open_ms is above breaker_open_ms_max")
        return self


class Webhook(BaseModel):
    """`[webhook]`: all of them; each goes on whatever becomes of the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    destinations: tuple[Destination, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [d.name for d in self.destinations]
        if len(set(names)) < len(names):
            raise ValueError("two destinations of one name would share the rankings between them")
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
