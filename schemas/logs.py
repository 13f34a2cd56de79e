"""What a process says in its log: lines for people, or one JSON object a line for machines (`[log] format = "json"`).

    {"time": "2026-01-01T00:00:00.000Z", "level": "WARNING", "logger": "sinks.runner", "role": "sink redis",
     "message": "...", "exception": "Traceback ..."}

Everything goes through the root logger then: libraries, warnings, and what would end a thread or the process with a
traceback. Nothing of a record is shown but these fields, so what was only handed along is not printed.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from types import TracebackType
from typing import Final

from schemas.config import Log

_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_in_json = False


class JsonLines(logging.Formatter):
    """One object a line; times are UTC (RFC 3339)."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """A record as its line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        said = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "role": self._role,
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            said["stack"] = self.formatStack(record.stack_info)
        return json.dumps(said, ensure_ascii=False)


def use(settings: Log, role: str, *, level: str = "INFO") -> None:
    """Log to stderr as the settings say, from now on; `level` where they say nothing."""
    global _in_json  # noqa: PLW0603 - a process has one log
    wanted = settings.level or level
    _in_json = settings.format == "json"
    if not _in_json:
        logging.basicConfig(level=wanted, format=_TEXT)
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(role))
    logging.basicConfig(level=wanted, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = _ended


def in_json() -> bool:
    """Whether lines are objects."""
    return _in_json


def _uncaught(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("proxima").critical("the process ends: %s", error, exc_info=(kind, error, at))


def _ended(what: threading.ExceptHookArgs) -> None:
    name = what.thread.name if what.thread is not None else "?"
    error = what.exc_value or what.exc_type()
    found = (what.exc_type, error, what.exc_traceback)
    logging.getLogger("proxima").error("thread %s ends: %s", name, error, exc_info=found)
