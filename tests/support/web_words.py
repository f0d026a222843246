"""Every sentence of the pages, as Babel finds it. `python -m tests.support.web_words` prints, ready for a
catalogue, what Portuguese lacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from babel.messages.extract import extract

from protocol.catalogue import USE_CASES
from protocol.query import FIELDS
from protocol.templates import TEMPLATES
from web import words
from web.pages.docs import GROUPS
from web.pages.score_words import SAID
from web.plan import plan_of

WEB: Final = Path(words.FOLDER).parent
IN_PYTHON: Final[dict[str, Any]] = {"say": None, "many": (1, 2)}
IN_TEMPLATES: Final[dict[str, Any]] = {"_": None, "many": (1, 2)}

Message = str | tuple[str, str]
"""A sentence, or one with its plural."""


def sentences() -> dict[Message, str]:
    """Each with the file where it stands."""
    found: dict[Message, str] = {}
    for path in sorted((WEB / "templates").glob("**/*.html")):
        found |= dict.fromkeys(_in(path, "jinja2.ext:babel_extract", IN_TEMPLATES), path.name)
    for path in sorted([*(WEB / "pages").glob("*.py"), WEB / "words/__init__.py"]):
        found |= dict.fromkeys(_in(path, "python", IN_PYTHON), path.name)
    return found | dict(_of_variables())


def _of_variables() -> Iterator[tuple[Message, str]]:
    """What pages say of things that are described elsewhere."""
    yield from ((field.description, "protocol/query.py") for field in FIELDS.values())
    yield from ((template.title, "protocol/templates.py") for template in TEMPLATES.values())
    for use in USE_CASES.values():
        told = (use.group_title, use.title, use.why, use.connection)
        yield from ((text, "protocol/catalogue.py") for text in told)
    yield from ((title, "web/pages/docs.py") for title in GROUPS)
    yield from ((said, "web/pages/score_words.py") for said in SAID)
    for field in ("hours", "budget", "cpus", "memory", "disk"):
        plan = plan_of({"use": "docker", "gpu": "none", field: "nothing"})
        assert plan is not None
        yield plan.faults[field], "web/plan.py"


def _in(path: Path, method: str, keywords: dict[str, Any]) -> Iterator[Message]:
    with path.open("rb") as file:
        options = {"silent": "false", "trimmed": "true"} if method != "python" else {}
        for _, message, _, _ in extract(method, file, keywords, (), options):
            yield message if isinstance(message, str) else (message[0], message[1])


def missing(language: str) -> dict[Message, str]:
    """What no catalogue of the language has."""
    known = {message.id for part in words.catalogues(language) for message in part if message.string}
    return {message: where for message, where in sentences().items() if message not in known}


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


if __name__ == "__main__":
    for message, where in missing("pt").items():
        if isinstance(message, str):
            print(f'# {where}\nmsgid {_quoted(message)}\nmsgstr ""\n')
        else:
            one, others = map(_quoted, message)
            print(f'# {where}\nmsgid {one}\nmsgid_plural {others}\nmsgstr[0] ""\nmsgstr[1] ""\n')
