"""For schemathesis: an Idempotency-Key of its own for each request that has a good one.

What a key may be is in the document; that it may not come back with another body cannot be said there.
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
