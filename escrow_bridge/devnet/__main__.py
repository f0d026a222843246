"""python -m escrow_bridge.devnet: one devnet in one process, until it is told to stop.

Compiles the contract, gives the accounts named by --fund and one wallet of its own their money, and
serves the native node protocol, on as many ports as asked for, and the public HTTP RPC on loopback. Its
last line of output says where, once it answers.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from escrow_bridge.devnet.engine import Engine, Rules
from escrow_bridge.devnet.host import QUBIX_HEADER, Host
from escrow_bridge.devnet.rpc_server import RpcServer
from escrow_bridge.devnet.server import Server, make_ticks
from escrow_bridge.qubic import Wallet, generate_seed, parse_identity
from protocol.errors import PortBusy, QubixError, UsageError
from protocol.units import MAX_QU, Qu, QubicId, Tick

CONTRACT_INDEX: Final = 28
CONTRACT_RESERVE: Final = Qu(1_000_000_000)
"""Fuel for the contract; far more than a devnet uses up."""
FIRST_TICK: Final = Tick(10_000_000)
LAST_FIRST_TICK: Final = Tick(2_000_000_000)
"""Ticks are 32 bits; half of them are left to go on with."""
FIRST_EPOCH: Final = 100
LOOPBACK: Final = "127.0.0.1"
SEED_QU: Final = Qu(1_000_000_000_000)
"""What the wallet of the seed file starts with."""
MAX_NODES: Final = 16
LOST_TICKS: Final = 2
SILENCE_TICKS: Final = 4
"""After an epoch change by itself: how many tick durations nobody answers."""


def build_engine(
    rules: Rules, funds: Sequence[tuple[QubicId, Qu]] = (), first_tick: Tick = FIRST_TICK
) -> Engine:
    """A fresh devnet with the escrow contract at CONTRACT_INDEX. Raises CompilerMissing."""
    host = Host.build({CONTRACT_INDEX: QUBIX_HEADER}, first_tick=first_tick, epoch=FIRST_EPOCH)
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


@contextmanager
def seed_file(path: Path | None) -> Iterator[Path]:
    """A file with a seed, 0600: `path`, made if missing, or one that is gone at the end.

    Raises UsageError if it cannot be made, or if others can read it.
    """
    if path is None:
        directory = Path(tempfile.mkdtemp(prefix="qubix-devnet-"))
        try:
            yield _make_seed(directory / "seed")
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        return
    if not path.exists():
        _make_seed(path)
    elif path.stat().st_mode & 0o077:
        raise UsageError(f"the seed file {path} can be read by others; `chmod 600` it first")
    yield path


def _make_seed(path: Path) -> Path:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(generate_seed() + "\n")
    except OSError as error:
        raise UsageError(f"the seed file {path} cannot be made: {error.strerror}") from error
    return path


@dataclass(frozen=True)
class Doors:
    """Where a devnet listens. Port 0 = any free one; with `port` set, nodes take it and the next ones."""

    nodes: int
    port: int
    rpc_port: int

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= MAX_NODES:
            raise UsageError(f"a devnet has 1 to {MAX_NODES} nodes, not {self.nodes}")
        if not (0 <= self.port <= 65_536 - self.nodes and 0 <= self.rpc_port < 65_536):
            raise UsageError("a port is 0 to 65535")

    @property
    def node_ports(self) -> list[int]:
        return [self.port and self.port + number for number in range(self.nodes)]


async def serve(engine: Engine, doors: Doors, seed: Path, gift: Qu = Qu(0), *, as_json: bool) -> None:
    """Make ticks and answer until SIGINT or SIGTERM. Raises PortBusy."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_on_signal, nursery.cancel_scope)
        nodes = []
        for port in doors.node_ports:
            listener = await _listen(port)
            # One server each: what one node has seen before, another has not.
            nursery.start_soon(trio.serve_listeners, Server(engine).handle, [listener])
            nodes.append(_address(listener))
        listener = await _listen(doors.rpc_port)
        nursery.start_soon(trio.serve_listeners, RpcServer(engine, gift=gift).handle, [listener])
        nursery.start_soon(make_ticks, engine)
        ready = {
            "nodes": nodes,
            "rpc": f"http://{_address(listener)}",
            "contract_index": CONTRACT_INDEX,
            "seed_file": str(seed),
        }
        sys.stdout.write((json.dumps(ready) if as_json else _for_people(ready)) + "\n")
        sys.stdout.flush()


