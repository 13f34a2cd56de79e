"""A primary with one path in trouble, remedies that do something about it or not, and an actuator that answers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from schemas.records import (
    ActionResult,
    FailoverConfiguration,
    OperatorDirective,
    PathAction,
    Policy,
    Remedy,
    RemedyLimits,
    RemedyReport,
)
from streams.core.degradation import Sight
from streams.core.mending import Mending

POLICY = Policy()
LINK = Remedy("standby", "us", "LINK", "edge")
PREFERENCE = Remedy("prefer-t2", "us", "LOCAL_PREFERENCE", "edge", value=200.0)
PREPEND = Remedy("prepend-t1", "us", "AS_PATH_PREPEND", "edge", value=3.0)
MORE = Remedy("more", "us", "BANDWIDTH", "provider", value=1e9)
_STEP = 1 - math.exp(-1000 / POLICY.fast_tau_ms)
# What a path with these remedies in place is like: latency in ms, loss.
Path = Callable[[set[str]], tuple[float, float]]
Answer = Callable[[PathAction], str | None]


def well(_: set[str]) -> tuple[float, float]:
    return 60.0, 0.0


def configuration(*remedies: Remedy, primary: str = "eu", version: int = 1, limits: RemedyLimits | None = None,
                  candidates: tuple[str, ...] = ("us", "ap")) -> FailoverConfiguration:  # fmt: skip
    return FailoverConfiguration(
        primary, list(candidates), version, based_on=version - 1, remedies=list(remedies),
        remedy_limits=limits if limits is not None else RemedyLimits(), policy=POLICY,
    )  # fmt: skip


def obeys(_: PathAction) -> str | None:
    return "APPLIED"


@dataclass
class World:
    """Time goes in ticks of a second; `path` and `answer` may be changed meanwhile."""

    configuration: FailoverConfiguration
    path: Path = well
    answer: Answer = obeys
    target: str | None = "us"
    mending: Mending = field(default_factory=Mending)
    now_ms: int = 1_700_000_000_000
    in_place: set[str] = field(default_factory=set)
    said: list[PathAction | RemedyReport] = field(default_factory=list)
    refused: list[str | None] = field(default_factory=list)
    foretold: bool = False
    fresh: bool = True
    latency_ms: float = 60.0
    usual_ms: float = 60.0
    loss: float = 0.0

    def __post_init__(self) -> None:
        self.mending.configure(self.configuration)
        self.run(20)

    def run(self, ticks: int, *, saved: bool = False) -> World:
        """`saved`: the state goes through a snapshot at every tick."""
        for _ in range(ticks):
            if saved:
                state = json.loads(json.dumps(self.mending.save()))
                self.mending = Mending()
                self.mending.load(state)
            self._tick()
        return self

    def until(self, event: str, ticks: int = 200) -> RemedyReport:
        """Runs until it is said, and returns it."""
        for _ in range(ticks):
            before = len(self.said)
            self._tick()
            for each in self.said[before:]:
                if isinstance(each, RemedyReport) and each.event == event:
                    return each
        raise AssertionError(f"never {event}: {self.story}")

    def _tick(self) -> None:
        self.now_ms += 1000
        latency_ms, loss = self.path(self.in_place)
        self.latency_ms += _STEP * (latency_ms - self.latency_ms)
        self.usual_ms += 0.007 * (latency_ms - self.usual_ms)
        self.loss += _STEP * (loss - self.loss)
        sight = Sight(
            self.latency_ms, self.usual_ms, self.loss, self.loss, 0.9,
            is_fresh=self.fresh, is_down=False, is_foretold=self.foretold,
        )  # fmt: skip
        sights = {"us": sight, "ap": Sight(200.0, 200.0, 0.0, 0.0, 0.9, is_fresh=True, is_down=False)}
        self.mending.see(self.configuration.primary_region, sights, self.target, self.now_ms)
        for each in self.mending.tick(self.now_ms):
            self.said.append(each)
            if isinstance(each, PathAction):
                self._act(each)

    def _act(self, action: PathAction) -> None:
        outcome = self.answer(action)
        if outcome is None:
            return
        self.result(result(action, "STARTED"))
        if outcome in ("APPLIED", "ALREADY"):
            change = self.in_place.add if action.operation == "APPLY" else self.in_place.discard
            change(action.remedy_id)
        self.result(result(action, outcome))

    def result(self, its: ActionResult) -> str | None:
        why = self.mending.result(its)
        self.refused.append(why)
        return why

    def configure(self, *remedies: Remedy, limits: RemedyLimits | None = None) -> None:
        made = configuration(*remedies, version=self.configuration.version + 1, limits=limits)
        self.configuration = made
        self.mending.configure(made)

    def stop(self, lasts_ms: int = 3_600_000, primary: str | None = None) -> None:
        expires_at_ms = self.now_ms + lasts_ms
        order = OperatorDirective("stop-1", "stop-actions", expires_at_ms, "ops", "work", primary_region=primary)
        self.mending.direct(order, self.now_ms)

    @property
    def actions(self) -> list[PathAction]:
        return [s for s in self.said if isinstance(s, PathAction)]

    @property
    def reports(self) -> list[RemedyReport]:
        return [s for s in self.said if isinstance(s, RemedyReport)]

    @property
    def story(self) -> list[tuple[str, str]]:
        """What was said, in short."""
        return [(r.remedy_id, r.event) for r in self.reports]

    def asked(self) -> list[tuple[str, str]]:
        return [(a.remedy_id, a.operation) for a in self.actions]


def result(action: PathAction, outcome: str, **change: str) -> ActionResult:
    """What the action's own actuator would say, but for what is changed."""
    said = ActionResult(
        action.action_id, action.primary_region, action.remedy_id, action.actuator, action.operation, outcome,
        "as told", "CLOSED", action.planned_at_ms,
    )  # fmt: skip
    return replace(said, **change)  # type: ignore[arg-type]


def helped_by(cures: Mapping[str, tuple[float, float]], sick: tuple[float, float] = (180.0, 0.0)) -> Path:
    """A path that is `sick` unless one of the remedies is in place."""

    def path(in_place: set[str]) -> tuple[float, float]:
        return min([cures[r] for r in in_place if r in cures], default=sick)

    return path
