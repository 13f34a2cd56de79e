"""When a path counts as degraded: against its own past, not by one handful of losses, and not for ever."""

from __future__ import annotations

import math
import random

from schemas.records import Policy
from streams.core.degradation import NEW_NORMAL_MS, Degradation, Sight

POLICY = Policy()
WELL = Sight(60.0, 60.0, 0.0, 0.0, 0.9, is_fresh=True, is_down=False)
SLOW = WELL._replace(latency_ms=180.0)
LOSSY = WELL._replace(loss_ratio=0.2, loss_now_ratio=0.2)


def seen(*sights: Sight, is_mended: bool = False, path: Degradation | None = None) -> Degradation:
    path = path or seen(*[WELL] * 10, path=Degradation())
    for second, sight in enumerate(sights):
        path.see(sight, POLICY, 1000 * second, is_mended=is_mended)
    return path


def test_a_path_that_was_never_well_has_not_degraded() -> None:
    assert not seen(*[LOSSY] * 20, path=Degradation()).is_bad(POLICY)


def test_latency_has_to_be_worse_by_ratio_and_by_amount_twice() -> None:
    assert not seen(SLOW).is_bad(POLICY)
    assert seen(SLOW, SLOW).is_bad(POLICY)
    assert not seen(SLOW, WELL, SLOW).is_bad(POLICY)
    near = seen(*[WELL._replace(latency_ms=4.0, usual_ms=4.0)] * 10)
    assert not seen(*[WELL._replace(latency_ms=9.0)] * 9, path=near).is_bad(POLICY), "twice as long, and only by 5 ms"


def test_what_one_handful_of_losses_proves_is_seen_twice_and_not_enough() -> None:
    assert not seen(LOSSY, LOSSY, *[WELL] * 5).is_bad(POLICY)
    assert seen(LOSSY, LOSSY, LOSSY).is_bad(POLICY)


def test_loss_that_is_proven_in_six_sights_of_ten_is_acted_upon_within_ten_seconds_nearly_always() -> None:
    chance = random.Random(7)
    late = 0
    for _ in range(300):
        path, sights = seen(), [LOSSY if chance.random() < 0.6 else WELL for _ in range(13)]
        bad = []
        for second, sight in enumerate(sights):
            path.see(sight, POLICY, 1000 * second, is_mended=False)
            bad.append(path.is_bad(POLICY))
        late += True not in bad
    assert late <= 0.1 * 300


def test_a_path_without_an_answer_is_bad_and_one_that_nobody_looks_at_is_neither() -> None:
    assert seen(*[WELL._replace(is_down=True, is_fresh=False)] * 3).is_bad(POLICY)
    assert not seen(*[SLOW._replace(is_fresh=False)] * 30).is_bad(POLICY)


def test_the_baseline_stands_still_while_the_path_is_bad_or_something_is_done_to_it() -> None:
    path = seen(*[SLOW._replace(usual_ms=150.0)] * 60)
    assert path.baseline_ms == 60.0
    path = seen(*[WELL._replace(latency_ms=75.0, usual_ms=75.0)] * 60, is_mended=True)
    assert path.baseline_ms == 60.0


def test_what_lasts_for_half_an_hour_is_usual() -> None:
    path = seen()
    ticks = NEW_NORMAL_MS // 1000 + 1
    path = seen(*[SLOW._replace(usual_ms=180.0)] * ticks, path=path)
    assert not path.is_bad(POLICY)
    assert path.baseline_ms == 180.0


def test_after_a_bad_time_the_slow_average_is_not_believed_before_it_has_forgotten() -> None:
    path = seen(*[SLOW] * 5)
    path = seen(WELL._replace(usual_ms=150.0), path=path)
    assert path.baseline_ms == 60.0 * POLICY.disruption_latency_ratio


def test_its_state_is_plain_and_comes_back() -> None:
    for path in (Degradation(), seen(LOSSY), seen(*[SLOW] * 3)):
        again = Degradation.load(path.save())
        assert again.save() == path.save()
    assert math.isnan(Degradation.load(Degradation().save()).baseline_ms)
