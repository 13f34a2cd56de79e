"""Waits until it is asked to end, which the kernel does when the lab's process dies, and removes the lab's namespaces.

python -m infra.lab.guard NAME
"""

from __future__ import annotations

import signal
import sys

from infra.lab.namespaces import remove


def main() -> None:
    """The program."""
    asked = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, asked)
    signal.sigwait(asked)
    remove(sys.argv[1])


if __name__ == "__main__":
    main()
