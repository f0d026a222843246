"""`qubix provider`: how this machine does as a provider, once or again and again; pause and resume."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any, Final

from rich.live import Live
from rich.text import Text

from protocol.control_provider import ProviderArgs, ProviderView
from protocol.errors import UsageError
from tui import provider_screen, show
from tui.client import connect
from tui.places import control_socket, data_dir
from tui.verbs import ask, out, tell

WATCH_SECONDS: Final = 2.0
WORDS: Final = {"pause": True, "resume": False}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="?",
        choices=list(WORDS),
        metavar="pause|resume",
        help="take no new jobs (what runs goes on, also after a restart), or take them again",
    )
    parser.add_argument("--watch", action="store_true", help="show it anew every 2 seconds until Ctrl-C")


async def provider(options: argparse.Namespace) -> int:
    if options.watch and options.what:
        raise UsageError("--watch only looks; give it without pause or resume")
    if options.watch:
        return await _watch(options)
    view: ProviderView = await ask(options, "provider", ProviderArgs(WORDS.get(options.what)))
    if options.what:
        return tell(options, view, Text(_told(options.what, view)))
    return tell(options, view, provider_screen.screen(view, out().width))


def _told(what: str, view: ProviderView) -> str:
    if what == "resume":
        return provider_screen.state(view.shop)
    count = len(view.jobs)
    running = f"; {count} job{'s' * (count != 1)} here go{'es' * (count == 1)} on" if count else ""
    return f"No new jobs are taken{running}. `qubix provider resume` takes them again."


async def _watch(options: argparse.Namespace) -> int:
    """On a terminal one screen that changes; else, or with --json, one answer after the other."""
    console = show.console(sys.stdout)
    async with connect(control_socket(data_dir(options.data_dir))) as client:
        if options.json or not sys.stdout.isatty():
            while True:
                _print(options, await client.call("provider", ProviderArgs()))
                await asyncio.sleep(WATCH_SECONDS)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                view = await client.call("provider", ProviderArgs())
                live.update(_fitted(view, console.width, console.height), refresh=True)
                await asyncio.sleep(WATCH_SECONDS)


def _fitted(view: ProviderView, width: int, height: int) -> Any:
    return provider_screen.screen(view, width, height)


def _print(options: argparse.Namespace, view: ProviderView) -> None:
    tell(options, view, provider_screen.screen(view, out().width))
    sys.stdout.flush()
