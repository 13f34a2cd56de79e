"""Bytes <-> records: Avro single-object encoding, and JSON where people may type a record by hand.

A value says by its first bytes what it is:

    C3 01  then the CRC-64-AVRO fingerprint of its writer's schema, then Avro (the default; what we write)
    00     then four bytes of schema id: a registry's wire format, where a registry is in use (wire.py)
    7B     an opening brace: JSON, on `injected-metrics` and `failover-config` only

A reader finds the writer's schema by its fingerprint among `avsc/` and `avsc/history/` and resolves it to today's.
fastavro does the work (20 ns a probe sample in packed columns); Apache avro is the reference that tests hold it to.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from importlib.resources import files
from operator import attrgetter
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints, overload

import fastavro

from schemas.errors import CodecError
from schemas.records import (
    RECORDS,
    FailoverConfiguration,
    InjectedMetric,
    OperatorDirective,
    Reason,
    Record,
    RegionCatalog,
)

MAGIC = b"\xc3\x01"
REGISTRY_MAGIC = b"\x00"
_HEADER_BYTES = 10
_find_schema: Callable[[int], Any] | None = None
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


def _once(function: F) -> F:
    """`functools.cache`, with the function's own type: mypy does not know that classes can be hashed."""
    return cache(function)  # type: ignore[return-value]


# What fastavro was seen to raise on hostile bytes; anything that bytes can cause is the bytes' fault.
_UNREADABLE = (
    EOFError, IndexError, KeyError, TypeError, ValueError, OverflowError, MemoryError, AssertionError, struct.error,
    fastavro.read.SchemaResolutionError,
)  # fmt: skip


def encode(record: Record) -> bytes:
    """The record in single-object encoding; the same record gives the same bytes (maps are written in key order)."""
    schema, header = _writer(type(record))
    out = io.BytesIO()
    out.write(header)
    fastavro.schemaless_writer(out, schema, _plain(record))
    return out.getvalue()


def encode_identified(record: Record) -> bytes:
    """`encode`, with the record's first field, an empty string until then, set to a digest of that encoding.

    Raises ValueError: the first field is no empty string.
    """
    value = encode(record)
    if value[_HEADER_BYTES]:
        raise ValueError(f"a {type(record).__name__} has its id already, or none")
    digest = hashlib.blake2b(value, digest_size=16).hexdigest().encode()
    # Spliced in as Avro writes a string, its length doubled before it: encoding it all again costs twice as much.
    return b"".join((value[:_HEADER_BYTES], bytes((2 * len(digest),)), digest, value[_HEADER_BYTES + 1 :]))


@overload
def decode(value: bytes, expected: type[R], /) -> R: ...


@overload
def decode(value: bytes, *expected: type[Any]) -> Any: ...


def decode(value: bytes, *expected: type[Any]) -> Any:
    """The record in `value`, one of the `expected` types (at least one).

    Raises CodecError: its `reason` is MALFORMED, UNKNOWN_SCHEMA, WRONG_RECORD or REGISTRY_NOT_CONFIGURED.
    """
    writer, start = _writer_of(value)
    name = _name_of(writer)
    cls = RECORDS[name]
    if cls not in expected:
        wanted = " or ".join(e.__name__ for e in expected)
        raise CodecError(Reason.WRONG_RECORD, f"is a {name}; {wanted} belongs here")
    body = io.BytesIO(value)
    body.seek(start)
    reader = schema_of(cls)
    try:
        plain = fastavro.schemaless_reader(body, writer, None if writer is reader else reader)
    except _UNREADABLE as error:
        raise CodecError(Reason.MALFORMED, f"is no whole {name}: {error or type(error).__name__}") from error
    if body.tell() != len(value):
        raise CodecError(Reason.MALFORMED, f"{len(value) - body.tell()} bytes too many after a {name}")
    return _builder(cls)(plain)


def _writer_of(value: bytes) -> tuple[Any, int]:
    """The schema that a value was written in, and where its Avro begins; raises CodecError."""
    if value[:1] == REGISTRY_MAGIC and len(value) > 5:
        if _find_schema is None:
            what = "a schema registry's wire format, and no registry is configured"
            raise CodecError(Reason.REGISTRY_NOT_CONFIGURED, what)
        return _find_schema(int.from_bytes(value[1:5], "big")), 5
    if value[:2] != MAGIC or len(value) < _HEADER_BYTES:
        start = value[:4].hex(" ") or "nothing"
        raise CodecError(Reason.MALFORMED, f"starts with {start}, which is no single-object encoding (c3 01)")
    fingerprint = value[2:_HEADER_BYTES]
    writer = _known().get(fingerprint)
    if writer is None:
        what = f"no schema here has the fingerprint {fingerprint.hex()}; its writer may be newer than this reader"
        raise CodecError(Reason.UNKNOWN_SCHEMA, what)
    return writer, _HEADER_BYTES


