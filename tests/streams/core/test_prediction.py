"""Disruptions learnt online: labels come late, restarts change no bit, and what announces itself is foreseen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest

from schemas.records import DisruptionPrediction
from streams.core.prediction import MODEL, Predictor
from streams.core.state import from_columns, from_scalars, to_columns, to_scalars
from streams.core.views import PathMetrics
from tests.streams.core.policy import STATED

POLICY = STATED
HORIZON_S = POLICY.prediction_horizon_ms // 1000
EVERY_S = POLICY.prediction_every_ms // 1000
T0 = 1_700_000_010_000
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Seen:
    """Of one path at a tick; by default calm."""

    latency_ms: float = 20.0
    slow_latency_ms: float = 20.0
    fast_loss_ratio: float = 0.0
    loss_ratio: float = 0.0
    delay_variation_ms: float = 3.0
    age_ms: float = 300.0
    down: bool = False


CALM, DISRUPTED = Seen(), Seen(fast_loss_ratio=0.9, loss_ratio=0.5)
UNMEASURED = Seen(NAN, NAN, NAN, NAN, NAN, NAN)
Weather = Callable[[str, int], Seen]


class Watch:
    """A predictor fed second by second."""

    def __init__(self, *regions: str) -> None:
        self.regions = list(regions)
        self.predictor = Predictor(len(regions))
        self.second = 0
        self.labels: list[int] = []  # learnt, after each second
        self.predictions: list[DisruptionPrediction] = []

    def run(self, seconds: int, weather: Weather) -> list[DisruptionPrediction]:
        """What was predicted in these seconds."""
        known = len(self.predictions)
        for _ in range(seconds):
            seen = [weather(region, self.second) for region in self.regions]
            prediction = self.predictor.step("eu-1", self.regions, metrics(seen), POLICY, T0 + self.second * 1000)
            if prediction is not None:
                self.predictions.append(prediction)
            self.labels.append(self.predictor.labels_learnt)
            self.second += 1
        return self.predictions[known:]

    def restart(self) -> Watch:
        """Another that goes on from this one's snapshot."""
        scalars, arrays = self.predictor.save()
        other = Watch(*self.regions)
        saved = from_scalars(to_scalars(scalars)), from_columns(to_columns(arrays))
        other.predictor = Predictor.load(*saved, len(self.regions))
        other.second = self.second
        return other


def metrics(seen: list[Seen]) -> PathMetrics:
    columns: dict[str, Any] = {f.name: np.array([getattr(s, f.name) for s in seen]) for f in fields(Seen)}
    samples = np.full(len(seen), 100.0)
    return PathMetrics(
        log_latency_error=np.zeros(len(seen)),
        trusted=np.ones(len(seen), bool),
        vetoed=np.zeros(len(seen), bool),
        suspicion_ratio=np.zeros(len(seen)),
        samples=samples,
        confidence=samples / (samples + POLICY.confidence_samples),
        **columns,
    )


def always(seen: Seen) -> Weather:
    return lambda *_: seen


def probability(prediction: DisruptionPrediction, region: str) -> float:
    return {p.target_region: p.probability for p in prediction.paths}[region]


def announced(region: str, second: int) -> Seen:
    """`breaks`: every 200 s its delay varies for 40 s, and then it is lost for 20 s. Any other stays calm."""
    into = second % 200
    if region == "breaks":
        if 140 <= into < 160:
            return DISRUPTED
        return replace(CALM, delay_variation_ms=60.0) if 100 <= into < 140 else CALM
    return CALM


def random_weather(seed: int) -> Weather:
    random = np.random.default_rng(seed)
    drawn = random.random((4000, 3))

    def weather(region: str, second: int) -> Seen:
        chance, latency, variation = drawn[(second * 7 + len(region)) % len(drawn)]
        if chance < 0.05:
            return DISRUPTED
        return Seen(20 + 9 * latency, 20.0, 0.1 * chance, 0.1 * chance, 30 * variation)

    return weather


def test_predictions_come_every_so_often_in_shadow_and_for_each_path_that_is_measured() -> None:
    found = Watch("a", "b", "dark").run(20, lambda region, _: UNMEASURED if region == "dark" else CALM)
    assert [p.predicted_at_ms - T0 for p in found] == [0, 5000, 10_000, 15_000]
    assert all([p.target_region for p in prediction.paths] == ["a", "b"] for prediction in found)
    assert {(p.influence, p.horizon_ms, p.model) for p in found} == {(0.0, 30_000, MODEL)}
    assert all(0 <= path.probability <= 1 for prediction in found for path in prediction.paths)


def test_labels_arrive_only_after_the_horizon() -> None:
    watch = Watch("a", "b")
    watch.run(HORIZON_S + 3 * EVERY_S, always(CALM))
    assert set(watch.labels[:HORIZON_S]) == {0}
    assert watch.labels[HORIZON_S::EVERY_S] == [2, 4, 6]


def test_what_was_predicted_says_how_much_it_had_learnt() -> None:
    watch = Watch("a")
    watch.run(120, random_weather(1))
    assert [p.labels_learnt for p in watch.predictions] == [watch.labels[i] for i in range(0, 120, EVERY_S)]


