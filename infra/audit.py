"""Who changed what: `failover-config` read as the log that it is.

The topic only grows, is kept for ever, and its times are the brokers'; so everything that ever tried to change a
decision is on it, in order, also what was rejected and what could not be read. `author` is what a record says of
itself, `sent_by` what the program that sent it said of its user: both are claims. Who may claim anything at all is for
the brokers to say: only principals with the right to write the topic (docs/security.md tells how their log names them).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from infra.asking import SENT_BY
from infra.directives import sentence
from infra.kafka.reader import RawRecord
from infra.times import clock
from schemas.codec import read
from schemas.errors import CodecError
from schemas.records import FailoverConfiguration, OperatorDirective, RegionCatalog
from schemas.validate import is_keyed, mistakes


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the topic; `about`: a primary, `regions` or a directive's id; `outcome` as the fold judges."""

    appended_at_ms: int
    partition: int
    offset: int
    about: str
    outcome: str
    what: str
    author: str
    sent_by: str


def entries(records: Iterable[RawRecord]) -> Iterator[Entry]:
    """Each record judged as it stood when it came; give them in the order of their append times."""
    judge = _Judge()
    for raw in records:
        sent_by = next((v.decode(errors="replace") for k, v in raw.headers if k == SENT_BY and v is not None), "")
        try:
            record = read(raw.value or b"", FailoverConfiguration, RegionCatalog, OperatorDirective)
        except CodecError as error:
            about, author = (raw.key or b"").decode(errors="replace"), ""
            outcome, what = "unreadable", error.what
        else:
            about, author = _about(record)
            outcome, what = judge.hear(record, raw.appended_at_ms, raw.key)
        yield Entry(raw.appended_at_ms, raw.partition, raw.offset, about, outcome, what, author, sent_by)


def _about(record: FailoverConfiguration | RegionCatalog | OperatorDirective) -> tuple[str, str]:
    """What it is about, and who is said to have written it."""
    if isinstance(record, FailoverConfiguration):
        return record.primary_region, record.author
    if isinstance(record, OperatorDirective):
        return record.directive_id, record.author
    return "regions", ""


class _Judge:
    """By compare-and-set, as the fold does it: what is in force depends on all that came before."""

    def __init__(self) -> None:
        self._versions: dict[str, int] = {}
        self._catalogue = 0

    def hear(
        self, record: FailoverConfiguration | RegionCatalog | OperatorDirective, at_ms: int, key: bytes | None
    ) -> tuple[str, str]:
        """What became of it, and what it asked for."""
        wrong = mistakes(record)
        if isinstance(record, FailoverConfiguration) and not is_keyed(record, key):
            wrong = [*wrong, "its key is not the primary"]
        if isinstance(record, OperatorDirective):
            until = f"until {clock(record.expires_at_ms)}" if record.expires_at_ms > at_ms else "lifted"
            outcome, what = "given", f"{sentence(record)}, {until}: {record.reason}"
        elif isinstance(record, RegionCatalog):
            outcome = f"ignored, version {self._catalogue} was in force"
            if not wrong and record.version > self._catalogue:
                outcome, self._catalogue = "accepted", record.version
            what = f"version {record.version}: {len(record.regions)} regions"
        else:
            current = self._versions.get(record.primary_region, 0)
            outcome = f"rejected, version {current} was in force"
            if not wrong and record.based_on == current:
                outcome, self._versions[record.primary_region] = "accepted", record.version
            what = f"version {record.version} on {record.based_on}: {', '.join(record.potential_failover_regions)}"
        return (f"invalid: {'; '.join(wrong)}" if wrong else outcome), what
