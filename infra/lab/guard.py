"""Waits until it is asked to end, which the kernel does when the lab's process dies, and removes what is left of it.

    python -m infra.lab.guard NAME FOLDER

The lab's folder is there as soon as the guard is on its post, for it is the guard who makes it.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Final

from infra.lab.namespaces import namespaces, remove

_UNDER_WAY_S: Final = 0.3  # a command that the lab had started may make another namespace after its end


def main() -> None:
    """The program."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    asked = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, asked)
    folder.mkdir()
    folder.chmod(0o755)  # FRR's daemons give up root and have to find their files
    signal.sigwait(asked)
    while namespaces(name):
        remove(name)
        time.sleep(_UNDER_WAY_S)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
