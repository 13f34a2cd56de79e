"""The live view: what it makes of records, how it looks, and that it runs on a real broker."""

from __future__ import annotations

import io
import json
import math
import threading
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from infra.cli._plain import finite
from infra.processes import wait_until
from infra.watch import View, is_stale, overview, paths, run_view
from schemas.codec import encode
from schemas.records import (
    Candidate,
    DisruptionPrediction,
    FailoverRanking,
    PathPrediction,
    PathWeights,
    Tick,
)
from tests.infra.commands import fails, running, succeeds
from tests.infra.conftest import Topics
from tests.schemas.strategies import record_of

NOW_MS = 1_700_000_100_000
P = "eu-west-1"
SHOWN = (
    "FailoverRanking", "PathWeights", "DisruptionPrediction", "PredictionScorecard", "NetworkVerdict", "RemedyReport",
)  # fmt: skip


def ranking(sequence: int = 1, **changed: Any) -> FailoverRanking:
    candidates = [
        Candidate(r, n, 0.5 / n, 1.0 / n, 0.5, 0.5, 1.0, 0.8, eligible=r != "sa-east-1",
                  ineligible_reason="NO_DATA" if r == "sa-east-1" else None)
        for n, r in enumerate(("eu-central-1", "us-east-1", "ap-south-1", "us-west-2", "sa-east-1"), start=1)
    ]  # fmt: skip
    fields: dict[str, Any] = {
        "decision_id": "d", "sequence": sequence, "decided_at_ms": NOW_MS - 1000, "evidence_at_ms": NOW_MS - 1000,
        "primary_region": P, "mode": "NORMAL", "advice": "HOLD", "events": ["TARGET_CHANGED"],
        "reason": "eu-central-1 leads by 20 %", "config_version": 3, "stale_after_ms": 30_000, "order_confidence": 0.9,
        "candidates": candidates, "target_region": "eu-central-1",
    }  # fmt: skip
    return FailoverRanking(**(fields | changed))


def weights(decided_at_ms: int = NOW_MS, latency_ms: float = 12.3) -> PathWeights:
    return PathWeights(
        P, decided_at_ms, decided_at_ms, ["eu-central-1", "us-east-1"],
        weight=[0.5, 0.1], baseline_weight=[0.5, 0.5], network_weight=[0.6, 0.2], confidence=[0.9, 0.0],
        latency_ms=[latency_ms, None], loss_ratio=[0.0125, None], delay_variation_ms=[2.25, None],
        bandwidth_bps=[1.5e9, None], age_ms=[800, None],
    )  # fmt: skip


def drawn(what: RenderableType, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def viewed(*records: Any) -> View:
    view = View()
    for record in records:
        view.take(encode(record))
    return view


def test_the_highest_sequence_wins_in_whatever_order_they_come() -> None:
    view = viewed(ranking(2, target_region="us-east-1"), ranking(1), ranking(2, target_region="sa-east-1"))
    assert view.rankings[P].sequence == 2
    assert view.rankings[P].target_region == "us-east-1"


def test_a_heartbeat_renews_the_age_and_keeps_the_last_change() -> None:
    view = viewed(ranking(1), ranking(2, events=["HEARTBEAT"], decided_at_ms=NOW_MS, reason="nothing new"))
    text = drawn(overview(view, NOW_MS))
    assert "1 s ago: eu-central-1 leads by 20 %" in text
    assert "nothing new" not in text


def test_take_says_when_somebody_should_look() -> None:
    view = View()
    assert view.take(encode(ranking(1, events=["HEARTBEAT"]))), "the first is news"
    assert not view.take(encode(ranking(2, events=["HEARTBEAT", "SCORE_MOVED"])))
    assert view.take(encode(ranking(3, events=["HEARTBEAT", "ORDER_CHANGED"])))
    assert not view.take(encode(ranking(3, events=["TARGET_CHANGED"])))
    assert not view.take(encode(weights()))
    for nonsense in (b"", b"\xff", encode(Tick("x"))):
        assert not view.take(nonsense)


def test_all_primaries_are_there_with_mode_target_and_order() -> None:
    text = drawn(overview(viewed(ranking(1), ranking(1, primary_region="ap-south-1", mode="PANIC", advice="FAIL_OVER",
                                                    target_region=None)), NOW_MS))  # fmt: skip
    rows = text.splitlines()
    assert rows[1].split()[:4] == ["ap-south-1", "PANIC", "FAIL_OVER", "none"]
    assert rows[2].split()[:4] == [P, "NORMAL", "HOLD", "eu-central-1"]
    assert "eu-central-1 1.00  us-east-1 0.50  ap-south-1 0.33  +1" in rows[2]


@pytest.mark.parametrize("width", [60, 80, 100, 140, 250])
def test_it_fits_every_width(width: int) -> None:
    view = viewed(ranking(1), ranking(1, primary_region="ap-southeast-1"), weights())
    for what in (overview(view, NOW_MS, width), paths(view, P, NOW_MS)):
        assert all(len(line) <= width for line in drawn(what, width).splitlines())
    assert P in drawn(overview(view, NOW_MS, width), width)


def test_what_nobody_renewed_is_marked_as_stale() -> None:
    old = ranking(1, decided_at_ms=NOW_MS - 31_000)
    assert is_stale(old, NOW_MS)
    assert not is_stale(old, NOW_MS - 1000)
    view = viewed(old)
    assert "STALE 31 s" in drawn(overview(view, NOW_MS))
    assert "STALE 31 s" in drawn(paths(view, P, NOW_MS))
    assert view.facts(NOW_MS)[P]["stale"] is True


def test_a_primary_shows_every_path_with_what_was_measured() -> None:
    prediction = DisruptionPrediction(P, NOW_MS, 30_000, "m", 0.0, 1, [PathPrediction("eu-central-1", 0.25)])
    rows = drawn(paths(viewed(ranking(1), weights(), prediction), P, NOW_MS)).splitlines()
    measured = next(r for r in rows if r.startswith("1. eu-central-1"))
    assert measured.split()[2:] == ["1.00", "12.3", "1.2%", "2.2", "1.5G", "80%", "25%", "1", "s", "in", "use"]
    unmeasured = next(r for r in rows if r.startswith("2. us-east-1"))
    assert unmeasured.split()[2:] == ["0.50", "-", "-", "-", "-", "80%", "-", "none"]
    assert next(r for r in rows if r.startswith("5. sa-east-1")).endswith("NO_DATA")


def test_who_is_not_ready_is_named_with_what_its_check_found_below_the_table() -> None:
    first, second, *others = ranking().candidates
    ill = replace(second, eligible=False, readiness=0.0, ineligible_reason="NOT_READY: http: answered 500\x1b[2J")
    old = replace(first, readiness=0.9)
    text = drawn(paths(viewed(ranking(candidates=[old, ill, *others])), P, NOW_MS))
    assert "us-east-1 is NOT_READY: http: answered 500?[2J" in text
    assert "eu-central-1: nothing was heard of its readiness for a while" in text
    assert "ap-south-1:" not in text


def test_older_weights_do_not_replace_newer() -> None:
    view = viewed(weights(NOW_MS, 10.0), weights(NOW_MS - 1, 99.0))
    assert view.weights[P].latency_ms[0] == 10.0


def test_before_anything_came_it_says_what_to_look_at() -> None:
    assert "proxima doctor" in drawn(overview(View(), NOW_MS))
    assert "proxima config get mars" in drawn(paths(View(), "mars", NOW_MS))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.tuples(*map(record_of, SHOWN)), st.integers(0, 1 << 53))
