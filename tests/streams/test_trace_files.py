"""Trace directories: what is read, and how every mistake is said with its place."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import TraceError
from streams.trace_files import read_trace

GOOD = "step,rtt_ms\n0,10.5\n1,\n2,30\n3,40\n"


def said(folder: Path) -> str:
    with pytest.raises(TraceError) as raised:
        read_trace(folder)
    return str(raised.value)


def test_plain_and_zipped_files_are_candidates_and_everything_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode() + b"\r\n")
    (tmp_path / "A_b.csv.gz").write_bytes(gzip.compress(GOOD.encode()))
    (tmp_path / "README.md").write_text("about it")
    (tmp_path / ".hidden.csv").write_text("about nothing")
    trace = read_trace(tmp_path)
    assert trace.candidates == ("A_b", "b")
    np.testing.assert_array_equal(trace.rtt_ms, np.array([[10.5, 10.5], [np.nan, np.nan], [30, 30], [40, 40]]))


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", "line 1", "header"),
        ("step,rtt\n0,1\n", "line 1", "header is 'step,rtt', not 'step,rtt_ms'"),
        (GOOD + "4,fast\n", "line 6", "rtt_ms is 'fast'"),
        (GOOD + "4,nan\n", "line 6", "rtt_ms is 'nan'"),
        (GOOD + "4,inf\n", "line 6", "rtt_ms is 'inf'"),
        (GOOD + "4,-1\n", "line 6", "rtt_ms is '-1'"),
        (GOOD + "four,1\n", "line 6", "step is 'four'"),
        (GOOD + "3,1\n", "line 6", "step 3 comes after step 3"),
        (GOOD + "4\n", "line 6", "1 values, not 2"),
        (GOOD + "4,1,2\n", "line 6", "3 values, not 2"),
        ("step,rtt_ms\n0,1\n1,1\n", "b.csv", "2 steps, and 4 are the least"),
        (GOOD + "4,1\n", "b.csv", "5 steps, and 4 in a.csv"),
        (GOOD.replace("3,40", "4,40"), "b.csv", "a step 4 where a.csv has step 3"),
        (GOOD.replace("40", "4\xff0"), "b.csv", "decode"),
    ],
)
def test_a_mistake_is_said_with_its_file_and_line(tmp_path: Path, text: str, where: str, what: str) -> None:
    (tmp_path / "a.csv").write_text(GOOD)
    (tmp_path / "b.csv").write_bytes(text.encode("latin-1"))
    found = said(tmp_path)
    assert str(tmp_path / "b.csv") in found
    assert where in found
    assert what in found


def test_a_directory_that_is_no_trace_is_said_to_be_none(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in said(tmp_path / "missing")
    assert "there is no .csv or .csv.gz in it" in said(tmp_path)
    (tmp_path / "a.csv").write_text(GOOD)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(GOOD.encode()))
    assert "a is there twice: a.csv and a.csv.gz" in said(tmp_path)
    (tmp_path / "a.csv").unlink()
    for torn in (gzip.compress(GOOD.encode())[:-9], b"not zipped"):
        (tmp_path / "a.csv.gz").write_bytes(torn)
        assert "cannot be read: " in said(tmp_path)
