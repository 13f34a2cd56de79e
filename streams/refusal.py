"""What intake refuses of a record, and why: each refusal becomes a dead letter.

By the record and the bound on clocks alone, so that whoever reads it again refuses the same.
"""

from __future__ import annotations

from typing import Any, Final

from schemas.errors import CodecError
from schemas.letters import KEY_BYTES_MAX, ORIGINAL_BYTES_MAX
from schemas.records import ActionResult, FailoverConfiguration, InjectedMetric, ProbeBatch, Reason
from schemas.validate import is_keyed, mistakes
from streams.core.panes import Rejected
from streams.journal import JournalRecord
from streams.unpacking import TooLarge

_PATHS_MAX: Final = 10_000  # targets times methods of one message: each costs memory, though no sample points to it


def wrong(content: Any, record: JournalRecord, ahead_ms_max: int) -> Rejected | None:
    """What is wrong with a readable record; None: nothing."""
    found = mistakes(content)
    if found:
        return Rejected(record.offset, Reason.OUT_OF_RANGE, "; ".join(found[:5]))
    if isinstance(content, ActionResult | FailoverConfiguration) and not is_keyed(content, record.key):
        detail = f"the key {record.key!r} is not the primary {content.primary_region}"
        return Rejected(record.offset, Reason.WRONG_RECORD, detail[:500])
    ahead_ms = getattr(content, "observed_at_ms", 0) - record.appended_at_ms
    if ahead_ms > ahead_ms_max:
        detail = f"observed {ahead_ms} ms after the broker appended it: check its source's clock"
        return Rejected(record.offset, Reason.FROM_THE_FUTURE, detail)
    if isinstance(content, InjectedMetric) and -ahead_ms >= content.ttl_ms:
        detail = f"observed {-ahead_ms} ms before the broker appended it, and counts for {content.ttl_ms}"
        return Rejected(record.offset, Reason.TOO_LATE, f"{detail}: check its source's clock")
    return None


def check_size(record: JournalRecord) -> None:
    """A broker bounds what is compressed; what it unpacks to is taken apart only up to here. Raises CodecError."""
    if isinstance(record.value, TooLarge):
        raise CodecError(Reason.TOO_LARGE, record.value.what)
    if len(record.value) > ORIGINAL_BYTES_MAX or len(record.key or b"") > KEY_BYTES_MAX:
        detail = f"{len(record.value)} bytes with a key of {len(record.key or b'')}"
        raise CodecError(Reason.TOO_LARGE, f"{detail}: {ORIGINAL_BYTES_MAX} and {KEY_BYTES_MAX} at most")


def unreadable(record: JournalRecord, error: Exception) -> Rejected:
    """Whatever bytes can cause is the bytes' fault: JSON has integers beyond 64 bits, and text that is no UTF-8."""
    if isinstance(error, CodecError):
        return Rejected(record.offset, Reason(error.reason), error.what)
    return Rejected(record.offset, Reason.OUT_OF_RANGE, f"cannot be taken in: {type(error).__name__}: {error}")


def too_many_paths(batch: ProbeBatch, record: JournalRecord) -> Rejected | None:
    """Of a message of samples; None: there are not."""
    if len(batch.targets) * len(batch.methods) <= _PATHS_MAX:
        return None
    detail = (
        f"{len(batch.targets)} targets by {len(batch.methods)} methods: more than {_PATHS_MAX} paths in one message"
    )
    return Rejected(record.offset, Reason.OUT_OF_RANGE, detail)
