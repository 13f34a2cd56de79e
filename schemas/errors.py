"""The one tree of errors: each says what was wrong, where (file, key, topic-partition-offset) and what to do.

A record that cannot be processed is not an exception that travels: it becomes a dead letter with a `Reason`
(see `schemas.records.DeadLetter`). Exceptions are for the people who start, configure and call Proxima.
"""

from __future__ import annotations

from collections.abc import Sequence


class ProximaError(Exception):
    """Root of all errors that Proxima raises on purpose: `what` happened, `where`, and what to `do` about it."""

    def __init__(self, what: str, *, where: str = "", do: str = "") -> None:
        super().__init__(what, where, do)
        self.what, self.where, self.do = what, where, do

    def __str__(self) -> str:
        return "".join((self.what, f" ({self.where})" if self.where else "", f": {self.do}" if self.do else ""))


class ConfigError(ProximaError):
    """A configuration file, an environment variable or a policy is wrong; carries every mistake at once."""

    def __init__(self, mistakes: Sequence[str], *, where: str = "", do: str = "") -> None:
        self.mistakes = tuple(mistakes)
        count = len(self.mistakes)
        what = self.mistakes[0] if count == 1 else f"{count} mistakes:" + "".join(f"\n  {m}" for m in self.mistakes)
        super().__init__(what, where=where, do=do)


class CodecError(ProximaError):
    """Bytes are not the record that they should be; `reason` is the dead letter's."""

    def __init__(self, reason: str, what: str, *, where: str = "") -> None:
        self.reason = reason
        super().__init__(what, where=where)


class KafkaUnavailableError(ProximaError):
    """No broker answers, none can be started, or a topic or right is missing."""


class DeliveryError(ProximaError):
    """A record was not confirmed by the broker within its delivery time."""


class StoreUnavailableError(ProximaError):
    """A store (Redis, ...) does not answer; its sink keeps its place and tries again."""


class DestinationGoneError(ProximaError):
    """A webhook's receiver answered 410: it wants nothing more, and is sent nothing more."""


class RegistryError(ProximaError):
    """The schema registry does not answer, or refuses a schema."""


class JournalError(ProximaError):
    """A journal cannot be read as one: torn file, wrong topic, no configuration in it."""


class TraceError(ProximaError):
    """A directory of recorded round-trip times cannot be read as one; names the file and the line."""


class ProbeError(ProximaError):
    """A probe cannot be sent from here: no privilege, no such address, no socket left."""


class RouteError(ProximaError):
    """Routes cannot be listened to or read: an address that is taken, a file that is not there."""


class GatewayError(ProximaError):
    """The HTTP API cannot serve, or did not take what a client sent."""
