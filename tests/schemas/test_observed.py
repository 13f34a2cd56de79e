"""What a process shows of itself: added up, true to what was counted, and never dearer than the figures themselves."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator

import pytest
from prometheus_client.core import Metric

from schemas import observed
from schemas.observed import Everything, Observed, Pulse, counter, gauge, one_of, seconds


class Shown(Observed):
    def __init__(self, *families: Metric, stuck: str = "", unready: str = "", fails: bool = False) -> None:
        self._families, self._stuck, self._unready, self._fails = families, stuck, unready, fails
        self.observe()

    def figures(self) -> Iterable[Metric]:
        if self._fails:
            raise RuntimeError("dictionary changed size during iteration")
        return self._families

    def stuck(self) -> str:
        return self._stuck

    def unready(self) -> str:
        if self._fails:
            raise RuntimeError("closed")
        return self._unready


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without what other tests of this process have left."""
    gc.collect()
    before = list(observed._LIVING)
    for each in before:
        each.unobserve()
    yield
    for each in before:
        each.observe()


def samples() -> dict[tuple[str, ...], float]:
    return {(s.name, *s.labels.values()): s.value for family in Everything().collect() for s in family.samples}


def test_equal_names_and_labels_of_several_are_added_up_and_others_stand_beside_each_other() -> None:
    kept = [
        Shown(counter("proxima_x", "X.", {("a",): 1, ("b",): 2}, "of")),
        Shown(counter("proxima_x", "X.", {("b",): 3, ("c",): 4}, "of"), gauge("proxima_y", "Y.", 5)),
    ]
    found = samples()
    assert found == {
        ("proxima_x_total", "a"): 1,
        ("proxima_x_total", "b"): 5,
        ("proxima_x_total", "c"): 4,
        ("proxima_y",): 5,
    }
    assert len([family for family in Everything().collect() if family.name == "proxima_x"]) == len(kept) - 1
    kept.clear()
    gc.collect()
    assert samples() == {}, "what is gone is not shown"


def test_one_that_cannot_be_looked_at_costs_its_own_figures_and_says_that_it_is_not_ready() -> None:
    kept = (Shown(fails=True), Shown(gauge("proxima_y", "Y.", 5)))
    assert samples() == {("proxima_y",): 5}
    assert observed.unready() == ["Shown cannot be looked at: RuntimeError"]
    assert observed.stuck() == []
    assert len(kept) == 2


def test_who_is_stuck_is_not_ready_either_and_nobody_is_ready_before_there_is_somebody() -> None:
    assert observed.unready() == ["it has not begun yet"]
    kept = (Shown(stuck="the loop has not moved"), Shown(unready="no partitions"), Shown())
    assert observed.stuck() == ["the loop has not moved"]
    assert observed.unready() == ["no partitions", "the loop has not moved"]
    assert len(kept) == 3


def test_a_pulse_is_stuck_when_its_last_beat_is_too_long_ago() -> None:
    now_s = [100.0]
    pulse = Pulse("the loop", 30, lambda: now_s[0])
    now_s[0] = 130
    assert pulse.stuck() == ""
    now_s[0] = 131
    assert pulse.stuck() == "the loop has not moved for 31 s"
    pulse.beat()
    assert pulse.stuck() == ""


def test_histograms_of_two_are_one_and_states_are_ones_and_zeros() -> None:
    made = []
    for value in (0.2, 0.002):
        histogram = seconds("proxima_z_seconds", "Z.")
        histogram.observe(value)
        made.append(Shown(*histogram.collect()))
    found = samples()
    assert found["proxima_z_seconds_count",] == len(made)
    assert found["proxima_z_seconds_sum",] == pytest.approx(0.202)
    assert found["proxima_z_seconds_bucket", "0.0025"] == 1
    assert one_of(("A", "B"), "B") == {("A",): 0, ("B",): 1}
