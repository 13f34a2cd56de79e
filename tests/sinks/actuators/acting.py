"""An actuator of a test's own whose state can be seen, and the sink around it, on real topics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from infra.kafka.reader import BEGINNING, TopicReader
from producers.publisher import Publisher
from schemas.actuators import Actuators
from schemas.breaker import Breaker, Limits
from schemas.codec import decode
from schemas.records import ActionResult, PathAction, Record
from schemas.topics import named
from sinks.actuators.actuator import Actuator, ActuatorError, Wanted
from sinks.actuators.log import ActionLog
from sinks.actuators.results import Results
from sinks.actuators.sink import ActuatorsSink
from sinks.actuators.stops import Stops
from sinks.sink import Meta


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def action(action_id: str, *, lasts_ms: int = 60_000, **change: str | int) -> PathAction:
    made = PathAction(
        action_id, 1, "eu", "us", "standby", "LINK", "APPLY", "edge", 0.0, now_ms(), now_ms() + lasts_ms, 1, "slow"
    )
    return replace(made, **change)  # type: ignore[arg-type]


@dataclass
class Switch(Actuator):
    """Remembers what it was told; can be told to fail, to lie, or to die in the middle."""

    name: str = "edge"
    is_on: bool = False
    done: list[str] = field(default_factory=list)
    fails: str = ""
    lies: bool = False
    dies: bool = False

    def refuses(self, wanted: Wanted) -> str | None:
        return None if wanted.remedy == "standby" else f"no task {wanted.remedy}"

    def words(self, wanted: Wanted) -> str:
        return "on" if wanted.applies else "off"

    def is_so(self, wanted: Wanted) -> bool:
        return self.is_on == wanted.applies

    def do(self, wanted: Wanted, action_id: str) -> None:
        if self.fails:
            raise ActuatorError(self.fails)
        self.done.append(action_id)
        if not self.lies:
            self.is_on = wanted.applies
        if self.dies:
            raise KeyboardInterrupt("the process is gone")


@dataclass
class Scene:
    """One process's worth; `again` is the next process, with the same log."""

    bootstrap: str
    prefix: str
    folder: Path
    switch: Switch = field(default_factory=Switch)
    config: Actuators = field(default_factory=lambda: Actuators(dry_run=False))
    clock_s: float = 0.0
    offset: int = 0
    wall_off_ms: int = 0

    def __post_init__(self) -> None:
        self.sink = self._made()

    def again(self) -> None:
        self.sink.close()
        self.sink = self._made()

    def _made(self) -> ActuatorsSink:
        breaker = Breaker("edge", Limits(failures=2, open_s=10), clock=lambda: self.clock_s)
        return ActuatorsSink(
            [self.switch], config=self.config, action_log=ActionLog(self.folder / "actions.sqlite"),
            results=Results(self.bootstrap, self.prefix), stops=Stops(), breakers={"edge": breaker},
            wall_ms=lambda: now_ms() + self.wall_off_ms,
        )  # fmt: skip

    def takes(self, record: Record, *, appended_at_ms: int | None = None, key: bytes = b"eu") -> None:
        """As the runner would hand it in, and flushed."""
        self.offset += 1
        meta = Meta("path-actions", 0, self.offset, now_ms() if appended_at_ms is None else appended_at_ms, key)
        self.sink.add(record, meta)
        self.sink.flush()

    def results(self) -> list[ActionResult]:
        """All that was told, in order."""
        found = []
        with TopicReader(self.bootstrap, {named(self.prefix, "action-results"): BEGINNING}) as reader:
            while not reader.at_end:
                record = reader.poll(0.2)
                if record is not None and record.value is not None:
                    assert record.key == b"eu"
                    found.append(decode(record.value, ActionResult))
        return found

    def outcomes(self, action_id: str) -> list[str]:
        return [r.outcome for r in self.results() if r.action_id == action_id]

    def last(self, action_id: str) -> ActionResult:
        return [r for r in self.results() if r.action_id == action_id][-1]


@contextmanager
def publishing(bootstrap: str, prefix: str) -> Iterator[Publisher]:
    with Publisher(bootstrap, client_id="test", topic_prefix=prefix) as publisher:
        yield publisher
        publisher.flush(20)
