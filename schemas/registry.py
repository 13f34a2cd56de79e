"""A schema registry, as Confluent's REST API has it: three calls, by the standard library's HTTP.

confluent-kafka's own client would bring authlib, httpx, cachetools and more; these calls are all that is wanted. It
answers or raises within `timeout_s`, follows no redirect, and reads no more than a schema's size.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from typing import Any, Final, Protocol
from urllib.parse import quote, urlsplit

from schemas.config import Registry
from schemas.errors import RegistryError

_ANSWER_BYTES_MAX: Final = 1 << 20
_NOT_FOUND: Final = 404
_INCOMPATIBLE: Final = 409
_TYPE: Final = "application/vnd.schemaregistry.v1+json"


class Schemas(Protocol):
    """What the wire format needs of a registry."""

    def id_of(self, subject: str, text: str) -> int:
        """The schema's id; raises RegistryError."""

    def text_of(self, number: int) -> str | None:
        """The schema of an id; None: there is none. Raises RegistryError."""


class SchemaRegistry:
    """One registry; raises RegistryError when a file that it needs cannot be read."""

    def __init__(self, settings: Registry) -> None:
        self._url = urlsplit(settings.url)
        self._where = f"{self._url.scheme}://{self._url.netloc}"
        self._timeout_s, self._registers = settings.timeout_ms / 1000, settings.register_schemas
        self._headers = {"Content-Type": _TYPE, "Accept": f"{_TYPE}, application/json"}
        try:
            if settings.credentials_file is not None:
                user = settings.credentials_file.read_text().strip()
                self._headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
            is_tls = self._url.scheme == "https"
            self._tls = ssl.create_default_context(cafile=settings.ca_file) if is_tls else None
        except OSError as error:
            raise RegistryError(str(error), where="[registry]") from None

    def id_of(self, subject: str, text: str) -> int:
        """Registered now when it is not, if that is configured."""
        path = f"/subjects/{quote(subject, safe='')}" + ("/versions" if self._registers else "")
        status, answer = self._ask("POST", path, {"schema": text})
        if status == _NOT_FOUND and not self._registers:
            raise RegistryError(
                f"{subject} has no such schema", where=self._where, do="`proxima topics register` registers all"
            )
        return self._number(status, answer, subject)

    def has(self, subject: str, text: str) -> bool:
        """Whether the schema is registered under the subject; registers nothing."""
        status, answer = self._ask("POST", f"/subjects/{quote(subject, safe='')}", {"schema": text})
        if status == _NOT_FOUND and "error_code" in answer:  # else it is the address that is not found
            return False
        return self._number(status, answer, subject) >= 0

    def text_of(self, number: int) -> str | None:
        """None as well when it is no Avro schema: JSON schemas and protobuf have ids too."""
        status, answer = self._ask("GET", f"/schemas/ids/{number}", None)
        if status == _NOT_FOUND:
            return None
        text = answer.get("schema")
        if status != http.HTTPStatus.OK or not isinstance(text, str):
            raise self._strange(status, answer)
        return text if answer.get("schemaType", "AVRO") == "AVRO" else None

    def keep_compatible(self, subject: str) -> None:
        """From now on the registry itself refuses what a reader or a writer of any version would not understand."""
        path = f"/config/{quote(subject, safe='')}"
        status, answer = self._ask("PUT", path, {"compatibility": "FULL_TRANSITIVE"})
        if status != http.HTTPStatus.OK:
            raise self._strange(status, answer)

    def _number(self, status: int, answer: dict[str, Any], subject: str) -> int:
        if status == _INCOMPATIBLE:
            raise RegistryError(
                f"{subject}: not compatible with a schema that is registered under this name", where=self._where
            )
        number = answer.get("id")
        if status != http.HTTPStatus.OK or not isinstance(number, int) or not 0 <= number < 1 << 32:
            raise self._strange(status, answer)
        return number

    def _strange(self, status: int, answer: dict[str, Any]) -> RegistryError:
        said = str(answer.get("message", ""))[:200]
        return RegistryError(f"the schema registry answers {status} {said}".rstrip(), where=self._where)

    def _ask(self, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        netloc = self._url.netloc
        connection = (
            http.client.HTTPConnection(netloc, timeout=self._timeout_s)
            if self._tls is None
            else http.client.HTTPSConnection(netloc, timeout=self._timeout_s, context=self._tls)
        )
        try:
            content = None if body is None else json.dumps(body).encode()
            connection.request(method, self._url.path.rstrip("/") + path, content, self._headers)
            answer = connection.getresponse()
            text = answer.read(_ANSWER_BYTES_MAX)
            found = json.loads(text) if text else {}
        except (OSError, http.client.HTTPException) as error:
            what = f"no schema registry answers: {getattr(error, 'strerror', None) or type(error).__name__}"
            raise RegistryError(what, where=self._where, do="start it, or look at [registry] url") from None
        except ValueError:
            raise RegistryError(
                f"answers {answer.status}, but no JSON: is it a schema registry?", where=self._where
            ) from None
        finally:
            connection.close()
        return answer.status, found if isinstance(found, dict) else {}
