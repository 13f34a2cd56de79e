"""The dataclasses beside the schemas that they are copies of: same names, same types, same defaults."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from importlib.resources import files
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from schemas.codec import to_plain
from schemas.records import RECORDS, PathPanes, ProbeBatch
from schemas.topics import TOPICS
from tests.schemas.strategies import nested, source_of

_PYTHON = {"boolean": bool, "int": int, "long": int, "float": float, "double": float, "string": str, "bytes": bytes}


def records(schema: dict[str, Any], cls: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """A record's schema and dataclass, and those of the records within it."""
    yield schema, cls
    hints = get_type_hints(cls)
    for field in schema["fields"]:
        inner = field["type"]
        while isinstance(inner, list | dict):
            if isinstance(inner, list):
                inner = next(b for b in inner if b != "null")
            elif inner["type"] == "record":
                yield from records(inner, nested(hints[field["name"]]))
                break
            else:
                inner = inner.get("items") or inner.get("values") or inner["type"]


ALL = [(s, c) for name, cls in RECORDS.items() for s, c in records(source_of(name), cls)]
each_record = pytest.mark.parametrize(("schema", "cls"), ALL, ids=[s["name"] for s, _ in ALL])


def fits(avro: Any, hint: Any) -> bool:
    """Whether a type hint says what an Avro type says."""
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(avro, list):
        rest = [b for b in avro if b != "null"]
        others = [a for a in args if a is not type(None)]
        return (
            origin in (Union, types.UnionType)
            and len(rest) == len(others) == 1
            and type(None) in args
            and fits(rest[0], others[0])
        )
    if isinstance(avro, str):
        return hint is _PYTHON[avro]
    match avro["type"]:
        case "record":
            return bool(hint.__name__ == avro["name"])
        case "array":
            return origin is list and fits(avro["items"], args[0])
        case "map":
            return origin is Mapping and args[0] is str and fits(avro["values"], args[1])
        case primitive:
            return fits(primitive, hint)


def test_every_schema_file_is_a_record_and_every_record_a_file() -> None:
    found = {
        p.name.removesuffix(".avsc") for p in files("schemas").joinpath("avsc").iterdir() if p.name.endswith(".avsc")
    }
    assert found == set(RECORDS)
    for name in RECORDS:
        assert source_of(name)["name"] == name
        assert source_of(name)["namespace"] == "proxima"


@each_record
def test_names_are_the_same_and_required_fields_in_the_same_order(schema: dict[str, Any], cls: Any) -> None:
    of_schema = [f["name"] for f in schema["fields"]]
    of_class = [f.name for f in fields(cls)]
    assert sorted(of_class) == sorted(of_schema)
    # Python wants fields with defaults last; Avro does not care.
    required = [f["name"] for f in schema["fields"] if "default" not in f]
    assert [name for name in of_class if name in required] == required


@each_record
def test_types_are_the_same(schema: dict[str, Any], cls: Any) -> None:
    hints = get_type_hints(cls)
    for field in schema["fields"]:
        assert fits(field["type"], hints[field["name"]]), f"{cls.__name__}.{field['name']}"


@each_record
def test_defaults_are_the_same(schema: dict[str, Any], cls: Any) -> None:
    stated = {f["name"]: f["default"] for f in schema["fields"] if "default" in f}
    of_class: dict[str, Any] = {}
    for f in fields(cls):
        if f.default is not MISSING:
            of_class[f.name] = f.default
        elif f.default_factory is not MISSING:
            made = f.default_factory()
            of_class[f.name] = to_plain(made) if is_dataclass(made) else made
    # What Python wants said and Avro takes as null when an old writer did not know it.
    unstated = {n for n in stated if n not in of_class}
    assert all(stated[n] is None for n in unstated), f"{cls.__name__} lacks defaults for {unstated}"
    assert {n: v for n, v in stated.items() if n in of_class} == of_class


@each_record
def test_every_field_of_a_number_says_its_unit_or_means_a_count(schema: dict[str, Any], cls: Any) -> None:
    """A smell test: times and rates carry their unit in the name."""
    for field in schema["fields"]:
        kind = field["type"]
        if kind in ("double", "long") and any(w in field["name"] for w in ("latency", "bandwidth", "loss", "horizon")):
            assert field["name"].endswith(("_ms", "_us", "_bps", "_ratio", "_exponent")), field["name"]


def test_columns_are_fields_of_bytes() -> None:
    for cls, columns in ((ProbeBatch, ProbeBatch.COLUMNS), (PathPanes, {**PathPanes.ROWS, **PathPanes.ENTRIES})):
        kinds = {f["name"]: f["type"] for f in source_of(cls.__name__)["fields"]}
        assert {name: kinds[name] for name in columns} == dict.fromkeys(columns, "bytes")
        assert all(np.dtype(d).byteorder in "<=|" for d in columns.values()), "little-endian on the wire"


def test_every_record_of_a_topic_is_a_record() -> None:
    assert {r for topic in TOPICS.values() for r in topic.records} <= set(RECORDS.values())
