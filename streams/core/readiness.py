"""Ready before anything has failed: when the target in use may be disrupted soon, the runner-up is asked once.

An episode begins when the probability of the target in use reaches the threshold while the model is trusted, and there
is a runner-up to ask. It ends below half the threshold, when another target is in use, or when the trust is gone; so a
probability that wavers about the threshold asks once.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.records import Policy, ReadinessRequest
from streams.core.alarms import RELEASE


@dataclass(frozen=True, slots=True)
class Outlook:
    """At a moment: the target in use, its probability of a disruption with the model's influence, and who is next."""

    target: str
    probability: float
    influence: float
    runner_up: str | None
    model: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """State: whose disruption the runner-up was asked about; None: nobody's."""

    asked_about: str | None = None

    def step(
        self, primary: str, outlook: Outlook | None, policy: Policy, now_ms: int
    ) -> tuple[Readiness, ReadinessRequest | None]:
        """The state after this moment, and the request if an episode begins; `outlook` None: there is no target."""
        if outlook is None or outlook.influence <= 0:
            return Readiness(), None
        threshold = policy.alarm_probability
        if self.asked_about == outlook.target:
            goes_on = outlook.probability >= RELEASE * threshold
            return (self if goes_on else Readiness()), None
        if outlook.probability < threshold or outlook.runner_up is None:
            return Readiness(), None
        seconds = policy.prediction_horizon_ms / 1000
        return Readiness(outlook.target), ReadinessRequest(
            primary_region=primary,
            candidate_region=outlook.runner_up,
            target_region=outlook.target,
            requested_at_ms=now_ms,
            expires_at_ms=now_ms + policy.prediction_horizon_ms,
            probability=outlook.probability,
            influence=outlook.influence,
            model=outlook.model,
            reason=f"the path to {outlook.target} may be disrupted within {seconds:g} s ({outlook.probability:.0%})",
        )


def foretold(outlook: Outlook | None, policy: Policy) -> str | None:
    """The target that a trusted model expects to be disrupted; None: none, or the model is not trusted."""
    if outlook is None or outlook.influence <= 0 or outlook.probability < policy.alarm_probability:
        return None
    return outlook.target
