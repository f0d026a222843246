"""`qubix up`: become the daemon, or start it in the background and wait until it is ready."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from pathlib import Path
from typing import Any

from rich.text import Text

from protocol.errors import ConfigInvalid, DiskFull
from tui import show
from tui.places import data_dir
from tui.processes import Child, module_command, start

READY_SECONDS = 60.0

PASSED_ON: tuple[tuple[str, str, str], ...] = (
    ("--listen", "HOST:PORT", "address to listen on (127.0.0.1, any free port)"),
    ("--chain", "URL", "the Qubic network: node://HOST:PORT[,HOST:PORT...] or rpc+https://HOST"),
    ("--contract-index", "N", "index of the escrow contract on that network"),
    ("--network", "NAME", "name of that network (devnet)"),
    ("--price", "QU", "what each GPU costs an hour, or a machine without (by its model)"),
    ("--qu-per-credit", "QU", "QU for 0.20 USD, to suggest a price (1)"),
    ("--storage-price", "QU", "and 1 TiB of disk beside it, an hour (0)"),
    ("--runner", "auto|docker|process", "what runs jobs here (auto)"),
    ("--runtime", "NAME", "what separates jobs from this machine: auto, runc, runsc or kata (auto)"),
    ("--egress", "WHAT", "Internet for jobs: auto, none or internet (auto)"),
    ("--image-percent", "N", "of the disk, what images fetched for jobs may take (20)"),
    ("--image-days", "N", "days until an unused one of them goes (30; 0 = never)"),
    ("--metrics", "HOST:PORT", "answer Prometheus there (nowhere)"),
    ("--name", "NAME", "name to offer under"),
    ("--region", "REGION", "where this machine is"),
    ("--mdns", "on|off|auto", "find nodes in the local network (auto)"),
    ("--wallet-seed-file", "PATH", "file with the wallet's seed (55 letters, mode 0600)"),
    ("--passphrase-file", "PATH", "file with the passphrase of the keystore"),
    ("--interval", "SECONDS", "as a caller: how often to sign a voucher (5)"),
    ("--unpaid-intervals", "N", "as a provider: intervals a job may run unpaid (3)"),
    ("--docker-host", "URL", "the Docker engine"),
    ("--config", "FILE", "settings file (~/.config/qubix/config.toml)"),
)
"""Options of the daemon that are handed on unread; it checks them."""

SWITCHES: tuple[tuple[str, str], ...] = (
    ("--provider", "offer this machine"),
    ("--directory", "keep a book of offers for others, too"),
    ("--one-pending-per-source", "never have two transactions of this wallet under way"),
)
REPEATED: tuple[tuple[str, str, str], ...] = (
    ("--bootstrap", "MULTIADDR", "address of a known node"),
    ("--use-directory", "MULTIADDR", "a directory to prefer to all others"),
    ("--markets", "MARKET", "know this market only, such as RTX_40 or HOPPER"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--detach", action="store_true", help="run in the background")
    for flag, text in SWITCHES:
        parser.add_argument(flag, action="store_true", help=text)
    for flag, metavar, text in REPEATED:
        parser.add_argument(flag, action="append", default=[], metavar=metavar, help=text)
    for flag, metavar, text in PASSED_ON:
        parser.add_argument(flag, metavar=metavar, help=text)


def daemon_command(options: argparse.Namespace, *, json: bool) -> list[str]:
    """The daemon's command line for what was asked of `up`."""
    command = module_command("qubixd", "--data-dir", str(data_dir(options.data_dir)))
    command += [flag for flag, _ in SWITCHES if _of(options, flag)]
    for flag, _, _ in REPEATED:
        command += [word for value in _of(options, flag) for word in (flag, value)]
    for flag, _, _ in PASSED_ON:
        if (value := _of(options, flag)) is not None:
            command += [flag, value]
    return [*command, "--json"] if json else command


def _of(options: argparse.Namespace, flag: str) -> Any:
    """What argparse made of a flag: a switch's bool, a repeated one's list, else its text or None."""
    return getattr(options, flag.removeprefix("--").replace("-", "_"))


async def up(options: argparse.Namespace) -> int:
    if not options.detach:
        sys.stdout.flush()
        command = daemon_command(options, json=options.json)
        os.execv(command[0], command)
    directory = data_dir(options.data_dir)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else ConfigInvalid
        raise kind(f"the data directory {directory} cannot be used: {error.strerror}") from error
    child = await _start(options, directory)
    if options.json:
        show.print_json({**child.ready, "pid": child.process.pid, "log": str(child.log)})
        return 0
    console = show.console(sys.stdout)
    console.print(Text(f"The daemon runs (process {child.process.pid}); its log is {child.log}"))
    console.print(Text("Next: `qubix status`, `qubix market`, `qubix run job.yaml`, `qubix down`."))
    return 0


async def _start(options: argparse.Namespace, directory: Path) -> Child:
    command = daemon_command(options, json=True)
    log = directory / "daemon.log"
    if options.json or not sys.stderr.isatty():
        return await start("daemon", command, log, READY_SECONDS)
    with show.console(sys.stderr).status(Text("starting the daemon")):
        return await start("daemon", command, log, READY_SECONDS)
