"""What is particular about Redis: the sorted set, the channel, one atomic step, and a server that forgets."""

from __future__ import annotations

import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from infra.kafka.admin import admin_client
from infra.processes import ChildProcess, free_ports, wait_until
from infra.redis import redis_program
from schemas.config import Redis
from schemas.errors import ConfigError, StoreUnavailableError
from sinks.redis import RedisSink
from sinks.sink import Meta
from tests.sinks.conftest import Pipeline
from tests.sinks.rankings import PRIMARIES, committed, ends, latest_of, publish, ranking, rankings_on
from tests.sinks.targets import Ids, RedisTarget

P = PRIMARIES[0]


def write(target: RedisTarget, *sequences: int) -> None:
    sink = target.open()
    for sequence in sequences:
        sink.add(ranking(P, sequence), Meta("failover-rankings", 0, sequence, 0, None))
    sink.flush()
    sink.close()


def test_the_ranking_says_itself_when_it_is_stale(redis_target: RedisTarget) -> None:
    write(redis_target, 1)
    served = redis_target.latest(f"proxima:ranking:{P}")
    assert served["stale_after_ms"] == 30_000
    assert served["decided_at_ms"] == ranking(P, 1).decided_at_ms
    assert redis_target.client.ttl(f"proxima:ranking:{P}") == -1, "an old ranking is better than none"


def test_the_candidates_are_those_of_the_served_ranking_by_normalized_score(redis_target: RedisTarget) -> None:
    write(redis_target, 1)
    fewer = ranking(P, 2)
    sink = redis_target.open()
    sink.add(ranking(P, 2, candidates=fewer.candidates[:2]), Meta("failover-rankings", 0, 2, 0, None))
    sink.flush()
    found = redis_target.client.zrevrange(f"proxima:candidates:{P}", 0, -1, withscores=True)
    assert found == [(c.region_id, c.normalized_score) for c in fewer.candidates[:2]]


def test_a_ranking_without_candidates_leaves_no_old_ones(redis_target: RedisTarget) -> None:
    write(redis_target, 1)
    sink = redis_target.open()
    sink.add(ranking(P, 2, candidates=[], target_region=None), Meta("failover-rankings", 0, 2, 0, None))
    sink.flush()
    assert redis_target.latest(f"proxima:ranking:{P}")["sequence"] == 2
    assert not redis_target.client.exists(f"proxima:candidates:{P}")


def test_every_new_sequence_is_published_once_and_an_old_one_never(redis_target: RedisTarget) -> None:
    channel = redis_target.client.pubsub()
    channel.subscribe("proxima:rankings")
    wait_until(lambda: channel.get_message(timeout=0.1), 5, "the subscription")
    for sequences in ((1, 2, 3), (2, 3), (1,), (4,)):
        write(redis_target, *sequences)
    heard = []
    for _ in range(4):
        message = wait_until(lambda: channel.get_message(timeout=0.1), 5, "a message")
        heard.append(message["data"])
    assert [f'"sequence":{n},' in text for n, text in enumerate(heard, start=1)] == [True] * 4
    assert heard[-1] == redis_target.client.get(f"proxima:ranking:{P}")
    assert channel.get_message(timeout=0.1) is None
    channel.close()


def test_readers_never_see_a_ranking_beside_the_candidates_of_another(redis_target: RedisTarget) -> None:
    write(redis_target, 1)
    done = threading.Event()

    def write_and_say() -> None:
        write(redis_target, *range(2, 400))
        done.set()

    writer = threading.Thread(target=write_and_say)
    writer.start()
    looks = 0
    while not done.is_set() or not looks:
        pipeline = redis_target.client.pipeline(transaction=True)
        pipeline.get(f"proxima:ranking:{P}")
        pipeline.zrevrange(f"proxima:candidates:{P}", 0, 0)
        text, first = pipeline.execute()
        assert f'"target_region":"{first[0]}"' in text
        looks += 1
    writer.join()


