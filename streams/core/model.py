"""A primary's model of disruptions: what it predicts, and how far that is trusted, learnt and handed on together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.records import Array, Event, ModelWarmed, Policy
from streams.core.candidates import Candidates
from streams.core.foresight import Foreseen, Foresight, trust_events
from streams.core.outcomes import Outcomes
from streams.core.prediction import MODEL, Predictor
from streams.core.state import from_columns, from_scalars, part
from streams.core.views import PathMetrics


class Model:
    """State: the predictor, and its record."""

    def __init__(self, targets: int) -> None:
        self.predictor = Predictor(targets)
        self.foresight = Foresight(targets, MODEL)

    @property
    def is_cold(self) -> bool:
        """It took another's place, and has not been warmed up by the history yet."""
        return self.foresight.is_cold

    def steps(
        self,
        primary: str,
        candidates: Candidates,
        measured: PathMetrics,
        *,
        policy: Policy,
        now_ms: Sequence[int],
        says: bool,
    ) -> list[Foreseen]:
        """Of each moment what is predicted, and how far it counts; (moments * targets,) measured, moment by moment.

        `says`: whether anybody wants to have scorecards.
        """
        outcomes: list[Outcomes] = []
        predictions = self.predictor.steps(primary, candidates.regions, measured, policy, now_ms, judge=outcomes.append)
        return self.foresight.steps(
            primary, candidates.numbers, predictions, outcomes, policy=policy, now_ms=now_ms, says=says
        )

    def adopt(self, warmed: ModelWarmed, numbers: Mapping[str, int]) -> list[Event]:
        """Take over what was learnt from the history, unless more was learnt here; what is to be said of it."""
        if warmed.model != MODEL:
            return []
        self.foresight.is_cold = False
        learnt = Model.load(from_scalars(warmed.scalars), from_columns(warmed.columns), len(warmed.targets))
        if learnt.predictor.labels_learnt <= self.predictor.labels_learnt:
            return []
        before = self.foresight.influence
        place = {i: numbers[region] for i, region in enumerate(warmed.targets) if region in numbers}
        learnt.renumber(place, len(numbers))  # what waited for labels there does so no more
        self.predictor, self.foresight = learnt.predictor, learnt.foresight
        return [Event.PREDICTION_WARMED, *trust_events(before, self.foresight.influence)]

    def renumber(self, place: dict[int, int], targets: int) -> None:
        """Targets have new numbers; `place`: the new one of each old one that is still there."""
        self.predictor.renumber(place, targets)
        self.foresight.renumber(place, targets)

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """What was learnt, and how well: scalars and arrays."""
        predictor, predictor_arrays = self.predictor.save()
        foresight, foresight_arrays = self.foresight.save()
        arrays = {f"predictor.{name}": value for name, value in predictor_arrays.items()}
        arrays |= {f"foresight.{name}": value for name, value in foresight_arrays.items()}
        return {"predictor": predictor, "foresight": foresight}, arrays

    @classmethod
    def load(cls, scalars: Mapping[str, Any], arrays: Mapping[str, Array], targets: int) -> Model:
        """The state again."""
        found = cls(targets)
        found.predictor = Predictor.load(scalars["predictor"], part(arrays, "predictor."), targets)
        foresight = scalars.get("foresight", {}), part(arrays, "foresight.")
        found.foresight = Foresight.load(*foresight, targets, MODEL)
        return found
