"""An interface of this machine, up while the remedy is in place and down else: `ip link`, with arguments as a list."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence

from schemas.actuators import Links, LinkTask
from schemas.records import RemedyKind
from sinks.actuators.actuator import Actuator, ActuatorError, Wanted


class LinkActuator(Actuator):
    """The tasks of one `[[links]]`."""

    def __init__(self, config: Links) -> None:
        self.name = config.name
        self._timeout_s = config.timeout_ms / 1000
        self._tasks = {(t.primary, t.remedy): t for t in config.tasks}

    def refuses(self, wanted: Wanted) -> str | None:
        if (wanted.primary, wanted.remedy) not in self._tasks:
            return f"{self.name} has no task {wanted.remedy} of {wanted.primary}"
        return None if wanted.kind == RemedyKind.LINK else f"{wanted.remedy} is LINK, not {wanted.kind}"

    def words(self, wanted: Wanted) -> str:
        return " ".join(self._set(wanted))

    def is_so(self, wanted: Wanted) -> bool:
        """By the interface's own flag: whether there is carrier is the other end's business, and measured."""
        task = self._task(wanted)
        said = self._run([*_ip(task), "-json", "link", "show", "dev", task.device])
        try:
            flags = json.loads(said)[0]["flags"]
        except (ValueError, LookupError, TypeError):
            raise ActuatorError(f"ip does not say how {task.device} is", where=said[:200]) from None
        return ("UP" in flags) is wanted.applies

    def do(self, wanted: Wanted, action_id: str) -> None:  # noqa: ARG002 - the kernel keeps no ids
        self._run(self._set(wanted))

    def _task(self, wanted: Wanted) -> LinkTask:
        return self._tasks[wanted.primary, wanted.remedy]

    def _set(self, wanted: Wanted) -> list[str]:
        task = self._task(wanted)
        return [*_ip(task), "link", "set", "dev", task.device, "up" if wanted.applies else "down"]

    def _run(self, command: Sequence[str]) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=self._timeout_s)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ActuatorError(str(error), where=" ".join(command)) from error
        if done.returncode:
            raise ActuatorError(done.stderr.strip()[:500] or f"exit code {done.returncode}", where=" ".join(command))
        return done.stdout


def _ip(task: LinkTask) -> list[str]:
    return ["ip", *(["-n", task.namespace] if task.namespace is not None else [])]
