"""For schemathesis: an Idempotency-Key of its own for each request that has a good one, and paths that lead elsewhere.

What a key may be is in the document; that it may not come back with another body cannot be said there, nor that a
path's ends are two regions.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

import schemathesis

_GOOD = re.compile(r"[\x21-\x7e]{1,128}")


@schemathesis.hook  # type: ignore[untyped-decorator]
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    for name in list(case.headers or ()):
        if name.lower() == "idempotency-key" and _GOOD.fullmatch(str(case.headers[name])):
            case.headers[name] = uuid.uuid4().hex
    body = case.body if isinstance(case.body, dict) else {}
    batch = body.get("metrics")
    for metric in [body, *(batch if isinstance(batch, list) else ())]:
        primary = metric.get("primary_region") if isinstance(metric, dict) else None
        if primary is not None and metric.get("target_region") == primary:
            metric["target_region"] = "there" if primary != "there" else "elsewhere"
