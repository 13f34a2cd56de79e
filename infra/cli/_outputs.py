"""What `proxima replay` does with decisions: lines on stdout, topics under another prefix, or only the differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

from infra.cli._options import say, say_json
from infra.cli._plain import shown
from infra.history import decided_at_ms
from infra.shadow import Beside, RealRankings, Turn
from infra.times import clock, lasting
from schemas.codec import decode
from schemas.config import ClientConfig
from schemas.records import FailoverRanking
from streams.folding import Output
from streams.journal import JournalRecord


class Outputs:
    """Takes the outputs of a fold that were decided within a time, and prints or publishes them."""

    def __init__(
        self,
        topic: str,
        to_kafka: str | None,
        client: ClientConfig,
        from_ms: int | None,
        to_ms: int | None,
        *,
        as_hex: bool,
        quiet: bool,
    ) -> None:
        self.count = 0  # within the time
        self.taken = 0
        self._topic, self._as_hex, self._quiet = topic, as_hex, quiet
        self._from_ms, self._to_ms = from_ms, to_ms
        self._publish: Callable[[Output], None] | None = None
        self._leaving = ExitStack()
        if to_kafka is not None:
            self._open(to_kafka, client.kafka.bootstrap)

    def _open(self, prefix: str, bootstrap: str) -> None:
        from infra.kafka.admin import create_topics  # noqa: PLC0415 - only for this
        from producers.publisher import Publisher  # noqa: PLC0415

        create_topics(bootstrap, prefix=prefix)
        # Leaving the publisher waits until the broker has everything.
        publisher = self._leaving.enter_context(
            Publisher(bootstrap, client_id="proxima-replay", topic_prefix=prefix, flush_timeout_s=30.0)
        )
        self._publish = lambda out: publisher.publish_raw(out.topic, out.key, out.value)

    def take(self, output: Output, record: JournalRecord) -> None:
        """Publish it, or print it when it is of the topic asked for; `record` brought it about."""
        if not self._is_within(output, record):
            return
        self.count += 1
        if self._publish is not None:
            self._publish(output)
        elif output.topic != self._topic or self._quiet:
            return
        elif self._as_hex:
            say(f"{output.key.decode()} {output.value.hex()}")
        else:
            say_json({"topic": output.topic, "key": output.key.decode(), **shown(output.value)})
        self.taken += 1

    def _is_within(self, output: Output, record: JournalRecord) -> bool:
        if self._from_ms is None and self._to_ms is None:
            return True
        if self._from_ms is not None and record.appended_at_ms < self._from_ms:
            return False  # nothing is decided after the record that brought it about: no need to look into it
        at_ms = decided_at_ms(output)
        return (self._from_ms or 0) <= at_ms and (self._to_ms is None or at_ms < self._to_ms)

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> bool | None:
        return self._leaving.__exit__(kind, error, at)


class Comparison:
    """The fold's targets beside those published, told as they turn."""

    def __init__(self, real: RealRankings, from_ms: int | None, *, as_json: bool) -> None:
        self._real, self._as_json = real, as_json
        self._beside = Beside(from_ms or 0)
        for ranking in real.there():
            self._beside.real(ranking)

    def decided(self, output: Output, record: JournalRecord) -> None:
        """An output of the fold."""
        if output.topic == "failover-rankings":
            self._beside.shadow(decode(output.value, FailoverRanking), record.partition)

    def passed(self, record: JournalRecord | None) -> None:
        """A journal record was folded, or none came for a moment."""
        for ranking in self._real.new():
            self._beside.real(ranking)
        if record is not None:
            self._tell(self._beside.passed(record.partition, record.appended_at_ms))

    def finish(self) -> None:
        """The last turns, and the sum of it."""
        self._tell(self._beside.finish())
        totals = self._beside.totals()
        if self._as_json:
            say_json({"type": "totals", **totals})
        else:
            say(
                f"{totals['primaries']} primaries compared over {lasting(totals['compared_ms'])} of their time: "
                f"{totals['differences']} differences, {totals['differing_ratio']:.1%} of the time"
            )

    def _tell(self, turns: list[Turn]) -> None:
        for turn in turns:
            if self._as_json:
                say_json({"type": "turn", **turn.facts()})
            else:
                say(_sentence(turn))


@contextmanager
def comparison(
    client: ClientConfig, from_ms: int | None, *, as_json: bool, wanted: bool
) -> Iterator[Comparison | None]:
    """A comparison that sums up at its end, also at Ctrl-C; None when none is wanted."""
    if not wanted:
        yield None
        return
    real = RealRankings(client.kafka.bootstrap, client.kafka.topic_prefix, from_ms)
    try:
        found = Comparison(real, from_ms, as_json=as_json)
        try:
            yield found
        finally:
            found.finish()
    finally:
        real.close()


def _sentence(turn: Turn) -> str:
    mine, its = turn.target_region or "nowhere", turn.real_target_region or "nowhere"
    what = f"both choose {its} again" if turn.agree else f"it would choose {mine}, and {its} is in force"
    share = f"difference {turn.differences}, {turn.differing_ratio:.1%} of the time so far"
    return f"{clock(turn.at_ms)}  {turn.primary_region}: {what} ({share})"