async def _listen(port: int) -> trio.SocketListener:
    try:
        return (await trio.open_tcp_listeners(port, host=LOOPBACK))[0]
    except OSError as error:
        raise PortBusy(f"port {port} of {LOOPBACK} cannot be used: {error.strerror}") from error


def _address(listener: trio.SocketListener) -> str:
    return f"{LOOPBACK}:{listener.socket.getsockname()[1]}"


def _for_people(ready: dict[str, Any]) -> str:
    chain = f"node://{','.join(ready['nodes'])}"
    return (
        f"devnet ready: escrow contract {ready['contract_index']}, RPC {ready['rpc']}, "
        f"a wallet with {SEED_QU:,} QU in {ready['seed_file']}\n"
        f"use it with --chain {chain} --contract-index {ready['contract_index']}"
    )


async def _stop_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m escrow_bridge.devnet", description="A Qubic chain in a box.")
    parser.add_argument("--nodes", type=int, default=1, help="on how many ports nodes answer")
    parser.add_argument("--port", type=int, default=0, help="port of the first node; 0 = any free ones")
    parser.add_argument("--rpc-port", type=int, default=0, help="port of the HTTP RPC; 0 = any free one")
    parser.add_argument("--seed-file", type=Path, help="seed of a funded wallet, made if missing")
    parser.add_argument("--epoch-ticks", type=int, default=0, help="change the epoch after so many ticks")
    parser.add_argument("--first-tick", type=int, default=FIRST_TICK, help="number of the first tick")
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
    parser.add_argument(
        "--gift", type=int, default=0, metavar="QU", help="fill any account up to that on request (RPC)"
    )
    parser.add_argument("--json", action="store_true", help="announce readiness as one JSON line")
    parser.add_argument("--verbose", action="store_true", help="log what is dropped and why")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    logging.basicConfig(level=logging.DEBUG if arguments.verbose else logging.WARNING, stream=sys.stderr)
    exit_code = 0
    try:
        doors = Doors(arguments.nodes, arguments.port, arguments.rpc_port)
        _check_tick(arguments.first_tick)
        rules = _rules(arguments)
        funds = [parse_fund(text) for text in arguments.fund]
        funds += [parse_fund_seed_file(text) for text in arguments.fund_seed_file]
        with seed_file(arguments.seed_file) as seed:
            funds.append(parse_fund_seed_file(f"{seed}={SEED_QU}"))
            engine = build_engine(rules, funds, Tick(arguments.first_tick))
            trio.run(partial(serve, engine, doors, seed, _gift(arguments.gift), as_json=arguments.json))
    except* QubixError as group:
        error = _first(group)
        sys.stderr.write(f"error: {error} [{error.code}]\n")
        exit_code = error.exit_code
    return exit_code


def _first(group: BaseExceptionGroup[QubixError]) -> QubixError:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _check_tick(tick: int) -> None:
    if not FIRST_TICK <= tick <= LAST_FIRST_TICK:
        raise UsageError(f"the first tick is {FIRST_TICK} to {LAST_FIRST_TICK}")


def _gift(amount: int) -> Qu:
    if not 0 <= amount <= SEED_QU:
        raise UsageError(f"--gift is 0 to {SEED_QU} QU")
    return Qu(amount)


def _rules(arguments: argparse.Namespace) -> Rules:
    tick_ms = round(arguments.tick_seconds * 1_000)
    if not arguments.epoch_ticks:
        return Rules(tick_ms, keep_ticks=arguments.keep_ticks)
    return Rules(
        tick_ms,
        keep_ticks=arguments.keep_ticks,
        epoch_ticks=arguments.epoch_ticks,
        lost_ticks=LOST_TICKS,
        silence_ms=SILENCE_TICKS * tick_ms,
    )


if __name__ == "__main__":
    sys.exit(main())
