"""The policy that stories and properties are told under, stated in full: they say what happens under these numbers,
whatever the defaults are tuned to."""

from __future__ import annotations

from typing import Final

from schemas.records import Failback, Policy

STATED: Final = Policy(
    latency_good_ms=20.0,
    latency_bad_ms=1000.0,
    loss_good_ratio=0.03,
    loss_bad_ratio=0.17,
    delay_variation_good_ms=50.0,
    delay_variation_bad_ms=300.0,
    bandwidth_good_bps=4e9,
    bandwidth_bad_bps=1e8,
    utility_floor=0.02,
    latency_exponent=1.0,
    loss_exponent=1.0,
    delay_variation_exponent=0.05,
    bandwidth_exponent=0.25,
    baseline_exponent=0.5,
    proximity_scale_km=4000.0,
    fast_tau_ms=7000.0,
    slow_tau_ms=300_000.0,
    confidence_samples=3.0,
    pessimistic_utility=0.2,
    stale_after_ms=10_000,
    down_after_probes=3,
    quorum_ratio=0.51,
    must_be_healthy=[],
    fresh_ratio_min=0.5,
    eligible_min=1,
    margin_ratio=0.005,
    sure_ratio=0.9,
    dwell_ms=6000,
    dwell_min_ms=3000,
    failback=Failback.DELAYED,
    failback_delay_ms=30_000,
    ejection_base_ms=30_000,
    ejection_max_ms=600_000,
    ejection_forgive_ms=300_000,
    heartbeat_ms=10_000,
    publish_score_delta_ratio=0.1,
    publish_ranks=10,
    prediction_every_ms=5000,
    prediction_horizon_ms=30_000,
    disruption_loss_ratio=0.5,
    disruption_latency_ratio=1.5,
    disruption_latency_excess_ms=10.0,
)
