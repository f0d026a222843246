"""JSON Schemas of the control API's messages and of what the verbs print with `--json`: docs/schemas.

python -m tui.schema_pages         writes them anew; a test says when that is due
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol import control
from protocol.control import LeaseView, RunEvent
from protocol.control_compare import FieldChange
from protocol.control_meters import SampleView
from protocol.control_network import NetworkView
from protocol.control_schedule import PreviewView
from protocol.control_tunnels import ForwardEvent
from protocol.control_wallet import PaymentView
from tui.import_file import Note

FOLDER: Final = Path(__file__).parents[1] / "docs" / "schemas"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
REF: Final = "#/$defs/{name}"
Shape = Any
"""A type, or an object's fields, each a Shape, or a list of one Shape."""

ERROR: Final[Shape] = {"error": {"code": str, "message": str}}
KEY: Final[Shape] = {
    "name": str,
    "public": str,
    "fingerprint": str,
    "identity": str,
    "made": bool,
    "used": bool,
}
READY: Final[Shape] = {
    "ready": bool,
    "control": str,
    "addresses": list[str],
    "peer_id": str,
    "identity": str,
    "runner": str,
}
COPIED: Final[Shape] = {
    "copied": int,
    "unchanged": int,
    "left_out": int,
    "failed": int,
    "bytes": int,
    "seconds": float,
}
EVENT: Final[Shape] = {"event": RunEvent}
RUN: Final[tuple[Shape, ...]] = (EVENT, LeaseView, {"job_yaml": str})
NO_JSON: Final = ("attach", "connect", "exec", "ssh", "tui")
"""Verbs whose output is what somebody else writes, byte for byte, or a screen."""

LINES: Final[Mapping[str, tuple[Shape, ...]]] = {
    "up": ({**READY, "pid": int, "log": str, "private": dict[str, Any] | None}, READY),
    "offer": (control.ANSWERS["offer"], PreviewView),
    "status": (control.StatusView, NetworkView),
    "score": (control.ANSWERS["score"], dict[str, Any]),
    "run": RUN,
    "stop": (LeaseView,),
    "pause": (LeaseView,),
    "resume": (LeaseView,),
    "restart": (LeaseView,),
    "down": (control.Done,),
    "logs": ({"log": str}, {"lease": str, "bytes": int}),
    "metrics": (control.ANSWERS["metrics"], {"sample": SampleView}),
    "apply": ({"apply": {"action": str, "lease": LeaseView | None, "changes": list[FieldChange]}}, *RUN),
    "wallet": (
        control.ANSWERS["wallet"],
        PaymentView,
        control.ANSWERS["history"],
        {"identity": str},
        {"identity": str, "keystore": str},
    ),
    "import": ({"job_yaml": str, "file": str, "source": str, "notes": list[Note]},),
    "images": (dict[str, bool], dict[str, str]),
    "devnet": ({"ended": int}, dict[str, Any]),
    "demo": (dict[str, Any],),
    "relay": (control.ANSWERS["relay"], EVENT, LeaseView),
    "forward": ({"event": ForwardEvent}, control.ANSWERS["forward"]),
    "open": ({"url": str, "local_port": int, "name": str},),
    "keys": (KEY, {"keys": [KEY]}),
    "ssh-config": ({"hosts": [{"host": str, "lease_id": str}], "config": str, "included": bool},),
    "cp": (
        {"file": str, "bytes": int},
        {"unchanged": str, "bytes": int},
        {"left_out": str, "why": str},
        {"failed": str, "code": str, "message": str},
        COPIED,
    ),
    "completion": ({"shell": str, "script": str},),
    "web": ({"url": str}, control.ANSWERS["mirror"]),
    **{verb: (control.ANSWERS[verb],) for verb in ("doctor", "provider", "market", "why", "deny")},
    **{verb: (control.ANSWERS[verb],) for verb in ("stake", "directories", "ps", "extend", "notices")},
}
"""Verb of the command -> what a line of its standard output may be, with `--json`; beside ERROR, which is
the last line of any that fails."""


def pages() -> dict[str, dict[str, Any]]:
    """File name -> schema, of all of them."""
    return {"control.json": _control(), "cli.json": _cli()}


def _control() -> dict[str, Any]:
    """Under `verbs`, of each verb the schemas of its arguments, events and answer."""
    parts = {"args": control.VERBS, "event": control.EVENTS, "ok": control.ANSWERS}
    kinds = sorted({kind for part in parts.values() for kind in part.values()}, key=str)
    schemas, definitions = msgspec.json.schema_components(kinds, ref_template=REF)
    known = dict(zip(kinds, schemas, strict=True))
    verbs = {
        verb: {name: known[part[verb]] for name, part in parts.items() if verb in part}
        for verb in control.VERBS
    }
    title = f"The control API, version {control.API_VERSION}"
    return {"$schema": DIALECT, "title": title, "verbs": verbs, "$defs": dict(sorted(definitions.items()))}


def _cli() -> dict[str, Any]:
    """Under `lines`, of each verb the schema of one line of its output."""
    leaves = [leaf for shapes in LINES.values() for shape in (*shapes, ERROR) for leaf in _leaves(shape)]
    schemas, definitions = msgspec.json.schema_components(leaves, ref_template=REF)
    known = {str(leaf): schema for leaf, schema in zip(leaves, schemas, strict=True)}
    lines = {
        verb: {"anyOf": [_schema(shape, known) for shape in (*shapes, ERROR)]}
        for verb, shapes in sorted(LINES.items())
    }
    title = "What the verbs print with --json: each line of standard output is one of these"
    return {"$schema": DIALECT, "title": title, "lines": lines, "$defs": dict(sorted(definitions.items()))}


def _leaves(shape: Shape) -> Iterator[Any]:
    """The types in a shape."""
    if isinstance(shape, dict | list):
        for inner in shape.values() if isinstance(shape, dict) else shape:
            yield from _leaves(inner)
    else:
        yield shape


def _schema(shape: Shape, known: Mapping[str, Any]) -> Any:
    """`known`: of each type, by its name."""
    if isinstance(shape, dict):
        fields = {name: _schema(one, known) for name, one in shape.items()}
        return {"type": "object", "properties": fields, "required": list(fields)}
    if isinstance(shape, list):
        return {"type": "array", "items": _schema(shape[0], known)}
    return known[str(shape)]


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    for name, schema in pages().items():
        (FOLDER / name).write_text(written(schema))
    sys.stdout.write(f"{FOLDER}\n")
    return 0


def written(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(main())
