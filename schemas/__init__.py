"""The contracts of Proxima: what a record is, where it travels, how a process is configured, how errors read.

    avsc/        the records, language-neutral: the source of truth; history/ keeps every earlier version
    records.py   the same records as frozen dataclasses (a test holds them against avsc/)
    letters.py   what of a record a dead letter keeps
    codec.py     bytes <-> records; the only importer of avro and fastavro
    validate.py  what a schema cannot say: ranges, region ids, columns of equal length
    readiness.py, remedies.py   the same of health endpoints and reports, of remedies and their results
    ranges.py    how ids look and how far numbers go
    wire.py      a schema registry's format at the edges; registry.py asks the registry
    breaker.py   circuit breakers: a table of transitions, with a clock that is given
    topics.py    the one table of topics, and which partition a key goes to; rights.py, who may do what with them
    connection.py   as whom a process comes to Kafka, and by which protocol
    config.py    one TOML file a role, every mistake reported at once; stores.py, webhook.py and actuators.py, the
                 sections of those sinks
    observed.py  what a process shows of itself: figures, whether it moves, whether it is ready; logs.py, what it says
    errors.py    the one tree of errors

Imports nothing of ours. Everything else meets here, and on Kafka.
"""

import os
import sys

# Same journal, same bytes, also on another processor of the family: NumPy picks its loops by what the processor has,
# and AVX-512's exp and log differ from the rest in the last bit. It reads these once, when it is imported first, and
# whoever computes anything here imports schemas first. It costs no speed that could be measured.
if "numpy" not in sys.modules:
    os.environ.setdefault("NPY_DISABLE_CPU_FEATURES", "X86_V4 AVX512_ICL AVX512_SPR")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
