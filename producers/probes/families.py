"""A probe by both versions of IP: a part for each that this machine has."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Protocol

from producers.probes import Answer, Ended, Endpoint
from schemas.errors import ProbeError
from schemas.records import Outcome


class Part(Protocol):
    """What a probe is for one version of IP."""

    def ask(self, endpoint: Endpoint, ended: Ended) -> None: ...

    def close(self) -> None: ...


class Families:
    """Asks each endpoint by its own version of IP; NOT_SENT where this machine has none of that."""

    def __init__(self, open_part: Callable[[socket.AddressFamily], Part], *, what: str, where: str, do: str) -> None:
        """`open_part` raises OSError where it cannot. Raises ProbeError (`what` cannot be opened) if it never can."""
        self._parts: dict[int, Part] = {}
        refused = ""
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                self._parts[family] = open_part(family)
            except OSError as error:  # a machine without IPv6 asks by IPv4
                refused = refused or os.strerror(error.errno or 0)
        if not self._parts:
            raise ProbeError(f"no {what} socket may be opened: {refused}", where=where, do=do)

    def ask(self, endpoint: Endpoint, ended: Ended) -> None:
        part = self._parts.get(endpoint.family)
        if part is None:
            ended(Answer(Outcome.NOT_SENT))
        else:
            part.ask(endpoint, ended)

    def close(self) -> None:
        for part in self._parts.values():
            part.close()
