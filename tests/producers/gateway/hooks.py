"""For schemathesis: an Idempotency-Key of its own for each request that has a good one, and metrics neither of a path
to where it begins nor of a time to come.

What a key may be is in the document; that it may not come back with another body cannot be said there, nor that a
path's ends are two regions, nor what time it is.
"""

from __future__ import annotations

import re
import time
import uuid
from typing import Any

import schemathesis

from schemas.validate import AT_MS_MAX

_GOOD = re.compile(r"[\x21-\x7e]{1,128}")


@schemathesis.hook  # type: ignore[untyped-decorator]
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    for name in list(case.headers or ()):
        if name.lower() == "idempotency-key" and _GOOD.fullmatch(str(case.headers[name])):
            case.headers[name] = uuid.uuid4().hex
    now_ms = time.time_ns() // 1_000_000
    body = case.body if isinstance(case.body, dict) else {}
    batch = body.get("metrics")
    for metric in [body, *(batch if isinstance(batch, list) else ())]:
        if not isinstance(metric, dict):
            continue
        primary = metric.get("primary_region")
        if primary is not None and metric.get("target_region") == primary:
            metric["target_region"] = "there" if primary != "there" else "elsewhere"
        at_ms = metric.get("observed_at_ms")
        if isinstance(at_ms, int | float) and now_ms < at_ms <= AT_MS_MAX:
            metric["observed_at_ms"] = now_ms
