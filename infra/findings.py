"""What the doctor found: one thing looked at, how it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

OK: Final = "ok"
WARNING: Final = "warning"
BROKEN: Final = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: `found` says what is, `do` what to do if that is not fine."""

    name: str
    status: str
    found: str
    do: str = ""
