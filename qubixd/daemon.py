"""A whole node: arguments -> frozen Config -> trio.run. Opens the node's resources and keeps it running."""

from __future__ import annotations

import json
import logging
import re
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Final

import trio

import ledger.settings
from escrow_bridge.chain import Chain
from escrow_bridge.node import open_node_chain
from escrow_bridge.qubic import Wallet
from ledger.store import Store, open_store
from protocol.errors import ConfigInvalid, PortBusy, QubixError
from protocol.signing import NodeKey
from protocol.units import UnixMs
from qubixd import hardware, identity, log_lines
from qubixd.config import Config
from qubixd.control import open_control
from qubixd.engine_choice import choose_engine, docker_of
from qubixd.jobfiles import disk_errors
from qubixd.machine import machine_of
from qubixd.memory import freeze_what_stays
from qubixd.metrics import registry_of
from qubixd.metrics_http import serve_metrics
from qubixd.node import Node, run_node
from qubixd.parts import Parts
from qubixd.proof.build import Programs
from qubixd.threads import in_threads
from qubixd.wire import Wire
from qubixd.wire_libp2p import DIRECTORY_LIMITS, Limits, WireConfig, open_wire, peer_id_of

log = logging.getLogger("qubix")

NODE_SCHEME: Final = "node://"
LISTEN_PORT: Final = "listen port"
"""Name of the setting that remembers which free port was taken."""
OPEN_FILES: Final = 65_536
"""Enough for as many tunnels as there may be."""


def run(config: Config) -> int:
    """Run a node; the exit code. Trouble is one sentence with its code on standard error."""
    _log_to_stderr()
    exit_code = 0
    try:
        _allow_many_files()
        trio.run(_serve, config)
    except* QubixError as group:
        exit_code = log_lines.complain(first_error(group))
    except* KeyboardInterrupt:
        exit_code = 130
    return exit_code


def _allow_many_files() -> None:
    """As many as we may: each tunnel into a job takes up to four, and 1,024 are usual at first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def first_error(group: BaseExceptionGroup[QubixError]) -> QubixError:
    """The first of a group's errors; the others are of the same end."""
    inner = group.exceptions[0]
    return first_error(inner) if isinstance(inner, BaseExceptionGroup) else inner


async def _serve(config: Config) -> None:
    async with trio.open_nursery() as nursery:
        ways_to_stop: list[Callable[[], None]] = [nursery.cancel_scope.cancel]
        nursery.start_soon(_stop_on_signal, ways_to_stop)
        async with open_parts(config) as parts:
            await _with_front_door(config, parts, ways_to_stop)
        nursery.cancel_scope.cancel()


async def _with_front_door(config: Config, parts: Parts, ways_to_stop: list[Callable[[], None]]) -> None:
    """Run the node, with its control socket for as long as it runs."""
    async with trio.open_nursery() as nursery:
        node = await nursery.start(run_node, config, parts)
        ways_to_stop.append(node.stop_soon)
        nursery.start_soon(_prepare, parts)
        if config.metrics:
            await nursery.start(serve_metrics, config.metrics, registry_of(node))
        async with open_control(node):
            _announce(node)
            freeze_what_stays()
            await node.stopped.wait()
        nursery.cancel_scope.cancel()


async def _prepare(parts: Parts) -> None:
    """Compile the program that proves machines, so that the first lease does not wait for it."""
    if parts.programs is None:
        return
    try:
        await trio.to_thread.run_sync(parts.programs.prepare, abandon_on_cancel=True)
    except QubixError as error:
        log.warning("machines cannot be proved by this node: %s", error)


