"""Dead letters as the stages write them: the same bytes whoever writes them, and again after a restart."""

from __future__ import annotations

import re
from typing import Final

from schemas.codec import encode
from schemas.letters import kept
from schemas.records import DeadLetter
from streams.journal import JournalRecord

_DETAIL_MAX: Final = 1000
_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")  # of a Python object, in an exception's text: another in each process


def letter(topic: str, record: JournalRecord, reason: str, detail: str, found_by: str) -> bytes:
    """A dead letter about one record of a topic, encoded; `detail` may hold whatever hostile bytes put there."""
    said = _ADDRESS.sub("", detail)[:_DETAIL_MAX].encode(errors="backslashreplace").decode()
    original, key, said = kept(record.value, record.key, said)
    return encode(
        DeadLetter(
            reason=str(reason),
            detail=said,
            source_topic=topic,
            source_partition=record.partition,
            source_offset=record.offset,
            appended_at_ms=record.appended_at_ms,
            found_by=found_by,
            original=original,
            original_key=key,
        )
    )
