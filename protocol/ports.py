"""The ports of a job that have a name: what a job file says of them, and templates. Pure.

    ports:
      - 8888                      # TCP, named "8888"
      - 47998/udp                 # UDP, named "47998/udp"
      - {name: board, port: 6006, kind: http, path: "/?key={BOARD_KEY}"}

They say what `qubix forward` and `qubix open` begin with. Whoever rents the machine reaches all others by
number as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, NoReturn
from urllib.parse import quote

import yaml
from msgspec import Meta

from protocol.yaml_fields import Field

MAX_PORTS: Final = 64
MAX_PATH_CHARS: Final = 1_024
PROTOCOLS: Final = ("tcp", "udp")
PAGES: Final = ("http", "https")
KINDS: Final = (*PAGES, "ssh", "vnc", "game", "other")
FIELDS: Final = frozenset({"name", "port", "protocol", "kind", "path"})
NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,31}")
_SHORT: Final = re.compile(r"([0-9]{1,5})(?:/(tcp|udp))?", re.ASCII)
_VARIABLE: Final = re.compile(r"{([A-Za-z_][A-Za-z0-9_]{0,63})}")

Number = Annotated[int, Meta(ge=1, le=65_535)]


@dataclass(frozen=True)
class Port:
    """A port on which something answers inside the job."""

    name: str
    port: Number
    kind: str = "other"
    """One of KINDS: what answers there."""
    path: str = ""
    """Of a page: where to begin; {NAME} stands for a variable of the job."""
    protocol: str = "tcp"
    login: str = ""
    """Of a page: the variable whose value it asks for; of http in a form field called "password"."""
    gpu: bool = False
    """Of a template: only its image for GPUs has it."""

    @property
    def variables(self) -> frozenset[str]:
        """Names of the variables without whose values nobody gets in."""
        return frozenset(_VARIABLE.findall(self.path)) | ({self.login} if self.login else frozenset())

    def filled(self, values: Mapping[str, str]) -> str:
        """The path with the values of its variables, quoted for a URL; one that is not known is empty."""
        return _VARIABLE.sub(lambda found: quote(values.get(found[1], ""), safe=""), self.path)


def ports_of(field: Field | None, names: Iterable[str], others: Iterable[Port]) -> tuple[Port, ...]:
    """A job's ports: those of the file, and of `others` those that it does not speak of.

    `names` are the variables that paths may speak of. JobFileInvalid.
    """
    known = frozenset(names)
    ports: dict[str, Port] = {}
    for item in field.items(MAX_PORTS) if field else ():
        one = _port(item)
        _check(one, ports.values(), known, item.fail)
        ports[one.name] = one
    taken = {(one.port, one.protocol) for one in ports.values()}
    rest = [one for one in others if one.name not in ports and (one.port, one.protocol) not in taken]
    return (*ports.values(), *rest)


def _check(one: Port, before: Iterable[Port], names: frozenset[str], fail: Callable[[str], NoReturn]) -> None:
    if any(one.name == other.name for other in before):
        fail(f"a second port is called {one.name!r}")
    if any((one.port, one.protocol) == (other.port, other.protocol) for other in before):
        fail(f"{one.protocol} port {one.port} is given twice")
    for variable in sorted(one.variables - names):
        fail(f"the path speaks of {{{variable}}}, which is neither in `envs` nor in `secrets`")


def _port(field: Field) -> Port:
    if isinstance(field.node, yaml.MappingNode):
        return _described(field)
    text = field.text(64)
    match = _SHORT.fullmatch(text)
    if not match:
        field.fail(f"must be a port such as 8888 or 47998/udp, or a mapping, not {text!r}")
    protocol = match[2] or "tcp"
    number = _number(field, match[1])
    return Port(usual_name(number, protocol), number, protocol=protocol)


def usual_name(port: int, protocol: str) -> str:
    """Of a port that nobody has given a name."""
    return str(port) if protocol == "tcp" else f"{port}/{protocol}"


def _number(field: Field, digits: str) -> int:
    number = int(digits)
    if not 1 <= number <= 65_535:
        field.fail(f"must be a port from 1 to 65535, not {digits}")
    return number


def _described(field: Field) -> Port:
    given = field.mapping()
    for name, one in given.items():
        if name not in FIELDS:
            one.fail(f"is not a field of a port; known here: {', '.join(sorted(FIELDS))}")
    if "port" not in given:
        field.fail("needs `port`, the number on which the job listens")
    protocol = given["protocol"].one_of(PROTOCOLS) if "protocol" in given else "tcp"
    kind = given["kind"].one_of(KINDS) if "kind" in given else "http" if "path" in given else "other"
    if protocol == "udp" and kind in (*PAGES, "ssh", "vnc"):
        given["protocol"].fail(f"must be tcp: {kind} is not spoken over udp")
    number = given["port"].whole(1, 65_535)
    name = _name(given["name"]) if "name" in given else usual_name(number, protocol)
    return Port(name, number, kind, _path(given.get("path"), kind), protocol)


def _name(field: Field) -> str:
    text = field.text(64)
    if not NAME.fullmatch(text):
        field.fail("must be a letter, then at most 31 letters, digits, '.', '_' or '-'")
    return text


def _path(field: Field | None, kind: str) -> str:
    if field is None:
        return ""
    if kind not in PAGES:
        field.fail("is only for a port of the kind http or https")
    text = field.text(MAX_PATH_CHARS)
    if not text.startswith("/") or any(char <= " " or char > "~" for char in text):
        field.fail("must begin with `/` and have no spaces; write other characters as %XX")
    return text
