"""`qubix up`: become the daemon, or start it in the background and wait until it is ready."""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.text import Text

from protocol.control_market import MarketArgs, MarketView
from protocol.control_provider import ProviderArgs, ProviderView
from protocol.errors import ConfigInvalid, DiskFull, NotFound
from tui import private_net, provider_screen, show, wallet_keys
from tui.client import connect
from tui.places import control_socket, data_dir
from tui.private_net import PrivateNet
from tui.processes import Child, module_command, start

READY_SECONDS = 120.0
"""Of that the fence, compiled at the first start, takes some."""
SETTLED_SECONDS = 10.0
LOOK_SECONDS = 0.5
PASSING = ("provider.no_chain", "provider.too_poor")
"""What keeps a shop shut in the first seconds anyway."""

PASSED_ON: tuple[tuple[str, str, str], ...] = (
    ("--chain", "URL", "node://HOST:PORT[,HOST:PORT...] or rpc+https://HOST (a private network)"),
    ("--contract-index", "N", "index of the escrow contract on that network"),
    ("--network", "NAME", "name of that network (devnet)"),
    ("--price", "QU", "what each GPU costs an hour, or a machine without (by its model)"),
    ("--qu-per-credit", "QU", "QU for 0.20 USD, to suggest a price (1)"),
    ("--storage-price", "QU", "and 1 TiB of disk beside it, an hour (0)"),
    ("--relay-price", "QU", "what relaying without limits costs an hour (0: not for rent)"),
    ("--runner", "auto|docker|process", "what runs jobs here (auto)"),
    ("--runtime", "NAME", "what separates jobs from this machine: auto, runc, runsc, kata, ... (auto)"),
    ("--egress", "WHAT", "Internet for jobs: auto, none or internet (auto)"),
    ("--egress-mbit", "N", "Mbit/s each way and job (no limit)"),
    ("--image-percent", "N", "of the disk, what images fetched for jobs may take (20)"),
    ("--image-days", "N", "days until an unused one of them goes (14; 0 = never)"),
    ("--metrics", "HOST:PORT", "answer Prometheus there (nowhere)"),
    ("--mirror-dir", "DIR", "where the copy for web pages lies (the data directory)"),
    ("--name", "NAME", "name to offer under"),
    ("--region", "REGION", "where this machine is"),
    ("--control-group", "GROUP", "a group of users who may use this node, too"),
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
    ("--mirror", "copy the market for web pages, as directories do"),
    ("--relay", "join others that cannot reach each other"),
    ("--metrics-open", "let other machines read the metrics, too"),
    ("--one-pending-per-source", "never have two transactions of this wallet under way"),
)
REPEATED: tuple[tuple[str, str, str], ...] = (
    ("--listen", "HOST:PORT", "address to listen on (127.0.0.1, any free port)"),
    ("--announce", "MULTIADDR", "tell others this address instead of those"),
    ("--use-relay", "MULTIADDR", "be reached through this relay, always"),
    ("--bootstrap", "MULTIADDR", "address of a known node"),
    ("--use-directory", "MULTIADDR", "a directory to prefer to all others"),
    ("--egress-forbid", "NETWORK", "what no job may reach, as 203.0.113.0/24"),
    ("--image-keep", "IMAGE", "an image fetched for jobs that stays"),
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


def daemon_command(options: argparse.Namespace, *, json: bool, more: Sequence[str] = ()) -> list[str]:
    """The daemon's command line for what was asked of `up`, and more options of its."""
    command = module_command("qubixd", "--data-dir", str(data_dir(options.data_dir)))
    command += [flag for flag, _ in SWITCHES if _of(options, flag)]
    for flag, _, _ in REPEATED:
        command += [word for value in _of(options, flag) for word in (flag, value)]
    for flag, _, _ in PASSED_ON:
        if (value := _of(options, flag)) is not None:
            command += [flag, value]
    return [*command, *more, "--json"] if json else [*command, *more]


def _of(options: argparse.Namespace, flag: str) -> Any:
    """What argparse made of a flag: a switch's bool, a repeated one's list, else its text or None."""
    return getattr(options, flag.removeprefix("--").replace("-", "_"))


async def up(options: argparse.Namespace) -> int:
    net = await _private_net(options)
    if net and not options.json:
        show.console(sys.stderr).print(Text(private_net.SENTENCE), soft_wrap=True)
    if not options.detach:
        sys.stdout.flush()
        command = daemon_command(options, json=options.json, more=net.options if net else ())
        os.execv(command[0], command)
    child = await _start(options, net)
    if options.json:
        where = {"chain": net.chain, "contract_index": net.contract_index} if net else None
        show.print_json({**child.ready, "pid": child.process.pid, "log": str(child.log), "private": where})
        return 0
    console = show.console(sys.stdout)
    console.print(Text(f"The daemon runs (process {child.process.pid}); its log is {child.log}"))
    if options.provider:
        console.print(provider_screen.first(await _settled(options)), soft_wrap=True)
    console.print(Text(_next_words(options)))
    return 0


def _next_words(options: argparse.Namespace) -> str:
    verbs = ["provider", "status", "down"] if options.provider else ["market", "run job.yaml", "down"]
    return f"Next: {', '.join(f'`qubix {verb}`' for verb in verbs)}."


def plain_options(directory: str | None, *, json: bool) -> argparse.Namespace:
    """Those of `qubix up --detach` without another word."""
    plain = argparse.ArgumentParser()
    add_arguments(plain)
    return plain.parse_args(["--detach"], argparse.Namespace(data_dir=directory, json=json))


async def start_plainly(options: argparse.Namespace) -> None:
    """What `qubix up --detach` does without another word, for a verb that found no daemon."""
    asked = plain_options(options.data_dir, json=options.json)
    net = await _private_net(asked)
    if net and not options.json:
        show.console(sys.stderr).print(Text(private_net.SENTENCE), soft_wrap=True)
    await _start(asked, net)
    await _hear_offers(options)


async def _hear_offers(options: argparse.Namespace) -> None:
    """A node that has just come hears of others' offers within moments, if there are any."""
    async with connect(control_socket(data_dir(options.data_dir))) as client:
        for _ in range(round(SETTLED_SECONDS / LOOK_SECONDS)):
            view: MarketView = await client.call("market", MarketArgs(limit=1))
            if view.offers:
                return
            await asyncio.sleep(LOOK_SECONDS)


async def _private_net(options: argparse.Namespace) -> PrivateNet | None:
    with _busy(options, "looking for the private network of this machine"):
        return await join_private(options)


async def join_private(options: argparse.Namespace) -> PrivateNet | None:
    """The private network of this machine, if nobody has named another. Says nothing."""
    if options.chain or options.contract_index or not private_net.no_chain_named(options.config):
        return None
    if options.qu_per_credit is None and not private_net.is_set("qu_per_credit", options.config):
        options.qu_per_credit = str(private_net.QU_PER_CREDIT)
    directory = _made(options)
    has_wallet = options.wallet_seed_file or (directory / "keystore").exists()
    return await private_net.join(directory, wants_wallet=not has_wallet)


def _made(options: argparse.Namespace) -> Path:
    """The data directory, which is there now."""
    directory = data_dir(options.data_dir)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else ConfigInvalid
        raise kind(f"the data directory {directory} cannot be used: {error.strerror}") from error
    return directory


async def _start(options: argparse.Namespace, net: PrivateNet | None) -> Child:
    with _busy(options, "starting the daemon"):
        return await start_daemon(options, net)


async def start_daemon(options: argparse.Namespace, net: PrivateNet | None, passphrase: str = "") -> Child:
    """In the background, until it is ready; with play money on the private network. Says nothing."""
    log = _made(options) / "daemon.log"
    with wallet_keys.passphrase_pipe(passphrase) as (words, descriptors):
        command = daemon_command(options, json=True, more=[*(net.options if net else ()), *words])
        child = await start("daemon", command, log, READY_SECONDS, descriptors=descriptors)
    if net:
        with suppress(NotFound):  # an older network gives none; the wallet says what it has
            await private_net.gift(str(child.ready.get("identity", "")))
    return child


@contextmanager
def _busy(options: argparse.Namespace, words: str) -> Iterator[None]:
    if options.json or not sys.stderr.isatty():
        yield
        return
    with show.console(sys.stderr).status(Text(words)):
        yield


async def _settled(options: argparse.Namespace) -> ProviderView:
    """How the provider does once the chain has told it of its wallet, or has taken too long."""
    async with connect(control_socket(data_dir(options.data_dir))) as client:
        for _ in range(round(SETTLED_SECONDS / LOOK_SECONDS)):
            view: ProviderView = await client.call("provider", ProviderArgs())
            if view.shop.open or not any(one.code in PASSING for one in view.shop.hindrances):
                break
            await asyncio.sleep(LOOK_SECONDS)
        return view