def _name_of(writer: Any) -> str:
    """The record that a writer's schema is of; raises CodecError: none of ours, which only a registry can bring."""
    namespace, _, name = str(writer.get("name") if isinstance(writer, dict) else "").rpartition(".")
    if namespace != "proxima" or name not in RECORDS:
        raise CodecError(Reason.UNKNOWN_SCHEMA, "is written in a schema that is no record of Proxima's")
    return name


def decode_json(value: bytes) -> InjectedMetric | FailoverConfiguration | RegionCatalog | OperatorDirective:
    """A record typed by hand; which one it is follows from its keys.

    Raises CodecError: MALFORMED when it is no JSON object, else OUT_OF_RANGE naming the keys that are missing,
    unknown or of a wrong type.
    """
    try:
        plain = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise CodecError(Reason.MALFORMED, f"is no JSON: {error}") from error
    if not isinstance(plain, dict):
        raise CodecError(Reason.MALFORMED, "is no JSON object")
    cls: type[InjectedMetric | FailoverConfiguration | RegionCatalog | OperatorDirective] = InjectedMetric
    if "regions" in plain:
        cls = RegionCatalog
    elif "potential_failover_regions" in plain:
        cls = FailoverConfiguration
    elif "directive_id" in plain:
        cls = OperatorDirective
    return from_plain(cls, plain)


def from_plain(cls: type[R], plain: Mapping[str, Any]) -> R:
    """A record from a mapping as JSON or TOML gives it, every mistake named with its place; raises CodecError."""
    mistakes: list[str] = []
    record = _strict(cls, plain, "", mistakes)
    if mistakes:
        # JSON can spell lone surrogates, which no UTF-8 can: quoted as they are, they would spoil the dead letter too.
        what = "; ".join(mistakes).encode(errors="backslashreplace").decode()
        raise CodecError(Reason.OUT_OF_RANGE, what)
    return record  # type: ignore[no-any-return]


def to_plain(record: Any) -> dict[str, Any]:
    """The record as nested dicts and lists (bytes stay bytes): what JSON printers start from."""
    return _plain(record)  # type: ignore[no-any-return]


def read(value: bytes, *expected: type[Any]) -> Any:
    """`decode`, or `decode_json` where the value starts with a brace; raises CodecError."""
    if value[:1] != b"{":
        return decode(value, *expected)
    record = decode_json(value)
    if type(record) not in expected:
        raise CodecError(Reason.WRONG_RECORD, f"is a {type(record).__name__} in JSON, which does not belong here")
    return record


def find_schemas(find: Callable[[int], Any] | None) -> None:
    """From now on `decode` asks this for the writer's schema of a registry's id; None: there is no registry."""
    global _find_schema  # noqa: PLW0603 - see wire.use
    _find_schema = find


def parsed(text: str) -> Any:
    """A schema from anywhere, with a name space of its own; raises CodecError: it is none."""
    try:
        return fastavro.parse_schema(json.loads(text), {})
    except (fastavro.schema.SchemaParseException, fastavro.schema.UnknownType, RecursionError, *_UNREADABLE) as error:
        raise CodecError(Reason.UNKNOWN_SCHEMA, f"its writer's schema cannot be read: {error}") from error


def texts_of(cls: type[Any]) -> list[str]:
    """Every schema that a record ever had, as JSON text without needless spaces; today's comes last."""
    avsc = files("schemas").joinpath("avsc")
    earlier = [e for e in avsc.joinpath("history").iterdir() if e.name.startswith(f"{cls.__name__}.")]
    found = [*sorted(earlier, key=lambda e: e.name), avsc.joinpath(f"{cls.__name__}.avsc")]
    return [json.dumps(json.loads(entry.read_text()), separators=(",", ":")) for entry in found]


@_once
def schema_of(cls: type[Any]) -> dict[str, Any]:
    """Today's schema of a record, parsed, without docs."""
    text = files("schemas").joinpath("avsc", f"{cls.__name__}.avsc").read_text()
    return fastavro.parse_schema(json.loads(text))  # type: ignore[no-any-return]


def fingerprint_of(schema: Any) -> bytes:
    """CRC-64-AVRO of the schema's parsing canonical form, 8 bytes little-endian, as single-object encoding has it."""
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    # fastavro prints the fingerprint's bytes in little-endian order already.
    return bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


@_once
def _writer(cls: type[Any]) -> tuple[dict[str, Any], bytes]:
    schema = schema_of(cls)
    return schema, MAGIC + fingerprint_of(schema)


