"""The tokens' file: changed by one at a time, its owner's for good, and not believed where anybody may write it."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from infra.processes import wait_until
from producers.gateway.tokens import Token, TokenBook, change_tokens, new_token, read_tokens, write_tokens
from schemas.errors import ConfigError
from tests.infra.commands import fails, succeeds
from tests.producers.gateway.serving import Serving

ROUNDS = 30


def rows(count: int) -> list[Token]:
    return [new_token("cdn-logs")[1] for _ in range(count)]


def test_of_two_changes_at_once_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    for _ in range(ROUNDS):
        old, new = rows(2)
        write_tokens(path, [old])
        begin = threading.Barrier(2)

        def change(*added: Token, without: Token | None = None, begin: threading.Barrier = begin) -> None:
            begin.wait(10)
            change_tokens(path, lambda rows: [*(row for row in rows if row != without), *added])

        threads = [threading.Thread(target=change, args=(new,)),
                   threading.Thread(target=change, kwargs={"without": old})]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert read_tokens(path) == [new]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_who_owns_it_and_may_read_it_stays_and_a_link_to_it_too(tmp_path: Path) -> None:
    path, link = tmp_path / "secret" / "of-mine.json", tmp_path / "tokens.json"
    path.parent.mkdir()
    write_tokens(path, rows(1))
    path.chmod(0o440)
    os.chown(path, 65_534, 65_533)
    link.symlink_to(path)
    succeeds("gateway", "token", "new", "--source", "x", "--tokens", link)
    succeeds("gateway", "token", "revoke", read_tokens(path)[0].token_id, "--tokens", link)
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65_534, 65_533, 0o440)
    assert link.is_symlink()
    assert [row.source for row in read_tokens(link)] == ["x"]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another")
def test_who_cannot_keep_its_owner_changes_nothing() -> None:
    with TemporaryDirectory() as folder:  # pytest's own is in one that only we may enter
        path = Path(folder, "tokens.json")
        path.parent.chmod(0o777)
        write_tokens(path, rows(1))
        path.chmod(0o644)
        before = path.read_bytes()
        os.seteuid(65_534)
        try:
            with pytest.raises(ConfigError, match="owner"):
                write_tokens(path, [])
        finally:
            os.seteuid(0)
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]


def test_one_that_anybody_may_write_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    write_tokens(path, rows(1))
    path.chmod(0o606)
    with pytest.raises(ConfigError, match="anybody may write it"):
        TokenBook(path)
    assert "anybody may write it" in fails(1, "gateway", "token", "new", "--source", "x", "--tokens", path)
    path.chmod(0o660)
    assert len(read_tokens(path)) == 1, "its group is whom its owner chose"


@pytest.mark.kafka
def test_that_it_cannot_be_read_is_seen_until_it_can(gateway: Serving) -> None:
    client, path = gateway.client(gateway.token()), gateway.tokens_file

    def stale(said: str) -> bool:
        return f"proxima_gateway_tokens_stale {said}" in client.get("/metrics").text

    assert stale("0.0")
    path.chmod(0o606)
    wait_until(lambda: stale("1.0"), 10, "it to be seen")
    assert client.get("/v1/rankings/nobody").status_code == 404, "those of before count"
    path.chmod(0o600)  # which changes neither its time nor its size
    wait_until(lambda: stale("0.0"), 10, "it to be read again")
    kept = path.rename(path.with_name("elsewhere.json"))
    wait_until(lambda: stale("1.0"), 10, "it to be missed")
    kept.rename(path)
    wait_until(lambda: stale("0.0"), 10, "it to be back")
