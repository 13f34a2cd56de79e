"""`python -m tests.golden accept`: today's decisions are right. `record`: the journals anew, from their scripts."""

from __future__ import annotations

import gzip
import io
import sys

from streams.journal import JournalHeader, append, write_header
from tests.golden.decisions import FOLDER, as_text, decided, difference, journals, kept, kept_at
from tests.golden.scripts import SCRIPTS


def record() -> None:
    """Write every journal again; the same script gives the same bytes."""
    for name, script in SCRIPTS.items():
        plain = io.BytesIO()
        write_header(plain, JournalHeader("observations", "golden", 1))
        for entry in script().journal:
            append(plain, entry)
        path = FOLDER / f"{name}.journal.gz"
        path.write_bytes(gzip.compress(plain.getvalue(), 9, mtime=0))
        print(f"{path.name}: {path.stat().st_size} bytes")


def accept() -> None:
    """Write down what each journal leads to, and say what is another decision than before."""
    for journal in journals():
        before = kept(journal) if kept_at(journal).exists() else []
        after = decided(journal)
        kept_at(journal).write_text(as_text(after))
        print(f"{journal.name}: {difference(before, after) or 'as before'}")


def main(arguments: list[str]) -> int:
    """The command line; the exit code."""
    if arguments == ["record"]:
        record()
    elif arguments != ["accept"]:
        print("usage: python -m tests.golden accept|record", file=sys.stderr)
        return 2
    accept()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
