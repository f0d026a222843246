"""`qubix images`: the ready-made environments, which of their images are here, and how they are built.

An image is built from images/<name> beside this package by the engine itself, the one it stands on first.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from protocol.errors import EngineUnreachable, ImageUnavailable, UsageError
from protocol.templates import TEMPLATES, VERSION, image_name, is_local, template
from tui import show, verbs
from tui.safe import safe_line

if TYPE_CHECKING:
    from docker import APIClient

SOURCES: Final = Path(__file__).parents[1] / "images"
ALL: Final = "all"
BUILD_SECONDS: Final = 3_600
_BASE: Final = re.compile(r"^ARG BASE=(\S+)$", re.MULTILINE)

Say = Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to build; `all` for every one")
    parser.add_argument("--gpu", action="store_true", help="the variants for NVIDIA GPUs")
    parser.add_argument("--base", metavar="IMAGE", help="a Debian 12 to build the variants for CPUs on")


async def images(options: argparse.Namespace) -> int:
    if not options.names:
        return _list(options)
    with closing(engine()) as client:
        names = list(TEMPLATES) if ALL in options.names else [template(name).name for name in options.names]
        if options.base and options.gpu:
            raise UsageError("--base is for the variants for CPUs; those for GPUs have bases of their own")
        built: dict[str, str] = {}
        for name in names:
            build(client, name, cpu=not options.gpu, debian=options.base, say=_say, built=built)
    return verbs.tell(options, built, Text("\n".join(built.values())))


def _list(options: argparse.Namespace) -> int:
    """For callers: they name an environment, and only the provider needs its image."""
    try:
        with closing(engine()) as client:
            present = here(client)
    except EngineUnreachable:
        if options.json:
            raise
        verbs.tell(options, {}, screen({}))
        _say(
            "No Docker engine answers on this machine, so none of the images is here; providers have theirs."
        )
        return 0
    return verbs.tell(options, present, screen(present))


def screen(present: Mapping[str, bool]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("TEMPLATE", "WHAT", "LETS YOU IN", "FOR GPUS", "FOR CPUS"):
        table.add_column(head)
    words = {True: "here", False: "not built", None: "-"}
    for one in TEMPLATES.values():
        needed = ", ".join(one.secrets) or "-"
        table.add_row(
            one.name, one.title, needed, *(words[present.get(image)] for image in (one.image, one.cpu_image))
        )
    return table


def _say(line: str) -> None:
    show.console(sys.stderr).print(safe_line(line), soft_wrap=True)


def engine() -> APIClient:
    """A client of the engine at DOCKER_HOST or the usual socket. EngineUnreachable."""
    import docker
    from docker.utils import kwargs_from_env

    try:
        client = docker.APIClient(version="auto", timeout=BUILD_SECONDS, **kwargs_from_env())
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise EngineUnreachable("no Docker engine answers here; start one to build images") from error
    return client


def here(client: APIClient) -> dict[str, bool]:
    """Of every template's images, whether it is on this machine."""
    present = {tag for image in client.images() for tag in image.get("RepoTags") or ()}
    names = [name for one in TEMPLATES.values() for name in (one.image, one.cpu_image)]
    return {name: name in present for name in names}


def build(
    client: APIClient,
    name: str,
    *,
    cpu: bool,
    debian: str | None = None,
    say: Say = lambda line: None,
    built: dict[str, str] | None = None,
    called: Callable[[str, bool], str] = lambda name, cpu: image_name(name, VERSION, cpu=cpu),
) -> str:
    """Build a template's image and those below it; its tag. ImageUnavailable with the build's last words.

    `debian` takes the place of the CPU variants' own base, `built` keeps what has been built already
    (name -> tag), `called` says how the images are tagged.
    """
    built = {} if built is None else built
    if name in built:
        return built[name]
    below = base_of(name, cpu=cpu)
    arguments = {}
    if is_local(below):
        parent = below.removeprefix("localhost/qubix/").partition(":")[0]
        arguments["BASE"] = build(client, parent, cpu=cpu, debian=debian, say=say, built=built, called=called)
    elif debian:
        arguments["BASE"] = debian
    tag = called(name, cpu)
    say(f"building {tag}")
    _build(client, f"{name}/{_file(cpu)}", tag, arguments, say)
    built[name] = tag
    return tag


def base_of(name: str, *, cpu: bool) -> str:
    """The image that a template's image stands on."""
    found = _BASE.search((SOURCES / name / _file(cpu)).read_text("utf-8"))
    assert found, f"images/{name}/{_file(cpu)} names no base"
    return found[1]


def _file(cpu: bool) -> str:
    return "Dockerfile.cpu" if cpu else "Dockerfile"


def _build(client: APIClient, dockerfile: str, tag: str, arguments: dict[str, str], say: Say) -> None:
    from docker.errors import DockerException

    last: list[str] = []
    try:
        events = client.build(
            path=str(SOURCES), dockerfile=dockerfile, tag=tag, buildargs=arguments, rm=True, forcerm=True,
            decode=True,
        )  # fmt: skip
        for event in events:
            for line in _lines(event):
                last = [*last[-4:], line]
                say(f"  {line}")
            if "error" in event:
                raise ImageUnavailable(f"{tag} could not be built: {' / '.join([*last, event['error']])}")
    except (DockerException, OSError) as error:
        raise ImageUnavailable(f"{tag} could not be built: {error}") from error


def _lines(event: dict[str, str]) -> Iterator[str]:
    yield from (line.rstrip() for line in event.get("stream", "").splitlines() if line.strip())
