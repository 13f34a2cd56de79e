"""Bounds on what a compressed batch unpacks to.

A broker bounds a batch as it is compressed. A kilobyte may unpack to gigabytes, and aiokafka unpacks it before anybody
can look at its size: whoever may write a topic could end each of its readers by memory, again and again. Here a batch
that would unpack to more than `BATCH_BYTES_MAX` is not unpacked: one record, of the batch's last offset, stands for it
with a value that is a `TooLarge`. And of one fetch no more is unpacked than `FETCH_BYTES_MAX` and a batch; the rest is
fetched again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

import cramjam

BATCH_BYTES_MAX: Final = 16 << 20
"""Clients bound what they put into a batch, unpacked, to a megabyte or so; our own largest record has 8 MiB."""
FETCH_BYTES_MAX: Final = BATCH_BYTES_MAX
_RATIO_USUAL: Final = 16
_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES: Final = 16
_Bytes = bytes | bytearray | memoryview


class TooLarge(bytes):
    """In place of the values of a batch that was not unpacked: no bytes, and what to say of it."""

    what: str

    def __new__(cls, what: str) -> Self:
        made = super().__new__(cls)
        made.what = what
        return made


class BeyondBoundError(Exception):
    """A batch would unpack to more than `BATCH_BYTES_MAX`, or not at all: a broker may read it otherwise."""


class _Last(threading.local):
    size = 0


_last: Final = _Last()
"""What the thread's last call of a decoder unpacked."""


def _noted(unpack: Callable[[bytes], bytes]) -> Callable[[_Bytes], bytes]:
    def decode(payload: _Bytes) -> bytes:
        unpacked = unpack(bytes(payload))
        _last.size = len(unpacked)
        return unpacked

    return decode


def _into(decompress_into: Callable[[bytes, bytearray], int]) -> Callable[[bytes], bytes]:
    """By an output of a bounded size, which grows when it is too small."""

    def unpack(payload: bytes) -> bytes:
        size = max(1 << 16, _RATIO_USUAL * len(payload))
        while True:
            size = min(size, BATCH_BYTES_MAX)
            out = bytearray(size)
            try:
                return bytes(memoryview(out)[: decompress_into(payload, out)])
            except cramjam.DecompressionError as error:  # also of bytes that are wrong
                if size == BATCH_BYTES_MAX:
                    raise BeyondBoundError from error
            size *= _RATIO_USUAL

    return unpack


def _snappy(payload: bytes) -> bytes:
    """Raw, or in the blocks of Java's library (xerial): a header, then blocks after their lengths."""
    blocks = [payload]
    if payload.startswith(_XERIAL_MAGIC):
        blocks, at = [], _XERIAL_HEADER_BYTES
        while at < len(payload):
            end = at + 4 + int.from_bytes(payload[at : at + 4])
            blocks.append(payload[at + 4 : end])
            at = end
    try:
        if sum(map(cramjam.snappy.decompress_raw_len, blocks)) > BATCH_BYTES_MAX:
            raise BeyondBoundError
        return b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks)
    except cramjam.DecompressionError as error:
        raise BeyondBoundError from error


DECODERS: Final = {
    "gzip_decode": _noted(_into(cramjam.gzip.decompress_into)),
    "snappy_decode": _noted(_snappy),
    "lz4_decode": _noted(_into(cramjam.lz4.decompress_into)),
    "zstd_decode": _noted(_into(cramjam.zstd.decompress_into)),
}
"""By the names that aiokafka calls them by."""


class Batches:
    """aiokafka's MemoryRecords, what a fetch brought of a partition, with both bounds; `batches` is its own."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self.unpacked_bytes = 0

    def size_in_bytes(self) -> int:
        return int(self._batches.size_in_bytes())

    def has_next(self) -> bool:
        return self.unpacked_bytes <= FETCH_BYTES_MAX and bool(self._batches.has_next())

    def next_batch(self) -> _Batch:
        return _Batch(self._batches.next_batch(), self)


class _Batch:
    """A batch as aiokafka's fetcher asks it; to go through its records is what unpacks it."""

    def __init__(self, batch: Any, batches: Batches) -> None:
        self._batch, self._batches = batch, batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        _last.size = 0
        try:
            records: Iterator[Any] = iter(self._batch)
        except BeyondBoundError:
            return iter([self._unopened()])
        self._batches.unpacked_bytes += _last.size
        return records

    def _unopened(self) -> _Record:
        first, last = self._batch.base_offset, self._batch.next_offset - 1
        what = f"the batch of offsets {first} to {last} cannot be unpacked to {BATCH_BYTES_MAX} bytes or less"
        return _Record(last, self._batch.max_timestamp, self._batch.timestamp_type, TooLarge(what))


@dataclass(frozen=True, slots=True)
class _Record:
    """As aiokafka's DefaultRecord."""

    offset: int
    timestamp: int
    timestamp_type: int
    value: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    checksum: None = None
