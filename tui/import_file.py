"""What importing has in common whatever the file: reading it safely, and what was made of it. Pure.

Scalars stay the text that was written, so `22:22`, `no` and `1.10` mean what they say. Aliases and merges
(`<<: *common`) are followed, within a budget that keeps a small file small.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import yaml

from protocol.errors import JobFileInvalid
from protocol.job_draft import Draft
from protocol.jobspec import ENV_PATTERN, MAX_FILE_BYTES, NAME_PATTERN

MAX_DEPTH: Final = 24
MAX_VALUES: Final = 20_000
"""With those that aliases repeat."""
NULL: Final = "tag:yaml.org,2002:null"
MERGE: Final = "<<"
NO_ANSWER: Final = "the variable {0} has no value here; give it one with --set {0}=VALUE"
_VARIABLE: Final = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<bare>[A-Za-z_]\w*)|{(?P<name>[A-Za-z_]\w*)(?:(?P<how>:?[-?+])(?P<rest>[^}]{0,1000}))?})",
    re.ASCII,
)
"""What stands in for a value is bounded: many that never end would be read over and over."""
_REFUSED: Final = ("LD_", "NVIDIA_", "GLIBC_TUNABLES", "GCONV_PATH")
"""Variables that a provider refuses."""

Kind = Literal["left out", "changed", "assumed"]


@dataclass(frozen=True)
class Note:
    """Something that is not in the job as it was in the file: where it stood, and why."""

    kind: Kind
    where: str
    why: str


@dataclass(frozen=True)
class Imported:
    """A job, and everything that a person should know of how it came about."""

    source: str
    """What the file was, for people."""
    draft: Draft
    notes: tuple[Note, ...]


def whole_command(words: Sequence[str], where: str) -> None:
    """A job has no entry point that a command could be appended to. JobFileInvalid."""
    why = "a job does not use the image's own command; give one with --command"
    if not words:
        raise JobFileInvalid(f"{where}: is missing, and {why}")
    if words[0].startswith("-"):
        raise JobFileInvalid(
            f"{where}: {words[0][:40]!r} is an option for the program that the image starts by itself, and "
            f"{why}, the program's name first"
        )


class Notes:
    """Collects notes in the order of the file."""

    def __init__(self) -> None:
        self.all: list[Note] = []

    def left_out(self, where: str, why: str) -> None:
        self._add(Note("left out", where, why))

    def changed(self, where: str, why: str) -> None:
        self._add(Note("changed", where, why))

    def assumed(self, where: str, why: str) -> None:
        self._add(Note("assumed", where, why))

    def _add(self, note: Note) -> None:
        if note not in self.all:
            self.all.append(note)


# --- reading ------------------------------------------------------------------------------------


def read(text: str) -> dict[str, Any]:
    """The file's mapping with texts, None, lists and mappings in it. JobFileInvalid if it is none."""
    if len(text.encode(errors="surrogatepass")) > MAX_FILE_BYTES:
        raise JobFileInvalid(f"the file is larger than {MAX_FILE_BYTES} bytes")
    try:
        _check_depth(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise JobFileInvalid(f"line {line}: this is not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise JobFileInvalid("the file is not YAML text") from error
    found = _Plain().value(node, 0) if node else None
    if not isinstance(found, dict):
        raise JobFileInvalid("line 1: the file must be a mapping of `key: value` lines")
    return found


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise JobFileInvalid(f"lists and mappings are nested more than {MAX_DEPTH} deep")


class _Plain:
    """Nodes as plain values, each counted as often as it is used."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def value(self, node: yaml.Node, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            raise JobFileInvalid(f"with its aliases followed the file has more than {MAX_VALUES} values")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, depth + 1) for item in node.value]
        return None if node.tag == NULL else str(node.value)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            value = self.value(value_node, depth + 1)
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else ""
            if key != MERGE:
                own[key] = value
                continue
            for one in value if isinstance(value, list) else [value]:
                merged = {**one, **merged} if isinstance(one, dict) else merged
        return merged | own


# --- looking into what was read -------------------------------------------------------------------


def mapping(value: Any, where: str) -> dict[str, Any]:
    """An empty one for None. JobFileInvalid otherwise."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise JobFileInvalid(f"{where}: must be a mapping of `key: value` lines")
    return value


def sequence(value: Any, where: str) -> list[Any]:
    """An empty one for None. JobFileInvalid otherwise."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise JobFileInvalid(f"{where}: must be a list")
    return value


def scalar(value: Any, where: str) -> str:
    """Empty for None. JobFileInvalid otherwise."""
    if isinstance(value, dict | list):
        raise JobFileInvalid(f"{where}: must be text or a number")
    return value or ""


def pairs(value: Any, where: str) -> Iterator[tuple[str, str | None]]:
    """Variables as both kinds of file have them: `{A: b}`, or `[A=b, A]`; None for a name alone."""
    if isinstance(value, dict):
        for name, given in value.items():
            yield name, None if given is None else scalar(given, f"{where}.{name}")
        return
    for one in sequence(value, where):
        name, found, given = scalar(one, where).partition("=")
        yield name, given if found else None


def job_name(text: str) -> str:
    """The nearest name that a job may have; empty if nothing is left of it."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:63]
    return name if NAME_PATTERN.fullmatch(name) else ""


# --- variables --------------------------------------------------------------------------------------


def missing(text: str, given: Mapping[str, str]) -> str:
    """The first variable in a text that has neither a value nor one to fall back on; empty if all have."""
    for found in _VARIABLE.finditer(text):
        name, how = found["bare"] or found["name"], found["how"] or ""
        if name and not given.get(name) and how[-1:] not in ("-", "+"):
            return name
    return ""


def filled(text: str, given: Mapping[str, str], where: str) -> str:
    """The text with its `$NAME` and `${NAME:-usual}` filled in. JobFileInvalid for one without a value.

    The rules are those of docker compose; `given` takes the place of its environment, which may hold
    secrets that do not belong into a job file.
    """
    if name := missing(text, given):
        raise JobFileInvalid(f"{where}: {NO_ANSWER.format(name)}")
    return _VARIABLE.sub(lambda found: _value(found, given), text)


def _value(found: re.Match[str], given: Mapping[str, str]) -> str:
    if found["dollar"]:
        return "$"
    name, how = found["bare"] or found["name"], found["how"] or ""
    value, there = given.get(name, ""), name in given
    if how == ":+" or how == "+":
        return str(found["rest"]) if (value if how == ":+" else there) else ""
    if how == ":-" or how == "-":
        return value if (value if how == ":-" else there) else str(found["rest"])
    return value


class Variables:
    """A job's `envs` and `secrets`, put together from those of a container."""

    def __init__(self, given: Mapping[str, str], notes: Notes) -> None:
        self._given, self._notes = given, notes
        self.envs: dict[str, str] = {}
        self.secrets: list[str] = []

    def take(self, name: str, value: str | None, where: str, *, fill: bool = True) -> None:
        """One of them. A value that only the environment knows is a secret: it is read when the job runs."""
        place = f"{where}.{name}"[:120]
        if not ENV_PATTERN.fullmatch(name):
            self._notes.left_out(place, "is not a variable name of letters, digits and `_`")
        elif name.startswith(_REFUSED):
            self._notes.left_out(place, "providers refuse it: it would change what runs around the job")
        elif value is None or (fill and value in (f"${name}", f"${{{name}}}") and not self._given.get(name)):
            self.secrets.append(name)
            self._notes.changed(place, f"is a secret: `qubix run` reads {name} from your environment")
        elif fill and (unknown := missing(value, self._given)):
            self._notes.left_out(place, NO_ANSWER.format(unknown))
        else:
            self.envs[name] = filled(value, self._given, place) if fill else value

    def lines(self) -> tuple[str, ...]:
        """As a draft has them."""
        return tuple(f"{name}={value}" for name, value in self.envs.items())
