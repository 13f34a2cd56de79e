"""kcat as a user would have it: with a librdkafka that a broker of today lets in."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

SCRAM_MENDED: Final = (2, 6, 1)
"""The librdkafka whose SCRAM is RFC 5802's, and so is taken by Kafka 4."""


def version() -> str | None:
    """What `kcat -V` says; None: it is not installed."""
    kcat = shutil.which("kcat")
    return kcat and subprocess.run([kcat, "-V"], capture_output=True, text=True, check=True).stdout


def reads_avro() -> bool:
    """Debian's does not."""
    return "Avro" in (version() or "")


def environment(folder: Path) -> dict[str, str]:
    """Its variables; `folder`: for a link to the library of confluent-kafka's wheel, if its own is too old."""
    found = re.search(r"librdkafka (\d+)\.(\d+)\.(\d+)", version() or "")
    if found and tuple(map(int, found.groups())) >= SCRAM_MENDED:
        return dict(os.environ)
    spec = importlib.util.find_spec("confluent_kafka")
    assert spec is not None
    assert spec.origin is not None
    libraries = Path(spec.origin).parents[1] / "confluent_kafka.libs"
    (library,) = libraries.glob("librdkafka-*.so*")
    link = folder / "librdkafka.so.1"
    if not link.exists():
        link.symlink_to(library)
    return {**os.environ, "LD_LIBRARY_PATH": f"{folder}:{libraries}"}
