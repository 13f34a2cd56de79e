"""Confluent's wire format, at the edges: 00, four bytes of schema id, then the same Avro as behind C3 01.

Inside Proxima a value is always in single-object encoding: the journal in a file, bodies within observations, the hash
that a decision's id is. Where a value goes to Kafka `framed` gives it the registry's header instead, if a registry is
in use; where one comes from Kafka `unframed` gives it ours back (`decode` reads either). So decisions and their bytes
do not depend on which numbers a registry gave.

Subjects are the records' names (Confluent's RecordNameStrategy): several topics carry more than one kind of record.
The ids of every schema here are asked for at the start. What others registered is asked for when it first comes; a
registry that does not answer then is left alone for a while, and the value is an unknown schema.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any, Final

from schemas import codec
from schemas.breaker import Breaker, Limits
from schemas.codec import MAGIC, REGISTRY_MAGIC
from schemas.errors import CodecError, RegistryError
from schemas.records import RECORDS, Reason
from schemas.registry import Schemas

log = logging.getLogger(__name__)

HEADER_BYTES: Final = 5
_OUR_HEADER_BYTES: Final = 10
# Any bytes can come with any id: what is not known is not asked for twice in a while, nor without a bound.
_UNKNOWN_S: Final = 30.0
_UNKNOWN_MAX: Final = 10_000
_SCHEMAS_MAX: Final = 10_000


class _Wire:
    def __init__(self, registry: Schemas) -> None:
        self._registry = registry
        self._breaker = Breaker("the schema registry", Limits(failures=2, open_s=5), clock=time.monotonic)
        self._schemas: dict[int, Any] = {}
        self._unknown: dict[int, float] = {}  # id -> when it may be asked for again
        self.headers: dict[bytes, bytes] = {}  # our header -> the registry's
        for subject, text in subjects():
            number = registry.id_of(subject, text)
            schema = codec.parsed(text)
            self._schemas[number] = schema
            self.headers[MAGIC + codec.fingerprint_of(schema)] = REGISTRY_MAGIC + number.to_bytes(4, "big")

    def schema(self, number: int) -> Any:
        """The writer's schema; raises CodecError."""
        found = self._schemas.get(number)
        if found is None:
            found = codec.parsed(self._asked(number))
            if len(self._schemas) < _SCHEMAS_MAX:
                self._schemas[number] = found
        return found

    def _asked(self, number: int) -> str:
        now_s = time.monotonic()
        if self._unknown.get(number, 0.0) > now_s:
            raise CodecError(Reason.UNKNOWN_SCHEMA, f"the schema registry has no schema {number}")
        permit = self._breaker.ask()
        if permit is None:
            raise CodecError(Reason.UNKNOWN_SCHEMA, f"schema {number} is not known, and the registry does not answer")
        try:
            text = self._registry.text_of(number)
        except RegistryError as error:
            permit.failed(str(error))
            log.warning("schema %d is not known: %s", number, error)
            raise CodecError(Reason.UNKNOWN_SCHEMA, f"schema {number} is not known: {error.what}") from error
        permit.passed()
        if text is None:
            if len(self._unknown) >= _UNKNOWN_MAX:
                self._unknown.clear()
            self._unknown[number] = now_s + _UNKNOWN_S
            raise CodecError(Reason.UNKNOWN_SCHEMA, f"the schema registry has no Avro schema {number}")
        return text


_wire: _Wire | None = None


def use(registry: Schemas | None) -> None:
    """Write what goes to Kafka in this registry's format from now on, and read it; None: no registry.

    Raises RegistryError: it does not answer, or does not take our schemas.
    """
    global _wire  # noqa: PLW0603 - which format a process writes is a matter of the process, as its log is
    _wire = None if registry is None else _Wire(registry)
    codec.find_schemas(None if _wire is None else _wire.schema)


def framed(value: bytes) -> bytes:
    """A value as it goes to Kafka; what has another form than ours (JSON, anything) stays as it is."""
    if _wire is None:
        return value
    header = _wire.headers.get(value[:_OUR_HEADER_BYTES])
    return value if header is None else header + value[_OUR_HEADER_BYTES:]


def unframed(value: bytes) -> bytes:
    """A value from Kafka in our own form; what cannot be read stays as it is, for whoever decodes it to say so."""
    if _wire is None or value[:1] != REGISTRY_MAGIC or len(value) <= HEADER_BYTES:
        return value
    try:
        schema = _wire.schema(int.from_bytes(value[1:HEADER_BYTES], "big"))
        header = MAGIC + codec.fingerprint_of(schema)
        if header in _wire.headers:
            return header + value[HEADER_BYTES:]
        # Another's schema, which only this registry knows: said again in ours.
        return codec.encode(codec.decode(value, *RECORDS.values()))
    except CodecError:
        return value


def subjects() -> Iterator[tuple[str, str]]:
    """Every subject with each of its schemas, the earlier ones first."""
    for cls in RECORDS.values():
        for text in codec.texts_of(cls):
            yield f"proxima.{cls.__name__}", text
