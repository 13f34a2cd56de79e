"""`proxima backtest` as people run it: numbers, mistakes, pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from infra.configuration import read_policy
from schemas.codec import decode, encode
from schemas.errors import ConfigError
from schemas.records import FailoverConfiguration, Observation, PathPanes, Policy, Tick
from streams.journal import JournalHeader, JournalRecord, append, write_header
from tests.infra.commands import fails, proxima, succeeds
from tests.infra.conftest import Topics
from tests.streams.test_backtest_journal import changing, recorded

FIELDS = {"regret_ms", "switches", "lost_ratio", "steps", "decide_us_p50"}
MORE = {"mean_cost_ms", "bad_ratio", "nowhere_ratio"}
YARDSTICKS = ["oracle", "static", "last-value", "ewma"]
STEPS = 60


@pytest.fixture
def traced(tmp_path: Path) -> Path:
    """Two paths: the better one loses everything from step 40 on; a name with what pages and formulas trip over."""
    folder = tmp_path / "two"
    folder.mkdir()
    for name, rtt_ms in (("_Near<&$x$", 20), ("Far", 60)):
        rows = [f"{s},{'' if rtt_ms == 20 and s >= 40 else rtt_ms + s % 3}\n" for s in range(STEPS)]
        (folder / f"{name}.csv").write_text("step,rtt_ms\n" + "".join(rows))
    return folder


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "monday.journal"
    with path.open("wb") as out:
        write_header(out, JournalHeader("observations", "journal-1", 1))
        for record in recorded(changing).records:
            append(out, record)
    return path


def policy(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def told(*arguments: str | Path) -> dict[str, Any]:
    found = json.loads(succeeds("backtest", *arguments, "--json"))
    assert set(found) == {"policies"}
    return found["policies"]  # type: ignore[no-any-return]


def test_numbers_of_every_policy_and_yardstick(traced: Path, tmp_path: Path) -> None:
    stuck = policy(tmp_path, "stuck.toml", "down_after_probes = 1000000\nlatency_exponent = 100.0\nloss_exponent = 0\n")
    found = told(traced, "--policy", stuck)
    assert list(found) == ["default", "stuck", *YARDSTICKS]
    assert all(set(score) == FIELDS | MORE for score in found.values())
    assert {score["steps"] for score in found.values()} == {45}
    assert found["oracle"]["regret_ms"] == 0
    assert (found["static"]["switches"], found["static"]["lost_ratio"]) == (0, pytest.approx(20 / 45, abs=1e-6))
    assert (found["last-value"]["switches"], found["last-value"]["lost_ratio"]) == (1, pytest.approx(1 / 45, abs=1e-6))
    assert found["default"]["lost_ratio"] < found["static"]["lost_ratio"]
    assert found["default"]["decide_us_p50"] > found["ewma"]["decide_us_p50"] > 0
    assert found["stuck"]["lost_ratio"] == found["static"]["lost_ratio"], "it has forsworn loss"


def test_without_a_policy_the_built_in_one_is_shown_in_a_table(traced: Path) -> None:
    table = succeeds("backtest", traced, "--step-seconds", "240")
    for name in ("default", *YARDSTICKS, "the last 45 of 60 steps, 3 h"):
        assert name in table
    assert "_Near" not in table


def test_the_timeout_is_what_a_lost_probe_costs(traced: Path) -> None:
    cheap, dear = (told(traced, "--timeout-ms", ms)["static"]["regret_ms"] for ms in ("100", "10000"))
    assert cheap == pytest.approx(20 / 45 * (100 - 61), abs=1)
    assert dear == pytest.approx(20 / 45 * (10_000 - 61), abs=1)


def test_mistakes_are_said_in_one_line(traced: Path, tmp_path: Path) -> None:
    assert "no_such_folder" in fails(1, "backtest", tmp_path / "no_such_folder")
    far = traced / "Far.csv"
    good = far.read_text()
    for text, said in (
        (good.replace("step,rtt_ms", "t,ms"), f"the header is 't,ms', not 'step,rtt_ms' ({far}, line 1)"),
        (good.replace("7,61", "7,x"), f"rtt_ms is 'x', not a number of 0 or more, nor empty ({far}, line 9)"),
        (good + "60,1\n", f"there are 60 steps, and 61 in Far.csv ({traced}/_Near<&$x$.csv)"),
    ):
        far.write_text(text)
        assert fails(1, "backtest", traced) == f"proxima: {said}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--primary", "eu-1"], "a trace has no primaries"),
        (["--plot", "x.pdf"], "x.pdf ends neither in .html nor in .png"),
        (["--policy", "ewma.toml"], "'ewma' is shown already"),
        (["--policy", "a.toml", "--policy", "b/a.toml"], "'a' is shown already"),
        (["--timeout-ms", "0"], "--timeout-ms"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_wrong_usage_is_told_by_exit_code_2(traced: Path, arguments: list[str], said: str) -> None:
    (traced / "b").mkdir()
    for name in ("a.toml", "b/a.toml"):
        policy(traced, name, "")
    placed = [str(traced / a) if a.endswith("a.toml") else a for a in arguments]
    shown = " ".join(fails(2, "backtest", traced, *placed).replace("│", " ").split())
    assert said in shown


def test_a_step_has_no_length_in_a_journal(journal: Path) -> None:
    assert "--step-seconds" in fails(2, "backtest", journal, "--step-seconds", "1")


# -- policy files


def test_a_policy_stands_at_the_top_or_under_its_name(tmp_path: Path) -> None:
    expected = Policy(dwell_ms=9000, margin_ratio=0.5)
    assert read_policy(policy(tmp_path, "a.toml", "dwell_ms = 9000\nmargin_ratio = 0.5")) == expected
    assert read_policy(policy(tmp_path, "b.toml", "[policy]\ndwell_ms = 9000\nmargin_ratio = 0.5")) == expected
    assert read_policy(policy(tmp_path, "c.toml", "")) == Policy()


@pytest.mark.parametrize("under", ["", "policy."])
def test_every_mistake_in_a_policy_is_found_at_once(tmp_path: Path, under: str) -> None:
    head = "colour = 1\n[policy]\n" if under else "colour = 1\n"
    path = policy(
        tmp_path, "a.toml", head + 'dwell = 3\nheartbeat_ms = "x"\nlatency_good_ms = 70000\nutility_floor = 0\n'
    )
    with pytest.raises(ConfigError) as raised:
        read_policy(path)
    assert set(raised.value.mistakes) == {
        "colour is unknown beside [policy]" if under else "colour is unknown",
        f"{under}dwell is unknown",
        f'{under}heartbeat_ms is "x", not a whole number of 64 bits',
        f"{under}latency_good_ms must be above 0 and below latency_bad_ms",
        f"{under}utility_floor must be above 0, 1 at most",
    }


def test_the_command_says_every_mistake_of_a_policy(traced: Path, tmp_path: Path) -> None:
    path = policy(tmp_path, "a.toml", "dwell = 3\nutility_floor = 0\n")
    assert fails(1, "backtest", traced, "--policy", path).startswith(
        f"proxima: {path}: 2 mistakes:\n  dwell is unknown"
    )
    assert "there is no such file" in fails(1, "backtest", traced, "--policy", tmp_path / "missing.toml")


# -- journals


def test_a_journal_under_another_policy(journal: Path, tmp_path: Path) -> None:
    found = told(journal, "--policy", policy(tmp_path, "blind.toml", "down_after_probes = 1000000\nloss_exponent = 0"))
    assert list(found) == ["default", "blind", *YARDSTICKS]
    assert {score["steps"] for score in found.values()} == {60}
    assert found["static"]["lost_ratio"] == pytest.approx(20 / 60, abs=1e-6)
    assert found["default"]["lost_ratio"] < found["blind"]["lost_ratio"]
    assert told(journal, "--primary", "eu-1")["oracle"].items() >= {"regret_ms": 0, "steps": 60}.items()
    assert "there is eu-1" in fails(1, "backtest", journal, "--primary", "mars")


@pytest.mark.kafka
def test_the_topic_and_a_file_of_it_give_the_same(topics: Topics, tmp_path: Path) -> None:
    env, path = topics.environment, tmp_path / "topic.journal"
    topics.publish("observations", *(record.value for record in recorded(changing).records), key="eu-1")
    from_topic = json.loads(succeeds("backtest", "observations", "--json", **env))["policies"]
    succeeds("tail", "observations", "--from-beginning", "--to-end", "--raw", "--output", path, **env)
    from_file = told(path)
    for score in (*from_topic.values(), *from_file.values()):
        score.pop("decide_us_p50")
    assert from_topic == from_file
    assert from_file["static"]["steps"] == 60


def test_what_is_no_journal_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("x")
    assert "is no journal" in fails(1, "backtest", path)
    with path.open("wb") as out:
        write_header(out, JournalHeader("observations", "journal-1", 1))
    assert "has no configured primary that was measured" in fails(1, "backtest", path)


# -- pictures


class Page(HTMLParser):
    """Its table's cells, its drawing's texts, and what it would load from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.texts: list[str] = []
        self.loads: list[str] = []
        self._into: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._into = {"td": self.cells, "th": self.cells, "text": self.texts}.get(tag)
        self.loads += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href") and not str(v).startswith("#")]
        if tag in ("script", "link", "iframe", "image", "img"):
            self.loads.append(tag)

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into.append(data)
            self._into = None


