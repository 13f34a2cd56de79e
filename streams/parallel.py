"""A journal folded again by several processes: partitions share nothing, so each process folds some of them.

    this process                       a process a core
    reads records, cuts them into      folds the partitions that are its own,
    chunks, gives each its share  ───► answers with the outputs wanted
    puts the outputs in order     ◄───

What comes out is what `Replay` gives, in the order of the records. Records and outputs travel as plain frames of bytes;
nothing is pickled.
"""

from __future__ import annotations

import gc
import io
import multiprocessing
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice, pairwise
from multiprocessing.connection import Connection
from typing import Final

from schemas.errors import JournalError
from streams.folding import Output
from streams.journal import JournalRecord, append, records_of
from streams.replay import Replay

_CHUNK_RECORDS: Final = 5000
_END: Final = b"end"  # no share: those begin with a number of 4 bytes
_OUTPUT: Final = struct.Struct("<III I")  # number of the record in its chunk, then lengths: topic, key, value


class ParallelReplay:
    """As `Replay`, in `processes` processes; `topics`: whose outputs are wanted.

    A context: leaving it ends the processes. Raises JournalError when one of them dies.
    """

    def __init__(self, replay: Replay, processes: int, topics: Sequence[str]) -> None:
        self.records = 0
        self._share: dict[int, int] = {}  # partition -> process
        self._load = [0] * processes  # records of a chunk that each process has
        context = multiprocessing.get_context("fork")  # the engine may be a class that no other process could import
        self._ends: list[Connection] = []
        self._children = []
        # A child leaves alone what its parent has yet to collect: a Kafka client's threads do not live on in it, and to
        # end the client there is a segmentation fault.
        gc.freeze()
        try:
            for _ in range(processes):
                here, there = context.Pipe()
                child = context.Process(target=_work, args=(there, replay, frozenset(topics)), daemon=True)
                child.start()
                there.close()
                self._ends.append(here)
                self._children.append(child)
        finally:
            gc.unfreeze()

    def each(self, records: Iterable[JournalRecord]) -> Iterator[tuple[JournalRecord, list[Output]]]:
        """Each record with the outputs that it brings about, in order."""
        source = iter(records)
        chunk, shares = self._next(source)
        while chunk:
            for end, share in zip(self._ends, shares, strict=True):
                end.send_bytes(share)
            # Made ready while the others fold. Sent only when all have answered: two that send to each other and do not
            # listen would wait for ever.
            following = self._next(source)
            outputs: dict[int, list[Output]] = {}
            for end, child in zip(self._ends, self._children, strict=True):
                try:
                    _unpack(end.recv_bytes(), outputs)
                except EOFError:
                    child.join(5)
                    raise JournalError(
                        f"a process that folds has died (exit code {child.exitcode}; below 0: of that signal)",
                        do="its last lines on stderr say why",
                    ) from None
            for number, record in enumerate(chunk):
                self.records += 1
                yield record, outputs.get(number, [])
            chunk, shares = following

    def _next(self, source: Iterator[JournalRecord]) -> tuple[list[JournalRecord], list[bytes]]:
        chunk = list(islice(source, _CHUNK_RECORDS))
        shares = [io.BytesIO() for _ in self._ends]
        # Partitions not seen before go, the busiest first, to whoever has least to do.
        for partition, count in Counter(r.partition for r in chunk if r.partition not in self._share).most_common():
            self._share[partition] = self._load.index(min(self._load))
            self._load[self._share[partition]] += count
        for number, record in enumerate(chunk):
            to = self._share[record.partition]
            shares[to].write(number.to_bytes(4, "little"))
            append(shares[to], record)
        return chunk, [share.getvalue() for share in shares]

    def __enter__(self) -> ParallelReplay:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends:
            # Said, for a closed end would not be noticed: those started later hold copies of it.
            with suppress(OSError):
                end.send_bytes(_END)
            end.close()
        for child in self._children:
            child.join(5)
            child.kill()


def _work(there: Connection, replay: Replay, topics: frozenset[str]) -> None:
    while True:
        try:
            share = there.recv_bytes()
        except (EOFError, KeyboardInterrupt):
            return
        if share == _END:
            return
        answer = io.BytesIO()
        numbered = list(records_of(share))
        for (number, _), outputs in zip(numbered, replay.apply_all([record for _, record in numbered]), strict=True):
            for output in outputs:
                if output.topic in topics:
                    topic = output.topic.encode()
                    answer.write(_OUTPUT.pack(number, len(topic), len(output.key), len(output.value)))
                    answer.write(topic + output.key + output.value)
        there.send_bytes(answer.getvalue())


def _unpack(answer: bytes, outputs: dict[int, list[Output]]) -> None:
    at = 0
    while at < len(answer):
        number, topic, key, value = _OUTPUT.unpack_from(answer, at)
        ends = [at + _OUTPUT.size]
        for length in (topic, key, value):
            ends.append(ends[-1] + length)
        parts = [answer[a:b] for a, b in pairwise(ends)]
        outputs.setdefault(number, []).append(Output(parts[0].decode(), parts[1], parts[2]))
        at = ends[-1]
