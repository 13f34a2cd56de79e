"""`/docs`: the OpenAPI document as one page for people. No script, and nothing from anywhere else.

Who reads it may have a token at hand, and whoever's script ran in the page could use it; a machine without internet has
to show the page too. So it is plain HTML with its style inside, and the browser is told to load and run nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from starlette.responses import Response

Schema = Mapping[str, Any]
_STYLE: Final = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em }
code { overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% }
th, td { border-top: 1px solid #8886; padding: .3em .6em; text-align: left; vertical-align: top }
"""
_BOUNDS: Final = {
    "minimum": "from", "maximum": "to", "minLength": "characters at least", "maxLength": "characters at most",
    "minItems": "at least", "maxItems": "at most", "pattern": "matches",
}  # fmt: skip
HEADERS: Final = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def answer(document: Schema) -> Response:
    """The page, with the headers that keep it what it is."""
    return Response(page(document), headers=HEADERS, media_type="text/html")


def page(document: Schema) -> str:
    """Every route and every schema of an OpenAPI document, as HTML."""
    title = escape(document["info"]["title"])
    schemas = document["components"]["schemas"]
    return "\n".join(
        (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            *(_prose(part) for part in document["info"]["description"].split("\n\n")),
            '<p>For programs: <a href="openapi.json">openapi.json</a>.</p>',
            *(_route(path, method, said) for path, by in document["paths"].items() for method, said in by.items()),
            *(_schema(name, schemas[name]) for name in sorted(schemas)),
            "</body></html>\n",
        )
    )


def _route(path: str, method: str, said: Schema) -> str:
    asked = [(_code(p["name"]), f"{p['in']}: {_kind(p['schema'])}", _text(p)) for p in said.get("parameters", ())]
    if "requestBody" in said:
        asked.append(("body", _content(said["requestBody"]), ""))
    if "security" in said:
        asked.append((_code("Authorization"), f"header: {_code('Bearer TOKEN')}", ""))
    answers = [(_code(status), _text(each), _content(each)) for status, each in said["responses"].items()]
    return "\n".join(
        (
            f"<h2>{_code(f'{method.upper()} {path}')}</h2>",
            f"<p>{escape(said['summary'])}.</p>{_prose(said.get('description', ''))}",
            _table(("asked", "what", "means"), asked),
            _table(("answer", "means", "body"), answers),
        )
    )


def _schema(name: str, said: Schema) -> str:
    required = said.get("required", ())
    rows = [
        (
            _code(field),
            _kind(each) + (f"; {_code(_json(each['default']))} unless said" if "default" in each else ""),
            _text(each) + (" (required)" if field in required else ""),
        )
        for field, each in said.get("properties", {}).items()
    ]
    return "\n".join(
        (
            f'<h2 id="{escape(name)}">{escape(name)}</h2>',
            _prose(said.get("description", "")),
            _table(("field", "is", "means"), rows),
        )
    )


def _kind(schema: Schema) -> str:
    """What a value is, in a few words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    for several in ("oneOf", "anyOf"):
        if several in schema:
            return " or ".join(_kind(each) for each in schema[several])
    if "const" in schema:
        return _code(_json(schema["const"]))
    if "enum" in schema:
        return " or ".join(_code(_json(each)) for each in schema["enum"])
    of = f" of {_kind(schema['items'])}" if "items" in schema else ""
    return ", ".join((f"{escape(str(schema.get('type', 'anything')))}{of}", *_bounds(schema)))


def _bounds(schema: Schema) -> Iterator[str]:
    for key, words in _BOUNDS.items():
        if key in schema:
            yield f"{words} {_code(_json(schema[key]))}"


def _content(said: Schema) -> str:
    return " or ".join(
        f"{_code(media_type)}: {_kind(each['schema'])}" for media_type, each in said.get("content", {}).items()
    )


def _json(value: Any) -> str:
    """As it is written in JSON, but for a text's quotes and a whole number's point."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [("th", heads), *(("td", row) for row in rows)]
    return f"<table>{''.join(f'<tr>{_cells(kind, cells)}</tr>' for kind, cells in lines)}</table>"


def _cells(kind: str, cells: tuple[str, ...]) -> str:
    return "".join(f"<{kind}>{cell}</{kind}>" for cell in cells)


def _text(said: Schema) -> str:
    return escape(said.get("description", ""))


def _prose(text: str) -> str:
    return f"<p>{escape(text)}</p>" if text else ""


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"
