"""One partition of the journal, folded: no I/O, no clock, so that worker, replay and tests run the very same code.

Offset by offset: drop what was seen before (one watermark a source partition), let time pass (the broker's append time,
as a running maximum), evaluate every engine once when a tick's edge is crossed, then hand the record to the engine
that it concerns. What comes out are encoded records and the topics they belong on.

*Time that nobody saw.* `observed_ms` grows by at most two ticks a record: the metronome appends one a tick as long as
anything of ours is alive, so a longer silence was ours, and nobody's path fell stale in it.

*No record stops a partition.* An exception while folding is the same on every worker. The partition's state goes back
to the last snapshot round, the round's records are folded again without showing that record to that engine, and the
record becomes a dead letter.

*Snapshots.* Primaries first, `_shared` last: so `_shared` never covers more than any primary does, and a restart that
begins at its offset rebuilds catalogue, clock and watermarks exactly as each primary will need them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from schemas.codec import decode, encode, encode_identified, from_plain, to_plain
from schemas.errors import CodecError
from schemas.records import (
    AgentHealth,
    BandwidthMeasurement,
    DisruptionPrediction,
    EngineChanged,
    FailoverConfiguration,
    FailoverRanking,
    InjectedMetric,
    ModelWarmed,
    Observation,
    OperatorDirective,
    PathPanes,
    PathWeights,
    PredictionScorecard,
    ReadinessReport,
    ReadinessRequest,
    Reason,
    Record,
    Region,
    RegionCatalog,
    RouteEvent,
    Snapshot,
    Source,
    Tick,
)
from schemas.validate import mistakes
from streams.core.engine import ENGINE_VERSION, FailoverEngine, Published
from streams.core.state import from_columns, from_scalars, to_columns, to_scalars
from streams.journal import JournalRecord
from streams.letters import letter

F = TypeVar("F", bound="JournalFold")
SHARED: Final = "_shared"  # snapshot key of what a partition's primaries share: no region id has an underscore
_Content = Observation | Tick | EngineChanged | ModelWarmed
_BODIES: Final = (
    PathPanes, BandwidthMeasurement, AgentHealth, InjectedMetric, RouteEvent, ReadinessReport, FailoverConfiguration,
    RegionCatalog, OperatorDirective
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Output:
    """One record to publish: topic by its name in the table, key, encoded value."""

    topic: str
    key: bytes
    value: bytes


class _EngineFailedError(Exception):
    """An engine raised (`primary` None: the fold itself), at a tick's edge (`passing`) or by the record."""

    def __init__(self, primary: str | None, cause: Exception, *, passing: bool = False) -> None:
        super().__init__(primary, cause)
        self.primary, self.cause, self.passing = primary, cause, passing


