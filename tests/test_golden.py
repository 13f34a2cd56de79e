"""Each golden journal leads to the decisions kept beside it, to the byte; what differs is told for people to judge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from streams.journal import read
from tests.golden.decisions import decided, difference, journals, kept, kept_at, of_records
from tests.golden.scripts import SCRIPTS


@pytest.mark.parametrize("journal", journals(), ids=lambda path: path.name.split(".")[0])
def test_a_golden_journal_leads_to_the_decisions_kept_beside_it(journal: Path) -> None:
    found = difference(kept(journal), decided(journal))
    assert not found, f"{journal.name}: {found}\nIf that is what you meant: make golden"


def test_every_journal_has_a_script_and_decisions() -> None:
    assert {path.name.split(".")[0] for path in journals()} == set(SCRIPTS)
    assert all(kept_at(path).exists() for path in journals())


@pytest.mark.parametrize("journal", journals(), ids=lambda path: path.name.split(".")[0])
def test_a_golden_journal_is_what_its_script_tells(journal: Path) -> None:
    """Panes' own bytes may change with intake; what happens, and when, may not."""
    recorded, told = list(read(journal)), SCRIPTS[journal.name.split(".")[0]]().journal
    assert [(r.offset, r.appended_at_ms) for r in recorded] == [(r.offset, r.appended_at_ms) for r in told]


def test_one_byte_of_one_sample_is_told_as_the_decisions_it_changes() -> None:
    (journal,) = (path for path in journals() if path.name.startswith("brownout"))
    records = list(read(journal))
    at = next(i for i, r in enumerate(records) if r.appended_at_ms >= records[0].appended_at_ms + 60_000)
    records[at : at + 4] = [replace(r, value=records[at - 40].value) for r in records[at : at + 4]]
    found = difference(kept(journal), of_records(records, "observations", "golden"))
    assert "decisions differ" in found
    assert "the last that is the same" in found


def test_a_difference_says_sequence_field_before_and_after_and_what_was_decided_before_it() -> None:
    line = {"after_ms": 1000, "target": "t-1", "mode": "NORMAL", "reason": "because", "decision_id": "a"}
    before = [{"sequence": number, **line} for number in (1, 2, 3, 4)]
    after = [before[0], {**before[1], "target": "t-2", "decision_id": "b"}, {**before[2], "decision_id": "c"}]
    assert difference(before, before) == ""
    assert difference(before, after).splitlines() == [
        "3 of 4 decisions differ",
        "  the last that is the same: 1, after 1.000 s: t-1 (NORMAL): because",
        "  sequence 2, after 1.000 s:",
        "    target",
        '      before  "t-1"',
        '      after   "t-2"',
        "  sequence 3: something in it that is not shown here",
        "  sequence 4 is gone: 4, after 1.000 s: t-1 (NORMAL): because",
    ]
