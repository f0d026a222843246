"""python -m escrow_bridge.devnet: one devnet in one process, until it is told to stop.

Compiles the contract, gives the accounts named by --fund their money, and serves the native node
protocol on loopback. Its last line of output says where, once it answers.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio

from escrow_bridge.devnet.engine import Engine, Rules
from escrow_bridge.devnet.host import QUBIX_HEADER, Host
from escrow_bridge.devnet.server import Server, make_ticks
from escrow_bridge.qubic import Wallet, parse_identity
from protocol.errors import PortBusy, QubixError, UsageError
from protocol.units import MAX_QU, Qu, QubicId, Tick

CONTRACT_INDEX: Final = 28
CONTRACT_RESERVE: Final = Qu(1_000_000_000)
"""Fuel for the contract; far more than a devnet uses up."""
FIRST_TICK: Final = Tick(10_000_000)
FIRST_EPOCH: Final = 100
LOOPBACK: Final = "127.0.0.1"


def build_engine(rules: Rules, funds: Sequence[tuple[QubicId, Qu]] = ()) -> Engine:
    """A fresh devnet with the escrow contract at CONTRACT_INDEX. Raises CompilerMissing."""
    host = Host.build({CONTRACT_INDEX: QUBIX_HEADER}, first_tick=FIRST_TICK, epoch=FIRST_EPOCH)
    host.set_reserve(CONTRACT_INDEX, CONTRACT_RESERVE)
    for owner, amount in funds:
        host.credit(owner, amount)
    return Engine(host, rules)


def parse_fund(text: str) -> tuple[QubicId, Qu]:
    """(owner, amount) of "IDENTITY=AMOUNT". Raises UsageError."""
    identity, _, amount = text.partition("=")
    if not amount.isdecimal() or not 0 < int(amount) <= MAX_QU:
        raise UsageError(f"--fund takes IDENTITY=AMOUNT with an amount of 1 to {MAX_QU} QU")
    return parse_identity(identity), Qu(int(amount))


def parse_fund_seed_file(text: str) -> tuple[QubicId, Qu]:
    """(owner, amount) of "PATH=AMOUNT"; the owner is the wallet of the seed in that file, which is not
    kept. Raises UsageError, SeedInvalid."""
    path, _, amount = text.rpartition("=")
    try:
        seed = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--fund-seed-file cannot read a seed from {path!r}") from error
    return parse_fund(f"{Wallet(seed.strip()).identity}={amount}")


async def serve(engine: Engine, port: int, *, as_json: bool) -> None:
    """Make ticks and answer until SIGINT or SIGTERM. Raises PortBusy."""
    try:
        listeners = await trio.open_tcp_listeners(port, host=LOOPBACK)
    except OSError as error:
        raise PortBusy(f"port {port} of {LOOPBACK} cannot be used: {error.strerror}") from error
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_on_signal, nursery.cancel_scope)
        await nursery.start(partial(trio.serve_listeners, Server(engine).handle, listeners))
        nursery.start_soon(make_ticks, engine)
        _announce(listeners[0].socket.getsockname()[1], as_json=as_json)


async def _stop_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


def _announce(port: int, *, as_json: bool) -> None:
    node = f"{LOOPBACK}:{port}"
    line = f"devnet ready: node {node}, escrow contract {CONTRACT_INDEX}"
    if as_json:
        line = json.dumps({"nodes": [node], "contract_index": CONTRACT_INDEX})
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m escrow_bridge.devnet", description="A Qubic chain in a box.")
    parser.add_argument("--port", type=int, default=0, help="TCP port on 127.0.0.1; 0 = any free one")
    parser.add_argument("--tick-seconds", type=float, default=0.5, help="how long a tick lasts")
    parser.add_argument("--keep-ticks", type=int, default=1_000, help="past ticks that stay readable")
    parser.add_argument(
        "--fund", action="append", default=[], metavar="IDENTITY=AMOUNT", help="give QU to an identity"
    )
    parser.add_argument(
        "--fund-seed-file",
        action="append",
        default=[],
        metavar="PATH=AMOUNT",
        help="give QU to the wallet of the seed in a file",
    )
    parser.add_argument("--json", action="store_true", help="announce readiness as one JSON line")
    parser.add_argument("--verbose", action="store_true", help="log what is dropped and why")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    logging.basicConfig(level=logging.DEBUG if arguments.verbose else logging.WARNING, stream=sys.stderr)
    try:
        if not 0 <= arguments.port <= 65_535:
            raise UsageError(f"--port must be between 0 and 65535, not {arguments.port}")
        rules = Rules(round(arguments.tick_seconds * 1_000), keep_ticks=arguments.keep_ticks)
        funds = [parse_fund(text) for text in arguments.fund]
        funds += [parse_fund_seed_file(text) for text in arguments.fund_seed_file]
        engine = build_engine(rules, funds)
        trio.run(partial(serve, engine, arguments.port, as_json=arguments.json))
    except QubixError as error:
        sys.stderr.write(f"error: {error} [{error.code}]\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