class JournalFold:
    """State and engines of one partition of the journal.

    `topics`: those on which decisions are wanted (None: on all); the rest is decided and not encoded.
    """

    def __init__(
        self,
        *,
        topic: str,
        topic_id: str,
        partition: int,
        tick_ms: int,
        phase_ms: int,
        engine: type[FailoverEngine] = FailoverEngine,
        topics: Collection[str] | None = None,
    ) -> None:
        self._unwanted = frozenset[str]() if topics is None else frozenset(_TOPIC_OF.values()).difference(topics)
        self._topic, self._topic_id, self.partition = topic, topic_id, partition
        self._tick_ms, self._phase_ms, self._engine = tick_ms, phase_ms, engine
        self._base: list[Snapshot] = []
        self._round: list[JournalRecord] = []
        self._poison: set[tuple[int, str | None, bool]] = set()  # offset, primary, at a tick's edge
        self.dead_letters = 0
        self._forget()

    def _forget(self) -> None:
        self.next_offset: int | None = None  # None: wherever the journal begins
        self.clock_ms = 0
        self._observed_ms = 0.0
        self._tick = 0
        self._catalogue: dict[str, Region] = {}
        self._catalogue_version = 0
        self._directives: dict[str, OperatorDirective] = {}  # for primaries that are configured later
        self._watermarks: dict[str, list[int]] = {}  # source -> [first offset, next offset, part, parts]
        self.engines: dict[str, FailoverEngine] = {}
        self._other_version: str | None = None  # of the snapshots restored, while EngineChanged is awaited

    @property
    def awaits_engine_change(self) -> bool:
        """Restored from another engine version, and its change not folded yet: nothing is published."""
        return self._other_version is not None

    def begun_anew(self, fold: type[F], engine: Callable[[type[FailoverEngine]], type[FailoverEngine]]) -> F:
        """Another fold of the same partition, whose engines have today's configurations and have seen nothing yet."""
        other = fold(
            topic=self._topic,
            topic_id=self._topic_id,
            partition=self.partition,
            tick_ms=self._tick_ms,
            phase_ms=self._phase_ms,
            engine=engine(self._engine),
            topics=(),
        )
        other._catalogue, other._catalogue_version = dict(self._catalogue), self._catalogue_version
        other.engines = {p: other._engine(e.configuration, other._catalogue) for p, e in self.engines.items()}
        other.snapshots()  # what a rollback begins from
        return other

    # -- folding ----------------------------------------------------------------------------------------------------

    def apply(self, record: JournalRecord) -> list[Output]:
        """Fold the next record; what it makes us publish, in order. Never raises because of a record."""
        if self.next_offset is not None and record.offset < self.next_offset:
            return []
        letters: list[Output] = []
        while True:
            try:
                outputs = self._apply(record)
            except _EngineFailedError as failure:
                letters.append(self._fold_error(record, failure))
                self._again(record, failure)
                continue
            self._round.append(record)
            self.dead_letters += len(letters)
            if letters:
                self.snapshots()  # another failure soon after need not fold all this again
            return letters + outputs

    def gap(self, next_offset: int, sequences: Mapping[str, int]) -> None:
        """Records below `next_offset` are gone from the broker for ever: every primary's next ranking says so.

        Its number is above `sequences`, the highest published: what lost records made cannot be made again.
        """
        self.next_offset = next_offset
        for primary, engine in self.engines.items():
            if engine.skip_below < next_offset:
                engine.gap(sequences.get(primary, 0))
        self.snapshots()  # it is no record: a rollback behind it would forget it

    def _again(self, record: JournalRecord, failure: _EngineFailedError) -> None:
        self._poison.add((record.offset, failure.primary, failure.passing))
        self._load(self._base)
        for before in self._round:
            self._apply(before)

    def _apply(self, record: JournalRecord) -> list[Output]:
        self.next_offset = record.offset + 1
        outputs = self._pass_time(record)
        if (record.offset, None, False) in self._poison:
            return outputs
        try:
            return outputs + self._fold(record)
        except _EngineFailedError:
            raise
        except Exception as error:
            raise _EngineFailedError(None, error) from error

    def _fold(self, record: JournalRecord) -> list[Output]:
        try:
            content: _Content = decode(record.value, Observation, Tick, EngineChanged, ModelWarmed)
            if isinstance(content, EngineChanged):
                return self._engine_changed(content, record)
            if isinstance(content, ModelWarmed):
                return self._model_warmed(content, record)
            if isinstance(content, Tick) or self._seen(content.source):
                return []
            body: Record = decode(content.body, *_BODIES)
        except CodecError as error:
            return [self._dead_letter(record, error.reason, error.what)]
        found = mistakes(body)
        if found:  # intake lets none through: somebody else wrote this, or an older intake did
            return [self._dead_letter(record, Reason.OUT_OF_RANGE, "; ".join(found[:5]))]
        return self._take(body, content, record)

    def _pass_time(self, record: JournalRecord) -> list[Output]:
        if record.appended_at_ms > self.clock_ms:
            passed = record.appended_at_ms - self.clock_ms if self.clock_ms else 0
            self._observed_ms += min(passed, 2 * self._tick_ms)
            self.clock_ms = record.appended_at_ms
        tick = (self.clock_ms - self._phase_ms) // self._tick_ms
        if tick <= self._tick:
            return []
        first, self._tick = self._tick == 0, tick
        edge_ms = tick * self._tick_ms + self._phase_ms
        if first:
            return []
        primaries = sorted(self.engines)
        return [out for primary in primaries for out in self._evaluate(primary, edge_ms, record, passing=True)]

    def _evaluate(self, primary: str, now_ms: int, record: JournalRecord, *, passing: bool = False) -> list[Output]:
        def published(engine: FailoverEngine) -> list[Output]:
            return self._encoded(primary, engine.tick(now_ms, self._observed_ms))

        return self._guarded(primary, record, published, passing=passing) or []

    def _encoded(self, primary: str, decided: Iterable[Published]) -> list[Output]:
        return [
            Output(topic, primary.encode(), encode_identified(p) if isinstance(p, FailoverRanking) else encode(p))
            for p in decided
            if (topic := _TOPIC_OF[type(p)]) not in self._unwanted
        ]

    def _guarded(
        self, primary: str, record: JournalRecord, call: Callable[[FailoverEngine], Any], *, passing: bool = False
    ) -> Any:
        if not self._takes(primary, record, passing=passing):
            return None
        try:
            return call(self.engines[primary])
        except Exception as error:  # whatever it is, it is deterministic: that record, that engine
            raise _EngineFailedError(primary, error, passing=passing) from error

    def _takes(self, primary: str, record: JournalRecord, *, passing: bool = False) -> bool:
        """Whether the engine has to be shown that: its snapshot does not cover it, and it does not fail by it."""
        covered = record.offset < self.engines[primary].skip_below
        return not covered and (record.offset, primary, passing) not in self._poison

    def _seen(self, source: Source) -> bool:
        """Whether it was folded before; parts of a flush count only in order, so that none is skipped unnoticed."""
        key = f"{source.topic_id} {source.partition}"
        first, next_offset, part, _ = self._watermarks.get(key, [-1, -1, -1, 0])
        starts = source.part == 0 and source.first_offset >= next_offset
        follows = source.first_offset == first and source.part == part + 1
        if starts or follows:
            self._watermarks[key] = [source.first_offset, source.next_offset, source.part, source.parts]
            return False
        return True

    def _take(self, body: Record, observation: Observation, record: JournalRecord) -> list[Output]:
        if isinstance(body, RegionCatalog):
            return self._take_catalogue(body, record)
        if isinstance(body, OperatorDirective):
            return self._take_directive(body, record)
        primary = observation.primary_region or ""
        if primary not in self.engines:
            return self._first_configuration(body, primary, record)
        engine = self.engines[primary]
        if record.offset < engine.skip_below:
            return []
        letters: list[Output] = []
        now_ms = self.clock_ms
        at_once = False
        match body:
            case PathPanes():
                self._panes(primary, body, observation, record)
                strangers = self._strangers(body.targets, engine)
                if strangers:
                    detail = f"{primary} is probed against unknown regions: {', '.join(strangers)}"
                    letters.append(self._dead_letter(record, Reason.UNKNOWN_REGION, detail))
            case BandwidthMeasurement():
                self._guarded(primary, record, lambda e: e.bandwidth(body))
            case AgentHealth():
                self._guarded(primary, record, lambda e: e.agent_health(body))
            case InjectedMetric() | ReadinessReport():
                if body.target_region is not None and self._strangers([body.target_region], engine):
                    detail = f"{body.target_region} is no region that {primary} may fail over to"
                    return [self._dead_letter(record, Reason.UNKNOWN_REGION, detail)]
                at_once = bool(self._guarded(primary, record, lambda e: _told(e, body, now_ms)))
            case RouteEvent():  # of every region in the catalogue, candidates or not
                at_once = bool(self._guarded(primary, record, lambda e: e.route(body, now_ms)))
            case FailoverConfiguration():
                catalogue = self._catalogue
                self._guarded(primary, record, lambda e: e.configure(body, catalogue))
                at_once = True
        return letters + (self._evaluate(primary, now_ms, record) if at_once else [])

    def _panes(self, primary: str, panes: PathPanes, observation: Observation, record: JournalRecord) -> None:
        now_ms, observed_ms, appended = self.clock_ms, self._observed_ms, observation.source.appended_at_ms
        self._guarded(primary, record, lambda e: e.panes(panes, now_ms, observed_ms, appended))

    def _take_catalogue(self, catalog: RegionCatalog, record: JournalRecord) -> list[Output]:
        if catalog.version > self._catalogue_version:
            self._catalogue_version = catalog.version
            self._catalogue = {r.region_id: r for r in catalog.regions}
            for primary in sorted(self.engines):
                self._guarded(primary, record, lambda e: e.catalogue_changed(self._catalogue))
        return []

    def _take_directive(self, directive: OperatorDirective, record: JournalRecord) -> list[Output]:
        self._directives = {i: d for i, d in self._directives.items() if d.expires_at_ms > self.clock_ms}
        self._directives.pop(directive.directive_id, None)
        if directive.expires_at_ms > self.clock_ms:
            self._directives[directive.directive_id] = directive
        now_ms = self.clock_ms
        concerned = [p for p in sorted(self.engines) if self._guarded(p, record, lambda e: e.direct(directive, now_ms))]
        return [out for primary in concerned for out in self._evaluate(primary, now_ms, record)]

    def _first_configuration(self, body: Record, primary: str, record: JournalRecord) -> list[Output]:
        if not isinstance(body, FailoverConfiguration):
            detail = f"{primary or 'its primary'} has no failover configuration"
            return [self._dead_letter(record, Reason.UNKNOWN_REGION, detail)]
        if body.based_on != 0:
            detail = f"based_on is {body.based_on}, and {body.primary_region} has no configuration yet"
            return [self._dead_letter(record, Reason.OUT_OF_RANGE, detail)]
        if (record.offset, body.primary_region, False) in self._poison:
            return []
        try:
            engine = self.engines[body.primary_region] = self._engine(body, self._catalogue)
            for directive in self._directives.values():
                engine.direct(directive, self.clock_ms)
        except Exception as error:
            raise _EngineFailedError(body.primary_region, error) from error
        self.engines[body.primary_region].muted = self.awaits_engine_change
        return self._evaluate(body.primary_region, self.clock_ms, record)

    def _engine_changed(self, change: EngineChanged, record: JournalRecord) -> list[Output]:
        if self.awaits_engine_change and change.engine_version == ENGINE_VERSION:
            self._other_version = None
            for primary, engine in self.engines.items():
                if engine.muted and record.offset >= engine.skip_below:
                    engine.unmute(change.sequences.get(primary, 0))
        return []

    def _model_warmed(self, model: ModelWarmed, record: JournalRecord) -> list[Output]:
        if model.primary_region in self.engines:
            self._guarded(model.primary_region, record, lambda e: e.adopt_model(model))
        return []

    def _strangers(self, regions: Iterable[str], engine: FailoverEngine) -> list[str]:
        known = engine.candidates
        strangers = {region for region in regions if region not in known and region not in self._catalogue}
        return sorted(strangers)

    # -- dead letters -----------------------------------------------------------------------------------------------

    def _dead_letter(self, record: JournalRecord, reason: str, detail: str) -> Output:
        value = letter(self._topic, record, reason, detail, "decide")
        return Output("dead-letters", self._topic.encode(), value)

    def _fold_error(self, record: JournalRecord, failure: _EngineFailedError) -> Output:
        cause = failure.cause
        who = f"the engine of {failure.primary}" if failure.primary is not None else "the fold"
        return self._dead_letter(record, Reason.FOLD_ERROR, f"{who} raised {type(cause).__name__}: {cause}")

    # -- snapshots --------------------------------------------------------------------------------------------------

    def snapshots(self) -> list[Snapshot]:
        """One round: every primary, then `_shared`; publish in this order. The next rollback starts from here."""
        offset = self.next_offset or 0
        found = [
            self._snapshot(p, max(offset, e.skip_below), *e.save(), muted=e.muted)
            for p, e in sorted(self.engines.items())
        ]
        shared = {
            "clock_ms": self.clock_ms,
            "observed_ms": self._observed_ms,
            "tick": self._tick,
            "catalogue_version": self._catalogue_version,
            "catalogue": [to_plain(r) for r in self._catalogue.values()],
            "directives": [to_plain(d) for d in self._directives.values()],
            "watermarks": self._watermarks,
        }
        found.append(self._snapshot(SHARED, offset, shared, {}, muted=self.awaits_engine_change))
        self._base, self._round, self._poison = found, [], set()
        return found

    def restore(self, snapshots: Iterable[Snapshot]) -> None:
        """Begin from the snapshots of a partition, in any order: the one that covers most wins, key by key."""
        best: dict[str, Snapshot] = {}
        for snapshot in snapshots:
            if snapshot.journal_topic_id == self._topic_id and snapshot.journal_partition == self.partition:
                known = best.get(snapshot.key)
                if known is None or snapshot.next_offset >= known.next_offset:
                    best[snapshot.key] = snapshot
        self._base = list(best.values())
        self._load(self._base)

    def _load(self, snapshots: list[Snapshot]) -> None:
        self._forget()
        for snapshot in snapshots:
            scalars = from_scalars(snapshot.scalars)
            if snapshot.engine_version != ENGINE_VERSION:
                self._other_version = snapshot.engine_version
            if snapshot.key == SHARED:
                self.next_offset, self.clock_ms = snapshot.next_offset, scalars["clock_ms"]
                self._observed_ms, self._tick = scalars["observed_ms"], scalars["tick"]
                self._catalogue_version = scalars["catalogue_version"]
                # Before engine version 4 a region was a list.
                stated = scalars["catalogue"]
                regions = [Region(*r) if isinstance(r, list) else from_plain(Region, r) for r in stated]
                self._catalogue = {r.region_id: r for r in regions}
                directives = [from_plain(OperatorDirective, d) for d in scalars.get("directives", [])]
                self._directives = {d.directive_id: d for d in directives}
                self._watermarks = {k: list(v) for k, v in scalars["watermarks"].items()}
            else:
                engine = self._engine.load(scalars, from_columns(snapshot.columns))
                engine.skip_below = snapshot.next_offset
                engine.muted = snapshot.engine_version != ENGINE_VERSION
                self.engines[snapshot.key] = engine

    def _snapshot(
        self, key: str, offset: int, scalars: dict[str, Any], arrays: dict[str, Any], *, muted: bool
    ) -> Snapshot:
        return Snapshot(
            key=key,
            engine_version=(muted and self._other_version) or ENGINE_VERSION,
            journal_topic_id=self._topic_id,
            journal_partition=self.partition,
            next_offset=offset,
            scalars=to_scalars(scalars),
            columns=to_columns(arrays),
        )


def _told(engine: FailoverEngine, body: InjectedMetric | ReadinessReport, now_ms: int) -> bool:
    return engine.report(body, now_ms) if isinstance(body, ReadinessReport) else engine.inject(body, now_ms)


_TOPIC_OF: Final[dict[type[Published], str]] = {
    FailoverRanking: "failover-rankings",
    PathWeights: "path-weights",
    DisruptionPrediction: "disruption-predictions",
    PredictionScorecard: "prediction-scorecards",
    ReadinessRequest: "readiness-requests",
}