@asynccontextmanager
async def open_parts(config: Config) -> AsyncIterator[Parts]:
    """Every resource of a real node, closed in reverse order."""
    _make_root(config)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(config.root / "ledger.sqlite"))
        await ledger.settings.bind_network(store, f"{config.network}/{config.contract_index}")
        secrets = await trio.to_thread.run_sync(identity.load_or_create, config)
        chain = await stack.enter_async_context(_open_chain(config))
        detected = await trio.to_thread.run_sync(hardware.detect, config.root)
        machine = machine_of(detected, config.qu_per_credit)
        chosen = (
            await choose_engine(config, gpus=tuple(machine.gpu_uuids.values())) if config.provider else None
        )
        wire = await _listen(config, store, secrets.node_seed, stack)
        yield Parts(
            key=NodeKey(secrets.node_seed),
            wallet=Wallet(secrets.wallet_seed),
            store=store,
            wire=wire,
            chain=chain,
            runner=chosen.runner if chosen else None,
            machine=machine,
            in_thread=in_threads(),
            now_ms=lambda: UnixMs(time.time_ns() // 1_000_000),
            engine=docker_of(config),
            programs=Programs.usual(),
            internet=chosen.internet if chosen else False,
            hands_gpus=chosen.hands_gpus if chosen else True,
            remarks=chosen.remarks if chosen else (),
        )


async def _listen(config: Config, store: Store, node_seed: bytes, stack: AsyncExitStack) -> Wire:
    """The wire, on the port of the last start if any will do: others keep finding us there."""
    last = await ledger.settings.get(store, LISTEN_PORT)
    port = config.listen_port or int(last or 0)
    wire_config = WireConfig(
        config.listen_host.strip("[]"),
        port,
        config.bootstrap,
        config.announce,
        mdns=_looks_nearby(config),
        also=tuple((host.strip("[]"), number) for host, number in config.also_listen),
    )
    limits = DIRECTORY_LIMITS if config.directory else Limits()
    try:
        wire = await stack.enter_async_context(open_wire(wire_config, node_seed, limits))
    except PortBusy:
        if config.listen_port:
            raise
        wire_config = replace(wire_config, listen_port=0)
        wire = await stack.enter_async_context(open_wire(wire_config, node_seed, limits))
    taken = re.search(r"/tcp/(\d+)", wire.addresses[0])
    if taken and not (config.listen_port or config.announce):
        await ledger.settings.put(store, LISTEN_PORT, taken[1].encode())
    return wire


def _looks_nearby(config: Config) -> bool:
    return config.mdns == "on" or (config.mdns == "auto" and not config.on_loopback)


def _make_root(config: Config) -> None:
    try:
        with disk_errors():
            config.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise ConfigInvalid(f"the data directory {config.root} cannot be used: {error.strerror}") from error


@asynccontextmanager
async def _open_chain(config: Config) -> AsyncIterator[Chain]:
    """The chain that the scheme of its URL names. Raises ConfigInvalid."""
    if config.chain.startswith(NODE_SCHEME):
        opened = open_node_chain(config.chain.removeprefix(NODE_SCHEME).split(","))
    elif config.chain.startswith("rpc+"):
        from escrow_bridge.rpc_quorum import open_rpc_chains  # httpx takes a while

        opened = open_rpc_chains(config.chain.split(","))
    else:
        raise ConfigInvalid(
            "--chain must be node://HOST:PORT[,HOST:PORT...], rpc+https://HOST or rpc+http://HOST:PORT "
            "(several with commas between), "
            f"not {config.chain!r}"
        )
    async with opened as chain:
        yield chain


def _announce(node: Node) -> None:
    ready = {
        "ready": True,
        "control": str(node.config.control_socket),
        "addresses": list(node.parts.wire.addresses),
        "peer_id": peer_id_of(node.parts.key.public),
        "identity": node.parts.wallet.identity,
        "runner": node.parts.runner.name if node.parts.runner else "",
    }
    if node.config.json:
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
    for address in node.parts.wire.addresses:
        log.info("others reach this node with --bootstrap %s", address)
    if node.config.provider:
        _announce_machine(node)
    log.info("ready, wallet %s", node.parts.wallet.identity)


def _announce_machine(node: Node) -> None:
    """What was found here and is offered; `qubix provider` has it all."""
    parts, capacity = node.parts, node.parts.machine.capacity
    gpus = ", ".join(gpu.model for gpu in capacity.gpus) or "no GPU"
    log.info(
        "offers %s, %g cores, %d MiB of memory and %d MiB of disk for %d QU an hour; jobs run with %s and %s",
        gpus,
        capacity.cpu_millis / 1_000,
        capacity.memory_mib,
        capacity.disk_mib,
        node.shop.price_qu_per_hour,
        parts.runner.name if parts.runner else "nothing",
        "may have Internet" if parts.internet else "have no Internet",
    )


async def _stop_on_signal(ways_to_stop: list[Callable[[], None]]) -> None:
    """The first signal lets a running node say goodbye, the second does not."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            log.info("stopping on %s; running jobs go on", signal.Signals(number).name)
            ways_to_stop[-1]()
            del ways_to_stop[1:]


def _log_to_stderr() -> None:
    log_lines.to_stderr()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every request
