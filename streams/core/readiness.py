"""Ready before anything has failed: when the target in use may be disrupted soon, the runner-up is asked once.

An episode begins when the probability of the target in use reaches the threshold while the model is trusted, and there
is a runner-up to ask. It ends below half the threshold, when another target is in use, or when the trust is gone; so a
probability that wavers about the threshold asks once.

Where probers report, whoever may soon have to take the traffic is asked too when what is measured says so (`Worry`):
the target in use is suspected to be down or loses probes, a challenger leads it, or the primary itself may be unwell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from schemas.records import Advice, Policy, ReadinessRequest
from streams.core.alarms import RELEASE
from streams.core.foresight import Foreseen
from streams.core.holddown import HoldDown, Phase
from streams.core.ranked import Ranked
from streams.core.reports import Reports

_AGAIN_MS: Final = 5_000  # a worry that comes and goes asks so often, at most


@dataclass(frozen=True, slots=True)
class Outlook:
    """At a moment: the target in use, its probability of a disruption with the model's influence, and who is next."""

    target: str
    probability: float
    influence: float
    runner_up: str | None
    model: str

    @classmethod
    def of(
        cls, ranked: Ranked, foreseen: Foreseen, target: str | None, numbers: dict[str, int], model: str
    ) -> Outlook | None:
        """What is ahead of the target in use, while the model is trusted; `numbers`: of the candidates, by name."""
        if not foreseen.influence or target not in numbers:
            return None
        probability = float(foreseen.probability[numbers[target]])
        return cls(target, probability, foreseen.influence, _runner_up(ranked, target), model)


@dataclass(frozen=True, slots=True)
class Worry:
    """At a moment: why `candidate` may soon have to take the traffic of `target`, in words."""

    target: str
    candidate: str
    why: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """State: whose disruption the runner-up was asked about, and which worry it was asked for; None: nobody's, none."""

    asked_about: str | None = None
    worry: str | None = None
    worried_at_ms: int = -_AGAIN_MS

    def ask(
        self,
        primary: str,
        ranked: Ranked,
        *,
        outlook: Outlook | None,
        hold: HoldDown,
        advice: Advice,
        reports: Reports,
        now_ms: int,
    ) -> tuple[Readiness, list[ReadinessRequest]]:
        """The state after this moment, and whom the readiness probers should look at now."""
        policy = ranked.policy
        after, request = self.step(primary, outlook, policy, now_ms)
        requests = [request]
        if reports.any:  # else nobody is there to be asked
            worry = worry_about(primary, ranked, hold, advice, policy)
            after, request = after.worried(primary, worry, policy, now_ms)
            requests.append(request)
            best_first = [ranked.regions[i] for i in ranked.order.tolist()]
            for region, age_ms in reports.asks(best_first, policy, now_ms):
                why = f"the last report on {region} is {age_ms / 1000:.0f} s old"
                requests.append(asked(primary, Worry(hold.target or region, region, why), policy, now_ms))
        return after, [each for each in requests if each is not None]

    def step(
        self, primary: str, outlook: Outlook | None, policy: Policy, now_ms: int
    ) -> tuple[Readiness, ReadinessRequest | None]:
        """The state after this moment, and the request if an episode begins; `outlook` None: there is no target."""
        if outlook is None or outlook.influence <= 0:
            return replace(self, asked_about=None), None
        threshold = policy.alarm_probability
        if self.asked_about == outlook.target:
            goes_on = outlook.probability >= RELEASE * threshold
            return (self if goes_on else replace(self, asked_about=None)), None
        if outlook.probability < threshold or outlook.runner_up is None:
            return replace(self, asked_about=None), None
        seconds = policy.prediction_horizon_ms / 1000
        return replace(self, asked_about=outlook.target), ReadinessRequest(
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

    def worried(
        self, primary: str, worry: Worry | None, policy: Policy, now_ms: int
    ) -> tuple[Readiness, ReadinessRequest | None]:
        """The state after this moment, and the request if a worry begins; None: there is none."""
        if worry is None:
            return (self if self.worry is None else replace(self, worry=None)), None
        about = f"{worry.target} {worry.candidate}"
        if about == self.worry or now_ms - self.worried_at_ms < _AGAIN_MS:
            return self, None
        request = asked(primary, worry, policy, now_ms)
        return replace(self, worry=about, worried_at_ms=now_ms), request


def asked(primary: str, worry: Worry, policy: Policy, now_ms: int) -> ReadinessRequest:
    """A request that no prediction makes."""
    return ReadinessRequest(
        primary_region=primary,
        candidate_region=worry.candidate,
        target_region=worry.target,
        requested_at_ms=now_ms,
        expires_at_ms=now_ms + policy.readiness_stale_after_ms,
        probability=0.0,
        influence=0.0,
        model="",
        reason=worry.why,
    )


def worry_about(primary: str, ranked: Ranked, hold: HoldDown, advice: Advice, policy: Policy) -> Worry | None:
    """Who may soon have to take the traffic, by what is measured."""
    target = hold.target
    if target is None or target not in ranked.regions:
        return None
    if advice is not Advice.HOLD:
        return Worry(target, target, f"{primary} may be unwell")
    runner_up = _runner_up(ranked, target)
    if runner_up is None:
        return None
    if hold.phase is Phase.CHALLENGED:
        return Worry(target, runner_up, f"{runner_up} leads {target}")
    number = ranked.regions.index(target)
    if ranked.metrics.suspicion_ratio[number] > 0:
        return Worry(target, runner_up, f"{target} does not answer every agent")
    if ranked.metrics.fast_loss_ratio[number] > policy.disruption_loss_ratio:
        return Worry(target, runner_up, f"the path to {target} loses probes")
    return None


def _runner_up(ranked: Ranked, target: str) -> str | None:
    able = (ranked.regions[i] for i in ranked.order.tolist() if ranked.eligible[i])
    return next((region for region in able if region != target), None)


def foretold(outlook: Outlook | None, policy: Policy) -> str | None:
    """The target that a trusted model expects to be disrupted; None: none, or the model is not trusted."""
    if outlook is None or outlook.influence <= 0 or outlook.probability < policy.alarm_probability:
        return None
    return outlook.target
