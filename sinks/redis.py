"""Redis: the latest ranking of every primary, where applications look it up.

    proxima:ranking:PRIMARY      string, the ranking as JSON
    proxima:candidates:PRIMARY   sorted set, region by normalized score: `ZREVRANGE ... 0 0` is the first choice
    proxima:rankings             channel, the JSON of every new ranking
    proxima:positions            hash, topic id and partition -> offset up to which this Redis has everything

A script writes a ranking, its candidates and the message as one, and refuses to go back to a lower sequence, so two
sinks, a replay or a repeated batch never put an older decision over a newer one. Keys do not expire: an old ranking
is better than none, and says by `decided_at_ms` and `stale_after_ms` how old it is.

A Redis that is killed loses what it had not saved: its last second with an append-only file, everything without. The
positions tell: they are written after the rankings they cover and lost with them or before them, so reading goes on
where this Redis stands, and not where the consumer group does.

With a `topic_prefix`, it stands before every name here. One Redis or a replicated one with its primary's address; not
Redis Cluster, where a primary's keys would live on different nodes. Use `maxmemory-policy noeviction`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from schemas.errors import StoreUnavailableError
from schemas.records import FailoverRanking
from sinks.rendering import as_json
from sinks.sink import Meta, Place, Sink

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 2.0

# Answers 0 when written, else the sequence that it keeps.
_RANKING: Final = """
local held = redis.pcall('GET', KEYS[1])
if type(held) == 'string' then
  local ok, ranking = pcall(cjson.decode, held)
  local sequence = ok and type(ranking) == 'table' and tonumber(ranking.sequence)
  if sequence and sequence >= tonumber(ARGV[1]) then
    return sequence
  end
end
redis.call('SET', KEYS[1], ARGV[3])
redis.call('DEL', KEYS[2])
if #ARGV > 3 then
  redis.call('ZADD', KEYS[2], unpack(ARGV, 4))
end
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 0
"""

# For each place (field, what we know it had, what it has now): answers the places that have less than they had.
# Another sink may have gone further meanwhile; a position never goes back.
_POSITIONS: Final = """
local lost = {}
for i = 1, #ARGV, 3 do
  local held = tonumber(redis.call('HGET', KEYS[1], ARGV[i])) or 0
  if held < tonumber(ARGV[i + 1]) then
    lost[#lost + 1] = (i - 1) / 3
  elseif held < tonumber(ARGV[i + 2]) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
  end
end
return lost
"""


class RedisSink(Sink):
    """`topic_ids` are Kafka's ids by names on the cluster: a topic made anew starts again at offset 0."""

    topics = ("failover-rankings",)

    def __init__(
        self, url: str, topic_ids: Mapping[str, str], *, prefix: str = "", options: Mapping[str, Any] | None = None
    ) -> None:
        """`options`: what redis-py is to know beside the address (password, certificates)."""
        # The runner tries again, with its own pauses: a client that does so too would only hide how long.
        self._redis = redis.Redis.from_url(
            url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            **(options or {}),
        )
        self._where = _without_password(url)
        self._ids = topic_ids
        self._names = f"{prefix}proxima:"
        self._ranking: Any = self._redis.register_script(_RANKING)
        self._positions: Any = self._redis.register_script(_POSITIONS)
        self._batch: list[tuple[FailoverRanking, str]] = []
        self._next: dict[Place, int] = {}  # where this batch ends
        self._held: dict[Place, int] = {}  # what Redis confirmed to have, of the places that are ours

    def add(self, record: FailoverRanking, meta: Meta) -> None:
        self._batch.append((record, as_json(record)))
        self._next[meta.place] = meta.offset + 1

    def skip(self, meta: Meta) -> None:
        self._next[meta.place] = meta.offset + 1

    def flush(self) -> Collection[Place]:
        # In this order on one connection: what a position covers is there before it.
        pipeline = self._redis.pipeline(transaction=False)
        for ranking, text in self._batch:
            self._write(pipeline, ranking, text)
        places = sorted(self._held)
        ends = {place: max(self._next.get(place, 0), self._held[place]) for place in places}
        if places:
            arguments = [a for place in places for a in (self._field(place), self._held[place], ends[place])]
            self._positions(keys=[f"{self._names}positions"], args=arguments, client=pipeline)
        if not self._batch and not places:
            return ()
        answers = self._asked(pipeline.execute)
        lost = [places[int(i)] for i in answers.pop()] if places else []
        self._tell_refused(answers)
        self._batch, self._next = [], {}
        # Of a place that lost something `_held` stays: until it is assigned again it is lost, whatever else comes.
        self._held |= {place: end for place, end in ends.items() if place not in lost}
        return lost

    def assigned(self, places: Sequence[Place]) -> Mapping[Place, int]:
        fields = [self._field(place) for place in places]
        held = self._asked(lambda: self._redis.hmget(f"{self._names}positions", fields)) if fields else []
        self._held = {place: int(offset or 0) for place, offset in zip(places, held, strict=True)}
        return dict(self._held)

    def close(self) -> None:
        self._redis.close()

    def _write(self, pipeline: Any, ranking: FailoverRanking, text: str) -> None:
        names, primary = self._names, ranking.primary_region
        scores = [a for c in ranking.candidates for a in (c.normalized_score, c.region_id)]
        self._ranking(
            keys=[f"{names}ranking:{primary}", f"{names}candidates:{primary}"],
            args=[ranking.sequence, f"{names}rankings", text, *scores],
            client=pipeline,
        )

    def _tell_refused(self, answers: Sequence[int]) -> None:
        refused = [(ranking, kept) for (ranking, _), kept in zip(self._batch, answers, strict=True) if kept]
        if refused:
            ranking, kept = refused[-1]
            log.info("%d rankings not newer than what is served, for instance %s, sequence %d (%d is served)",
                     len(refused), ranking.primary_region, ranking.sequence, kept)  # fmt: skip

    def _field(self, place: Place) -> str:
        return f"{self._ids[place[0]]}/{place[1]}"

    def _asked(self, ask: Any) -> Any:
        try:
            return ask()
        except redis.RedisError as error:
            raise StoreUnavailableError(
                f"Redis: {error}", where=self._where, do="start it, or look at its log; nothing is lost meanwhile"
            ) from error


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2]
