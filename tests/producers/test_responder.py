"""The far end of bandwidth trains: it answers who is where he says, sends less than it gets, and keeps little."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.processes import ChildProcess, wait_until
from producers import responder as responding
from producers.probes import Answer, Endpoint
from producers.probes.bandwidth import Bandwidth
from producers.probes.trains import ASK, CAR, HEADER, MAGIC, REQUEST_BYTES, Kind, report_of
from producers.responder import Responder
from schemas.config import Respond
from schemas.errors import ProbeError

REPOSITORY = Path(__file__).parents[2]
SESSION = b"abcdefgh"
Say = Callable[[bytes], bytes]


def talking(talk: Callable[[Say, Responder], None], **settings: int) -> None:
    """Run `talk` beside a responder; what it says is answered within a moment, with nothing if with nothing."""

    async def run() -> None:
        responder = Responder(Respond(bind="127.0.0.1", port=0, **settings))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", responder.port))
            client.settimeout(0.2)

            def say(packet: bytes) -> bytes:
                client.send(packet.ljust(REQUEST_BYTES, b"\0"))
                try:
                    return client.recv(2048)
                except TimeoutError:
                    return b""

            await asyncio.to_thread(talk, say, responder)
        responder.close()

    asyncio.run(run())


def cookie_of(say: Say, session: bytes = SESSION) -> bytes:
    answer = say(HEADER.pack(MAGIC, Kind.HELLO, session))
    assert HEADER.unpack_from(answer) == (MAGIC, Kind.COOKIE, session)
    assert len(answer) < REQUEST_BYTES
    return answer[HEADER.size :]


def car(cookie: bytes, index: int, train: int = 0, count: int = 20) -> bytes:
    return HEADER.pack(MAGIC, Kind.TRAIN, SESSION) + CAR.pack(cookie, train, index, count)


def report(say: Say, cookie: bytes, train: int = 0) -> list[int]:
    found = report_of(say(HEADER.pack(MAGIC, Kind.ASK, SESSION) + ASK.pack(cookie, train)))
    assert found is not None
    assert found[0] == train
    return [int(index) for index in found[1]]


def test_what_arrived_is_reported_once_each() -> None:
    def talk(say: Say, _: Responder) -> None:
        cookie = cookie_of(say)
        for index in (0, 2, 2, 1):
            assert say(car(cookie, index)) == b""
        assert report(say, cookie) == [0, 2, 1]
        assert report(say, cookie, train=1) == []
        say(car(cookie, 5, train=1))
        say(car(cookie, 6))  # a straggler of the train before
        assert report(say, cookie, train=1) == [5]

    talking(talk)


def test_who_cannot_be_reached_where_he_says_gets_no_word() -> None:
    def talk(say: Say, _: Responder) -> None:
        cookie_of(say)
        for cookie in (bytes(8), cookie_of(say, b"another!")):
            say(car(cookie, 0))
            assert say(HEADER.pack(MAGIC, Kind.ASK, SESSION) + ASK.pack(cookie, 0)) == b""

    talking(talk)


@pytest.mark.parametrize("index_and_count", [(20, 20), (5, 4), (0, 201), (65535, 65535)])
def test_impossible_trains_are_dropped(index_and_count: tuple[int, int]) -> None:
    def talk(say: Say, _: Responder) -> None:
        cookie = cookie_of(say)
        say(car(cookie, index_and_count[0], count=index_and_count[1]))
        assert report(say, cookie) == []

    talking(talk)


def test_so_many_sessions_are_kept_and_the_longest_silent_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responding, "SESSIONS_MAX", 2)

    def talk(say: Say, responder: Responder) -> None:
        for session in (b"session1", b"session2", b"session3"):
            say(HEADER.pack(MAGIC, Kind.TRAIN, session) + CAR.pack(cookie_of(say, session), 0, 0, 20))
        assert [session for _, session in responder._sessions] == [b"session2", b"session3"]

    talking(talk)


def test_an_address_that_is_taken_is_said() -> None:
    async def run() -> None:
        first = Responder(Respond(bind="127.0.0.1", port=0))
        try:
            with pytest.raises(ProbeError, match=r"cannot listen.*127\.0\.0\.1 port"):
                Responder(Respond(bind="127.0.0.1", port=first.port))
        finally:
            first.close()

    asyncio.run(run())


def test_the_command_answers_until_sigterm(tmp_path: Path) -> None:
    file = tmp_path / "respond.toml"
    file.write_text('[respond]\nbind = "127.0.0.1"\nport = 0\n')
    argv = [sys.executable, "-c", "from infra.cli import main; main()", "respond", "--config", str(file)]
    with ChildProcess.start(argv, name="proxima respond", log_path=tmp_path / "log", cwd=REPOSITORY) as child:
        wait_until(lambda: "answering" in child.log_tail(), 30, "it answers", children=[child])
        port = int(child.log_tail().rpartition("port ")[2].split()[0])

        async def ask() -> Answer:
            probe = Bandwidth(2.0)
            answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            probe.ask(Endpoint("127.0.0.1", port), answer.set_result)
            try:
                return await answer
            finally:
                probe.close()

        assert asyncio.run(ask()).outcome.name == "ANSWERED"
        child.send_signal(signal.SIGTERM)
        assert child.wait(15) == 0, child.log_tail()