@pytest.mark.parametrize("seen", [DISRUPTED, UNMEASURED, replace(CALM, age_ms=POLICY.stale_after_ms + 1)])
def test_a_path_that_is_disrupted_already_or_not_measured_gives_no_label(seen: Seen) -> None:
    watch = Watch("a", "b")
    found = watch.run(120, lambda region, _: seen if region == "a" else CALM)
    of_a = [p for prediction in found for p in prediction.paths if p.target_region == "a"]
    # At the first tick it only looks disrupted; nothing else is said of it, nor learnt.
    assert len(of_a) == (1 if seen == DISRUPTED else 0)
    assert watch.labels[-1] == (119 - HORIZON_S) // EVERY_S + 1 + len(of_a)


@pytest.mark.parametrize(
    "seen",
    [
        replace(CALM, fast_loss_ratio=POLICY.disruption_loss_ratio),
        replace(CALM, down=True),
        replace(CALM, latency_ms=31.0),  # half as slow again, and by more than 10 ms
        replace(CALM, latency_ms=601.0, slow_latency_ms=400.0),
    ],
)
def test_a_disruption_is_loss_silence_or_latency_far_above_its_own(seen: Seen) -> None:
    watch = Watch("a")
    watch.run(EVERY_S, always(CALM))
    watch.second -= POLICY.disruption_ticks - 1
    assert watch.run(POLICY.disruption_ticks, always(seen))[0].paths == []


@pytest.mark.parametrize(
    "seen",
    [
        replace(CALM, fast_loss_ratio=0.4),
        replace(CALM, latency_ms=29.0),
        replace(CALM, latency_ms=9.0, slow_latency_ms=4.0),  # twice as slow, and nobody minds 5 ms
        replace(CALM, latency_ms=590.0, slow_latency_ms=400.0),
    ],
)
def test_less_than_that_is_no_disruption(seen: Seen) -> None:
    assert len(Watch("a").run(1, always(seen))[0].paths) == 1


def test_a_path_that_never_breaks_is_believed_in_more_and_more() -> None:
    watch = Watch("a", "b")
    found = [probability(p, "a") for p in watch.run(1800, always(CALM))]
    assert found[0] < 0.02  # rare before anything is known, and no coin's toss
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[0]


def test_what_announces_itself_is_foreseen_and_only_then_and_only_there() -> None:
    watch = Watch("breaks", "stays")
    watch.run(200 * 40, announced)
    found = {(p.predicted_at_ms - T0) // 1000 % 200: p for p in watch.run(200, announced)}
    warned = probability(found[120], "breaks")
    assert warned > 0.5
    assert warned > 2 * probability(found[50], "breaks")
    assert warned > 4 * probability(found[120], "stays")


def test_more_labels_make_the_warning_clearer() -> None:
    watch = Watch("breaks", "stays")
    warned = []
    for _ in range(12):
        found = {(p.predicted_at_ms - T0) // 1000 % 200: p for p in watch.run(200, announced)}
        warned.append(probability(found[120], "breaks") - probability(found[120], "stays"))
    assert warned[0] < 0.05
    assert warned[-1] > 0.2
    assert warned[-1] > warned[5] > warned[0]


@pytest.mark.parametrize("seconds", [0, 3, 33, 400])
def test_a_snapshot_restored_predicts_the_same_bits_as_if_nothing_had_happened(seconds: int) -> None:
    weather = random_weather(2)
    watch = Watch("a", "bb", "ccc")
    watch.run(seconds, weather)
    again = watch.restart()
    assert again.run(400, weather) == watch.run(400, weather)
    scalars, arrays = watch.predictor.save()
    assert again.predictor.save()[0] == scalars
    for name, array in again.predictor.save()[1].items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)


def test_a_snapshot_of_another_model_is_left_and_learning_begins_anew() -> None:
    watch = Watch("a", "b")
    watch.run(300, random_weather(3))
    scalars, arrays = watch.predictor.save()
    other = Predictor.load({**scalars, "model": "another"}, arrays, 2)
    assert other.labels_learnt == 0
    assert other.step("eu-1", ["a", "b"], metrics([CALM, CALM]), POLICY, T0 + 400_000) is not None


def test_targets_that_get_other_numbers_keep_the_model_and_their_own_past() -> None:
    watch = Watch("breaks", "stays")
    watch.run(200 * 20, announced)
    before = watch.run(1, announced)[0]
    counts = watch.predictor.save()[1]["signs.counts"]
    assert counts[0, 0] > 1
    watch.predictor.renumber({0: 1}, 2)  # `stays` has left, `new` comes first
    watch.regions = ["new", "breaks"]
    assert watch.predictor.save()[1]["signs.counts"].tolist() == [[0, of] for of in counts[:, 0]]
    watch.run(EVERY_S - 1, announced)
    after = watch.run(1, announced)[0]
    assert probability(after, "breaks") == pytest.approx(probability(before, "breaks"), rel=0.05)
    assert probability(after, "new") < 0.2
    labels = watch.labels[-1]
    watch.run(HORIZON_S - 1, announced)
    assert watch.labels[-1] == labels  # what waited for its label is gone


def test_a_path_faster_than_a_microsecond_does_not_spoil_the_model_for_ever() -> None:
    watch = Watch("a", "b")
    watch.run(60, always(CALM))
    watch.run(20, lambda region, _: replace(CALM, latency_ms=0.0) if region == "a" else CALM)
    watch.run(20, always(replace(CALM, latency_ms=0.0, slow_latency_ms=0.0)))
    found = watch.run(100, always(CALM))
    assert all(0 < path.probability < 1 for prediction in found for path in prediction.paths)
