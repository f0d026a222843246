"""A job put together from words (a form's fields, a command line) instead of a file; and that file's text.

    Draft(gpu="RTX4090:24GB:2", hours="2", command=command_line(["python", "train.py"]))

`job_yaml` writes what jobspec.parse reads, so the rules of a job are in one place only: every field is
checked by the parser itself, and what it says comes back under the name that the person gave. Pure.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import yaml

from protocol import jobspec
from protocol.errors import JobFileInvalid
from protocol.jobspec import Job
from protocol.ports import KINDS

CPU_IMAGE: Final = "python:3.12-slim"
"""Where neither an image nor a template is named and no GPU is wanted."""
GPU_TEMPLATE: Final = "pytorch"
"""The same with a GPU."""
FIELDS: Final[Mapping[str, str]] = {
    "name": "name",
    "gpu": "resources.gpu",
    "cpus": "resources.cpus",
    "memory": "resources.memory",
    "disk": "resources.disk",
    "image": "resources.image",
    "internet": "resources.internet",
    "template": "template",
    "setup": "setup",
    "command": "run",
    "hours": "max_hours",
    "budget": "budget",
    "max_price": "max_price",
    "idle_stop": "idle_stop",
    "restart": "restart",
    "restarts": "restarts",
    "ready": "ready",
    "ports": "ports",
    "envs": "envs",
    "secrets": "secrets",
    "files": "file_mounts",
    "outputs": "outputs",
    "filter": "filter",
}
"""Field of a draft -> field of the job file, in the order in which they are written."""
MONEY: Final = frozenset({"budget", "max_price"})


@dataclass(frozen=True)
class Draft:
    """Everything as it was typed; what is empty is left out of the file."""

    name: str = ""
    gpu: str = ""
    """model[:memory][:count], such as RTX4090:24GB:2; empty for none."""
    cpus: str = ""
    memory: str = ""
    disk: str = ""
    image: str = ""
    template: str = ""
    setup: str = ""
    command: str = ""
    """Lines for a shell; see command_line. Empty: what the template runs."""
    hours: str = ""
    budget: str = ""
    """QU in all; separators of thousands are allowed."""
    max_price: str = ""
    """QU per hour, all in."""
    idle_stop: str = ""
    restart: str = ""
    restarts: str = ""
    ready: str = ""
    internet: bool = False
    ports: tuple[str, ...] = ()
    """Such as 8888, 47998/udp, or 8888/http for one with a page."""
    envs: tuple[str, ...] = ()
    """NAME=VALUE."""
    secrets: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """PLACE-HERE or PLACE-HERE:PLACE-IN-THE-JOB."""
    outputs: tuple[str, ...] = ()
    filter: str = ""
    """Conditions on the provider, in the language of the market."""


_GOOD: Final = Draft(image="a", command="a")


def job_yaml(draft: Draft) -> str:
    """The job file. JobFileInvalid, whose `field` is the first that is wrong."""
    text = yaml.dump(_content(with_usual(draft)), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    check(text)
    return text


def check(text: str) -> Job:
    """What a job file made here says. JobFileInvalid with the field's name in a draft."""
    try:
        return jobspec.parse(text)
    except JobFileInvalid as error:
        raise _told(error) from error


def faults(draft: Draft) -> dict[str, str]:
    """Field -> what is wrong with it, of every field that is; empty for a good draft.

    Each is looked at by itself, so that one mistake does not hide the next.
    """
    problems = {field: _fault(field, getattr(draft, field)) for field in FIELDS}
    found = {field: problem for field, problem in problems.items() if problem}
    if not found:
        try:
            job_yaml(draft)
        except JobFileInvalid as error:
            found[error.field] = error.problem
    return found


@lru_cache(maxsize=1_024)
def _fault(field: str, value: Any) -> str:
    """What is wrong with one field; "" if nothing. Kept, because a form asks for all at every letter."""
    alone = replace(_GOOD, **{field: value or getattr(_GOOD, field)})
    try:
        check(yaml.dump(_content(alone), Dumper=_Dumper, sort_keys=False))
    except JobFileInvalid as error:
        return error.problem
    return ""


