"""The decide stage with a model of another name; test_warmup_kafka.py runs it.

Whoever wants to kill it while it learns needs a warm-up that is not over at once: the argument SLOWLY.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Final

from schemas.config import WorkerConfig, load
from streams import decide, warmup
from streams.app import run_stage
from streams.core import engine  # noqa: F401 - whatever uses the model's name has to be loaded
from streams.core.prediction import MODEL
from streams.journal import JournalRecord

RENEWED: Final = "another-model-1"
SLOWLY: Final = "slowly"
LEARNS: Final = "learns from the history"  # said in the log
_RECORDS: Final = 10  # at once
_PAUSE_S: Final = 0.3


class SlowWarmup(warmup.Warmup):
    """As ever, with pauses."""

    def take(self, records: Sequence[JournalRecord]) -> None:
        print(LEARNS, flush=True)
        super().take(records)
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    for module in [found for name, found in sys.modules.items() if name.startswith("streams.")]:
        if getattr(module, "MODEL", None) == MODEL:
            vars(module).update(MODEL=RENEWED)
    if SLOWLY in sys.argv:
        vars(decide).update(Warmup=SlowWarmup, _HISTORY_RECORDS=_RECORDS)
    run_stage("decide", load(WorkerConfig))