@_once
def _known() -> Mapping[bytes, dict[str, Any]]:
    """Every schema a value may be written in, by fingerprint: today's, and those of history/."""
    known: dict[bytes, dict[str, Any]] = {}
    history = files("schemas").joinpath("avsc", "history")
    for entry in history.iterdir():
        if entry.name.endswith(".avsc"):
            schema = fastavro.parse_schema(json.loads(entry.read_text()), {})
            known[fingerprint_of(schema)] = schema
    for cls in RECORDS.values():
        schema, header = _writer(cls)
        known[header[2:]] = schema
    return known


def _plain(record: Any) -> Any:
    return _flattener(type(record))(record)


@_once
def _flattener(cls: Any) -> Callable[[Any], dict[str, Any]]:
    """A function from `cls` to fastavro's dicts, built once: only nested records and maps cost more than a look."""
    names = _names(cls)
    values_of = attrgetter(*names) if len(names) > 1 else lambda record: (getattr(record, names[0]),)
    hints = get_type_hints(cls)
    nested = {name: flat for name in names if (flat := _flat(hints[name])) is not None}

    def flatten(record: Any) -> dict[str, Any]:
        plain = dict(zip(names, values_of(record), strict=True))
        for name, flat in nested.items():
            plain[name] = flat(plain[name])
        return plain

    return flatten


def _flat(hint: Any) -> Callable[[Any], Any] | None:
    if is_dataclass(hint):
        return _flattener(hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin is Mapping:
        return lambda mapping: dict(sorted(mapping.items()))  # the same record gives the same bytes
    record = next((a for a in args if is_dataclass(a)), None)
    if record is None:
        return None
    flatten = _flattener(record)
    if origin is list:
        return lambda items: [flatten(item) for item in items]
    return lambda item: None if item is None else flatten(item)


@_once
def _names(cls: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls))


@_once
def _builder(cls: Any) -> Callable[[Any], Any]:
    """A function from fastavro's dicts to `cls`, built once: only nested records cost more than a call."""
    nested = {n: b for n, t in get_type_hints(cls).items() if (b := _nested(t)) is not None and n in _names(cls)}

    def build(plain: dict[str, Any]) -> Any:
        for name, make in nested.items():
            plain[name] = make(plain[name])
        return cls(**plain)

    return build


def _nested(hint: Any) -> Callable[[Any], Any] | None:
    if is_dataclass(hint):
        return _builder(hint)
    args = [a for a in get_args(hint) if is_dataclass(a)]
    if not args:
        return None
    make = _builder(args[0])
    if get_origin(hint) is list:
        return lambda items: [make(item) for item in items]
    return lambda item: None if item is None else make(item)


def _strict(hint: Any, value: Any, where: str, mistakes: list[str]) -> Any:
    """`value` as `hint` says, or a mistake with its place: JSON's types, no guessing, no unknown keys."""
    if is_dataclass(hint) and isinstance(hint, type):
        return _strict_record(hint, value, where, mistakes)
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _strict(next(a for a in args if a is not type(None)), value, where, mistakes)
    if origin is list and isinstance(value, list):
        return [_strict(args[0], item, f"{where}[{i}]", mistakes) for i, item in enumerate(value)]
    if origin is not None and origin is not list and isinstance(value, dict):
        return {
            _strict(str, k, f"a name in {where}", mistakes): _strict(args[1], item, f"{where}.{k}", mistakes)
            for k, item in value.items()
        }
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):
            return float(value)
    elif type(value) is hint and _can_be_written(value):  # exactly: true is an int too
        return value
    wanted = {float: "a number", int: "a whole number of 64 bits", str: "a string"}.get(hint, "a list or an object")
    mistakes.append(f"{where or 'the value'} is {json.dumps(value, default=str)[:60]}, not {wanted}")
    return value


def _can_be_written(value: Any) -> bool:
    """JSON's whole numbers have no end, and its strings may hold half a character: Avro has neither."""
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    return not isinstance(value, str) or not any("\ud800" <= c <= "\udfff" for c in value)


def _strict_record(cls: type[Any], value: Any, where: str, mistakes: list[str]) -> Any:
    if not isinstance(value, Mapping):
        mistakes.append(f"{where or cls.__name__} is no object")
        return None
    hints, dot = get_type_hints(cls), f"{where}." if where else ""
    known = {f.name: f for f in fields(cls)}
    mistakes.extend(f"{dot}{key} is unknown" for key in value if key not in known)
    found: dict[str, Any] = {}
    before = len(mistakes)
    for name, spec in known.items():
        if name in value:
            found[name] = _strict(hints[name], value[name], dot + name, mistakes)
        elif spec.default is MISSING and spec.default_factory is MISSING:
            mistakes.append(f"{dot}{name} is missing")
    return cls(**found) if len(mistakes) == before else None
