"""Who asks: tokens, of which only digests are kept, each bound to one source's name, with its scopes and its rate.

    tokens.json   {"tokens": [{"token_id": "3f0c...", "sha256": "9a1b...", "source": "cdn-logs", ...}]}

A token is `px_ID_SECRET`. The id finds its row, the secret's SHA-256 is compared in constant time: 256 bits of chance
need no slow hash (nobody can try them), and a slow one would be a way to keep us busy. A file is replaced as a whole,
by one command at a time, and read again when it changes, so a token that is revoked is worth nothing a second later.
Whoever may write the file can give himself a token: one that anybody may write is not read.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from schemas.errors import ConfigError
from schemas.validate import METRICS, REGION_ID, SOURCE

log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 0.1
_AGAIN_S: Final = 1.0  # a file that cannot be read may be long, and is tried at each look
_UNKNOWN: Final = hashlib.sha256(secrets.token_bytes(32)).hexdigest()  # what an unknown id is compared with


class Token(BaseModel):
    """One row: what its bearer may do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    token_id: str = Field(pattern="^[0-9a-f]{16}$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the secret")
    source: str = Field(pattern=f"^{SOURCE.pattern}$", description="the name that all its metrics carry")
    primaries: tuple[str, ...] = Field((), description="it may inject about, and read; none: all")
    metrics: tuple[str, ...] = Field((), description="it may inject; none: all")
    injects: bool = True
    reads: bool = True
    records_per_s: float = Field(100.0, gt=0, le=1e6)
    burst: int = Field(1000, ge=1, le=1_000_000, description="records at once")

    @field_validator("primaries")
    @classmethod
    def _regions(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [name for name in names if not REGION_ID.fullmatch(name)]:
            raise ValueError(f"{wrong[0]!r} is no region id")
        return names

    @field_validator("metrics")
    @classmethod
    def _metrics(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [name for name in names if name not in METRICS]:
            raise ValueError(f"{wrong[0]!r} is unknown: one of {', '.join(METRICS)}")
        return names

    def may_see(self, primary: str) -> bool:
        """Whether this primary is within its scope."""
        return not self.primaries or primary in self.primaries


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tokens: list[Token]


def new_token(source: str, **scopes: Any) -> tuple[str, Token]:
    """A token and its row. The token is shown once; nobody can find it again. Raises ConfigError."""
    token_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    try:
        row = Token(token_id=token_id, sha256=_digest(secret), source=source, **scopes)
    except ValidationError as error:
        raise ConfigError(_mistakes(error), where="token") from None
    return f"px_{token_id}_{secret}", row


def read_tokens(path: Path) -> list[Token]:
    """The rows of a file; raises ConfigError: there is none, or it is wrong."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                what = "anybody may write it, and so give himself a token"
                raise ConfigError([what], where=str(path), do="look at what is in it, then `chmod o-w`")
            rows = _File.model_validate(json.load(file)).tokens
    except FileNotFoundError:
        what = "there is no such file"
        raise ConfigError([what], where=str(path), do="`proxima gateway token new` makes it") from None
    except ValidationError as error:
        raise ConfigError(_mistakes(error), where=str(path)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError([str(error)], where=str(path)) from None
    if len({row.token_id for row in rows}) < len(rows):
        raise ConfigError(["a token_id is given twice"], where=str(path))
    return rows


def change_tokens(path: Path, change: Callable[[list[Token]], list[Token]]) -> None:
    """Replace the file's rows (none: there is no file yet) by what `change` makes of them; one at a time does it.

    Raises ConfigError, and what `change` raises.
    """
    with _alone(path.resolve().parent):
        write_tokens(path, change(read_tokens(path) if path.exists() else []))


def write_tokens(path: Path, rows: list[Token]) -> None:
    """Replace the file as a whole, with the owner and the mode that it had; a link to it stays one.

    Of a new one only its owner may read it, and its group where the folder is a group's (setgid). Raises ConfigError.
    """
    path = path.resolve()
    text = json.dumps({"tokens": [row.model_dump(mode="json") for row in rows]}, indent=2) + "\n"
    number, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # 0600
    try:
        if path.exists():
            _become(number, path)
        elif path.parent.stat().st_mode & stat.S_ISGID:
            os.fchmod(number, 0o640)
        with os.fdopen(number, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(number)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class TokenBook:
    """The tokens of a file, read again when it changes; a file that has become wrong leaves them as they were."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError: the file is not there, or wrong."""
        self._path = path
        self._rows: Mapping[str, Token] = {}
        self._stamp = _stamp(path)
        self._look_at_s = time.monotonic() + _LOOK_EVERY_S
        self._trouble = ""
        self._rows = {row.token_id: row for row in read_tokens(path)}

    @property
    def is_stale(self) -> bool:
        """Whether the file cannot be read now, so that those of before count, whoever has been revoked."""
        self._look()
        return bool(self._trouble)

    def find(self, text: str) -> Token | None:
        """The row of a token as it was sent; None: there is none."""
        self._look()
        kind, _, rest = text.partition("_")
        token_id, _, secret = rest.partition("_")
        row = self._rows.get(token_id) if kind == "px" else None
        same = hmac.compare_digest(_digest(secret), row.sha256 if row is not None else _UNKNOWN)
        return row if same else None

    def _look(self) -> None:
        now_s = time.monotonic()
        if now_s < self._look_at_s:
            return
        self._look_at_s, stamp = now_s + _LOOK_EVERY_S, _stamp(self._path)
        if stamp == self._stamp and not self._trouble:
            return
        try:
            self._rows = {row.token_id: row for row in read_tokens(self._path)}
        except ConfigError as error:
            if str(error) != self._trouble:
                log.error("the tokens stay as they were, and who is revoked since is not: %s", error)
            self._look_at_s, self._trouble = now_s + _AGAIN_S, str(error)
        else:
            self._stamp, self._trouble = stamp, ""
            log.info("%s: %d tokens", self._path, len(self._rows))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Whoever changes a file of this folder waits for the others. Of the file itself each change makes another one."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _become(number: int, path: Path) -> None:
    """Give an open file owner, group and mode of another. Raises ConfigError: they are not ours to give."""
    own, other = os.fstat(number), path.stat()
    if (own.st_uid, own.st_gid) != (other.st_uid, other.st_gid):
        try:
            os.fchown(number, other.st_uid, other.st_gid)
        except PermissionError:
            what = "its owner and group cannot be kept, so whoever reads it now could not any more"
            raise ConfigError([what], where=str(path), do="run this as its owner, or as root") from None
    os.fchmod(number, stat.S_IMODE(other.st_mode))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size  # of ctime: the mode is there again


def _mistakes(error: ValidationError) -> list[str]:
    found = error.errors(include_url=False, include_input=False)
    return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in found]
