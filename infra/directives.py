"""Operators' directives onto `failover-config`, and what became of them.

A directive counts until it expires, and is replaced by one of the same id: so lifting is to say it again with an expiry
that has passed. It is answered by the first ranking that carries it as it was sent (or, lifted, carries it no more).
A directive for every primary is answered by any of them: each takes it from its own partition of the journal, and
not every primary has a candidate that it concerns.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Final

from infra.asking import Answer, Question, ask
from schemas.errors import ConfigError
from schemas.records import Directive, Event, FailoverRanking, OperatorDirective
from schemas.validate import mistakes

# What is in an id beside its readable middle: kind, time, four letters against two operators in the same second.
_MIDDLE_MAX: Final = 30
_ID_TAIL: Final = "%Y%m%dT%H%M%S"
LIFTED_AT_MS: Final = 0  # an expiry that has passed by every clock


def new_id(kind: str, about: str | None, now_ms: int) -> str:
    """An id that people recognise and nobody else takes: `pin-eu-west-1-20261124T101500-ab12`, in UTC."""
    middle = (about or "all")[:_MIDDLE_MAX].rstrip("-")
    return f"{kind}-{middle}-{time.strftime(_ID_TAIL, time.gmtime(now_ms / 1000))}-{secrets.token_hex(2)}"


def lifted(directive: OperatorDirective, author: str, reason: str) -> OperatorDirective:
    """The same directive, ended."""
    return replace(directive, expires_at_ms=LIFTED_AT_MS, author=author, reason=reason)


def in_force(directives: Iterable[OperatorDirective], now_ms: int) -> list[OperatorDirective]:
    """Those that have not expired, the next to expire first."""
    return sorted((d for d in directives if d.expires_at_ms > now_ms), key=lambda d: (d.expires_at_ms, d.directive_id))


def sentence(d: OperatorDirective) -> str:
    """What a directive says, for people."""
    whose = f"of {d.primary_region}" if d.primary_region is not None else "of every primary"
    nobody = f"{d.primary_region} may not choose" if d.primary_region is not None else "no primary may choose"
    return {
        Directive.PIN: f"the target of {d.primary_region} is {d.region}",
        Directive.DRAIN: f"{nobody} {d.region}",
        Directive.FREEZE: f"the target {whose} stays as it is",
        Directive.EXECUTED: f"the traffic of {d.primary_region} was moved to {d.region}",
        Directive.STOP_ACTIONS: f"no path {whose} is acted upon",
    }.get(Directive(d.kind), d.kind)


def direct(bootstrap: str, directive: OperatorDirective, *, prefix: str = "", timeout_s: float = 30.0) -> Answer:
    """Send a directive, and wait for the answer.

    Raises ConfigError: intake would refuse it. Raises KafkaUnavailableError or DeliveryError: it was not sent.
    """
    if wrong := mistakes(directive):
        raise ConfigError(wrong, where=directive.directive_id)
    answer = Answer(directive.directive_id)
    question = Question(f"directive/{directive.directive_id}", directive, answer, partial(_hear, directive, answer))
    ask(bootstrap, [question], prefix=prefix, timeout_s=timeout_s)
    return answer


def _hear(directive: OperatorDirective, answer: Answer, ranking: FailoverRanking) -> None:
    primary = ranking.primary_region
    if directive.primary_region not in (None, primary):
        return
    carried = [d for d in ranking.directives if d.directive_id == directive.directive_id]
    if directive.expires_at_ms == LIFTED_AT_MS:
        # Accepted and ended at once, when it had expired already by the journal's clock.
        if not carried and {Event.DIRECTIVE_ENDED, Event.DIRECTIVE_ACCEPTED}.intersection(ranking.events):
            answer.outcome, answer.reason = "accepted", f"{primary}: {ranking.reason}"
    elif any(d.expires_at_ms == directive.expires_at_ms for d in carried):
        answer.outcome, answer.reason = "accepted", f"{primary}: {ranking.reason}"
    elif Event.DIRECTIVE_REJECTED in ranking.events:
        # The engine refuses for one reason only, which a ranking has no place to say.
        answer.said = f"{directive.region} is no region that {primary} may fail over to"
        if directive.primary_region is not None:
            answer.outcome, answer.reason = "rejected", answer.said