def test_whatever_the_schemas_allow_is_shown(records: tuple[Any, ...], now_ms: int) -> None:
    view = viewed(*(replace(record, primary_region=P) for record in records))
    assert P in view.rankings
    for width in (80, 140):
        drawn(overview(view, now_ms, width), width)
        drawn(paths(view, P, now_ms), width)
    json.dumps(finite(view.facts(now_ms)), allow_nan=False)


def no_numbers(value: Any, number: float) -> Any:
    """The same record with this in place of every float."""
    if isinstance(value, float):
        return number
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: no_numbers(getattr(value, f.name), number) for f in fields(value)})
    return [no_numbers(each, number) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_shown(number: float) -> None:
    found = replace(weights(), age_ms=[800.0, None])
    view = viewed(no_numbers(ranking(), number), no_numbers(found, number))
    assert "1. eu-central-1" in drawn(paths(view, P, NOW_MS))
    drawn(overview(view, NOW_MS))


@pytest.mark.kafka
def test_into_a_pipe_there_is_a_table_at_the_start_and_at_each_change(topics: Topics) -> None:
    topics.publish("failover-rankings", encode(ranking(1)))
    out = io.StringIO()
    done = threading.Event()
    viewer = threading.Thread(
        target=run_view,
        args=(topics.bootstrap, topics.prefix),
        kwargs={"until": done.is_set, "console": Console(file=out), "footer": lambda: "a footer", "redraw_hz": 20},
    )
    viewer.start()
    try:
        wait_until(lambda: "a footer" in out.getvalue(), 20, "the first table")
        topics.publish("failover-rankings", encode(ranking(2, events=["HEARTBEAT"])))
        topics.publish("failover-rankings", encode(ranking(3, reason="us-east-1 leads now", target_region="us-east-1")))
        wait_until(lambda: "us-east-1 leads now" in out.getvalue(), 20, "the second table")
    finally:
        done.set()
        viewer.join(20)
    assert out.getvalue().count("a footer") == 2


@pytest.mark.kafka
def test_in_a_terminal_it_redraws(topics: Topics) -> None:
    topics.publish("failover-rankings", encode(ranking(1)))
    topics.publish("path-weights", encode(weights()))
    out = io.StringIO()
    frames = iter(range(4))
    run_view(topics.bootstrap, topics.prefix, P, until=lambda: next(frames, None) is None,
             console=Console(file=out, force_terminal=True, width=120), redraw_hz=20)  # fmt: skip
    assert out.getvalue().count("1. eu-central-1") >= 4
    assert "12.3" in out.getvalue()


@pytest.mark.kafka
def test_the_command_prints_what_is_now(topics: Topics, tmp_path: Path) -> None:
    topics.publish("failover-rankings", encode(ranking(1)))
    topics.publish("failover-rankings", encode(no_numbers(ranking(1, primary_region="nowhere"), math.nan)))
    found = json.loads(succeeds("watch", "--json", **topics.environment))
    assert found["nowhere"]["order"][0]["normalized_score"] is None
    assert found[P]["target_region"] == "eu-central-1"
    assert found[P]["stale"] is True
    assert found[P]["order"][0]["region_id"] == "eu-central-1"
    assert json.loads(succeeds("watch", P, "--json", **topics.environment)) == found[P]
    assert "STALE" in succeeds("watch", "--once", **topics.environment)
    assert "there is no ranking of mars" in fails(1, "watch", "mars", "--once", **topics.environment)
    log = tmp_path / "log"
    with running("watch", P, log_path=log, **topics.environment) as watch:
        wait_until(lambda: "1. eu-central-1" in log.read_text(), 20, "the paths", children=[watch])
