"""Strategies for every record, made from its schema (widths of numbers) and its dataclass (what to build)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache
from importlib.resources import files
from typing import Any, get_args, get_type_hints

from hypothesis import find
from hypothesis import strategies as st

from schemas.records import RECORDS, Record

# Avro strings are Unicode without surrogates.
_TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
_PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "int": st.integers(-(1 << 31), (1 << 31) - 1),
    "long": st.integers(-(1 << 63), (1 << 63) - 1),
    # NaN is no value of a finite field, and unequal to itself.
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "float": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "string": _TEXT,
    "bytes": st.binary(max_size=40),
}


def source_of(name: str) -> dict[str, Any]:
    """A schema's file, parsed as JSON and no further."""
    return json.loads(files("schemas").joinpath("avsc", f"{name}.avsc").read_text())  # type: ignore[no-any-return]


def record_of(name: str) -> st.SearchStrategy[Any]:
    """Any record of this name."""
    return _record(source_of(name), RECORDS[name])


def any_record() -> st.SearchStrategy[Record]:
    return st.one_of(*(record_of(name) for name in RECORDS))


@cache
def smallest(name: str) -> Any:
    """The simplest record of this name."""
    return find(record_of(name), lambda _: True)


def nested(hint: Any) -> Any:
    """The dataclass within a type hint (itself, an item, an alternative to None); None if there is none."""
    if is_dataclass(hint):
        return hint
    return next((found for a in get_args(hint) if (found := nested(a)) is not None), None)


def _record(schema: dict[str, Any], cls: Any) -> st.SearchStrategy[Any]:
    hints = get_type_hints(cls)
    build: Callable[..., Any] = cls
    return st.builds(build, **{f["name"]: _of(f["type"], hints[f["name"]]) for f in schema["fields"]})


def _of(avro: Any, hint: Any) -> st.SearchStrategy[Any]:
    if isinstance(avro, list):
        return st.one_of(*(st.none() if branch == "null" else _of(branch, hint) for branch in avro))
    if isinstance(avro, str):
        return _PRIMITIVES[avro]
    match avro["type"]:
        case "record":
            return _record(avro, nested(hint))
        case "array":
            return st.lists(_of(avro["items"], hint), max_size=3)
        case "map":
            return st.dictionaries(_TEXT, _of(avro["values"], hint), max_size=3)
        case primitive:
            return _PRIMITIVES[primitive]
