"""`qubix devnet`: become a private Qubic network on this machine, for trials and tests."""

from __future__ import annotations

import argparse
import os
import sys

from rich.text import Text

from tui import practice, private_net
from tui.processes import module_command
from tui.verbs import tell

PASSED_ON: tuple[tuple[str, str, str], ...] = (
    ("--nodes", "N", "on how many ports nodes answer (1)"),
    ("--port", "PORT", "port of the first node; the others take the next ones (any free ones)"),
    ("--rpc-port", "PORT", "port of the HTTP RPC (any free one)"),
    ("--seed-file", "PATH", "seed of a wallet with money, made if missing (one that is gone at the end)"),
    ("--fund", "IDENTITY=QU", "give an account money at the start"),
    ("--tick-seconds", "SECONDS", "how long a tick lasts (0.5)"),
    ("--epoch-ticks", "N", "change the epoch after every N ticks, with a short silence (never)"),
)
"""Options of the devnet that are handed on unread; it checks them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--end", action="store_true", help="end the one that `qubix up` has started")
    for flag, metavar, text in PASSED_ON:
        parser.add_argument(flag, action="append", default=[], metavar=metavar, help=text)


def devnet_command(options: argparse.Namespace) -> list[str]:
    """The devnet's command line for what was asked."""
    command = module_command("escrow_bridge.devnet")
    for flag, _, _ in PASSED_ON:
        for value in getattr(options, flag.removeprefix("--").replace("-", "_")):
            command.append(f"{flag}={value}")
    return [*command, "--json"] if options.json else command


async def devnet(options: argparse.Namespace) -> int:
    if options.end:
        await practice.end_provider()
        number = await private_net.end()
        return tell(options, {"ended": number}, Text(f"The private network (process {number}) ends."))
    sys.stdout.flush()
    command = devnet_command(options)
    os.execv(command[0], command)
