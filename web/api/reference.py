"""/v1/docs: the description of /v1 as a page to read, and /verify.py. No script, no foreign host."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from markupsafe import Markup, escape

from web.assets import asset

router = APIRouter(include_in_schema=False)
script = APIRouter(include_in_schema=False)

HEAD: Final = Markup(
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
    '<link rel="stylesheet" href="{site}">\n<link rel="stylesheet" href="{docs}">\n</head>\n<body>\n'
    '<main>\n<div class="wide doc">\n<article>\n<p><a href="/">qubix</a></p>\n'
    "<h1>{title}</h1>\n<p>{text}</p>\n"
    '<p>The same for programs: <a href="/v1/openapi.json">openapi.json</a>. The script that checks'
    ' signatures: <a href="/verify.py">verify.py</a>.</p>\n'
)


@dataclass(frozen=True)
class Parameter:
    name: str
    place: str
    """path, query or header"""
    kind: str
    text: str
    example: str


@dataclass(frozen=True)
class Field:
    """Of an answer. `kind` may name a shape."""

    name: str
    kind: str
    text: str


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked."""

    method: str
    path: str
    group: str
    summary: str
    text: str
    parameters: tuple[Parameter, ...]
    answer: str
    """The shape's name; "" for a stream."""
    statuses: tuple[tuple[str, str], ...]


def reference(openapi: Mapping[str, Any]) -> tuple[list[Operation], dict[str, list[Field]]]:
    """(operations, shape -> fields) of a description."""
    operations = [
        _operation(method, path, told)
        for path, methods in openapi["paths"].items()
        for method, told in methods.items()
    ]
    shapes = openapi["components"]["schemas"]
    return operations, {name: list(_fields(told)) for name, told in sorted(shapes.items())}


def _operation(method: str, path: str, told: Mapping[str, Any]) -> Operation:
    answers = told["responses"]
    schema = answers["200"]["content"].get("application/json", {}).get("schema", {})
    return Operation(
        method=method.upper(),
        path=path,
        group=told["tags"][0],
        summary=told["summary"],
        text=told.get("description", ""),
        parameters=tuple(map(_parameter, told.get("parameters", ()))),
        answer=_name(schema),
        statuses=tuple(
            (status, answer["description"]) for status, answer in sorted(told["responses"].items())
        ),
    )


def _parameter(told: Mapping[str, Any]) -> Parameter:
    schema = told["schema"]
    example = next(iter(schema.get("examples", [])), schema.get("default", ""))
    return Parameter(told["name"], told["in"], _kind(schema), told.get("description", ""), _text(example))


def _fields(told: Mapping[str, Any]) -> Iterator[Field]:
    for name, schema in told.get("properties", {}).items():
        yield Field(name, _kind(schema), schema.get("description", ""))


def _kind(schema: Mapping[str, Any]) -> str:
    """In words: "integer, 1 to 500", "list of Offer"."""
    if several := schema.get("anyOf"):
        return " or ".join(map(_kind, several))
    if "$ref" in schema:
        return _name(schema)
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if schema.get("items"):
        return f"list of {_kind(schema['items'])}"
    least, most = schema.get("minimum"), schema.get("maximum")
    bounds = f", {least} to {most}" if least is not None and most is not None else ""
    return f"{schema.get('type', 'value')}{bounds}"


def _name(schema: Mapping[str, Any]) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# --- the page ---------------------------------------------------------------------------------------


@router.get("/docs")
async def page(request: Request) -> Response:
    openapi = request.app.openapi()
    return Response("".join(_page(openapi)), media_type="text/html; charset=utf-8")


def _page(openapi: Mapping[str, Any]) -> Iterator[str]:
    operations, shapes = reference(openapi)
    yield HEAD.format(
        title=f"{openapi['info']['title']}: API",
        text=openapi["info"]["description"],
        site=asset("site.css"),
        docs=asset("docs.css"),
    )
    for one in operations:
        yield Markup("<h2><code>{} {}</code>: {}</h2>\n<p>{}</p>\n").format(
            one.method, one.path, one.summary, one.text
        )
        rows = [(_code(p.name), p.place, p.kind, p.text, _code(p.example)) for p in one.parameters]
        yield from _table(("Parameter", "In", "Type", "Meaning", "Example"), rows)
        yield from _table(("Status", "Meaning"), one.statuses)
        yield (
            Markup('<p>Answer: <a href="#{}">{}</a></p>\n').format(one.answer, one.answer)
            if one.answer
            else ""
        )
    for name, fields in shapes.items():
        yield Markup('<h2 id="{}">{}</h2>\n').format(name, name)
        told = [(_code(f.name), f.kind, f.text) for f in fields]
        yield from _table(("Field", "Type", "Meaning"), told)
    yield "</article>\n</div>\n</main>\n</body>\n</html>\n"


def _code(text: str) -> Markup:
    return Markup("<code>{}</code>").format(text) if text else Markup("")


def _table(heads: tuple[str, ...], rows: Any) -> Iterator[str]:
    if not rows:
        return
    titles = "".join(Markup('<th scope="col">{}</th>').format(head) for head in heads)
    yield f'<div class="scroll" tabindex="0">\n<table>\n<thead><tr>{titles}</tr></thead>\n<tbody>\n'
    for row in rows:
        yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n"
    yield "</tbody>\n</table>\n</div>\n"


@script.get("/verify.py")
async def verify() -> Response:
    """The script itself."""
    text = files("web").joinpath("verify.py").read_text("utf-8")
    return Response(text, media_type="text/x-python; charset=utf-8")
