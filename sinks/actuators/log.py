"""What was begun and done, on disk before it is begun and before it is told: a crash at any moment leaves one of these.

    nothing          not begun
    begun            maybe done, maybe not: look
    an outcome       done with; told or to be told again

SQLite, with every change on disk when it is committed (`synchronous=FULL`). One process has it at a time.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.errors import StoreUnavailableError
from schemas.records import Operation, PathAction

# Topics keep actions for 30 d; what is read again later than this has expired long ago.
KEPT_MS: Final = 90 * 86_400_000
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS actions (
    action_id TEXT PRIMARY KEY, primary_region TEXT NOT NULL, target_region TEXT NOT NULL, remedy_id TEXT NOT NULL,
    actuator TEXT NOT NULL, operation TEXT NOT NULL, begun_at_ms INTEGER NOT NULL, touched INTEGER NOT NULL DEFAULT 0,
    outcome TEXT, detail TEXT, told INTEGER NOT NULL DEFAULT 0
)"""


@dataclass(frozen=True, slots=True)
class Entry:
    """An action as the log has it; `outcome` None: begun, and nobody knows how far."""

    outcome: str | None
    detail: str
    is_told: bool


class ActionLog:
    """Raises StoreUnavailableError when the file cannot be opened or written, or is another process's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            for setting in ("locking_mode=EXCLUSIVE", "journal_mode=DELETE", "synchronous=FULL"):
                self._db.execute(f"PRAGMA {setting}").fetchall()
            self._db.execute("BEGIN EXCLUSIVE")  # taken now, and not at the first action
            self._db.execute(_TABLE)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unavailable(error) from None

    def find(self, action_id: str) -> Entry | None:
        """What is known of an action; None: it was never begun here."""
        rows = self._run("SELECT outcome, detail, told FROM actions WHERE action_id = ?", action_id)
        return Entry(rows[0][0], rows[0][1] or "", bool(rows[0][2])) if rows else None

    def begin(self, action: PathAction, now_ms: int) -> None:
        """Before anything is touched; again after a crash."""
        self._run(
            "INSERT OR IGNORE INTO actions (action_id, primary_region, target_region, remedy_id, actuator, operation, "
            "begun_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
            action.action_id, action.primary_region, action.target_region, action.remedy_id, action.actuator,
            action.operation, now_ms,
        )  # fmt: skip

    def touch(self, action_id: str) -> None:
        """From here on something may be changed: it counts against the caps."""
        self._run("UPDATE actions SET touched = 1 WHERE action_id = ?", action_id)

    def end(self, action_id: str, outcome: str, detail: str) -> None:
        """It is done with. The first outcome stays."""
        self._run(
            "UPDATE actions SET outcome = ?, detail = ? WHERE action_id = ? AND outcome IS NULL",
            outcome, detail, action_id,
        )  # fmt: skip

    def tell(self, action_id: str) -> None:
        """The brokers have its result."""
        self._run("UPDATE actions SET told = 1 WHERE action_id = ?", action_id)

    def applied(self, since_ms: int, region: str | None = None) -> int:
        """Remedies that were applied since then, into one region or all."""
        query = "SELECT count(*) FROM actions WHERE operation = ? AND touched AND begun_at_ms > ?"
        values: tuple[str | int, ...] = (Operation.APPLY.value, since_ms)
        if region is not None:
            query, values = f"{query} AND target_region = ?", (*values, region)
        return int(self._run(query, *values)[0][0])

    def forget(self, now_ms: int) -> None:
        """Drop what nobody can ask for any more."""
        self._run("DELETE FROM actions WHERE begun_at_ms < ? AND outcome IS NOT NULL", now_ms - KEPT_MS)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _run(self, query: str, *values: str | int) -> list[tuple[str, str, int]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: sqlite3.Error) -> StoreUnavailableError:
        what = "another process has it" if "locked" in str(error) else str(error)
        do = "one process a log: give another file in [actuators], or make room"
        return StoreUnavailableError(f"the log of actions cannot be used: {what}", where=str(self._path), do=do)
