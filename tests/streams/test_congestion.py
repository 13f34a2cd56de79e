"""Paths that congest gradually, and models that must not count: what prediction is worth, and what it may cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from schemas.records import Array, DisruptionPrediction, Policy
from streams.backtest import Run, course_of, run_trace, score
from streams.core import engine as engine_module
from streams.core.engine import FailoverEngine
from streams.core.foresight import Foreseen
from streams.core.prediction import Predictor
from streams.trace_files import Trace
from tests.streams.adversaries import RECORDED, recorded
from tests.streams.congestion import DAY_STEPS, DEVELOPMENT, JUDGING, STEP_MS, Day, congesting, judged

TIMEOUT_MS = 1000.0
SHADOW = replace(Policy(), prediction_weight=0.0)
LEARNT_FROM = DAY_STEPS // 3  # eight hours: trust is earned by then
LOST_WITHIN_MS = 7_200_000


def regret_ms(trace: Trace, run: Run) -> float:
    return score([(course_of(trace, TIMEOUT_MS), run)], TIMEOUT_MS).regret_ms
