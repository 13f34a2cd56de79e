"""What predictions do to a decision: the model is judged by its scorecard, and counts as far as that allows.

    outcomes ──► Scorecard ──► Influence c ──┐
    predictions ──► probability p of each ───┴──► ln(1 − λ·p·c), added to ln score: it only demotes,
                                                       and no further than to utility_floor

What was said last of a path stands until something else is said: a path that is disrupted already is not predicted, and
it would be odd if the demotion ended just when the disruption begins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from schemas.records import (
    Array,
    CalibrationBin,
    DisruptionPrediction,
    Event,
    Policy,
    PredictionScorecard,
)
from streams.core.influence import Influence
from streams.core.numbers import significant
from streams.core.outcomes import Outcomes
from streams.core.scorecard import Scorecard

_SAY_EVERY_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Foreseen:
    """At a tick: what to publish, what happened, and each path's probability (targets,) with its influence."""

    prediction: DisruptionPrediction | None
    scorecard: PredictionScorecard | None
    events: tuple[Event, ...]
    probability: Array
    influence: float

    def demotion(self, policy: Policy) -> Array:
        """(targets,) what is added to ln score, 0 or less."""
        return demotion(self.probability, self.influence, policy)


def demotion(probability: Array, influence: float, policy: Policy) -> Array:
    """ln(1 − prediction_weight · probability · influence), not below ln utility_floor: 0 or less, and never infinite.

    Shapes: (paths,) in and out; probability and influence in [0, 1].
    """
    least = policy.utility_floor - 1
    return np.log1p(np.maximum(-policy.prediction_weight * influence * probability, least))


def demotion_at(foreseen: Sequence[Foreseen], policy: Policy) -> Array | None:
    """(ticks * targets,) the same of several ticks; None: no prediction counts at any of them."""
    if not any(each.influence for each in foreseen):
        return None
    return np.concatenate([each.demotion(policy) for each in foreseen])


class Foresight:
    """One primary's predictions, their scorecard, and what follows."""

    def __init__(self, targets: int, model: str) -> None:
        self.model = model
        self._card = Scorecard(targets)
        self._influence = Influence()
        self._probability = np.zeros(targets)
        self._say_at_ms = 0
        self.is_cold = False  # it took another model's place, and has learnt nothing of that one's time

    @property
    def influence(self) -> float:
        """In [0, 1], now."""
        return self._influence.value

    def steps(
        self,
        primary: str,
        numbers: Mapping[str, int],
        predictions: Sequence[DisruptionPrediction | None],
        outcomes: Sequence[Outcomes],
        *,
        policy: Policy,
        now_ms: Sequence[int],
        says: bool,
    ) -> list[Foreseen]:
        """Several ticks one after the other: at each its prediction, and the outcomes that are known by then, in order.

        `numbers`: of the targets, by name. `says`: whether anybody wants to have scorecards.
        """
        found, known = [], 0
        for prediction, at_ms in zip(predictions, now_ms, strict=True):
            before = self._influence
            while known < len(outcomes) and outcomes[known].known_at_ms <= at_ms:
                self._judge(outcomes[known], policy)
                known += 1
            due = self._due(before, at_ms)
            found.append(
                Foreseen(
                    prediction=None if prediction is None else self._said(prediction, numbers),
                    scorecard=self._record(primary, policy, at_ms) if due and says else None,
                    events=trust_events(before.value, self.influence),
                    probability=self._probability,
                    influence=self.influence,
                )
            )
        return found

    def _said(self, prediction: DisruptionPrediction, numbers: Mapping[str, int]) -> DisruptionPrediction:
        """Take note of a prediction; the same with its influence."""
        self._probability = self._probability.copy()  # that of the ticks before is somebody else's
        for path in prediction.paths:
            self._probability[numbers[path.target_region]] = path.probability
        return replace(prediction, influence=self.influence) if self.influence else prediction

    def _judge(self, outcomes: Outcomes, policy: Policy) -> None:
        block = self._card.learn(outcomes, policy.prediction_horizon_ms, policy.alarm_probability)
        if block is not None:
            self._influence = self._influence.step(self._card, block, outcomes.known_at_ms)

    def _due(self, before: Influence, now_ms: int) -> bool:
        """Whether the scorecard is to be published: now and then, and when anything about its influence has changed."""
        now = self._influence
        changed = (now.trust, now.value, now.drifts) != (before.trust, before.value, before.drifts)
        if not changed and now_ms < self._say_at_ms:
            return False
        self._say_at_ms = (now_ms // _SAY_EVERY_MS + 1) * _SAY_EVERY_MS
        return True

    def _record(self, primary: str, policy: Policy, now_ms: int) -> PredictionScorecard:
        f, now = self._card.figures(), self._influence
        names = ("brier", "brier_climatology", "skill", "skill_low", "auc_pooled", "auc_within", "calibration_error",
                 "foretold_ratio", "lead_ms", "false_alarms_per_day")  # fmt: skip
        return PredictionScorecard(
            primary_region=primary,
            scored_at_ms=now_ms,
            model=self.model,
            horizon_ms=policy.prediction_horizon_ms,
            trust=str(now.trust),
            influence=now.value,
            outcomes=_rounded(f.outcomes) or 0.0,
            hits=_rounded(f.hits) or 0.0,
            calibration=[CalibrationBin(*significant(each).tolist()) for each in f.calibration],
            drifts=now.drifts,
            drifted_at_ms=now.drifted_at_ms or None,
            **{name: _rounded(getattr(f, name)) for name in names},
        )

    # -- state ------------------------------------------------------------------------------------------------------

    def renumber(self, place: dict[int, int], targets: int) -> None:
        """Targets have new numbers: the record stays."""
        self._card.renumber(place, targets)
        before, self._probability = self._probability, np.zeros(targets)
        for old, new in place.items():
            self._probability[new] = before[old]

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Scalars and arrays for a snapshot."""
        card, arrays = self._card.save()
        scalars = {"model": self.model, "card": card, "influence": self._influence.save(), "say_at_ms": self._say_at_ms}
        scalars["cold"] = self.is_cold
        return scalars, {"probability": self._probability, **{f"card.{n}": v for n, v in arrays.items()}}

    @classmethod
    def load(cls, scalars: dict[str, Any], arrays: dict[str, Array], targets: int, model: str) -> Foresight:
        """The state again; another model's record says nothing of this one, which has to prove itself."""
        foresight = cls(targets, model)
        if scalars.get("model") != model:
            foresight.is_cold = True
            return foresight
        foresight.is_cold = scalars["cold"]
        card = {name.removeprefix("card."): value for name, value in arrays.items() if name.startswith("card.")}
        foresight._card = Scorecard.load(scalars["card"], card)
        foresight._influence = Influence.load(scalars["influence"])
        foresight._probability, foresight._say_at_ms = arrays["probability"], scalars["say_at_ms"]
        return foresight


def trust_events(before: float, now: float) -> tuple[Event, ...]:
    """What is to be said of a change of influence: only that it begins or ends."""
    if (before > 0) == (now > 0):
        return ()
    return (Event.PREDICTION_TRUSTED if now > 0 else Event.PREDICTION_DISTRUSTED,)


def _rounded(value: float) -> float | None:
    return float(significant(value)) if math.isfinite(value) else None
