"""`/docs`: the API's description as one page that loads nothing from other hosts.

FastAPI's own page loads its viewer from a public network, which a store's network may not reach.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from typing import Any, Final

_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;
color:#1b1f24;background:#fff}
h1{font-size:1.6rem}h2{margin-top:2.5rem;border-bottom:1px solid #d0d7de}
details{border:1px solid #d0d7de;border-radius:6px;margin:.5rem 0;padding:.5rem .8rem}
summary{cursor:pointer}code,pre{font:13px/1.5 ui-monospace,monospace}
pre{overflow-x:auto;background:#f6f8fa;padding:.8rem;border-radius:6px}
table{border-collapse:collapse;margin:.5rem 0}td,th{border:1px solid #d0d7de;
padding:.25rem .6rem;text-align:left;vertical-align:top}
.verb{display:inline-block;min-width:4.2rem;font-weight:600}
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}pre{background:#161b22}
a{color:#6cb6ff}}
"""


def docs_page(schema: dict[str, Any]) -> str:
    """An HTML page of an OpenAPI description.

    Args:
        schema: the OpenAPI document.
    """
    title = _text(schema["info"]["title"])
    groups: dict[str, list[str]] = {}
    for path, verbs in schema["paths"].items():
        for verb, operation in verbs.items():
            group = (operation.get("tags") or ["other"])[0]
            groups.setdefault(group, []).append(_operation(path, verb, operation))
    body = "".join(
        f"<h2>{_text(group)}</h2>{''.join(operations)}" for group, operations in groups.items()
    )
    schemas = schema.get("components", {}).get("schemas", {})
    types = "".join(
        f'<details id="{_text(name)}"><summary><code>{_text(name)}</code></summary>'
        f"<p>{_text(kind.get('description', ''))}</p>{_properties(kind)}</details>"
        for name, kind in sorted(schemas.items())
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>{_text(schema['info'].get('description', ''))}</p>"
        '<p>The same as a file: <a href="/openapi.json">openapi.json</a></p>'
        f"{body}<h2>Types</h2>{types}</body></html>"
    )


def _operation(path: str, verb: str, operation: dict[str, Any]) -> str:
    description = operation.get("description", "").strip()
    first, _, rest = description.partition("\n\n")
    parts = [f"<p>{_text(rest)}</p>" if rest else ""]
    if parameters := operation.get("parameters"):
        rows = "".join(
            f"<tr><td><code>{_text(parameter['name'])}</code>"
            f"{' *' if parameter.get('required') else ''}</td><td>{_text(parameter['in'])}</td>"
            f"<td>{_type(parameter.get('schema', {}))}</td>"
            f"<td>{_text(parameter.get('description', ''))}</td></tr>"
            for parameter in parameters
        )
        parts.append(
            f"<table><tr><th>name</th><th>in</th><th>type</th><th></th></tr>{rows}</table>"
        )
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<p>Body, {_text(media)}: {_type(content.get('schema', {}))}</p>")
    answers = ", ".join(_answers(operation))
    return (
        f'<details><summary><span class="verb">{verb.upper()}</span> <code>{_text(path)}</code> '
        f"{_text(first)}</summary>{''.join(parts)}<p>Answers: {answers}</p></details>"
    )


def _answers(operation: dict[str, Any]) -> Iterator[str]:
    for status, response in operation.get("responses", {}).items():
        kinds = ", ".join(
            _type(content["schema"]) if content.get("schema") else _text(media)
            for media, content in response.get("content", {}).items()
        )
        yield f"{_text(status)} {kinds}".strip()


def _properties(kind: dict[str, Any]) -> str:
    if "enum" in kind:
        return f"<p>one of <code>{_text(', '.join(map(str, kind['enum'])))}</code></p>"
    required = set(kind.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{_text(name)}</code>{' *' if name in required else ''}</td>"
        f"<td>{_type(field)}</td><td>{_default(field)}</td>"
        f"<td>{_text(field.get('description', ''))}</td></tr>"
        for name, field in kind.get("properties", {}).items()
    )
    head = "<tr><th>name</th><th>type</th><th>default</th><th></th></tr>"
    return f"<table>{head}{rows}</table>" if rows else ""


def _default(field: dict[str, Any]) -> str:
    if "default" not in field or field["default"] is None:
        return ""
    return f"<code>{_text(json.dumps(field['default']))[:200]}</code>"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = _text(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(_type(one) for one in schema[several])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "const" in schema:
        return f"<code>{_text(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        return " or ".join(f"<code>{_text(json.dumps(value))}</code>" for value in schema["enum"])
    bounds = [
        f"{sign} {schema[key]}"
        for key, sign in (
            ("minimum", ">="),
            ("exclusiveMinimum", ">"),
            ("maximum", "<="),
            ("exclusiveMaximum", "<"),
        )
        if key in schema
    ]
    shown = schema.get("format", kind)
    return _text(f"{shown} {', '.join(bounds)}".strip())


def _text(value: object) -> str:
    return html.escape(str(value))
