"""One partition of the journal, folded: no I/O, no clock, so that worker, replay and tests run the very same code.

`folding.py` says how records, time and failures are dealt with; here is what the journal's records mean: every engine
is evaluated once when a tick's edge is crossed, then the record goes to the engine that it concerns.

*Snapshots.* Primaries first, `_shared` last: so `_shared` never covers more than any primary does, and a restart that
begins at its offset rebuilds catalogue, clock and watermarks exactly as each primary will need them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
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
    GraphUpdate,
    InjectedMetric,
    ModelWarmed,
    NetworkVerdict,
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
    Tick,
)
from schemas.validate import mistakes
from streams.core.decision import Published
from streams.core.engine import ENGINE_VERSION, FailoverEngine
from streams.core.state import from_columns, from_scalars
from streams.folding import EngineFailedError, Fold, Output
from streams.journal import JournalRecord

F = TypeVar("F", bound="JournalFold")
SHARED: Final = "_shared"  # snapshot key of what a partition's primaries share: no region id has an underscore
_NAMED_MAX: Final = 5  # agents in a dead letter's sentence
_Content = Observation | Tick | EngineChanged | ModelWarmed
_BODIES: Final = (
    PathPanes, BandwidthMeasurement, AgentHealth, InjectedMetric, RouteEvent, ReadinessReport, FailoverConfiguration,
    RegionCatalog, OperatorDirective, NetworkVerdict
)  # fmt: skip


class JournalFold(Fold):
    """State and engines of one partition of the journal.

    `topics`: those on which decisions are wanted (None: on all); the rest is decided and not encoded.
    """

    stage = "decide"
    version = ENGINE_VERSION

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
        self._engine = engine
        super().__init__(topic=topic, topic_id=topic_id, partition=partition, tick_ms=tick_ms, phase_ms=phase_ms)

    def _forget(self) -> None:
        super()._forget()
        self._catalogue: dict[str, Region] = {}
        self._catalogue_version = 0
        self._directives: dict[str, OperatorDirective] = {}  # for primaries that are configured later
        self.engines: dict[str, FailoverEngine] = {}

    @property
    def knows_something(self) -> bool:
        return bool(self.engines)

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

    def gap(self, next_offset: int, sequences: Mapping[str, int]) -> None:
        """Records below `next_offset` are gone from the broker for ever: every primary's next ranking says so.

        Its number is above `sequences`, the highest published: what lost records made cannot be made again.
        """
        self.next_offset = next_offset
        for primary, engine in self.engines.items():
            if engine.skip_below < next_offset:
                engine.gap(sequences.get(primary, 0))
        self.snapshots()  # it is no record: a rollback behind it would forget it

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

    def _crossed(self, edge_ms: int, record: JournalRecord) -> list[Output]:
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
            raise EngineFailedError(primary, error, passing=passing) from error

    def _takes(self, primary: str, record: JournalRecord, *, passing: bool = False) -> bool:
        """Whether the engine has to be shown that: its snapshot does not cover it, and it does not fail by it."""
        covered = record.offset < self.engines[primary].skip_below
        return not covered and (record.offset, primary, passing) not in self._poison

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
        letters = self._foreign_agents(body, engine, record)
        if isinstance(body, PathPanes):
            counts = engine.told(body) if letters else body
            if counts is not None:
                self._panes(primary, counts, observation, record)
            strangers = self._strangers(body.targets, engine)
            if strangers:
                detail = f"{primary} is probed against unknown regions: {', '.join(strangers)}"
                letters.append(self._dead_letter(record, Reason.UNKNOWN_REGION, detail))
            return letters
        if letters:
            return letters
        about = body.target_region if isinstance(body, InjectedMetric | ReadinessReport) else None
        if about is not None and self._strangers([about], engine):
            detail = f"{about} is no region that {primary} may fail over to"
            return [self._dead_letter(record, Reason.UNKNOWN_REGION, detail)]
        return self._evaluate(primary, self.clock_ms, record) if self._show(body, primary, record) else []

    def _show(self, body: Record, primary: str, record: JournalRecord) -> bool:
        """Show the engine a record about its primary; True when it has to be decided upon at once."""
        now_ms, catalogue = self.clock_ms, self._catalogue
        match body:
            case BandwidthMeasurement():
                self._guarded(primary, record, lambda e: e.bandwidth(body))
            case AgentHealth():
                self._guarded(primary, record, lambda e: e.agent_health(body))
            case InjectedMetric() | ReadinessReport():
                return bool(self._guarded(primary, record, lambda e: _told(e, body, now_ms)))
            case RouteEvent():  # of every region in the catalogue, candidates or not
                return bool(self._guarded(primary, record, lambda e: e.route(body, now_ms)))
            case NetworkVerdict():
                return bool(self._guarded(primary, record, lambda e: e.judge(body)))
            case FailoverConfiguration():
                self._guarded(primary, record, lambda e: e.configure(body, catalogue))
                return True
        return False

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
            raise EngineFailedError(body.primary_region, error) from error
        self.engines[body.primary_region].muted = self.awaits_engine_change
        return self._evaluate(body.primary_region, self.clock_ms, record)

    def _engine_changed(self, change: EngineChanged, record: JournalRecord) -> list[Output]:
        if self.awaits_engine_change and change.engine_version == self.version:
            self._other_version = None
            for primary, engine in self.engines.items():
                if engine.muted and record.offset >= engine.skip_below:
                    engine.unmute(change.sequences.get(primary, 0))
        return []

    def _model_warmed(self, model: ModelWarmed, record: JournalRecord) -> list[Output]:
        if model.primary_region in self.engines:
            self._guarded(model.primary_region, record, lambda e: e.adopt_model(model))
        return []

    def _foreign_agents(self, body: Record, engine: FailoverEngine, record: JournalRecord) -> list[Output]:
        """A dead letter, where somebody speaks for a region that names its agents, and is none of them."""
        foreign = engine.foreign(body)
        if not foreign:
            return []
        who = ", ".join(foreign[:_NAMED_MAX]) + (
            f" and {len(foreign) - _NAMED_MAX} more" if len(foreign) > _NAMED_MAX else ""
        )
        detail = f"{who}: not among the agents that the catalogue names for {engine.primary}"
        return [self._dead_letter(record, Reason.FOREIGN_AGENT, detail)]

    def _strangers(self, regions: Iterable[str], engine: FailoverEngine) -> list[str]:
        known = engine.candidates
        strangers = {region for region in regions if region not in known and region not in self._catalogue}
        return sorted(strangers)

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

    def _load(self, snapshots: list[Snapshot]) -> None:
        self._forget()
        for snapshot in snapshots:
            scalars = from_scalars(snapshot.scalars)
            if snapshot.engine_version != self.version:
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
                engine.muted = snapshot.engine_version != self.version
                self.engines[snapshot.key] = engine


def _told(engine: FailoverEngine, body: InjectedMetric | ReadinessReport, now_ms: int) -> bool:
    return engine.report(body, now_ms) if isinstance(body, ReadinessReport) else engine.inject(body, now_ms)


_TOPIC_OF: Final[dict[type[Published], str]] = {
    FailoverRanking: "failover-rankings",
    GraphUpdate: "graph-updates",
    PathWeights: "path-weights",
    DisruptionPrediction: "disruption-predictions",
    PredictionScorecard: "prediction-scorecards",
    ReadinessRequest: "readiness-requests",
}
