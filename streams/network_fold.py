"""The journal of the whole network (`graph-updates`), folded; `folding.py` says how records, time and failures go.

    GraphUpdate                     a primary's paths, from decide: repeats are dropped by their sequence
    Observation                     configurations, catalogue, directives, results of actions, from intake

*Snapshots.* The state is larger than a record may be, so a round is several: parts with the arrays, then `graph`, which
says which parts it belongs to. Parts of two rounds in turn stand beside each other, so that a round that was not
finished leaves the one before it whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from schemas.codec import decode, encode
from schemas.errors import CodecError
from schemas.records import (
    ActionResult,
    EngineChanged,
    FailoverConfiguration,
    GraphUpdate,
    NetworkGraphNode,
    NetworkVerdict,
    Observation,
    OperatorDirective,
    PathAction,
    Reason,
    Record,
    RegionCatalog,
    RemedyReport,
    Snapshot,
    Tick,
)
from schemas.validate import mistakes
from streams.core.network_engine import NETWORK_ENGINE_VERSION, NetworkEngine
from streams.core.state import from_columns, from_scalars
from streams.folding import EngineFailedError, Fold, Output
from streams.journal import JournalRecord

GRAPH: Final = "graph"
_PART_BYTES: Final = 4 << 20
_BODIES: Final = (RegionCatalog, FailoverConfiguration, OperatorDirective, ActionResult)
_Content = GraphUpdate | Observation | Tick | EngineChanged


class NetworkFold(Fold):
    """State of the one partition, and its engine."""

    stage = "overview"
    version = NETWORK_ENGINE_VERSION

    def __init__(self, *, engine: type[NetworkEngine] = NetworkEngine, **place: Any) -> None:
        self._engine = engine
        self._turn = 0  # which of the two sets of parts was written last
        super().__init__(**place)

    def _forget(self) -> None:
        super()._forget()
        self.engine = self._engine()

    @property
    def knows_something(self) -> bool:
        return bool(self.engine.standings)

    def gap(self, next_offset: int, sequences: Mapping[str, int]) -> None:  # noqa: ARG002 - they are times
        """Nothing to make good: every primary says again all that it knows with its next update."""
        self.next_offset = next_offset
        self.snapshots()

    def _fold(self, record: JournalRecord) -> list[Output]:
        try:
            content: _Content = decode(record.value, GraphUpdate, Observation, Tick, EngineChanged)
            if isinstance(content, GraphUpdate):
                return self._update(content, record)
            if isinstance(content, EngineChanged):
                return self._engine_changed(content)
            if isinstance(content, Tick) or self._seen(content.source):
                return []
            body: Record = decode(content.body, *_BODIES)
        except CodecError as error:
            return [self._dead_letter(record, error.reason, error.what)]
        found = mistakes(body)
        if found:
            return [self._dead_letter(record, Reason.OUT_OF_RANGE, "; ".join(found[:5]))]
        unasked = self.engine.take(body, (record.key or b"").decode(errors="replace"), self.clock_ms)
        return [self._dead_letter(record, Reason.UNASKED, why) for why in unasked]

    def _update(self, update: GraphUpdate, record: JournalRecord) -> list[Output]:
        if found := mistakes(update):
            return [self._dead_letter(record, Reason.OUT_OF_RANGE, "; ".join(found[:5]))]
        return _encoded(self.engine.update(update, self.clock_ms))

    def _crossed(self, edge_ms: int, record: JournalRecord) -> list[Output]:
        if (record.offset, None, True) in self._poison:
            return []
        try:
            return _encoded(self.engine.tick(edge_ms))
        except Exception as error:  # whatever it is, it is deterministic: that moment, that state
            raise EngineFailedError(None, error, passing=True) from error

    def _engine_changed(self, change: EngineChanged) -> list[Output]:
        if self.awaits_engine_change and change.engine_version == self.version:
            self._other_version = None
            self.engine.unmute()
        return []

    # -- snapshots --------------------------------------------------------------------------------------------------

    def snapshots(self) -> list[Snapshot]:
        """One round: the parts, then what names them; publish in this order. The next rollback starts from here."""
        offset, muted = self.next_offset or 0, self.awaits_engine_change
        self._turn = 1 - self._turn
        scalars, arrays = self.engine.save()
        parts: list[dict[str, Any]] = [{}]
        size = 0
        for name, array in sorted(arrays.items()):
            if parts[-1] and size + array.nbytes > _PART_BYTES:
                parts.append({})
                size = 0
            parts[-1][name] = array
            size += array.nbytes
        names = [f"{GRAPH}/{self._turn}/{number}" for number in range(len(parts))]
        found = [self._snapshot(n, offset, {}, part, muted=muted) for n, part in zip(names, parts, strict=True)]
        shared = {
            "clock_ms": self.clock_ms,
            "observed_ms": self._observed_ms,
            "tick": self._tick,
            "watermarks": self._watermarks,
            "turn": self._turn,
            "parts": names,
            "engine": scalars,
        }
        found.append(self._snapshot(GRAPH, offset, shared, {}, muted=muted))
        self._base, self._round, self._poison = found, [], set()
        return found

    def _load(self, snapshots: list[Snapshot]) -> None:
        self._forget()
        by_key = {snapshot.key: snapshot for snapshot in snapshots}
        whole = by_key.get(GRAPH)
        if whole is None:
            return
        scalars = from_scalars(whole.scalars)
        parts = [by_key.get(name) for name in scalars["parts"]]
        if any(part is None or part.next_offset != whole.next_offset for part in parts):
            return  # somebody removed some: the journal is folded from its beginning
        arrays = {n: a for part in parts if part is not None for n, a in from_columns(part.columns).items()}
        self.next_offset, self.clock_ms = whole.next_offset, scalars["clock_ms"]
        self._observed_ms, self._tick = scalars["observed_ms"], scalars["tick"]
        self._watermarks = {k: list(v) for k, v in scalars["watermarks"].items()}
        self._turn = scalars["turn"]
        self.engine = self._engine.load(scalars["engine"], arrays)
        if whole.engine_version != self.version:
            self._other_version = whole.engine_version
            self.engine.muted = True


def _encoded(published: list[Record]) -> list[Output]:
    return [Output(topic, key(p).encode(), encode(p)) for p in published for topic, key in [_TOPIC_OF[type(p)]]]


_TOPIC_OF: Final[dict[type, tuple[str, Any]]] = {
    NetworkVerdict: ("network-verdicts", lambda verdict: verdict.primary_region),
    NetworkGraphNode: ("network-graph", lambda node: node.region_id),
    PathAction: ("path-actions", lambda action: action.primary_region),
    RemedyReport: ("path-actions", lambda report: report.primary_region),
}
