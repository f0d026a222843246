"""What the short verbs do: ask the daemon one thing, show the answer as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import aclosing
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from protocol.control import (
    Done,
    LogChunk,
    LogsArgs,
    PauseArgs,
    PsArgs,
    PsView,
    RestartArgs,
    ResumeArgs,
    RunEvent,
    ShutdownArgs,
    StopArgs,
)
from protocol.control_wallet import WaitingEvent
from protocol.errors import DaemonUnreachable, LeaseUnknown
from protocol.lease_state import TERMINAL
from tui import argument, show
from tui.client import connect
from tui.places import control_socket, data_dir
from tui.safe import SafeStream, safe_line

lease_argument = argument.lease


def ps_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="ended leases too")


def logs_arguments(parser: argparse.ArgumentParser) -> None:
    lease_argument(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")


async def ask(options: argparse.Namespace, verb: str, args: object) -> Any:
    """One question to the daemon of this node."""
    async with connect(control_socket(data_dir(options.data_dir))) as client:
        return await client.call(verb, args)


async def ask_patiently(options: argparse.Namespace, verb: str, args: object) -> Any:
    """The same for what takes a while. What makes it wait is said on standard error meanwhile."""
    async with (
        connect(control_socket(data_dir(options.data_dir))) as client,
        aclosing(client.stream(verb, args)) as items,
    ):
        async for item in items:
            if not isinstance(item, WaitingEvent):
                return item
            show.say_waiting(show.console(sys.stderr), item.why)
    raise DaemonUnreachable("the daemon gave no answer")


def tell(options: argparse.Namespace, answer: object, screen: RenderableType) -> int:
    """Show an answer the way the person asked for."""
    if options.json:
        show.print_json(answer)
    else:
        out().print(screen, soft_wrap=isinstance(screen, Text))
    return 0


def out() -> Console:
    return show.console(sys.stdout)


async def ps(options: argparse.Namespace) -> int:
    view: PsView = await ask(options, "ps", PsArgs(options.all))
    none_here = "No leases." if options.all else "No open leases; `qubix ps -a` shows ended ones too."
    return tell(options, view, show.leases_screen(view.leases) if view.leases else Text(none_here))


async def stop(options: argparse.Namespace) -> int:
    event: RunEvent = await ask(options, "stop", StopArgs(options.lease))
    lease = event.lease
    if lease is None:
        raise LeaseUnknown(f"there is no lease {options.lease} here")
    short = show.short_id(lease.lease_id)
    if lease.phase in TERMINAL:
        return tell(options, lease, Text(f"Lease {short} has ended: {safe_line(event.detail)}."))
    return tell(options, lease, Text(f"Lease {short} is being stopped; `qubix ps` shows how far it is."))


async def pause(options: argparse.Namespace) -> int:
    words = "freezes; it costs as much as before. `qubix resume {0}` lets it go on."
    return await _act(options, "pause", PauseArgs(options.lease), words)


async def resume(options: argparse.Namespace) -> int:
    return await _act(options, "resume", ResumeArgs(options.lease), "goes on.")


async def restart(options: argparse.Namespace) -> int:
    words = "ends and begins anew in its workspace; the meter runs on."
    return await _act(options, "restart", RestartArgs(options.lease), words)


async def _act(options: argparse.Namespace, verb: str, args: object, words: str) -> int:
    """What the person wants of a job is on its way to the provider."""
    event: RunEvent = await ask(options, verb, args)
    if event.lease is None:
        raise LeaseUnknown(f"there is no lease {options.lease} here")
    short = show.short_id(event.lease.lease_id)
    return tell(options, event.lease, Text(f"Lease {short} {words.format(short)}"))


async def down(options: argparse.Namespace) -> int:
    answer: Done = await ask(options, "shutdown", ShutdownArgs())
    return tell(options, answer, Text("The daemon ends. Running jobs go on; `qubix up` takes them up again."))


async def logs(options: argparse.Namespace) -> int:
    """Raw bytes into a file or pipe; into a terminal only what cannot harm it."""
    args, safe, total = LogsArgs(options.lease, options.follow), SafeStream(), 0
    async with (
        connect(control_socket(data_dir(options.data_dir))) as client,
        aclosing(client.stream("logs", args)) as items,
    ):
        async for item in items:
            if isinstance(item, LogChunk):
                total += len(item.data)
                _write_log(options, item.data, safe)
    _write_log(options, b"", safe, final=True)
    if options.json:
        show.print_json({"lease": options.lease, "bytes": total})
    return 0


def _write_log(options: argparse.Namespace, data: bytes, safe: SafeStream, *, final: bool = False) -> None:
    if options.json:
        text = safe.decode(data, final=final)
        if text:
            sys.stdout.write(json.dumps({"log": text}) + "\n")
    elif sys.stdout.isatty():
        sys.stdout.write(safe.feed(data, final=final))
    else:
        sys.stdout.buffer.write(data)
    sys.stdout.flush()
