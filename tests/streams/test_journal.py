"""A journal as a file: what is written is read, and what is torn or damaged is said and never guessed."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import JournalError
from streams.journal import JournalHeader, JournalRecord, append, read, read_header, write_header

HEADER = JournalHeader("p-observations", "W2L0-Tk3RB6OELiAsjtMRw", 12)
LONG = st.integers(-(1 << 63), (1 << 63) - 1)
RECORDS = st.lists(
    st.builds(
        JournalRecord,
        partition=st.integers(0, (1 << 31) - 1),
        offset=LONG,
        appended_at_ms=LONG,
        key=st.none() | st.binary(max_size=20),
        value=st.binary(max_size=200),
    ),
    max_size=8,
)
FEW = [
    JournalRecord(3, 0, 1_700_000_000_000, b"eu-west-1", b"\xc3\x01one"),
    JournalRecord(3, 1, 1_700_000_000_001, None, b""),
    JournalRecord(0, 7, 1_700_000_000_002, b"", b"three"),
]
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def written(records: list[JournalRecord]) -> bytes:
    out = io.BytesIO()
    write_header(out, HEADER)
    for record in records:
        append(out, record)
    return out.getvalue()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "monday.journal"


@same_folder
@given(records=RECORDS)
def test_what_is_written_is_read(path: Path, records: list[JournalRecord]) -> None:
    path.write_bytes(written(records))
    assert read_header(path) == HEADER
    assert list(read(path)) == records


def test_a_gzipped_journal_is_read_as_it_is(path: Path) -> None:
    path.write_bytes(gzip.compress(written(FEW)))
    assert read_header(path) == HEADER
    assert list(read(path)) == FEW


def test_the_first_line_tells_people_what_it_is() -> None:
    assert json.loads(written(FEW).split(b"\n")[0]) == {
        "format": "proxima-journal", "version": 1,
        "topic": "p-observations", "topic_id": "W2L0-Tk3RB6OELiAsjtMRw", "partitions": 12,
    }  # fmt: skip


def test_a_file_torn_anywhere_gives_its_whole_records_and_then_says_where_it_ends(path: Path) -> None:
    whole = written(FEW)
    ends = [len(written(FEW[:n])) for n in range(len(FEW) + 1)]
    for length in range(ends[0], len(whole)):
        path.write_bytes(whole[:length])
        expected = FEW[: sum(length >= end for end in ends) - 1]
        found: list[JournalRecord] = []
        if length in ends:
            assert list(read(path)) == expected
            continue
        with pytest.raises(JournalError, match=f"after {len(expected)} whole records") as raised:
            found.extend(read(path))  # keeps what came before the error
        assert found == expected
        assert f"truncate --size {ends[len(expected)]}" in str(raised.value)


def test_truncating_as_told_repairs_it(path: Path) -> None:
    whole = written(FEW)
    path.write_bytes(whole[:-1])
    with pytest.raises(JournalError) as raised:
        list(read(path))
    size = int(raised.value.do.split("--size ")[1].split(" ")[0])
    path.write_bytes(whole[:size])
    assert list(read(path)) == FEW[:2]


@same_folder
@given(data=st.data())
def test_a_flipped_bit_is_damage_and_never_another_record(path: Path, data: st.DataObject) -> None:
    whole = bytearray(written(FEW))
    at = data.draw(st.integers(len(written([])), len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    found: list[JournalRecord] = []
    with pytest.raises(JournalError):
        found.extend(read(path))
    assert found == FEW[: len(found)]


@same_folder
@given(content=st.binary(max_size=300))
def test_other_files_are_no_journal(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JournalError, match=r"is no journal"):
        read_header(path)
    with pytest.raises(JournalError, match=r"is no journal"):
        read(path)  # said where the file is named, not at the first record


def test_a_later_version_is_not_guessed_at(path: Path) -> None:
    path.write_bytes(written(FEW).replace(b'"version": 1', b'"version": 2', 1))
    with pytest.raises(JournalError, match="version 2"):
        read(path)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.journal", tmp_path):
        with pytest.raises(JournalError, match=str(path)):
            read(path)


def test_a_damaged_gzip_is_said_to_be_one(path: Path) -> None:
    zipped = gzip.compress(written(FEW * 50))
    path.write_bytes(zipped[: len(zipped) // 2])
    with pytest.raises(JournalError):
        list(read(path))
