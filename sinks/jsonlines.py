"""A file with every ranking as a line of JSON: for grep, jq, DuckDB, and whoever loads files at night.

A flush writes its lines at once and ends with fsync. A crash, or a full disk, leaves a torn last line at most, which
is cut off when the file is next written to: a line that ends with a newline was whole.

Which rankings are there already is read from the file itself when it is opened, by the first fields of each line
(`rendering.as_json` puts them first; some seconds a gigabyte). A sidecar with offsets would open faster, but would
be a second truth: written before or after the lines, it is wrong after the crash that it is for.

The file has one writer (an advisory lock says so). To rotate it, stop the sink, move it, start the sink.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import IO, Final

from schemas.errors import StoreUnavailableError
from schemas.records import FailoverRanking
from sinks.rendering import as_json
from sinks.sink import Meta, Place, Sink

_LINE: Final = re.compile(rb'\{"primary_region":("(?:[^"\\]|\\.)*"),"sequence":(\d+),')


class JsonLinesSink(Sink):
    """Raises StoreUnavailableError when the file cannot be opened, is another's, or is no file of rankings."""

    topics = ("failover-rankings",)

    def __init__(self, path: Path) -> None:
        self._path = path
        self._batch: list[bytes] = []
        try:
            # Unbuffered: what a failed write leaves behind must be in the file, where it can be cut off.
            self._file: IO[bytes] = path.open("ab+", buffering=0)
        except OSError as error:
            raise self._unavailable(error.strerror or str(error)) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise self._unavailable("another sink writes to it") from None
        self._whole_bytes, self._sequences = self._read()
        _sync_folder(path.parent)

    def add(self, record: FailoverRanking, meta: Meta) -> None:  # noqa: ARG002 - a line does not say where it was
        if record.sequence > self._sequences.get(record.primary_region, 0):
            self._batch.append(as_json(record).encode() + b"\n")
            self._sequences[record.primary_region] = record.sequence

    def flush(self) -> Collection[Place]:
        if not self._batch:
            return ()
        data = b"".join(self._batch)
        try:
            self._file.truncate(self._whole_bytes)  # a torn line that a crash or an earlier try left
            if (written := self._file.write(data)) != len(data):
                self._file.truncate(self._whole_bytes)  # readers need not see half of a line until the next try
                raise self._unavailable(f"only {written} of {len(data)} bytes could be written")
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unavailable(error.strerror or str(error)) from error
        self._whole_bytes += len(data)
        self._batch.clear()
        return ()

    def close(self) -> None:
        self._file.close()

    def _read(self) -> tuple[int, dict[str, int]]:
        """How many bytes are whole lines, and the last sequence of each primary."""
        whole_bytes, sequences = 0, {}
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    break
                found = _LINE.match(line)
                if found is None:
                    self._file.close()
                    raise self._unavailable(f"line {number} is no ranking: is it another program's file?")
                sequences[json.loads(found[1])] = int(found[2])
                whole_bytes += len(line)
        return whole_bytes, sequences

    def _unavailable(self, what: str) -> StoreUnavailableError:
        return StoreUnavailableError(what, where=str(self._path), do="give another file in [jsonlines], or make room")


def _sync_folder(folder: Path) -> None:
    """Make a new file's name survive a crash: fsync of the file alone does not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
