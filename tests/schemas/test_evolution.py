"""Schemas change so that old and new readers and writers understand each other, in both directions, for ever.

FULL_TRANSITIVE: every version can read every other. Released versions stand in `schemas/avsc/history`; until there is
one, the rule is proven on changes that somebody might make.
"""

from __future__ import annotations

import copy
import io
import itertools
import json
from collections import defaultdict
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import avro.schema
import fastavro
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from schemas.codec import encode, fingerprint_of, schema_of
from schemas.records import RECORDS
from tests.schemas.strategies import smallest, source_of

Schema = dict[str, Any]


def breaches(versions: list[Schema]) -> list[str]:
    """What keeps versions of one schema from reading each other."""
    found = []
    for reader, writer in itertools.permutations(versions, 2):
        parsed = avro.schema.parse(json.dumps(reader)), avro.schema.parse(json.dumps(writer))
        result = ReaderWriterCompatibilityChecker().get_compatibility(*parsed)
        if result.compatibility is not SchemaCompatibilityType.compatible:
            found += sorted(result.messages) or ["incompatible"]
    return found


def released() -> dict[str, list[tuple[str, Schema]]]:
    """Released versions by record, each with its file's name."""
    found: dict[str, list[tuple[str, Schema]]] = defaultdict(list)
    for path in files("schemas").joinpath("avsc", "history").iterdir():
        if path.name.endswith(".avsc"):
            found[path.name.split(".")[0]].append((path.name, json.loads(path.read_text())))
    return found


@pytest.mark.parametrize("name", RECORDS)
def test_todays_schema_and_all_released_ones_read_each_other(name: str) -> None:
    assert breaches([source_of(name), *(schema for _, schema in released().get(name, []))]) == []


def test_a_released_file_is_named_by_its_record_and_fingerprint_and_was_never_edited() -> None:
    for name, versions in released().items():
        assert name in RECORDS, "a record that was released is read for ever"
        for file, schema in versions:
            assert file == f"{name}.{fingerprint_of(fastavro.parse_schema(schema, {})).hex()}.avsc"


def test_the_folder_of_released_schemas_exists_in_every_checkout() -> None:
    assert files("schemas").joinpath("avsc", "history", "README.md").is_file(), "git keeps no empty folders"


# -- the rule itself, on changes that somebody might make


def field_of(schema: Schema, name: str) -> Schema:
    return next(f for f in schema["fields"] if f["name"] == name)


def without(schema: Schema, name: str) -> None:
    schema["fields"] = [f for f in schema["fields"] if f["name"] != name]


GOOD: dict[str, Callable[[Schema], None]] = {
    "nothing": lambda _: None,
    "a new field with a default": lambda s: s["fields"].append({"name": "zone", "type": "string", "default": ""}),
    "a new field that may be null": lambda s: s["fields"].append(
        {"name": "zone", "type": ["null", "string"], "default": None}
    ),
    "a field with a default goes": lambda s: without(s, "target_region"),
    "fields in another order": lambda s: s["fields"].reverse(),
    "another explanation": lambda s: field_of(s, "reason").update(doc="In other words."),
    "a new field with a default in a record within": lambda s: field_of(s, "candidates")["type"]["items"][
        "fields"
    ].append({"name": "zone", "type": "string", "default": ""}),
}
BAD: dict[str, Callable[[Schema], None]] = {
    "a new field without a default": lambda s: s["fields"].append({"name": "zone", "type": "string"}),
    "a field without a default goes": lambda s: without(s, "mode"),
    "another name of a field": lambda s: field_of(s, "reason").update(name="because"),
    "another type of a field": lambda s: field_of(s, "sequence").update(type="string"),
    "a wider number: old readers cannot": lambda s: field_of(s, "sequence").update(type="double"),
    "null where it could not be": lambda s: field_of(s, "reason").update(type=["null", "string"]),
    "no null where it could be": lambda s: field_of(s, "target_region").update(type="string", default=""),
    "an item of another type": lambda s: field_of(s, "events")["type"].update(items="int"),
    "a new field without a default in a record within": lambda s: field_of(s, "candidates")["type"]["items"][
        "fields"
    ].append({"name": "zone", "type": "string"}),
    "another name of the record": lambda s: s.update(name="Decision"),
}


def changed(change: Callable[[Schema], None]) -> Schema:
    schema = copy.deepcopy(source_of("FailoverRanking"))
    change(schema)
    return schema


@pytest.mark.parametrize("change", GOOD)
def test_a_change_that_everybody_can_read_passes(change: str) -> None:
    assert breaches([source_of("FailoverRanking"), changed(GOOD[change])]) == []


@pytest.mark.parametrize("change", BAD)
def test_a_change_that_somebody_cannot_read_is_found(change: str) -> None:
    assert breaches([source_of("FailoverRanking"), changed(BAD[change])]) != []


def test_two_changes_that_pass_one_by_one_are_found_when_they_do_not_fit_each_other() -> None:
    """That is what TRANSITIVE is for: a default added with one type, removed, added again with another."""
    today = source_of("FailoverRanking")
    first = changed(lambda s: s["fields"].append({"name": "zone", "type": "string", "default": ""}))
    second = changed(lambda s: s["fields"].append({"name": "zone", "type": "long", "default": 0}))
    assert breaches([today, first]) == []
    assert breaches([today, second]) == []
    assert breaches([first, today, second]) != []


@pytest.mark.parametrize("change", GOOD)
def test_the_reader_that_runs_here_agrees_with_the_rule(change: str) -> None:
    """fastavro, which decodes in production, resolves what Apache's checker lets pass."""
    ranking = smallest("FailoverRanking")
    newer = fastavro.parse_schema(changed(GOOD[change]), {})
    plain = fastavro.schemaless_reader(io.BytesIO(encode(ranking)[10:]), schema_of(type(ranking)), newer)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, newer, plain)
    back = fastavro.schemaless_reader(io.BytesIO(out.getvalue()), newer, schema_of(type(ranking)))
    assert back["sequence"] == ranking.sequence
    assert back["reason"] == ranking.reason
