"""Ready-made environments that a job file names with `template:`; the data is in templates.toml beside this.

Their images are built on each machine from images/<name> (docs/images.md). Their names begin with
`localhost/`: no engine looks for them at a registry, where anybody could have put something under that name.
"""

from __future__ import annotations

import importlib.resources
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from protocol.catalogue import USE_CASES
from protocol.codec import convert
from protocol.errors import UsageError
from protocol.ports import KINDS, PROTOCOLS, Port

LOCAL: Final = "localhost/"
"""How names of images begin that are built here and come from nowhere else."""
MAKES: Final = ("token", "password", "vnc_password", "ssh_public_key", "ssh_host_key")
"""Kinds of values that are made for templates (qubixd/access.py); the front end, which has the keys of its
person, gives the SSH public key."""


@dataclass(frozen=True)
class Variable:
    """Something that the caller gives to a template by the job's environment."""

    name: str
    must: bool
    says: str
    make: str = ""
    """What is made where the caller gives none: see MAKES; empty: nothing is."""


@dataclass(frozen=True)
class Template:
    name: str
    title: str
    image: str
    """For machines with an NVIDIA GPU."""
    cpu_image: str
    run: str
    """Empty where the job file must say what to run."""
    ready: str
    """A command that succeeds once its programs answer; empty for at once."""
    cuda: int
    """The least that a driver must support for `image`: 12040 is 12.4."""
    uses: tuple[str, ...]
    """Use cases of the catalogue."""
    env: tuple[Variable, ...]
    ports: tuple[Port, ...]

    def image_for(self, gpus: int) -> str:
        return self.image if gpus else self.cpu_image

    @property
    def secrets(self) -> tuple[str, ...]:
        """Variables without which it does not start, and those that are made for it."""
        return tuple(one.name for one in self.env if one.must or one.make)

    @property
    def makes(self) -> dict[str, str]:
        """Variables that need not be given -> what is made, of MAKES."""
        return {one.name: one.make for one in self.env if one.make}

    def ports_for(self, gpus: int) -> tuple[Port, ...]:
        return tuple(one for one in self.ports if gpus or not one.gpu)


@dataclass(frozen=True)
class _Template:
    """A template's table in the file."""

    title: str
    cuda: int
    run: str = ""
    ready: str = ""
    uses: tuple[str, ...] = ()
    env: tuple[Variable, ...] = ()
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True)
class _File:
    version: int
    template: dict[str, _Template]


def image_name(name: str, version: int, *, cpu: bool) -> str:
    """What an image built from images/<name> is called."""
    return f"{LOCAL}qubix/{name}:{version}{'-cpu' if cpu else ''}"


def _template(name: str, one: _Template, version: int) -> Template:
    assert {variable.make for variable in one.env} <= {"", *MAKES}
    assert all(port.kind in KINDS and port.protocol in PROTOCOLS for port in one.ports)
    return Template(
        name=name,
        title=one.title,
        image=image_name(name, version, cpu=False),
        cpu_image=image_name(name, version, cpu=True),
        run=one.run,
        ready=one.ready,
        cuda=one.cuda,
        uses=one.uses,
        env=one.env,
        ports=one.ports,
    )


def _load() -> _File:
    text = importlib.resources.files(__package__).joinpath("templates.toml").read_text("utf-8")
    raw: dict[str, Any] = tomllib.loads(text)
    file: _File = convert(raw, _File, "the templates")
    return file


_FILE: Final = _load()
VERSION: Final = _FILE.version
TEMPLATES: Final[Mapping[str, Template]] = {
    name: _template(name, one, _FILE.version) for name, one in _FILE.template.items()
}


def template(name: str) -> Template:
    """By its name. UsageError that names those there are."""
    if name not in TEMPLATES:
        raise UsageError(f"{name[:64]!r} is no template; known are {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def templates_for(use: str) -> tuple[Template, ...]:
    """Those that serve a use case of the catalogue, the one to suggest first. KeyError for no use case."""
    name = USE_CASES[use].name
    return tuple(one for one in TEMPLATES.values() if name in one.uses)


def is_local(image: str) -> bool:
    """Whether an image of that name is built where it is used, so that no engine can fetch it."""
    return image.startswith(LOCAL)
