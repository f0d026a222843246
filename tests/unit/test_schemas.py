"""The schemas in docs/schemas: written from the messages, and held against what the verbs really print."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from protocol import control
from tests.support.control_server import Reply, control_server
from tests.support.values import sample
from tui import cli, schema_pages
from tui.verb_table import VERBS

COMPOSE = Path(__file__).parents[1] / "support" / "imports" / "train.compose.yml"
DOCS = {name: json.loads((schema_pages.FOLDER / name).read_text()) for name in ("control.json", "cli.json")}


def strict(document: dict[str, Any], schema: Any) -> jsonschema.Draft202012Validator:
    """The schema with every field required and no other allowed: so that a wrong shape is found here,
    while programs go on to ignore what they do not know."""
    whole = copy.deepcopy({"$schema": document["$schema"], "$defs": document["$defs"], **schema})
    pending: list[Any] = [whole]
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            if "properties" in one and one.get("type") == "object":
                one |= {"required": list(one["properties"]), "additionalProperties": False}
            pending += one.values()
        elif isinstance(one, list):
            pending += one
    return jsonschema.Draft202012Validator(whole)


@pytest.mark.parametrize("name", DOCS)
def test_the_files_are_what_the_messages_say(name: str) -> None:
    """Write them anew with `python -m tui.schema_pages`."""
    made = schema_pages.pages()[name]
    assert (schema_pages.FOLDER / name).read_text() == schema_pages.written(made)
    jsonschema.Draft202012Validator.check_schema({"$defs": made["$defs"]})


@pytest.mark.parametrize("verb", control.VERBS)
def test_messages_of_the_control_api_fit_their_schemas(verb: str) -> None:
    document, found = DOCS["control.json"], DOCS["control.json"]["verbs"][verb]
    kinds = {"args": control.VERBS[verb], "ok": control.ANSWERS[verb]}
    kinds |= {"event": control.EVENTS[verb]} if verb in control.EVENTS else {}
    assert found.keys() == kinds.keys()
    for part, kind in kinds.items():
        body = msgspec.to_builtins(sample(kind))
        strict(document, found[part]).validate(body)
        with pytest.raises(jsonschema.ValidationError):
            strict(document, found[part]).validate({**body, "never": 1})


def test_every_verb_of_the_command_has_one_or_says_why_not() -> None:
    assert set(schema_pages.LINES) | set(schema_pages.NO_JSON) == set(VERBS)
    assert not set(schema_pages.LINES) & set(schema_pages.NO_JSON)
    assert DOCS["cli.json"]["lines"].keys() == schema_pages.LINES.keys()


# --- what is really printed -----------------------------------------------------------------------


def answered(verb: str, args: Any) -> Iterator[Reply]:
    if verb in control.EVENTS:
        yield {"event": control.to_body(sample(control.EVENTS[verb]))}
    answer = control.to_body(sample(control.ANSWERS[verb]))
    if verb == "compare":
        answer["leases"] = answer["leases"][:1]  # of two of a name none is chosen
    yield {"ok": answer}


def refused(verb: str, args: Any) -> Iterator[Reply]:
    yield {"error": {"code": "lease.unknown", "message": "no lease here begins so", "exit_code": 2}}


COMMANDS = [
    ["status"],
    ["doctor"],
    ["provider"],
    ["provider", "pause"],
    ["offer", "--price", "5"],
    ["market"],
    ["why"],
    ["score", "alice"],
    ["deny", "list"],
    ["stake"],
    ["directories"],
    ["run", "job.yaml", "--yes"],
    ["run", "--dry-run", "--image", "x", "--", "true"],
    ["apply", "-f", "job.yaml", "--yes"],
    ["apply", "-f", "job.yaml", "--diff"],
    ["import", str(COMPOSE)],
    ["ps", "-a"],
    ["logs", "abcd"],
    ["metrics", "abcd"],
    ["metrics", "abcd", "--follow"],
    ["stop", "abcd"],
    ["pause", "abcd"],
    ["resume", "abcd"],
    ["restart", "abcd"],
    ["wallet"],
    ["wallet", "history"],
    ["notices"],
    ["wallet", "send", "A" * 60, "5"],
    ["relay"],
    ["keys"],
    ["completion", "bash"],
    ["down"],
]


def printed(home: Path, words: list[str], capsys: pytest.CaptureFixture[str], replies: Any) -> list[Any]:
    with control_server(home / "control.sock", replies):
        cli.main(["--json", "--data-dir", str(home), *words])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "job.yaml").write_text("name: mine\nresources: {image: 'x:1'}\nmax_hours: 1\nrun: 'true'\n")
    return tmp_path


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_what_is_printed_fits(home: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    document = DOCS["cli.json"]
    lines = printed(home, words, capsys, answered)
    assert lines, "nothing was printed"
    for line in lines:
        assert "error" not in line, line
        strict(document, document["lines"][words[0]]).validate(line)


@pytest.mark.parametrize("words", [["ps"], ["stop", "abcd"], ["market"]], ids=" ".join)
def test_an_error_fits(home: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    document = DOCS["cli.json"]
    (line,) = printed(home, words, capsys, refused)
    assert line["error"]["code"] == "lease.unknown"
    strict(document, document["lines"][words[0]]).validate(line)
