"""A journal written second by second, and what the fold publishes of it: what `test_engine` is told in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from schemas.codec import decode, encode
from schemas.records import (
    DeadLetter,
    DisruptionPrediction,
    FailoverConfiguration,
    FailoverRanking,
    GraphUpdate,
    Observation,
    Outcome,
    PathWeights,
    Policy,
    PredictionScorecard,
    ReadinessRequest,
    Record,
    Region,
    RegionCatalog,
    Source,
    Tick,
)
from streams.fold import JournalFold
from streams.folding import Output
from streams.journal import JournalRecord
from tests.streams.core.policy import STATED
from tests.streams.core.probing import PRIMARY, Sample, panes

T0: Final = 1_700_000_010_000
TICK_MS, PHASE_MS = 1000, 300
TARGETS: Final = ("t-1", "t-2", "t-3")
# All candidates equally far from the primary: only the network tells them apart.
CATALOGUE: Final = RegionCatalog(
    1, [Region(PRIMARY, 50.0, 8.0), Region("t-1", 50.0, 20.0), Region("t-2", 50.0, -4.0), Region("t-3", 50.0, 20.0)]
)
_OUTPUTS: Final = (
    FailoverRanking, PathWeights, GraphUpdate, DisruptionPrediction, PredictionScorecard, ReadinessRequest, DeadLetter,
)  # fmt: skip
Seen = float | Outcome
Network = Callable[[str, int], Sequence[Seen]]  # (target, second) -> what one agent's probes of this second see


def steady(**rtt_ms: float) -> Network:
    """The same round-trip times all the time, two probes a second; `t_1=20.0` is of target t-1."""
    of = {name.replace("_", "-"): rtt for name, rtt in rtt_ms.items()}
    return lambda target, _: [of[target]] * 2


def configuration(
    version: int = 1, based_on: int = 0, targets: Sequence[str] = TARGETS, policy: Policy | None = None
) -> FailoverConfiguration:
    return FailoverConfiguration(
        PRIMARY, list(targets), version, based_on=based_on, author="the test", policy=policy or STATED
    )


class Story:
    """One partition of the journal with one primary; `second` is the journal's clock, from 0."""

    def __init__(self, fold: JournalFold | None = None) -> None:
        self.fold = fold or new_fold()
        self.second = 0
        self.outputs: list[Output] = []
        self.rankings: list[FailoverRanking] = []
        self.weights: list[PathWeights] = []
        self.predictions: list[DisruptionPrediction] = []
        self.scorecards: list[PredictionScorecard] = []
        self.requests: list[ReadinessRequest] = []
        self.updates: list[GraphUpdate] = []
        self.letters: list[DeadLetter] = []
        self.journal: list[JournalRecord] = []
        self.targets: Sequence[str] = TARGETS  # that agents probe
        self._offset = 0
        self._source_offset = 0

    @classmethod
    def begun(cls, policy: Policy | None = None, targets: Sequence[str] = TARGETS) -> Story:
        """With the catalogue and a first configuration."""
        story = cls()
        story.targets = targets
        story.say(CATALOGUE, None)
        story.say(configuration(policy=policy, targets=targets))
        return story

    @property
    def last(self) -> FailoverRanking:
        return self.rankings[-1]

    def state_of(self, target: str) -> str | None:
        """Why it is not eligible, as the last ranking says; None: it is."""
        return {c.region_id: c.ineligible_reason for c in self.last.candidates}[target]

    @property
    def now_ms(self) -> int:
        return T0 + self.second * 1000

    def say(self, body: Record, primary: str | None = PRIMARY, *, at_ms: int | None = None) -> list[FailoverRanking]:
        """Something from outside, forwarded by intake; returns the rankings that it made us publish at once."""
        self._source_offset += 1
        source = Source("from-outside", "source-1", 0, self._source_offset, self._source_offset + 1, self.now_ms)
        return self.append(encode(Observation(primary, source, encode(body))), at_ms)

    def append(self, value: bytes, at_ms: int | None = None) -> list[FailoverRanking]:
        """One record of the journal, folded; returns the rankings that it made us publish."""
        record = JournalRecord(0, self._offset, at_ms or self.now_ms, PRIMARY.encode(), value)
        self._offset += 1
        self.journal.append(record)
        known = len(self.rankings)
        for output in self.fold.apply(record):
            self.outputs.append(output)
            match decode(output.value, *_OUTPUTS):
                case FailoverRanking() as ranking:
                    self.rankings.append(ranking)
                case GraphUpdate() as update:
                    self.updates.append(update)
                case PathWeights() as weights:
                    self.weights.append(weights)
                case DisruptionPrediction() as prediction:
                    self.predictions.append(prediction)
                case PredictionScorecard() as card:
                    self.scorecards.append(card)
                case ReadinessRequest() as request:
                    self.requests.append(request)
                case DeadLetter() as letter:
                    self.letters.append(letter)
        return self.rankings[known:]

    def lose(self, records: int, reached: Mapping[str, int]) -> None:
        """The next records of the journal are gone for ever; `reached`: the highest numbers published."""
        self._offset += records
        self.fold.gap(self._offset, reached)

    def repeat_source(self) -> None:
        """What is said next comes from where the last came from: intake's restart sends its flush again."""
        self._source_offset -= 1

    def told_by(self, other: Story) -> Story:
        """Go on at the place where another story stands."""
        self.second, self._offset, self._source_offset = other.second, other._offset, other._source_offset
        return self

    def run(self, seconds: int, network: Network | None, agents: Sequence[str] = ("agent-1", "agent-2")) -> None:
        """Seconds in which agents probe every target (None: nobody does), panes come, and the metronome ticks."""
        self.run_each(seconds, {} if network is None else dict.fromkeys(agents, network))

    def run_each(self, seconds: int, views: Mapping[str, Network]) -> None:
        """The same where each agent sees a network of its own."""
        for _ in range(seconds):
            second, self.second = self.second, self.second + 1
            samples = [
                Sample(target, T0 + second * 1000 + 1000 * i // max(10, len(probes)), seen, agent)
                for agent, network in views.items()
                for target in self.targets
                for probes in [network(target, second)]
                for i, seen in enumerate(probes)
            ]
            if samples:
                self.say(panes(samples), at_ms=self.now_ms + 100)
            self.append(encode(Tick("metronome")), self.now_ms + PHASE_MS + 50)

    def seconds_until_target(self, target: str, network: Network, at_most: int) -> int:
        """Journal seconds until the ranking says so, from now on; more than `at_most`: it never did."""
        for passed in range(1, at_most + 1):
            self.run(1, network)
            if self.last.target_region == target:
                return passed
        return at_most + 1


def new_fold() -> JournalFold:
    return JournalFold(topic="observations", topic_id="journal-1", partition=0, tick_ms=TICK_MS, phase_ms=PHASE_MS)
