"""A verdict in sentences, in `proxima explain` and in the live view."""

from __future__ import annotations

import io

from rich.console import Console

from infra.explain import explain, text
from infra.network_words import network_sentences
from infra.watch import View, paths
from schemas.codec import encode
from schemas.records import Allotment, Fault, NetworkVerdict, Observer, SharedRisk
from tests.infra.test_watch import ranking

VERDICT = NetworkVerdict(
    primary_region="eu-west-1",
    sequence=7,
    decided_at_ms=1_795_515_300_000,
    stale_after_ms=30_000,
    health="DOWN",
    health_since_ms=1_795_515_299_000,
    observers=[Observer("a", "DOWN", "no answer"), Observer("b", "UP", "12 ms"), Observer("c", "BLIND", "x\x1b[31m")],
    reason="eu-west-1 is DOWN: a gets no answer",
    faults=[Fault("TRANSIT", "AS 64501", 0.93, 12, 1, 0), Fault("AGENT", "a/1", 0.8, 0, 0, 0)],
    shared=[
        SharedRisk("a", "transit", "AS 64501", 1.0, with_primary=True),
        SharedRisk("b", "transit", "AS 64501", 0.5),
    ],
    allotments=[Allotment("b", 0.4, ["us-east-1"], ["ap-south-1"])],
    executed_to="b",
)


def test_every_part_of_a_verdict_is_said() -> None:
    said = network_sentences(VERDICT)
    assert said[0].startswith("eu-west-1 is DOWN since ")
    assert said[1:] == [
        "a gets no answer (no answer).",
        "c is no witness (x?[31m).",
        "b reaches it (12 ms).",
        "At fault is AS 64501 (93 % sure): it explains 12 bad paths, though 1 should be bad too and are not.",
        "At fault is the agent a/1, and no region (80 % sure).",
        "a, b and the primary share transit AS 64501.",
        "Of b 40 % is left: us-east-1 has failed over there and ap-south-1 counted on it before.",
        "Its traffic was moved to b already.",
    ]


def test_explain_tells_the_verdict_and_gives_it_as_facts() -> None:
    found = explain(ranking(7, primary_region="eu-west-1"), None, 0, None, VERDICT)
    assert "What the whole network says:\n- eu-west-1 is DOWN since" in text(found)
    assert found.facts()["verdict"]["health"] == "DOWN"
    assert "What the whole network says" not in text(explain(ranking(7, primary_region="eu-west-1"), None, 0))


def test_the_live_view_of_a_primary_shows_the_latest_verdict() -> None:
    view = View()
    view.take(encode(ranking(7, primary_region="eu-west-1")))
    view.take(encode(VERDICT))
    view.take(encode(NetworkVerdict("eu-west-1", 6, 0, 1, "UP", 0, [], "older")))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(paths(view, "eu-west-1", 0))
    shown = console.export_text()
    assert "eu-west-1 is DOWN: a gets no answer" in shown
    assert "older" not in shown
