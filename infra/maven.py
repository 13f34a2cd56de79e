"""Jars from Maven into the user's cache (~/.cache/proxima, under XDG_CACHE_HOME if that is set), and Java to run them.

Processes that ask at the same time fetch once. Whoever asks says what its failure is called, and what to do then.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import ProximaError

JAVA_VERSION_MIN = 17
# Names differ between releases: Debian 13 has no 17 any more.
JAVA_PACKAGES = ("openjdk-17-jre-headless", "default-jre-headless")
DOWNLOAD_TIMEOUT_S = 600.0
INSTALL = f"install a JDK {JAVA_VERSION_MIN}+ and Maven (Debian: apt-get install openjdk-17-jre-headless maven)"

log = logging.getLogger(__name__)
Failure = type[ProximaError]


def cache_folder(name: str) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "proxima" / name


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Whoever else makes this folder waits."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(folder.suffix + ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel lets go of it when we die
        yield


def fetched(name: str, pom: Path, do: str, failure: Failure) -> Path:
    """The folder in the cache with the jars of a pom in `libs`, made now if it is not there or of another pom.

    Raises `failure`: Java or Maven is missing, or the download fails.
    """
    folder = cache_folder(name)
    made_from = folder / "pom.xml"
    with one_at_a_time(folder):
        if made_from.exists() and made_from.read_bytes() == pom.read_bytes():
            return folder
        check_java(tool("java", do, failure), do, failure)
        log.info("fetching %s into %s", name, folder)
        shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f"{name}.", dir=folder.parent) as temporary:
            new = Path(temporary, "new")
            new.mkdir()
            download(pom, new / "libs", f"the jars of {name}", do, failure)
            shutil.copy(pom, new / "pom.xml")
            new.rename(folder)
    return folder


def download(pom: Path, libs: Path, what: str, do: str, failure: Failure) -> None:
    goal = ["-q", "-B", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    run([tool("mvn", do, failure), *goal, f"-DoutputDirectory={libs}"], f"download {what}", do, failure)


def run(argv: list[str], what: str, do: str, failure: Failure) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise failure(f"cannot {what} within {DOWNLOAD_TIMEOUT_S:g} s", do=do) from None
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise failure(f"cannot {what}: {Path(argv[0]).name} ended with code {done.returncode}:\n{tail}")


def tool(name: str, do: str, failure: Failure) -> str:
    """The path of `java` or `mvn`; installed first where we may: root, Debian.

    Raises `failure`: if it is missing and cannot be installed.
    """
    java_home = os.environ.get("JAVA_HOME")
    in_java_home = Path(java_home, "bin", name) if java_home and name == "java" else None
    if in_java_home is not None and in_java_home.exists():
        return str(in_java_home)
    found = shutil.which(name)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get") is not None:
        _install()
        found = shutil.which(name)
    if found is None:
        raise failure(f"{name} is missing, so no server can be started here", do=do)
    return found


def check_java(java: str, do: str, failure: Failure) -> None:
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', shown)
    if version is None or int(version[1]) < JAVA_VERSION_MIN:
        first_line = shown.strip().partition("\n")[0]
        raise failure(f"Java {JAVA_VERSION_MIN} or newer is needed", where=f"{java}: {first_line}", do=do)


def _install() -> None:
    log.warning("Java or Maven is missing; trying apt-get install %s maven", JAVA_PACKAGES[0])
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends"]
    attempts = [["apt-get", "update", "-q"], *([*install, java, "maven"] for java in JAVA_PACKAGES)]
    for attempt in attempts:
        done = subprocess.run(attempt, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0 and attempt[1] == "install":
            return
        if done.returncode != 0:
            log.warning("%s failed: %s", " ".join(attempt), done.stderr.strip()[-500:])
