"""What a journal leads to, one readable line a ranking, and how two such lists differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from schemas.codec import decode
from schemas.records import FailoverRanking
from streams.journal import JournalRecord, read, read_header
from streams.replay import Replay

FOLDER: Final = Path(__file__).parent
_SHOWN_MAX: Final = 8
Decision = dict[str, Any]


def journals() -> list[Path]:
    """Every golden journal, by name."""
    return sorted(FOLDER.glob("*.journal.gz"))


def kept_at(journal: Path) -> Path:
    """Where the decisions of a journal are kept."""
    return journal.with_name(journal.name.replace(".journal.gz", ".decisions.jsonl"))


def decided(journal: Path) -> list[Decision]:
    """The decisions of today's engine."""
    header = read_header(journal)
    return of_records(list(read(journal)), header.topic, header.topic_id)


def of_records(records: Sequence[JournalRecord], topic: str, topic_id: str) -> list[Decision]:
    """The rankings that these records lead to."""
    replay = Replay(topic=topic, topic_id=topic_id)
    begun_at_ms = records[0].appended_at_ms
    return [
        _line(decode(made.output.value, FailoverRanking), begun_at_ms)
        for made in replay.run(records)
        if made.output.topic == "failover-rankings"
    ]


def _line(ranking: FailoverRanking, begun_at_ms: int) -> Decision:
    return {
        "sequence": ranking.sequence,
        "after_ms": ranking.decided_at_ms - begun_at_ms,
        "target": ranking.target_region,
        "mode": ranking.mode,
        "events": ranking.events,
        "reason": ranking.reason,
        "order": [[c.region_id, c.ineligible_reason or c.normalized_score] for c in ranking.candidates],
        "order_confidence": ranking.order_confidence,
        "flips": {c.region_id: [c.flip.metric, c.flip.to_value] for c in ranking.candidates if c.flip is not None},
        "suspects": ranking.suspect_agents,
        "config_version": ranking.config_version,
        "decision_id": ranking.decision_id,
    }


def as_text(decisions: Sequence[Decision]) -> str:
    """JSON lines."""
    return "".join(json.dumps(line) + "\n" for line in decisions)


def kept(journal: Path) -> list[Decision]:
    """The decisions as last accepted."""
    return [json.loads(line) for line in kept_at(journal).read_text().splitlines()]


def difference(before: Sequence[Decision], after: Sequence[Decision]) -> str:
    """Which decisions differ, in what, and what was decided just before the first; empty: none does."""
    old, new = ({d["sequence"]: d for d in decisions} for decisions in (before, after))
    changed = [number for number in sorted(old | new) if old.get(number) != new.get(number)]
    if not changed:
        return ""
    said = [f"{len(changed)} of {len(old | new)} decisions differ"]
    if changed[0] - 1 in old:
        said.append(f"  the last that is the same: {_brief(old[changed[0] - 1])}")
    for number in changed[:_SHOWN_MAX]:
        said += _changed(number, old.get(number), new.get(number))
    if changed[_SHOWN_MAX:]:
        said.append(f"  ... and {len(changed) - _SHOWN_MAX} more")
    return "\n".join(said)


def _changed(number: int, old: Decision | None, new: Decision | None) -> list[str]:
    if old is None or new is None:
        what, which = ("is new", new) if old is None else ("is gone", old)
        return [f"  sequence {number} {what}: {_brief(which or {})}"]
    fields = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if fields == ["decision_id"]:
        return [f"  sequence {number}: something in it that is not shown here"]
    said = [f"  sequence {number}, after {old['after_ms'] / 1000:.3f} s:"]
    for name in fields:
        if name != "decision_id":
            said += [
                f"    {name}",
                f"      before  {json.dumps(old.get(name))}",
                f"      after   {json.dumps(new.get(name))}",
            ]
    return said


def _brief(line: Decision) -> str:
    when = f"{line['sequence']}, after {line['after_ms'] / 1000:.3f} s"
    return f"{when}: {line['target']} ({line['mode']}): {line['reason']}"
