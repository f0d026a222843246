"""The description of /v1 as lists that a page can show (web/pages/reference.py), and /verify.py."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple

from fastapi import APIRouter, Response

script = APIRouter(include_in_schema=False)


class Parameter(NamedTuple):
    name: str
    place: str
    """path, query or header"""
    kind: str
    text: str
    example: str


class Field(NamedTuple):
    """Of an answer. `kind` may name a shape."""

    name: str
    kind: str
    text: str


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked."""

    method: str
    path: str
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


@script.get("/verify.py")
async def verify() -> Response:
    """The script itself."""
    text = files("web").joinpath("verify.py").read_text("utf-8")
    return Response(text, media_type="text/x-python; charset=utf-8")
