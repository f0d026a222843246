"""`qubix web`: the market as pages in a browser, from what the daemon mirrors.

Asks the daemon for its public mirror, waits for the first complete page of it, and becomes the web process:
another program, which reads that file and nothing else of the node. It gets of the environment what it needs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from importlib.util import find_spec
from typing import Final

from rich.text import Text

from protocol.control_mirror import MirrorArgs, MirrorView
from protocol.errors import ConfigInvalid, MachineError, MirrorUnavailable
from tui import show
from tui.client import Client, connect
from tui.places import control_socket, data_dir
from tui.processes import module_command
from tui.safe import safe_line
from tui.verbs import tell

READY_SECONDS: Final = 120.0
"""A hundred thousand offers take seconds; this is for a machine that has much else to do."""
LOOK_SECONDS: Final = 0.2
NEEDED: Final = ("web", "fastapi", "uvicorn", "jinja2", "babel", "markdown_it", "aiosqlite")
PREFIX: Final = "QUBIX_WEB_"
KEPT: Final = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV")
KEPT_BEGIN: Final = ("LC_", "PYTHON", PREFIX)
PASSED_ON: Final[tuple[tuple[str, str, str], ...]] = (
    ("--host", "ADDRESS", "address to listen on (127.0.0.1: this machine only)"),
    ("--port", "N", "port to listen on; 0 takes a free one (8080)"),
    ("--workers", "N", "processes that share the port (1)"),
    ("--requests-per-minute", "N", "what one address may ask of each process (50)"),
    ("--behind-proxy", "N", "so many proxies in front name who asks, in X-Forwarded-For (0)"),
    ("--streams", "N", "live streams open at a time, in each process (2000)"),
    ("--streams-each", "N", "live streams of one address (10)"),
    ("--metrics", "HOST:PORT", "answer Prometheus there (nowhere)"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for flag, metavar, text in PASSED_ON:
        parser.add_argument(flag, metavar=metavar, help=text)
    parser.add_argument(
        "--mirror", metavar="PATH|URL", help="show this mirror.db or postgresql://... and ask no daemon"
    )
    parser.add_argument(
        "--publish", metavar="URL", help="serve nothing; keep a copy of the mirror in this PostgreSQL"
    )
    parser.add_argument(
        "--off", action="store_true", help="serve nothing; let the daemon mirror no longer, and remember that"
    )


async def web(options: argparse.Namespace) -> int:
    """Does not come back once the web process runs."""
    if options.off:
        return await _off(options)
    need_packages()
    mirror = options.mirror or os.environ.get(f"{PREFIX}MIRROR") or await _mirrored(options)
    # They may have passwords in them: never among a process's arguments.
    databases = {"MIRROR": mirror, "PUBLISH": options.publish or os.environ.get(f"{PREFIX}PUBLISH", "")}
    sys.stdout.flush()
    sys.stderr.flush()
    command = web_command(options)
    os.execve(command[0], command, web_environment(databases, os.environ))


def need_packages() -> None:
    """MachineError names those that are not here."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise MachineError(
            f"the web needs what is not installed here ({', '.join(missing)}); install qubix again, with all"
            " that it needs"
        )


def web_command(options: argparse.Namespace) -> list[str]:
    command = module_command("web")
    for flag, _, _ in PASSED_ON:
        if (value := _of(options, flag)) is not None:
            command.append(f"{flag}={value}")
    return [*command, "--json"] if options.json else command


def web_environment(databases: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, str]:
    """What the web process needs of our environment, and where the market is."""
    begin = (*KEPT_BEGIN, "PG") if any("://" in url for url in databases.values()) else KEPT_BEGIN
    kept = {name: value for name, value in ours.items() if name in KEPT or name.startswith(begin)}
    return {**kept, **{f"{PREFIX}{name}": url for name, url in databases.items()}}


def _of(options: argparse.Namespace, flag: str) -> str | None:
    value: str | None = getattr(options, flag.removeprefix("--").replace("-", "_"))
    return value


async def _mirrored(options: argparse.Namespace) -> str:
    """The path of a mirror that shows the whole market."""
    async with connect(control_socket(data_dir(options.data_dir))) as client:
        view: MirrorView = await client.call("mirror", MirrorArgs(on=True))
        if not view.updated_ms:
            view = await _first_page(client, options)
    return view.path


async def _first_page(client: Client, options: argparse.Namespace) -> MirrorView:
    console = show.console(sys.stderr)
    quiet = options.json or not sys.stderr.isatty()
    with nullcontext() if quiet else console.status(Text("copying the market")) as status:
        for _ in range(round(READY_SECONDS / LOOK_SECONDS)):
            view: MirrorView = await client.call("mirror", MirrorArgs())
            if view.updated_ms:
                return view
            if status:
                status.update(Text(_progress(view)))
            await asyncio.sleep(LOOK_SECONDS)
    why = f"; {view.trouble}" if view.trouble else ""
    raise MirrorUnavailable(f"the daemon has not copied the market within {READY_SECONDS:g} seconds{why}")


def _progress(view: MirrorView) -> str:
    offers = f"copying the market: {view.offers:,} offers so far"
    return f"{offers}; {safe_line(view.trouble)}" if view.trouble else offers


async def _off(options: argparse.Namespace) -> int:
    if options.mirror or options.publish:
        raise ConfigInvalid("--off goes with no other setting; it is about this machine's daemon")
    async with connect(control_socket(data_dir(options.data_dir))) as client:
        view: MirrorView = await client.call("mirror", MirrorArgs(on=False))
    left = f"; what is left is in {view.path}" if os.path.exists(view.path) else ""
    return tell(options, view, Text(f"The daemon mirrors no longer{left}."))
