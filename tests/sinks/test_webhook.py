"""Webhooks from Kafka to a receiver: what is committed was delivered or is a dead letter, in order, whatever dies."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.processes import ChildProcess, wait_until
from schemas.codec import encode
from schemas.errors import DestinationGoneError
from schemas.records import FailoverRanking, Reason
from schemas.topics import partition_of
from sinks.runner import SinkRunner
from sinks.several import Several
from sinks.webhook import WebhookSink
from tests.infra.commands import fails, running
from tests.pipeline import seed_from_environment
from tests.sinks.conftest import Pipeline
from tests.sinks.rankings import PRIMARIES, committed, dead_letters_on, ends, publish, ranking
from tests.sinks.receiver import Answer, Delivery, Receiver
from tests.sinks.test_courier import SECRET, destination

pytestmark = pytest.mark.kafka


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S", SECRET)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


def rankings(count: int, *primaries: str) -> list[FailoverRanking]:
    return [unique(p, s) for s in range(1, count + 1) for p in primaries or PRIMARIES]


def unique(primary: str, sequence: int, **changed: Any) -> FailoverRanking:
    return ranking(primary, sequence, **{"decision_id": f"{primary}-{sequence}"} | changed)


def in_order(count: int, *primaries: str) -> dict[str, list[int]]:
    return {p: list(range(1, count + 1)) for p in primaries or PRIMARIES}


def firsts(sequences: dict[str, list[int]]) -> dict[str, list[int]]:
    """As a receiver that drops what it had."""
    return {p: list(dict.fromkeys(found)) for p, found in sequences.items()}


def sink_of(pipeline: Pipeline, receiver: Receiver, **settings: Any) -> WebhookSink:
    return WebhookSink(destination(receiver, **settings), bootstrap=pipeline.bootstrap, prefix=pipeline.prefix)


def is_committed(pipeline: Pipeline, name: str = "test") -> bool:
    return committed(pipeline.bootstrap, pipeline.prefix, name) == ends(pipeline.bootstrap, pipeline.prefix)


def test_every_ranking_is_delivered_in_order_and_committed(pipeline: Pipeline, receiver: Receiver) -> None:
    publish(pipeline.bootstrap, pipeline.prefix, rankings(50))
    with pipeline.running(sink_of(pipeline, receiver)):
        wait_until(lambda: receiver.sequences() == in_order(50), 20, "all rankings")
        wait_until(lambda: is_committed(pipeline), 10, "the commit, while it runs")
    assert receiver.deliveries[0].ranking["candidates"][0]["rank"] == 1


def test_a_destination_gets_what_it_asked_for(pipeline: Pipeline, receiver: Receiver) -> None:
    changed = [unique(p, 2, events=["HEARTBEAT", "TARGET_CHANGED"]) for p in PRIMARIES]
    publish(pipeline.bootstrap, pipeline.prefix, [*rankings(1), *changed, unique(PRIMARIES[0], 3)])
    wanted = {"primaries": PRIMARIES[:2], "events": ["TARGET_CHANGED", "TARGET_RESTORED"]}
    with pipeline.running(sink_of(pipeline, receiver, **wanted)):
        wait_until(lambda: is_committed(pipeline), 20, "everything to be done")
    assert receiver.sequences() == {p: [2] for p in PRIMARIES[:2]}


def test_a_receiver_that_comes_late_and_goes_between_gets_all_in_order(pipeline: Pipeline) -> None:
    receiver = Receiver()
    publish(pipeline.bootstrap, pipeline.prefix, rankings(40))
    with pipeline.running(sink_of(pipeline, receiver)) as runner:
        wait_until(lambda: runner.counts.taken == 200, 20, "the rankings to be read")
        assert not any(committed(pipeline.bootstrap, pipeline.prefix, "test").values())
        with receiver:
            wait_until(lambda: len(receiver.accepted) > 20, 20, "the first rankings")
        publish(pipeline.bootstrap, pipeline.prefix, [unique(p, s) for s in range(41, 61) for p in PRIMARIES])
        with receiver:
            wait_until(lambda: firsts(receiver.sequences()) == in_order(60), 30, "all rankings")
            wait_until(lambda: is_committed(pipeline), 10, "the commit")


def test_whatever_a_receiver_does_nothing_overtakes_and_in_the_end_all_is_there(
    pipeline: Pipeline, receiver: Receiver
) -> None:
    """It errs, redirects, is slower than it may be and goes away, as a seed says; each try is signed and the same."""
    chance = random.Random(seed_from_environment("a bad receiver"))
    heals = threading.Event()
    bad = [
        Answer(500),
        Answer(503),
        Answer(400),
        Answer(307, {"Location": receiver.url}),
        Answer(after_s=0.4),
        Answer(),
    ]
    receiver.answer = lambda _: Answer() if heals.is_set() else chance.choice(bad)
    publish(pipeline.bootstrap, pipeline.prefix, rankings(12))
    settings = {"timeout_ms": 200, "connect_timeout_ms": 100, "breaker_failures": 20}
    with pipeline.running(sink_of(pipeline, receiver, **settings)):
        for _ in range(2):
            seen = len(receiver.deliveries)
            wait_until(lambda seen=seen: len(receiver.deliveries) > seen + 15, 30, "some tries")  # type: ignore[misc]
            receiver.down()
            receiver.up()
        heals.set()
        wait_until(lambda: is_committed(pipeline), 30, "everything to be delivered")
    assert firsts(receiver.sequences(accepted=False)) == in_order(12)
    assert {(d.primary, d.sequence) for d in receiver.accepted} == {(p, s) for p in PRIMARIES for s in range(1, 13)}
    assert dead_letters_on(pipeline.bootstrap, pipeline.prefix) == []
    assert len(receiver.deliveries) > 12 * len(PRIMARIES), "some came again"
    assert {d.headers["webhook-id"] for d in receiver.deliveries} == {
        f"{p}-{s}" for p in PRIMARIES for s in range(1, 13)
    }


def test_what_cannot_be_delivered_is_a_dead_letter_and_the_next_ones_turn(
    pipeline: Pipeline, receiver: Receiver
) -> None:
    bad = unique(PRIMARIES[0], 3)
    receiver.answer = lambda d: Answer(500 if (d.primary, d.sequence) == (PRIMARIES[0], 3) else 204)
    publish(pipeline.bootstrap, pipeline.prefix, [*rankings(6), unique(PRIMARIES[0], 7, decision_id="a\r\nb: c")])
    with pipeline.running(sink_of(pipeline, receiver, tries=4)):
        wait_until(lambda: is_committed(pipeline), 20, "everything to be done")
    assert receiver.sequences() == in_order(6) | {PRIMARIES[0]: [1, 2, 4, 5, 6]}
    letters = {d.reason: d for d in dead_letters_on(pipeline.bootstrap, pipeline.prefix)}
    assert letters.keys() == {Reason.NOT_DELIVERED, Reason.OUT_OF_RANGE}
    letter = letters[Reason.NOT_DELIVERED]
    assert (letter.original, letter.original_key) == (encode(bad), PRIMARIES[0].encode())
    assert letter.detail == "not delivered to d in 4 tries: answers 500"
    assert letter.found_by == "webhook-d"


def test_a_primary_that_waits_neither_stops_the_others_nor_fills_memory(pipeline: Pipeline, receiver: Receiver) -> None:
    let_go = threading.Event()
    bad = PRIMARIES[0]
    receiver.answer = lambda d: Answer(500 if d.primary == bad and not let_go.is_set() else 204)
    apart = [p for p in PRIMARIES if partition_of(p.encode()) != partition_of(bad.encode())]
    assert len(apart) > 1
    with pipeline.running(sink_of(pipeline, receiver, waiting_max=10, retry_ms_max=200), batch_max=10) as runner:
        publish(pipeline.bootstrap, pipeline.prefix, rankings(100, bad, *apart))
        wait_until(lambda: receiver.sequences() == in_order(100, *apart), 20, "the others' rankings")
        assert runner.counts.taken < 100 * len(apart) + 50, "it should not read on what only waits"
        assert not is_committed(pipeline)
        let_go.set()
        wait_until(lambda: receiver.sequences() == in_order(100, bad, *apart), 20, "the rest")
        wait_until(lambda: is_committed(pipeline), 10, "the commit")


def test_gone_switches_one_destination_off_and_the_others_go_on(pipeline: Pipeline, receiver: Receiver) -> None:
    with Receiver() as gone:
        gone.answer = lambda d: Answer(410 if d.sequence > 2 else 204)
        runners = {
            name: SinkRunner(sink_of(pipeline, to, name=name), bootstrap=pipeline.bootstrap, prefix=pipeline.prefix,
                             name=name)
            for name, to in (("gone", gone), ("here", receiver))
        }  # fmt: skip
        several, said = Several(runners), []

        def run() -> None:
            try:
                several.run()
            except DestinationGoneError as error:
                said.append(str(error))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            publish(pipeline.bootstrap, pipeline.prefix, rankings(4, PRIMARIES[0]))
            wait_until(lambda: len(gone.deliveries) == 3, 20, "the receiver to say that it is gone")
            wait_until(lambda: bool(several.errors), 20, "the destination to be switched off")
            publish(pipeline.bootstrap, pipeline.prefix, [unique(PRIMARIES[0], s) for s in range(5, 9)])
            wait_until(lambda: receiver.sequences() == in_order(8, PRIMARIES[0]), 20, "all at the other")
        finally:
            several.stop()
            thread.join(30)
        assert len(gone.deliveries) == 3
    assert "410, gone: it is switched off" in said[0]
    assert list(committed(pipeline.bootstrap, pipeline.prefix, "gone").values()) == [2], "what it was sent, and no more"
    assert is_committed(pipeline, "here")


def test_a_handover_between_two_of_one_name_keeps_the_order(pipeline: Pipeline, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(after_s=0.02)
    publish(pipeline.bootstrap, pipeline.prefix, rankings(60))
    with pipeline.running(sink_of(pipeline, receiver)):
        wait_until(lambda: len(receiver.accepted) > 20, 20, "the first rankings")
        with pipeline.running(sink_of(pipeline, receiver)) as second:
            publish(pipeline.bootstrap, pipeline.prefix, [unique(p, s) for s in range(61, 101) for p in PRIMARIES])
            wait_until(lambda: second.counts.taken > 20, 20, "the second to take over")
        wait_until(lambda: firsts(receiver.sequences()) == in_order(100), 30, "all rankings, in order")
        wait_until(lambda: is_committed(pipeline), 10, "the commit")
    # What is on its way is finished first; only what went ahead of a neighbour in the partition comes again.
    assert len(receiver.accepted) < 500 + 50


# -- as the process that people start


def start(pipeline: Pipeline, receiver: Receiver, folder: Path, *more: Receiver) -> ChildProcess:
    config, secret = folder / "webhook.toml", folder / "secret"
    secret.write_text(SECRET)
    config.write_text("".join(
        f'[[webhook.destinations]]\nname = "d{n}"\nurl = "{to.url}"\nsecret_files = ["{secret}"]\nretry_ms_max = 100\n'
        for n, to in enumerate((receiver, *more))
    ))  # fmt: skip
    environment = {"PROXIMA_KAFKA__BOOTSTRAP": pipeline.bootstrap, "PROXIMA_KAFKA__TOPIC_PREFIX": pipeline.prefix}
    return running("sink", "webhook", "--config", config, log_path=folder / "sink.log", **environment)


def test_a_killed_sink_loses_nothing_and_overtakes_nothing_and_a_slow_destination_holds_no_other(
    pipeline: Pipeline, receiver: Receiver, tmp_path: Path
) -> None:
    with Receiver() as slow:
        slow.answer = lambda _: Answer(after_s=30)
        receiver.answer = slowly
        publish(pipeline.bootstrap, pipeline.prefix, rankings(80))
        with start(pipeline, receiver, tmp_path, slow) as first:
            wait_until(lambda: len(receiver.accepted) > 150, 30, "a part", children=[first])
            first.kill()
        before = len(receiver.deliveries)
        with start(pipeline, receiver, tmp_path, slow) as second:
            wait_until(lambda: firsts(receiver.sequences()) == in_order(80), 40, "all, in order", children=[second])
            wait_until(lambda: is_committed(pipeline, "webhook-d0"), 10, "the commit", children=[second])
            second.send_signal(signal.SIGTERM)
            assert second.wait(15) == 0
        again = [d for d in receiver.deliveries[before:] if d.headers["webhook-id"] in
                 {e.headers["webhook-id"] for e in receiver.deliveries[:before]}]  # fmt: skip
        assert len(again) < before, "what was committed is not sent again"
        assert slow.deliveries
        assert not any(committed(pipeline.bootstrap, pipeline.prefix, "webhook-d1").values())
    log = (tmp_path / "sink.log").read_text()
    assert "Traceback" not in log
    assert SECRET not in log


def slowly(_: Delivery) -> Answer:
    return Answer(after_s=0.01)


def test_without_a_destination_or_a_secret_it_says_so(tmp_path: Path) -> None:
    assert "there is none" in fails(1, "sink", "webhook")
    config = tmp_path / "webhook.toml"
    config.write_text('[[webhook.destinations]]\nname = "d"\nurl = "https://h.example"\nsecret_env = ["NOT_THERE"]\n')
    assert "variable NOT_THERE holds no secret" in fails(1, "sink", "webhook", "--config", config)
