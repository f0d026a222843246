"""A YAML text as fields that know their place, so that whatever is wrong is said with line and name. Pure.

Read node by node, not loaded: `no` and dates stay the text that was written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

import yaml

from protocol.errors import JobFileInvalid
from protocol.units import Seconds

MAX_DEPTH: Final = 8
"""Of lists and mappings within each other; a job file needs three."""
MAX_SCRIPT_CHARS: Final = 65_536
DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*([smhd])", re.ASCII)
SECONDS_OF_UNIT: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
TOP: Final = "job file"


@dataclass(frozen=True)
class Field:
    """One value of the file with its place in it; `line` counts from 1 and is that of its key."""

    path: str
    node: yaml.Node
    line: int

    def fail(self, problem: str) -> NoReturn:
        raise JobFileInvalid(f"line {self.line}, {self.path}: {problem}", self.path, problem)

    def text(self, max_chars: int = MAX_SCRIPT_CHARS) -> str:
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag == "tag:yaml.org,2002:null":
            self.fail("must be text")
        if len(self.node.value) > max_chars:
            self.fail(f"is longer than {max_chars} characters")
        if "\0" in self.node.value or any("\ud800" <= char <= "\udfff" for char in self.node.value):
            self.fail("contains a character that no program can be given (NUL or half of a pair)")
        return str(self.node.value)

    def mapping(self) -> dict[str, Field]:
        if not isinstance(self.node, yaml.MappingNode):
            self.fail("must be a mapping of `key: value` lines")
        fields: dict[str, Field] = {}
        for key_node, value in self.node.value:
            line = key_node.start_mark.line + 1
            key = Field(self.path, key_node, line).text(256)
            path = f"{self.path}.{key}" if self.path != TOP else key
            if key in fields:
                Field(path, key_node, line).fail("is given twice")
            fields[key] = Field(path, value, line)
        return fields

    def items(self, most: int) -> list[Field]:
        if not isinstance(self.node, yaml.SequenceNode):
            self.fail("must be a list")
        if len(self.node.value) > most:
            self.fail(f"has {len(self.node.value)} entries; at most {most} are taken")
        return [
            Field(f"{self.path}[{i}]", node, node.start_mark.line + 1)
            for i, node in enumerate(self.node.value)
        ]

    def number(self, low: float, high: float) -> float:
        text = self.text(64)
        try:
            value = float(text.rstrip("+"))
        except ValueError:
            self.fail(f"must be a number, not {text!r}")
        if not low <= value <= high:
            self.fail(f"must be between {low:g} and {high:g}, not {text}")
        return value

    def whole(self, low: int, high: int) -> int:
        value = self.number(low, high)
        if value != int(value):
            self.fail("must be a whole number")
        return int(value)

    def one_of(self, words: Sequence[str]) -> str:
        text = self.text(64)
        if text not in words:
            self.fail(f"must be one of {', '.join(words)}, not {text!r}")
        return text

    def yes(self) -> bool:
        return self.one_of(("true", "false")) == "true"

    def seconds(self, low: int, high: int) -> Seconds:
        """A time such as 90s, 10m or 1.5h."""
        match = DURATION.fullmatch(self.text(32))
        if not match:
            self.fail("must be a time such as 90s, 10m or 1.5h")
        seconds = round(float(match[1]) * SECONDS_OF_UNIT[match[2]])
        if not low <= seconds <= high:
            self.fail(f"must be between {low} s and {high} s")
        return Seconds(seconds)


def missing(path: str, problem: str) -> NoReturn:
    """What should be there has no line of its own."""
    raise JobFileInvalid(f"line 1, {path}: {problem}", path, problem)


def compose(text: str) -> Field:
    """The whole text. JobFileInvalid if it is no YAML, empty, too deep or has aliases."""
    try:
        _check_shape(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise JobFileInvalid(f"line {line}: this is not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML lets bad numbers through
        raise JobFileInvalid("the job file is not YAML text") from error
    if node is None:
        raise JobFileInvalid("line 1: the job file is empty")
    return Field(TOP, node, node.start_mark.line + 1)


def _check_shape(text: str) -> None:
    """No aliases, which can make a small file huge, and no deep nesting, which PyYAML is slow at."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise JobFileInvalid(f"line {line}: YAML aliases (*name) are not allowed in a job file")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise JobFileInvalid(f"line {line}: lists and mappings are nested more than {MAX_DEPTH} deep")
