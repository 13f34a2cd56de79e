"""Logs as JSON: one object a line whatever is said, in processes of their own, for a process has one log."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from schemas.config import ClientConfig, load

ROOT = Path(__file__).parents[2]
_SAID = """
import logging, threading, warnings
from schemas import logs
from schemas.config import Log
logs.use(Log(format={format!r}, level={level!r}), "a role", level={default!r})
log = logging.getLogger("proxima.test")
log.debug("a detail")
log.info("two\\nlines, %s and \\u2192", "an argument", extra={{"password": "hunter2"}})
try:
    raise ValueError("why")
except ValueError:
    log.exception("it failed")
warnings.warn("careful")
def end(): raise RuntimeError("in a thread")
thread = threading.Thread(target=end, name="worker"); thread.start(); thread.join()
raise KeyError("the end")
"""


def said(form: str, level: str = "", default: str = "INFO") -> str:
    program = _SAID.format(format=form, level=level, default=default)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_everything_that_is_said_is_one_object_a_line() -> None:
    lines = objects(said("json"))
    assert [line["level"] for line in lines] == ["INFO", "ERROR", "WARNING", "ERROR", "CRITICAL"]
    assert {line["role"] for line in lines} == {"a role"}
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert lines[0]["message"] == "two\nlines, an argument and →"
    assert lines[0].keys() == {"time", "level", "logger", "role", "message"}, "what was handed along is not printed"
    assert lines[1]["exception"].startswith("Traceback")
    assert lines[1]["exception"].endswith("ValueError: why")
    assert "careful" in lines[2]["message"]
    assert lines[3]["message"] == "thread worker ends: in a thread"
    assert "KeyError: 'the end'" in lines[4]["exception"]


def test_the_level_is_what_the_file_says_else_what_the_role_has() -> None:
    assert [line["level"] for line in objects(said("json", "ERROR"))] == ["ERROR", "ERROR", "CRITICAL"]
    assert objects(said("json", "", "ERROR"))[0]["level"] == "ERROR"
    assert objects(said("json", "DEBUG"))[0]["message"] == "a detail"


def test_without_asking_lines_are_for_people() -> None:
    text = said("text")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO proxima.test: two\nlines", text)
    assert "Traceback" in text


def test_any_role_takes_it_from_the_environment() -> None:
    found = load(ClientConfig, None, {"PROXIMA_LOG__FORMAT": "json", "PROXIMA_LOG__LEVEL": "ERROR"}).log
    assert (found.format, found.level) == ("json", "ERROR")