def test_a_page_has_the_drawing_and_the_numbers_and_loads_nothing(traced: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    succeeds(
        "backtest", traced, "--plot", out, "--policy", policy(tmp_path, "a<b.toml", "dwell_ms = 0\ndwell_min_ms = 0")
    )
    text = out.read_text()
    page = Page(text)
    assert page.loads == []
    for name in ("default", "a<b", *YARDSTICKS):
        assert name in page.cells
    assert {"_Near<&$x$", "Far", "steps", "lost"} <= set(page.texts)
    for name in ("default", "a<b"):
        assert any(t.startswith(f"{name}: regret ") for t in page.texts)
    assert "ewma: regret" in text
    assert "url(http" not in text
    assert "@import" not in text


def test_an_image_is_written(traced: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    succeeds("backtest", traced, "--plot", out, "--step-seconds", "240")
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_picture_shows_one_primary(tmp_path: Path, journal: Path) -> None:
    out = tmp_path / "out.html"
    succeeds("backtest", journal, "--plot", out)
    assert "seconds" in Page(out.read_text()).texts
    with journal.open("ab") as more:  # the same again, of another primary on another partition
        for record in recorded(changing).records:
            value = renamed(record.value)
            append(more, JournalRecord(1, record.offset, record.appended_at_ms, b"eu-2", value))
    found = told(journal)
    assert found["static"]["steps"] == 120
    assert found["static"] == told(journal, "--primary", "eu-2")["static"] | {
        "steps": 120, "decide_us_p50": found["static"]["decide_us_p50"]
    }  # fmt: skip
    assert "say which with --primary" in fails(1, "backtest", journal, "--plot", out)
    succeeds("backtest", journal, "--plot", out, "--primary", "eu-2")


def renamed(value: bytes) -> bytes:
    """A record of the journal as it would be of the primary eu-2."""
    content = decode(value, Observation, Tick)
    if isinstance(content, Tick) or content.primary_region is None:
        return value
    body = decode(content.body, PathPanes, FailoverConfiguration)
    if isinstance(body, FailoverConfiguration):
        body = replace(body, primary_region="eu-2")
    return encode(replace(content, primary_region="eu-2", body=encode(body)))


def test_without_matplotlib_a_picture_is_refused_and_numbers_are_not(traced: Path, tmp_path: Path) -> None:
    without = tmp_path / "without"
    without.mkdir()
    (without / "matplotlib.py").write_text("raise ImportError('not here')")
    path = {"PYTHONPATH": f"{without}:{Path(__file__).parents[2]}"}
    said = fails(1, "backtest", traced, "--plot", tmp_path / "x.png", **path)
    assert "needs matplotlib" in said
    assert "proxima[plot]" in said
    assert proxima("backtest", traced, "--json", **path).returncode == 0