def with_usual(draft: Draft) -> Draft:
    """The draft with an image or a template, if it names neither."""
    if draft.image or draft.template:
        return draft
    return replace(draft, template=GPU_TEMPLATE) if draft.gpu else replace(draft, image=CPU_IMAGE)


def command_line(words: Sequence[str]) -> str:
    """Words of a command line as a line for a shell. A single one is that line already."""
    return words[0] if len(words) == 1 else shlex.join(words)


def files_named(words: Sequence[str], is_there: Callable[[str], bool]) -> tuple[str, ...]:
    """Of a command's words those that are files or folders here, so that they can come along: relative
    and below this folder, for only those are found under the same name in the job."""
    return tuple(dict.fromkeys(word for word in words if _is_below(word) and is_there(word)))


def _is_below(word: str) -> bool:
    return bool(word) and not {"", ".", ".."} & set(word.split("/")) and word[0] not in "-~"


# --- writing the file ---------------------------------------------------------------------------


def _content(draft: Draft) -> dict[str, Any]:
    """What the file holds. JobFileInvalid for words that cannot be put into one."""
    content: dict[str, Any] = {}
    for field, path in FIELDS.items():
        value = _value(draft, field)
        if value in ("", (), {}, [], False):
            continue
        table, _, key = path.rpartition(".")
        (content.setdefault(table, {}) if table else content)[key] = value
    return content


def _value(draft: Draft, field: str) -> Any:
    value = getattr(draft, field)
    if field == "internet":
        return "true" if value else ""
    if field == "envs":
        return dict(_pair(entry, "envs", "=", "NAME=VALUE") for entry in value)
    if field == "files":
        return _mounts(value)
    if field == "ports":
        return [_port(entry.strip()) for entry in value if entry.strip()]
    if isinstance(value, tuple):
        return [_printable(field, one.strip()) for one in value if one.strip()]
    return _printable(field, re.sub(r"(?<=\d)[,_ ](?=\d)", "", value.strip()) if field in MONEY else value)


def _port(entry: str) -> str | dict[str, str]:
    number, _, kind = _printable("ports", entry).partition("/")
    return {"port": number, "kind": kind} if kind in KINDS else entry


def _mounts(entries: Sequence[str]) -> dict[str, str]:
    mounts: dict[str, str] = {}
    for entry in entries:
        here, _, inside = entry.partition(":")
        inside = inside or here.rstrip("/").removeprefix("./")
        outside = inside.startswith(("/", "~", "..")) and not inside.startswith(jobspec.WORKSPACE)
        if not here or outside:
            name = f"{entry[:64]}:NAME"
            raise _wrong("files", f"{entry[:64]!r} lies elsewhere; say what it is called in the job: {name}")
        if inside in mounts:
            raise _wrong("files", f"a second file is put at {inside[:64]!r}")
        mounts[_printable("files", inside)] = _printable("files", here)
    return mounts


def _pair(entry: str, field: str, between: str, example: str) -> tuple[str, str]:
    name, found, value = entry.partition(between)
    if not found:
        raise _wrong(field, f"{entry[:64]!r} must be {example}")
    return _printable(field, name.strip()), _printable(field, value)


def _printable(field: str, text: str) -> str:
    """Lone halves of a pair of characters cannot be written at all."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _wrong(field, "contains a character that no program can be given") from error
    return text


class _Dumper(yaml.SafeDumper):
    """Text of several lines stays readable."""


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _write_text)


# --- reading what the parser says -----------------------------------------------------------------


def _told(error: JobFileInvalid) -> JobFileInvalid:
    """Without the line, which nobody has seen, and under the name of the draft's field."""
    path = error.field.partition("[")[0]
    for field, known in FIELDS.items():
        if path == known or path.startswith(f"{known}."):
            return _wrong(field, error.problem)
    return _wrong(error.field, error.problem) if error.field else error


def _wrong(field: str, problem: str) -> JobFileInvalid:
    return JobFileInvalid(f"{field}: {problem}", field, problem)
