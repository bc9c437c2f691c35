"""The manual of the interface: the OpenAPI description as one page without scripts.

FastAPI's own page loads its program from another site, which an investigator's machine may not
reach and the page's policy forbids.
"""

import html
import json
from collections.abc import Sequence
from typing import Any

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>scalefp: the interface</title>
<link rel="icon" href="icon.svg">
<link rel="stylesheet" href="page.css">
</head>
<body>
<main class="manual">
"""
FOOT = "</main>\n</body>\n</html>\n"
EXAMPLES = {
    "/attribute": "curl -F images=@a.png -F images=@b.png 'URL/attribute?same_source=true'",
    "/decode": "curl -F images=@a.png URL/decode",
    "/keys post": 'curl -H "Authorization: Bearer $TOKEN" --json \'{"holder": "a"}\' URL/keys',
    "/keys": "curl URL/keys",
    "/health": "curl URL/health",
}


def escape(text: object) -> str:
    return html.escape(str(text))


def kind(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in schema:
        return " or ".join(kind(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {kind(schema.get('items', {}))}"
    if "contentMediaType" in schema or schema.get("format") == "binary":
        return "file"
    return str(schema.get("type", "anything"))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already."""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table>{body}</table></div>' if rows else ""


def schema_rows(schema: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (
            f"<code>{escape(name)}</code>",
            escape(kind(field)),
            escape(field.get("description", "")),
        )
        for name, field in schema.get("properties", {}).items()
    ]


def operation(path: str, method: str, described: dict[str, Any], schemas: dict[str, Any]) -> str:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2>"]
    parts.append(f"<p>{escape(described['summary'])}.</p>")
    example = EXAMPLES.get(f"{path} {method}", EXAMPLES.get(path, ""))
    parts.append(f"<pre>{escape(example)}</pre>")
    rows = [
        (
            f"<code>{escape(one['name'])}</code>",
            escape(kind(one["schema"])),
            escape(one.get("description", "")),
            f"default {escape(json.dumps(one['schema']['default']))}",
        )
        for one in described.get("parameters", [])
    ]
    if rows:
        parts.append(f"<h3>Options, in the query</h3>{table(rows)}")
    for media, content in described.get("requestBody", {}).get("content", {}).items():
        schema = schemas[kind(content["schema"])]
        parts.append(f"<h3>Body, {escape(media)}</h3>{table(schema_rows(schema))}")
    answers = []
    for status, answer in sorted(described["responses"].items()):
        schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
        note = answer["description"] if int(status) >= 400 else ""
        answers.append((f"<code>{escape(status)}</code>", escape(kind(schema)), escape(note)))
    parts.append(f"<h3>Answers</h3>{table(answers)}")
    return "\n".join(parts)


def manual(openapi: dict[str, Any]) -> str:
    """The page, from the OpenAPI description."""
    schemas: dict[str, Any] = openapi["components"]["schemas"]
    parts = [
        "<h1>The interface</h1>",
        f"<p>{escape(openapi['info']['description'])}</p>",
        '<p>For programs: <a href="openapi.json">openapi.json</a>. For people: '
        '<a href="./">the page</a>.</p>',
    ]
    for path, methods in openapi["paths"].items():
        parts += [operation(path, method, one, schemas) for method, one in methods.items()]
    parts.append("<h2>What is in the answers</h2>")
    bodies = {name: schema for name, schema in schemas.items() if not name.startswith("Body_")}
    for name, schema in bodies.items():
        parts.append(f"<h3>{escape(name)}</h3>")
        if "description" in schema:
            parts.append(f"<p>{escape(schema['description'])}</p>")
        parts.append(table(schema_rows(schema)))
    return HEAD + "\n".join(parts) + FOOT
