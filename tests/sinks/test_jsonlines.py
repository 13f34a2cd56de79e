"""What is particular about a file: torn lines, other people's files, one writer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schemas.codec import encode, from_plain
from schemas.errors import StoreUnavailableError
from schemas.records import FailoverRanking
from sinks.jsonlines import JsonLinesSink
from sinks.sink import Meta
from tests.sinks.rankings import PRIMARIES, ranking
from tests.sinks.targets import JsonLinesTarget

META = Meta("failover-rankings", 0, 0, 0, None)


def write(path: Path, *sequences: int) -> None:
    sink = JsonLinesSink(path)
    for sequence in sequences:
        sink.add(ranking(sequence=sequence), META)
    sink.flush()
    sink.close()


def test_a_line_is_the_whole_record(tmp_path: Path) -> None:
    target = JsonLinesTarget(tmp_path / "rankings.jsonl")
    write(target.path, 1)
    assert from_plain(FailoverRanking, target.lines()[0]) == ranking(sequence=1)
    assert encode(from_plain(FailoverRanking, target.lines()[0])) == encode(ranking(sequence=1))


def test_a_line_torn_anywhere_is_repaired_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "rankings.jsonl"
    write(path, 1, 2)
    whole = path.read_bytes()
    first_end = whole.index(b"\n") + 1
    for torn_at in range(first_end, len(whole)):
        path.write_bytes(whole[:torn_at])
        write(path, 1, 2)
        assert path.read_bytes() == whole, torn_at


def test_the_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("remember the milk\n")
    with pytest.raises(StoreUnavailableError, match="line 1 is no ranking"):
        JsonLinesSink(path)
    assert path.read_text() == "remember the milk\n"


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "rankings.jsonl"
    first = JsonLinesSink(path)
    with pytest.raises(StoreUnavailableError, match="another sink writes to it"):
        JsonLinesSink(path)
    first.close()
    JsonLinesSink(path).close()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match=r"No such file.*missing/rankings.jsonl"):
        JsonLinesSink(tmp_path / "missing" / "rankings.jsonl")


def test_each_primary_has_its_own_sequence(tmp_path: Path) -> None:
    target = JsonLinesTarget(tmp_path / "rankings.jsonl")
    for _ in range(2):
        sink = target.open()
        for primary in PRIMARIES:
            sink.add(ranking(primary, 7), META)
            sink.add(ranking(primary, 6), META)
        sink.flush()
        sink.close()
    assert [(line["primary_region"], line["sequence"]) for line in target.lines()] == [(p, 7) for p in PRIMARIES]


def test_what_was_flushed_is_readable_by_others_at_once(tmp_path: Path) -> None:
    path = tmp_path / "rankings.jsonl"
    sink = JsonLinesSink(path)
    sink.add(ranking(sequence=1), META)
    assert path.stat().st_size == 0
    sink.flush()
    assert os.stat(path).st_size > 0  # noqa: PTH116 - by name, as another process would
    sink.close()
