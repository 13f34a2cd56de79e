"""A target that failed and healed is not taken back before the policy says so, in a lab, end to end through Kafka."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import pytest

from infra.kafka.cluster import Broker
from infra.lab.spec import LabLink, LabRegion, LabSpec
from schemas.records import Failback, FailoverRanking, Policy
from tests.network import skip_without_lab
from tests.scenarios.lab_scene import deciding, rankings

DELAY_MS: Final = {"home": 5.0, "near": 20.0, "middle": 32.0}
# The default is 30 s; all else is the default policy.
POLICY: Final = Policy(failback_delay_ms=12_000)


@pytest.mark.kafka
@pytest.mark.timed
def test_a_target_that_healed_returns_after_the_failback_delay_and_not_before(kafka: Broker, tmp_path: Path) -> None:
    skip_without_lab()
    assert POLICY.failback == Failback.DELAYED
    spec = LabSpec(
        name="failback",
        regions=[LabRegion(id=r, latitude=0, longitude=0) for r in DELAY_MS],
        transits=["t1"],
        links=[LabLink(between=(r, "t1"), delay_ms=d, jitter_ms=0.1) for r, d in DELAY_MS.items()],
    )
    paths = {"home": {c: spec.address(c) for c in ("near", "middle")}}
    with deciding(kafka, tmp_path, spec, paths, POLICY) as (lab, reader):
        for ranking in rankings(reader, 90, "near to be the target"):
            if ranking.target_region == "near" and ranking.candidates[0].confidence > 0.8:
                break
        lab.link("near", "t1").down()
        for ranking in rankings(reader, 30, "near to be left"):
            if ranking.target_region != "near":
                break
        lab.heal()
        eligible_at_ms = None
        for ranking in rankings(reader, 90, "near to return"):
            if ranking.target_region == "near":
                break
            eligible_at_ms = (eligible_at_ms or ranking.decided_at_ms) if _is_eligible("near", ranking) else None
    assert eligible_at_ms is not None, "it was eligible before it was chosen"
    waited_ms = ranking.decided_at_ms - eligible_at_ms
    sys.stderr.write(f"\nfailback: {waited_ms / 1000:.1f} s after it was eligible again\n")
    assert waited_ms >= POLICY.failback_delay_ms
    assert "TARGET_RESTORED" in ranking.events


def _is_eligible(region: str, ranking: FailoverRanking) -> bool:
    return next(c.eligible for c in ranking.candidates if c.region_id == region)