def test_what_others_put_under_our_keys_is_replaced(redis_target: RedisTarget) -> None:
    for garbage in ("no json", '{"sequence": "x"}', "[1]", '{"sequence": null}'):
        redis_target.client.set(f"proxima:ranking:{P}", garbage)
        redis_target.client.set(f"proxima:candidates:{P}", "no sorted set")
        write(redis_target, 1)
        assert redis_target.served() == {P: 1}
        redis_target.client.flushall()
    redis_target.client.lpush(f"proxima:ranking:{P}", "a list")
    write(redis_target, 1)
    assert redis_target.served() == {P: 1}


def test_two_sinks_at_once_leave_the_highest_sequence(redis_target: RedisTarget) -> None:
    writers = [threading.Thread(target=write, args=(redis_target, *range(start, 200, 2))) for start in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert redis_target.served() == {P: 199}


def test_a_position_is_kept_with_the_data_and_never_goes_back(redis_target: RedisTarget) -> None:
    place = ("failover-rankings", 0)
    first, zombie = redis_target.open(), redis_target.open()
    for sink in (first, zombie):
        assert sink.assigned([place]) == {place: 0}
    first.add(ranking(P, 1), Meta(*place, 10, 0, None))
    first.skip(Meta(*place, 11, 0, None))
    assert not first.flush()
    zombie.add(ranking(P, 1), Meta(*place, 4, 0, None))
    assert not zombie.flush()
    assert redis_target.open().assigned([place]) == {place: 12}


def test_a_topic_made_anew_starts_from_its_beginning(redis_target: RedisTarget) -> None:
    place = ("failover-rankings", 0)
    sink = redis_target.open()
    sink.assigned([place])
    sink.add(ranking(P, 1), Meta(*place, 10, 0, None))
    sink.flush()
    again = redis_target.open()
    again._ids = Ids({"failover-rankings": "another id"})
    assert again.assigned([place]) == {place: 0}


def test_the_password_is_in_no_message(redis_target: RedisTarget) -> None:
    sink = redis_target.open()
    redis_target.server.kill()
    secret = type(sink)(redis_target.server.url.replace("//", "//me:secret@"), Ids())
    with pytest.raises(StoreUnavailableError) as raised:
        secret.assigned([("failover-rankings", 0)])
    assert "secret" not in str(raised.value)


@pytest.mark.kafka
def test_a_redis_that_comes_back_empty_is_filled_again(
    redis_target: RedisTarget, pipeline: Pipeline, tmp_path: Path
) -> None:
    """No flush fails here: the sink is idle when Redis dies, and has to notice by itself."""
    rankings = [ranking(p, s) for s in range(1, 51) for p in PRIMARIES]
    publish(pipeline.bootstrap, pipeline.prefix, rankings)
    with pipeline.running(redis_target.open(pipeline.prefix)) as runner:
        wait_until(lambda: redis_target.served(pipeline.prefix) == latest_of(rankings), 20, "the rankings")
        redis_target.server.kill()
        shutil.rmtree(tmp_path / "redis" / "appendonlydir", ignore_errors=True)
        (tmp_path / "redis" / "appendonly.aof").unlink(missing_ok=True)
        redis_target.server.restart()
        assert redis_target.served(pipeline.prefix) == {}
        wait_until(lambda: redis_target.served(pipeline.prefix) == latest_of(rankings), 20, "the rankings again")
        assert runner.counts.rewinds > 0
        more = [ranking(p, s) for s in range(51, 61) for p in PRIMARIES]
        publish(pipeline.bootstrap, pipeline.prefix, more)
        wait_until(lambda: redis_target.served(pipeline.prefix) == latest_of(more), 20, "what came afterwards")
    assert latest_of(rankings_on(pipeline.bootstrap, pipeline.prefix)) == redis_target.served(pipeline.prefix)
    assert committed(pipeline.bootstrap, pipeline.prefix, "test") == ends(pipeline.bootstrap, pipeline.prefix)


@pytest.mark.kafka
def test_a_sink_that_starts_beside_an_emptied_redis_does_not_trust_its_commits(
    redis_target: RedisTarget, pipeline: Pipeline
) -> None:
    rankings = [ranking(p, s) for s in range(1, 11) for p in PRIMARIES]
    publish(pipeline.bootstrap, pipeline.prefix, rankings)
    with pipeline.running(redis_target.open(pipeline.prefix)):
        wait_until(lambda: redis_target.served(pipeline.prefix) == latest_of(rankings), 20, "the rankings")
    redis_target.client.flushall()
    with pipeline.running(redis_target.open(pipeline.prefix)):
        wait_until(lambda: redis_target.served(pipeline.prefix) == latest_of(rankings), 20, "the rankings again")


@pytest.mark.kafka
def test_a_group_that_forgot_its_commits_is_told_what_redis_has(redis_target: RedisTarget, pipeline: Pipeline) -> None:
    rankings = [ranking(p, s) for s in range(1, 4) for p in PRIMARIES]
    publish(pipeline.bootstrap, pipeline.prefix, rankings)
    with pipeline.running(redis_target.open(pipeline.prefix)):  # commits when it ends
        wait_until(lambda: redis_target.served(pipeline.prefix) == latest_of(rankings), 30, "the rankings")
    group = f"{pipeline.prefix}proxima-sink-test"
    admin = admin_client(pipeline.bootstrap)  # kept: its futures die with it
    admin.delete_consumer_groups([group], request_timeout=10)[group].result(20)
    assert not committed(pipeline.bootstrap, pipeline.prefix, "test")
    told = ends(pipeline.bootstrap, pipeline.prefix)
    with pipeline.running(redis_target.open(pipeline.prefix)) as runner:  # nothing is left to read
        wait_until(lambda: committed(pipeline.bootstrap, pipeline.prefix, "test") == told, 30, "the commit")
    assert runner.counts.taken == 0


@pytest.mark.kafka
def test_a_sink_that_starts_while_redis_is_down_waits_for_it(redis_target: RedisTarget, pipeline: Pipeline) -> None:
    publish(pipeline.bootstrap, pipeline.prefix, [ranking(P, 1)])
    redis_target.server.kill()
    with pipeline.running(redis_target.open(pipeline.prefix)) as runner:
        wait_until(lambda: runner.counts.outages == 1, 20, "the sink to notice")
        redis_target.server.restart()
        wait_until(lambda: redis_target.served(pipeline.prefix) == {P: 1}, 20, "the ranking")
    assert committed(pipeline.bootstrap, pipeline.prefix, "test") == ends(pipeline.bootstrap, pipeline.prefix)


def test_a_server_that_asks_for_a_password_takes_the_one_of_a_file_and_no_message_has_it(tmp_path: Path) -> None:
    port, password = free_ports(1)[0], tmp_path / "password"
    password.touch(0o600)
    password.write_text("correct-horse\n")
    users = tmp_path / "users.acl"
    rights = "~proxima:* resetchannels &proxima:* +@all -@admin"
    users.write_text(f"user default off\nuser proxima on >correct-horse {rights}\n")
    argv = [redis_program(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--aclfile", str(users),
            "--dir", str(tmp_path)]  # fmt: skip
    settings = Redis(url=f"redis://proxima@127.0.0.1:{port}/0", password_file=password)
    server = ChildProcess.start(argv, name="redis", log_path=tmp_path / "redis.log")
    try:

        def write(options: dict[str, Any]) -> None:
            sink = RedisSink(settings.url, {"failover-rankings": "id"}, options=options)
            sink.add(ranking(P, 1), Meta("failover-rankings", 0, 0, 0, None))
            sink.flush()

        def served() -> bool:
            with suppress(StoreUnavailableError):
                write(settings.options())
                return True
            return False

        wait_until(served, 20, "the store to take it", children=[server])
        for options in ({}, {"password": "wrong-horse"}):
            with pytest.raises(StoreUnavailableError) as raised:
                write(options)
            assert "-horse" not in str(raised.value)
    finally:
        server.kill()


def test_a_certificate_is_for_addresses_with_tls(tmp_path: Path) -> None:
    assert Redis(url="redis://cache/0", ca_file=tmp_path).options() == {}
    assert Redis(url="rediss://cache/0", ca_file=tmp_path).options() == {"ssl_ca_certs": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"redis\.password_file"):
        Redis(password_file=tmp_path / "missing").options()
