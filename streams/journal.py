"""A journal as a file: the records of a topic with their places and append times, for replays without a broker.

    {"format": "proxima-journal", "version": 1, "topic": "observations", "topic_id": "...", "partitions": 12}\\n
    record, record, ... to the end of the file

    record:  bytes | what (little-endian)
             4     | length of everything after the checksum
             4     | CRC-32 of everything after the checksum
             4     | partition, signed
             8     | offset, signed
             8     | append time by the broker, milliseconds since the epoch, signed
             4     | length of the key, signed; -1: no key
             ...   | key
             ...   | value

Records of one partition stand in offset order; partitions mingle as they were read. The header is a line of JSON, so
`head -1` tells what a file is. Binary after that, as a day of journal is gigabytes and base64 would add a third. The
checksum tells a torn or damaged file from a short one: a fold over half a record would be a wrong decision, silently.
A gzipped file is read as it is.

Nothing here does I/O but with the stream or path that it is given.
"""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from schemas.errors import JournalError

FORMAT: Final = "proxima-journal"
VERSION: Final = 1
# Above any topic's max.message.bytes: a larger length is damage, and must not be allocated.
RECORD_BYTES_MAX: Final = 64 << 20
_HEADER_BYTES_MAX: Final = 64 << 10
_GZIP_MAGIC: Final = b"\x1f\x8b"
_FRAME: Final = struct.Struct("<II")
_FIXED: Final = struct.Struct("<iqqi")
_NO_KEY: Final = -1


@dataclass(frozen=True, slots=True)
class JournalHeader:
    """Which topic the records are from: its name on the cluster, Kafka's id of it, and its number of partitions."""

    topic: str
    topic_id: str
    partitions: int


@dataclass(frozen=True, slots=True)
class JournalRecord:
    partition: int
    offset: int
    appended_at_ms: int
    key: bytes | None
    value: bytes


def write_header(out: BinaryIO, header: JournalHeader) -> None:
    """Begin a journal; everything else is `append`ed."""
    out.write(json.dumps({"format": FORMAT, "version": VERSION, **asdict(header)}).encode() + b"\n")


def append(out: BinaryIO, record: JournalRecord) -> None:
    """Add one record, in a single write."""
    key = record.key or b""
    body = b"".join(
        (
            _FIXED.pack(
                record.partition,
                record.offset,
                record.appended_at_ms,
                _NO_KEY if record.key is None else len(key),
            ),
            key,
            record.value,
        )
    )
    out.write(_FRAME.pack(len(body), zlib.crc32(body)) + body)


def records_of(frames: bytes) -> Iterator[tuple[int, JournalRecord]]:
    """Records that another process of ours framed with `append`, each behind a number of 4 bytes."""
    at = 0
    while at < len(frames):
        number = int.from_bytes(frames[at : at + 4], "little")
        length, _ = _FRAME.unpack_from(frames, at + 4)
        begin = at + 4 + _FRAME.size
        yield number, _record(frames[begin : begin + length])
        at = begin + length


def _record(body: bytes) -> JournalRecord:
    partition, offset, appended_at_ms, key_length = _FIXED.unpack_from(body)
    value_at = _FIXED.size + max(key_length, 0)
    key = None if key_length == _NO_KEY else body[_FIXED.size : value_at]
    return JournalRecord(partition, offset, appended_at_ms, key, body[value_at:])


def read_header(path: Path) -> JournalHeader:
    """What a journal is of; raises JournalError when the file is none."""
    with _open(path) as source:
        return _header(source, path)


def read(path: Path) -> Iterator[JournalRecord]:
    """The records, in the order of the file.

    Raises JournalError: at once when the file is no journal; when it is torn or damaged, after the last whole record.
    """
    # Opened here and not at the first record, so that a wrong file is said where it is named.
    source = _open(path)
    try:
        _header(source, path)
    except BaseException:
        source.close()
        raise
    return _records(source, path)


def _records(source: BinaryIO, path: Path) -> Iterator[JournalRecord]:
    with source:
        whole, end = 0, source.tell()
        while frame := _read(source, _FRAME.size, path):
            body = b""
            if len(frame) == _FRAME.size:
                length, checksum = _FRAME.unpack(frame)
                if not _FIXED.size <= length <= RECORD_BYTES_MAX:
                    raise _damaged(path, whole, end, f"a record of {length} bytes cannot be")
                body = _read(source, length, path)
            if len(frame) < _FRAME.size or len(body) < length:
                raise _damaged(path, whole, end, "it ends within a record: its writer was killed, or is still writing")
            if zlib.crc32(body) != checksum:
                raise _damaged(path, whole, end, "a record's checksum does not fit")
            key_length = _FIXED.unpack_from(body)[3]
            if not _NO_KEY <= key_length <= length - _FIXED.size:
                raise _damaged(path, whole, end, f"a key of {key_length} bytes cannot be")
            yield _record(body)
            whole, end = whole + 1, source.tell()


def _open(path: Path) -> BinaryIO:
    try:
        with path.open("rb") as plain:
            zipped = plain.read(2) == _GZIP_MAGIC
        return cast(BinaryIO, gzip.open(path, "rb")) if zipped else path.open("rb")
    except OSError as error:
        raise JournalError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _read(source: BinaryIO, size: int, path: Path) -> bytes:
    try:
        return source.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise JournalError(f"the gzip around it is damaged: {error}", where=str(path)) from None


def _header(source: BinaryIO, path: Path) -> JournalHeader:
    try:
        plain: dict[str, Any] = json.loads(source.readline(_HEADER_BYTES_MAX))
        form, version = plain["format"], plain["version"]
        if form != FORMAT:
            raise ValueError(form)
        header = JournalHeader(str(plain["topic"]), str(plain["topic_id"]), int(plain["partitions"]))
    except (ValueError, KeyError, TypeError, EOFError, zlib.error, gzip.BadGzipFile):
        raise JournalError(
            "is no journal", where=str(path), do="`proxima tail observations --raw > FILE` writes one"
        ) from None
    if version != VERSION:
        raise JournalError(f"is a journal of version {version}; this reader knows {VERSION}", where=str(path))
    return header


def _damaged(path: Path, whole: int, end: int, why: str) -> JournalError:
    return JournalError(
        f"{why}, after {whole} whole records",
        where=f"{path}, byte {end}",
        do=f"`truncate --size {end} FILE` keeps what is whole (of a gzipped file: unpack it first)",
    )
