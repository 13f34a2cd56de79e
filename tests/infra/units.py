"""Units of `infra/systemd` as systemd puts them together: a file, then its drop-ins in the order of their names.

Only what ours use: of settings that are lists an empty one forgets what was before, of others the last one counts.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SYSTEMD: Final = Path(__file__).parents[2] / "infra" / "systemd"
_INSTANCE: Final = {"proxima-stage@": "intake", "proxima-sink@": "jsonlines"}


@dataclass(frozen=True, slots=True)
class Unit:
    """`name` is without `.service`; `said` has every value of every setting, in order, with specifiers resolved."""

    name: str
    said: Mapping[str, list[str]]

    def one(self, key: str) -> str:
        return self.said[key][-1]

    def words(self, key: str) -> list[str]:
        """Of a list: what is on it in the end."""
        found: list[str] = []
        for value in self.said.get(key, ()):
            found = [*found, *value.split()] if value else []
        return found

    def environment(self) -> dict[str, str]:
        return dict(word.split("=", 1) for word in self.words("Environment"))

    def credentials(self) -> dict[str, str]:
        """A credential's name -> the file that it is read from."""
        return dict(word.split(":", 1) for word in self.words("LoadCredential"))

    def allowed_calls(self) -> set[str]:
        """What `SystemCallFilter` leaves, as systemd's own table of sets says."""
        allowed: set[str] = set()
        for value in self.said["SystemCallFilter"]:
            calls = {call for word in value.removeprefix("~").split() for call in _calls(word)}
            allowed = allowed - calls if value.startswith("~") else allowed | calls
        return allowed


def names() -> list[str]:
    """Every unit, templates as one of their instances."""
    stems = [path.stem for path in sorted(SYSTEMD.glob("*.service"))]
    return [stem + _INSTANCE.get(stem, "") for stem in stems]


def read_unit(
    name: str, *, extra: Iterable[Path] = (), credentials: str = "/run/credentials", state: str = "/var/lib"
) -> Unit:
    """The unit with its drop-ins, and those in `extra` as if they had been put beside them."""
    stem, at, instance = name.partition("@")
    file = SYSTEMD / f"{stem}{at}.service"
    folders = [SYSTEMD / f"{stem}{at}.service.d", SYSTEMD / "proxima-.service.d"]
    drop_ins = sorted([p for folder in folders for p in folder.glob("*.conf")], key=lambda path: path.name)
    specifiers = {"i": instance, "N": name, "d": credentials, "S": state, "%": "%"}
    said: dict[str, list[str]] = defaultdict(list)
    for path in (file, *drop_ins, *extra):
        for line in path.read_text().splitlines():
            if line and not line.startswith(("#", "[")):
                key, _, value = line.partition("=")
                said[key].append(re.sub("%(.)", lambda m: specifiers[m[1]], value))
    return Unit(name, dict(said))


def _calls(word: str) -> set[str]:
    """A call, or all calls of a set."""
    if not word.startswith("@"):
        return {word}
    found = set()
    for line in _listed(word).splitlines()[1:]:
        if not line.strip().startswith("#"):
            found |= _calls(line.strip()) if line.strip() else set()
    return found


def _listed(name: str) -> str:
    argv = ["systemd-analyze", "--no-pager", "syscall-filter", name]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout
